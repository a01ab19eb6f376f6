"""A removable forward hook that collects what a layer puts out, call by call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from uniformity_callbacks.backward import Backwards, this_backward
from uniformity_callbacks.checkpointing import Unfinished, in_reentrant_checkpoint
from uniformity_callbacks.compiled import (
    Call,
    compiled_around,
    has_compiled,
    is_compiled,
    is_transformed,
    leave_alone,
    trace_anew,
)
from uniformity_callbacks.given_up import GivenUp
from uniformity_callbacks.hook import Hook
from uniformity_callbacks.layers import by_path, find
from uniformity_callbacks.outputs import Output as Output
from uniformity_callbacks.outputs import pick, which_calls

Mode = Literal["off", "watch", "train", "validate"]


class Tap:
    """Collects the outputs of one layer between `start` and `stop`: each call with gradients is a view.

    With ``layer=None`` every module named like a projector, and what a DINO head puts out before its normalisation, is
    tapped, and the one that runs with gradients is kept. A layer that is compiled, or lies in compiled code, is seen
    without a graph break and with one compilation, one inside activation checkpointing once, of either kind. The hook
    returns nothing, never raises, and outlives neither a copy nor a pickle of the model.

    Args:
        model: the module that holds the layer.
        layer: dotted path, module, or None.
        output: which tensor of the layer's output: None (it is a tensor), key, index, or a function of it.
        views: None (each call is a view) or 2 (a call holds both views stacked along the batch).
        calls: None or "all", "first:N", "last:N": which calls between `start` and `stop` are meant.

    Raises:
        ValueError: no such layer, with the nearest names; none or two that look like a projector; views; calls.
        TypeError: layer or output is of another type.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str | nn.Module | None = None,
        *,
        output: Output = None,
        views: int | None = None,
        calls: str | None = None,
    ) -> None:
        if views not in (None, 2):
            raise ValueError(f"views must be None (each call is a view) or 2 (both views in one call), got {views!r}")
        if not (output is None or isinstance(output, (str, int)) or callable(output)):
            raise TypeError(f"output must be None, a key, an index or a function, got {output!r}")
        self._model, self._candidates = model, find(model, layer)
        self._output, self._views, self._calls = output, views, which_calls(calls)
        self._backwards: Backwards | None = None
        self._was_training, self._given_up = False, GivenUp()
        self._hooks: dict[str, tuple[Hook, RemovableHandle]] = {}
        self._caught: dict[str, list[Tensor | Unfinished]] = {}
        self.mode: Mode = "off"
        """What is collected at present, as `start` has it."""
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
        modules = by_path(self._model)
        now = {name: modules.get(name) for name in self._candidates}
        replaced = [
            name
            for name, module in self._candidates.items()
            if now[name] is not None and module not in (now[name], getattr(now[name], "_orig_mod", None))
        ]
        if replaced:
            return f"{self.name} was not called; another module stands at {replaced[0]} since the monitor was attached"
        compiled = [name or "the model" for name, module in modules.items() if is_compiled(module)]
        if compiled or has_compiled():
            where = f"{compiled[0]} is compiled" if compiled else "torch.compile was used in this process"
            return (
                f"{self.name} was not seen to be called; {where}, where a hook that came after the first call never "
                "fires: call torch.compiler.reset() once after attaching, or attach before compiling"
            )
        return f"{self.name} was not called"

    def listen(self, backwards: Backwards) -> None:
        """Have backward passes told of, from the next `attach` on, where nobody knows to call `stop` before them.

        Nor does anybody keep calls for an evaluation apart there: those in eval mode do not count once one was in train
        mode.
        """
        self._backwards = backwards

    def attach(self) -> None:
        """Put the hook on the layer; a second call does nothing."""
        if self._hooks:
            return
        around = {name: compiled_around(self._model, module) for name, module in self._candidates.items()}
        for name, module in self._candidates.items():
            hook = Hook(self, name)
            self._hooks[name] = hook, module.register_forward_hook(hook)
        if any(around.values()):
            trace_anew(self.name, next(filter(None, around.values())))
        if leave_alone(Hook):
            for hook, _ in self._hooks.values():
                hook.stay_eager()
        if self._backwards is not None:
            self._backwards.attach(self._candidates.values(), self._model)

    def detach(self) -> None:
        """Take the hook off and forget what was collected."""
        for hook, handle in self._hooks.values():
            handle.remove()
            hook.memory.close()
        self._hooks.clear()
        if self._backwards is not None:
            self._backwards.detach()
        self.start("off")

    def start(self, mode: Mode, *, goes_on: bool = False) -> None:
        """Forget what was collected and collect from now on.

        Args:
            mode: "watch" detached, "train" with the graph, "validate" detached and without gradients, too.
            goes_on: do not forget why there was nothing.
        """
        self._caught = {}
        self.mode = self._stopped = mode
        for hook, _ in self._hooks.values():
            hook.memory.forget()
            hook.memory.keeps_graph |= mode == "train"
        if mode != "off" and not goes_on:
            self.problem = self._unused = None

    def doze(self, dozing: bool = True) -> bool:
        """Have backward passes not told of for now; False if compiled code has kept calls, to be let go of first."""
        if self._backwards is not None:
            self._backwards.dozing, self._backwards.slept = dozing, 0
        for hook, _ in self._hooks.values():  # noqa: SIM110  # a generator would take as long as all the rest
            if not hook.memory.is_empty:
                return False
        return True

    def stop(self) -> bool:
        """Collect no more, return whether we did; what was collected stays until the next `start`."""
        self._settle()
        self._stopped, self.mode = self.mode, "off"
        return self._stopped != "off"

    def resume(self) -> None:
        """Go on collecting after `stop` if nothing was: it was the backward of a loss that has no part in the layer."""
        if not any(self._caught.values()):
            for hook, _ in self._hooks.values():
                hook.memory.forget()  # what a backward calls is not a view
            self.mode = self._stopped

    def views(self) -> list[Tensor]:
        """Return the views collected since `start`, (n, d) each, in the order of the calls, of those that are meant.

        Raises:
            ValueError: two layers that look like a projector both ran with gradients.
        """
        caught = self._settle()
        if len(self._candidates) > 1 and caught:
            if len(caught) > 1:
                ran = ", ".join(sorted(caught))
                raise ValueError(f"layer=None found more than one projector that is run: {ran}; name one of them")
            self.keep(next(iter(caught)))
        views, each = next(iter(caught.values()), []), self._views or 1
        calls = [views[k : k + each] for k in range(0, len(views), each)]
        return [view for call in calls[self._calls] for view in call]

    def give_up(self, loss: Tensor) -> None:
        """Forget the calls since `start` of batches that were given up, unlike the one that ``loss`` is of."""
        each = self._views or 1
        for name, views in self._settle().items():
            calls = [views[k : k + each] for k in range(0, len(views), each)]
            self._caught[name] = [view for call in self._given_up.without(calls, loss) for view in call]

    def keep(self, kept: str) -> None:
        """Leave all candidates but this one, if it is one of them."""
        if kept not in self._candidates:
            return
        for name in self._candidates.keys() - {kept}:
            # Compiled code that had a hook in it would be compiled anew without: there it stays, and is not heard.
            if name in self._hooks and not self._hooks[name][0].memory.was_used:
                self._hooks.pop(name)[1].remove()
        self._candidates = {kept: self._candidates[kept]}

    def _settle(self) -> dict[str, list[Tensor]]:
        """Take over what compiled code saw and what has its gradient by now, and return all that was caught."""
        if self.mode != "off":
            for name in self._candidates.keys() & self._hooks.keys():
                self._recall(name)
            for name, caught in self._caught.items():
                self._caught[name] = [view for part in caught for view in self._finish(name, part)]
        return {name: views for name, views in self._caught.items() if views}  # type: ignore[misc]

    def _finish(self, name: str, part: Tensor | Unfinished) -> list[Tensor]:
        if isinstance(part, Tensor):
            return [part]
        with self.kept_from_training(name):
            return self._copy(part.finish())
        return []

    def _recall(self, name: str) -> None:
        with self.kept_from_training(name):
            for call in self._hooks[name][0].memory.take():
                self._take(name, call)

    def collect(self, name: str, module: nn.Module, output: Any) -> None:
        """Take in a call of a candidate."""
        if name not in self._candidates:
            return
        with self.kept_from_training(name):
            self._collect(name, module, output)

    @contextmanager
    def kept_from_training(self, name: str) -> Iterator[None]:
        """Keep what goes wrong, out of memory for a copy, say, from the model's passes; it is told later."""
        try:
            yield
        except Exception as error:
            self.problem = f"{name}: {error}"

    def _collect(self, name: str, module: nn.Module, output: Any) -> None:
        if this_backward() is not None:
            if self._backwards is not None:
                self._backwards.begun()
            return
        if is_transformed():
            self._unused = "in torch.func or torch.export, whose tensors do not outlive them"
            return
        self._recall(name)  # calls in compiled code before this one
        self._take(name, Call(output, torch.is_grad_enabled()), module)

    def _take(self, name: str, call: Call, module: nn.Module | None = None) -> None:
        trains = self.mode != "validate"
        caught = self._caught.setdefault(name, [])
        # Momentum and target networks run without gradients; so does the first pass of reentrant checkpointing.
        if trains and not call.graded:
            if module is None or not in_reentrant_checkpoint(module):
                self._unused = "without gradients"
            elif self.mode == "train":
                caught.append(Unfinished(call.output, self._output))
            else:
                caught.extend(self._copy(pick(call.output, self._output)))
            return
        z = pick(call.output, self._output)
        if trains and not (z.requires_grad or call.trained):
            self._unused = "its output needs no gradient: nothing before it is trained"
            return
        if trains and self._backwards is not None:
            if self._evaluates(module):
                self._unused = "in eval mode, unlike before; does model.train() follow the evaluation?"
                return
            self._backwards.follow(z)
        caught.extend(self._copy(z))

    def _evaluates(self, module: nn.Module | None) -> bool:
        if module is None:  # compiled code does not tell its mode
            return False
        self._was_training |= module.training
        return self._was_training and not module.training

    def _copy(self, z: Tensor) -> list[Tensor]:
        # A copy: the model may change the tensor in place after us, and its graph must not depend on ours.
        z = z.clone() if self.mode == "train" else z.detach().clone()
        return list(z.chunk(self._views) if self._views else (z,))
