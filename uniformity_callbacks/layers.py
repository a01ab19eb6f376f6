"""Which of a model's modules is meant: by path, by the module itself, or by what projectors look like."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

PROJECTOR_NAMES = ("projector", "projection_head", "proj_head", "projection", "projection_mlp")
"""Last parts of a module's path that say it is a projector, as solo-learn, lightly, VISSL and others name it."""

_WRAPPED = ("_orig_mod", "_forward_module", "_original_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Under what names torch.compile, Fabric, FSDP and activation checkpointing hold the module that they wrap."""

_PARALLEL = "module"
"""The same of DataParallel and DistributedDataParallel; elsewhere this is a name as any other."""

DINO_BODIES = ("mlp", "layers")
"""What the DINO paper's code and solo-learn, and lightly, call the part of a DINO head before its normalisation."""


def find(model: nn.Module, layer: str | nn.Module | None) -> dict[str, nn.Module]:
    """Return the layers, by dotted path, that ``layer`` may mean: one, or several candidates for None.

    For None these are the modules named like a projector and the DINO heads, of which the part before the
    normalisation and the prototypes is meant.

    Raises:
        ValueError: there is none; the message lists the nearest names.
        TypeError: layer is neither a path, a module nor None.
    """
    modules = by_path(model)
    if isinstance(layer, nn.Module):
        for path, module in _paths(model):
            if module is layer:
                return {path or type(model).__name__: modules[path]}
        raise ValueError(f"layer must be part of the model, got a {type(layer).__name__} that is not in it")
    modules.pop("")
    if isinstance(layer, str):
        for path in (layer, ".".join(part for part in layer.split(".") if part not in (*_WRAPPED, _PARALLEL))):
            if path in modules:
                return {path: modules[path]}
        near = _nearest(layer, list(modules))
        hint = f"did you mean {' or '.join(near)}?" if near else f"the model has {_few(list(modules))}"
        raise ValueError(f"layer {layer!r} is not in the model; {hint}")
    if layer is not None:
        raise TypeError(f"layer must be a dotted path, a module or None, got {layer!r}")
    found = _projectors(modules)
    if not found:
        # A predictor, or a prediction head, is spelt much the same, an encoder half so, and both are other things.
        others = [name for name in modules if "predict" not in name]
        near = _nearest("projector", others, cutoff=0.6) or _nearest("projection_head", others, cutoff=0.6)
        hint = f"the nearest are {', '.join(near)}" if near else f"the model has {_few(list(modules))}"
        names = " or ".join(PROJECTOR_NAMES[:3])
        raise ValueError(f"layer=None found no {names} in the model; {hint}; name it by layer=")
    return found


def by_path(model: nn.Module) -> dict[str, nn.Module]:
    """Return all modules by path, in which wrappers such as torch.compile's and DDP's have no part.

    What is wrapped goes by its outermost wrapper.
    """
    modules: dict[str, nn.Module] = {}
    for path, module in _paths(model):
        modules.setdefault(path, module)  # the wrapper comes before what it wraps
    return modules


def unwrapped(model: nn.Module) -> set[nn.Module]:
    """Return a model and what of it is the same in wrappers such as torch.compile's and DDP's."""
    return {module for path, module in _paths(model) if not path}


def _paths(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    plain = {"": ""}
    parallel = set()
    for name, module in model.named_modules(remove_duplicate=False):
        above, _, last = name.rpartition(".")
        wrapped = last in _WRAPPED or (last == _PARALLEL and above in parallel)
        path = plain[above] if wrapped else ".".join(filter(None, (plain[above], last)))
        plain[name] = path
        if isinstance(module, (DistributedDataParallel, DataParallel)):
            parallel.add(name)
        yield path, module


def _projectors(modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    heads = {
        name: _dino_body(name, modules) or name
        for name in modules
        if name.rpartition(".")[2] in PROJECTOR_NAMES or _dino_body(name, modules)
    }
    # A projector inside a projector is part of it.
    outer = [body for name, body in heads.items() if not any(name.startswith(f"{other}.") for other in heads)]
    once = {modules[name]: name for name in reversed(outer)}  # a module that has two paths goes by its first
    return {name: modules[name] for name in outer if once[modules[name]] == name}


def _dino_body(name: str, modules: dict[str, nn.Module]) -> str | None:
    """Return the path of what a DINO head puts out before it normalises, or None if this is no DINO head.

    Its last layer are prototypes, which have no bias.
    """
    last = modules.get(f"{name}.last_layer")
    if last is None or getattr(last, "bias", last) is not None:
        return None
    return next((f"{name}.{body}" for body in DINO_BODIES if f"{name}.{body}" in modules), None)


def _nearest(name: str, names: Sequence[str], *, cutoff: float = 0.5) -> list[str]:
    whole = difflib.get_close_matches(name, names, n=3, cutoff=cutoff)
    last = difflib.get_close_matches(name.rpartition(".")[2], [n.rpartition(".")[2] for n in names], n=3, cutoff=0.6)
    return list(dict.fromkeys([*whole, *(n for n in names if n.rpartition(".")[2] in last)]))[:4]


def _few(names: Sequence[str]) -> str:
    names = sorted(names, key=lambda name: name.count("."))  # the head of an encoder is named before its blocks' parts
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "no submodules"
