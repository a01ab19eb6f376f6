"""A removable forward hook that collects what a layer puts out, call by call."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

PROJECTOR_NAMES = ("projector", "projection_head", "proj_head", "projection", "projection_mlp")
"""Last parts of a module's path that say it is a projector, as solo-learn, lightly, VISSL and others name it."""

Output = str | int | Callable[[Any], Tensor] | None
Mode = Literal["off", "watch", "train", "validate"]


class Tap:
    """Collects the outputs of one layer between `start` and `stop`: each call with gradients is a view.

    With ``layer=None`` every module named like a projector is tapped, and the one that runs with gradients is kept.
    The hook returns nothing, never raises, and outlives neither a copy nor a pickle of the model.

    Args:
        model: the module that holds the layer.
        layer: dotted path, module, or None.
        output: which tensor of the layer's output: None (it is a tensor), key, index, or a function of it.
        views: None (each call is a view) or 2 (a call holds both views stacked along the batch).

    Raises:
        ValueError: no such layer, with the nearest names; none or two that look like a projector; views.
        TypeError: layer or output is of another type.
    """

    def __init__(
        self, model: nn.Module, layer: str | nn.Module | None = None, *, output: Output = None, views: int | None = None
    ) -> None:
        if views not in (None, 2):
            raise ValueError(f"views must be None (each call is a view) or 2 (both views in one call), got {views!r}")
        if not (output is None or isinstance(output, (str, int)) or callable(output)):
            raise TypeError(f"output must be None, a key, an index or a function, got {output!r}")
        self._model, self._candidates = model, find(model, layer)
        self._output, self._views = output, views
        self._handles: dict[str, RemovableHandle] = {}
        self._caught: dict[str, list[Tensor]] = {}
        self._mode: Mode = "off"
        self._stopped: Mode = "off"
        self._unused: str | None = None
        self.problem: str | None = None
        """Why an output could not be taken, in words, or None."""

    @property
    def name(self) -> str:
        """The layer's dotted path; several joined by " or " while it is not yet known which one runs."""
        return " or ".join(self._candidates)

    @property
    def names(self) -> list[str]:
        """The dotted paths that may be the layer's: one, once it is known which one runs."""
        return list(self._candidates)

    @property
    def why_blind(self) -> str:
        """Why there are no views since `start`, in words."""
        if self.problem:
            return self.problem
        if self._unused:
            return f"{self.name} was called, but {self._unused}"
        modules = dict(self._model.named_modules())
        now = {name: modules.get(name) for name in self._candidates}
        replaced = [
            name
            for name, module in self._candidates.items()
            if now[name] is not None and module not in (now[name], getattr(now[name], "_orig_mod", None))
        ]
        if replaced:
            return f"{self.name} was not called; another module stands at {replaced[0]} since the monitor was attached"
        compiled = [name or "the model" for name, module in modules.items() if _is_compiled(module)]
        if compiled:
            return (
                f"{self.name} was not seen to be called; {compiled[0]} is compiled, where a hook that came after the "
                "first call never fires: call torch._dynamo.reset() once after attaching, or attach before compiling"
            )
        return f"{self.name} was not called"

    def attach(self) -> None:
        """Put the hook on the layer; a second call does nothing."""
        if not self._handles:
            for name, module in self._candidates.items():
                self._handles[name] = module.register_forward_hook(_Hook(self, name))

    def detach(self) -> None:
        """Take the hook off and forget what was collected."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
        self.start("off")

    def start(self, mode: Mode) -> None:
        """Forget what was collected and collect from now on.

        Args:
            mode: "watch" detached, "train" with the graph, "validate" detached and without gradients, too.
        """
        self._caught = {}
        self._mode = self._stopped = mode
        if mode != "off":
            self.problem = self._unused = None

    def stop(self) -> bool:
        """Collect no more, return whether we did; what was collected stays until the next `start`."""
        self._stopped, self._mode = self._mode, "off"
        return self._stopped != "off"

    def resume(self) -> None:
        """Go on collecting after `stop` if nothing was: it was the backward of a loss that has no part in the layer."""
        if not self._caught:
            self._mode = self._stopped

    def views(self) -> list[Tensor]:
        """Return the views collected since `start`, (n, d) each, in the order of the calls.

        Raises:
            ValueError: two layers that look like a projector both ran with gradients.
        """
        if len(self._candidates) > 1 and self._caught:
            if len(self._caught) > 1:
                ran = ", ".join(sorted(self._caught))
                raise ValueError(f"layer=None found more than one projector that is run: {ran}; name one of them")
            self.keep(*self._caught)
        return next(iter(self._caught.values()), [])

    def keep(self, kept: str) -> None:
        """Leave all candidates but this one, if it is one of them."""
        if kept not in self._candidates:
            return
        for name in self._candidates.keys() - {kept}:
            if name in self._handles:
                self._handles.pop(name).remove()
        self._candidates = {kept: self._candidates[kept]}

    def _collect(self, name: str, output: Any) -> None:
        if self._mode == "off":
            return
        trains = self._mode != "validate"
        # Momentum and target networks run without gradients; so does the first pass of reentrant checkpointing.
        if trains and not torch.is_grad_enabled():
            self._unused = "without gradients"
            return
        try:
            z = pick(output, self._output)
            if trains and not z.requires_grad:
                self._unused = "its output needs no gradient: nothing before it is trained"
                return
            # A copy: the model may change the tensor in place after us, and its graph must not depend on ours.
            z = z.clone() if self._mode == "train" else z.detach().clone()
            self._caught.setdefault(name, []).extend(z.chunk(self._views) if self._views else (z,))
        except Exception as error:  # out of memory for the copy, say: the model's forward pass must not end by it
            self.problem = f"{name}: {error}"


class _Hook:
    """The forward hook. A copied or pickled model gets `_Inert` in its place, so that only the original is tapped."""

    def __init__(self, tap: Tap, name: str) -> None:
        self._tap, self._name = tap, name

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self._tap._collect(self._name, output)

    def __reduce__(self) -> tuple[type[_Inert], tuple[()]]:
        return _Inert, ()


class _Inert:
    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        return None


def pick(output: Any, how: Output) -> Tensor:
    """Return the tensor (n, d) that ``how`` picks from a layer's output.

    Raises:
        ValueError: there is no such part, it is not a tensor, not floating-point or not (n, d).
    """
    try:
        z = output if how is None else how(output) if callable(how) else output[how]
    except Exception as error:
        raise ValueError(f"output={how!r} failed on {_describe(output)}: {type(error).__name__}: {error}") from error
    if not isinstance(z, Tensor):
        raise ValueError(f"output={how!r} gives {_describe(z)}, not a tensor; pick one by key, index or function")
    if z.ndim != 2 or not z.is_floating_point():
        raise ValueError(
            f"output={how!r} gives a {z.dtype} tensor {tuple(z.shape)}, expected floats (n, d); pass a function, "
            "e.g. output=lambda z: z.flatten(1)"
        )
    return z


def find(model: nn.Module, layer: str | nn.Module | None) -> dict[str, nn.Module]:
    """Return the layers, by dotted path, that ``layer`` may mean: one, or several candidates for None.

    Raises:
        ValueError: there is none; the message lists the nearest names.
        TypeError: layer is neither a path, a module nor None.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    if isinstance(layer, nn.Module):
        for name, module in model.named_modules():
            if module is layer:
                return {name or type(model).__name__: module}
        raise ValueError(f"layer must be part of the model, got a {type(layer).__name__} that is not in it")
    if isinstance(layer, str):
        if layer in modules:
            return {layer: modules[layer]}
        near = _nearest(layer, list(modules))
        hint = f"did you mean {' or '.join(near)}?" if near else f"the model has {_few(list(modules))}"
        raise ValueError(f"layer {layer!r} is not in the model; {hint}")
    if layer is not None:
        raise TypeError(f"layer must be a dotted path, a module or None, got {layer!r}")
    named = {name: module for name, module in modules.items() if name.rpartition(".")[2] in PROJECTOR_NAMES}
    # A projector inside a projector is part of it.
    found = {name: module for name, module in named.items() if not any(name.startswith(f"{n}.") for n in named)}
    if not found:
        near = _nearest("projector", list(modules)) or _nearest("projection_head", list(modules))
        hint = f"the nearest are {', '.join(near)}" if near else f"the model has {_few(list(modules))}"
        names = " or ".join(PROJECTOR_NAMES[:3])
        raise ValueError(f"layer=None found no {names} in the model; {hint}; name it by layer=")
    return found


def _is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile was called on a module, in either of its two ways."""
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def _nearest(name: str, names: Sequence[str]) -> list[str]:
    whole = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    last = difflib.get_close_matches(name.rpartition(".")[2], [n.rpartition(".")[2] for n in names], n=3, cutoff=0.6)
    return list(dict.fromkeys([*whole, *(n for n in names if n.rpartition(".")[2] in last)]))[:4]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "no submodules"


def _describe(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with the keys {', '.join(map(repr, output))}"
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"
