"""What torch.compile asks for: a memory that compiled code can write to, and code traced before the hook came."""

from __future__ import annotations

import logging
import sys
from typing import Any, no_type_check

import torch
from torch import Tensor, nn

log = logging.getLogger("uniformity_callbacks")

RECENT = 64
"""Calls that compiled code keeps: more than a pass makes, and all that is held while nobody collects."""


@no_type_check  # torch.compile traces it, and cannot trace a run-time checker
class Call:
    """A call of the layer: its output, or a copy of it, whether gradients were on, and whether the original had one."""

    def __init__(self, output: Any, graded: bool, trained: bool = False) -> None:
        self.output, self.graded, self.trained = output, graded, trained


_NONE = Call(None, False)


class Memory:
    """The last calls of a layer in compiled code, which cannot know whether they are wanted.

    Compiled code is specialised on every list's length and every number that it reads, and compiled anew when they
    change. Not so on the elements of a tuple of fixed length, which it only moves on.
    """

    def __init__(self) -> None:
        self.keeps_graph = False
        """Whether the calls keep their graph, for a loss."""
        self.calls: tuple[Call, ...] | None = (_NONE,) * RECENT
        """Oldest first; None (compiled once more for that) once they are wanted no more."""
        self.was_used = False
        """Whether there ever were any."""

    @property
    def is_empty(self) -> bool:
        """Whether there are none."""
        return self.calls is None or self.calls[-1] is _NONE

    def take(self) -> list[Call]:
        """Return the calls since the last time.

        Raises:
            OverflowError: there were more than are kept.
        """
        calls = [] if self.calls is None else [call for call in self.calls if call is not _NONE]
        self.was_used |= bool(calls)
        self.forget()
        if len(calls) == RECENT:
            raise OverflowError(f"compiled code called it {RECENT} times or more in one pass; only fewer are kept")
        return calls

    def forget(self) -> None:
        """Let go of what there is."""
        if self.calls is not None:
            self.calls = (_NONE,) * RECENT

    def close(self) -> None:
        """Let go, and keep nothing from now on."""
        self.calls = None


@no_type_check
def remember(memory: Memory, output: Any) -> None:
    """Keep a copy of an output; to be traced by torch.compile, without a graph break.

    Dynamo refuses to write to what lies outside of a checkpointed region, unless it is told that this is meant: the
    write is not repeated in backward, and need not be. The means is private; without it such code breaks the graph.
    """
    if memory.calls is not None:
        from torch._dynamo import utils

        allow = getattr(utils, "_disable_side_effect_safety_checks_for_current_subtracer", None)
        if allow is None:
            _push(memory, output)
        else:
            allow(_push, memory, output)


@no_type_check
def _push(memory: Memory, output: Any) -> None:
    graded = torch.is_grad_enabled()
    # Without the graph unless a loss needs it: an output more would have its gradient, of zeros, added in backward.
    copied = _copy(output, graded and memory.keeps_graph)
    memory.calls = (*memory.calls[1:], Call(copied, graded, _is_trained(output)))


@no_type_check
def _copy(output: Any, with_graph: bool) -> Any:
    if isinstance(output, Tensor):
        return output.clone() if with_graph else output.detach().clone()
    if type(output) is dict:
        return {key: _copy(value, with_graph) for key, value in output.items()}
    if type(output) in (tuple, list):
        return type(output)([_copy(value, with_graph) for value in output])
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(*[_copy(value, with_graph) for value in output])
    return output


@no_type_check
def _is_trained(output: Any) -> bool:
    if isinstance(output, Tensor):
        return output.requires_grad
    if isinstance(output, dict):
        return any(_is_trained(value) for value in output.values())
    if isinstance(output, (tuple, list)):
        return any(_is_trained(value) for value in output)
    return False  # anything else is kept as it is, and its tensors tell it themselves


def is_transformed() -> bool:
    """Whether what runs now is under a transform of torch.func, or traced by torch.export, without Dynamo."""
    # Private; there is no public name for it.
    return torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None


def compiled_around(model: nn.Module, layer: nn.Module) -> str | None:
    """Return what is compiled with the layer's hooks in it, in words, or None.

    That is the layer compiled in place, or a module above it, or a function that such a module holds. A layer that
    torch.compile wraps has its hooks outside.
    """
    paths = [name for name, module in model.named_modules(remove_duplicate=False) if module is layer]
    for path in paths:
        parts = path.split(".") if path else []
        above = [model.get_submodule(".".join(parts[:n])) for n in range(len(parts))]
        for module in above:
            held = (value for holder in (module, *type(module).__mro__) for value in vars(holder).values())
            if any(map(_is_compiled_function, held)):  # torch.compile's own in place, or in the wrapper, among them
                return f"{type(module).__name__}, in which it lies,"
        if getattr(layer, "_compiled_call_impl", None) is not None:
            return f"{type(layer).__name__} itself"
    return None


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile was called on a module, in either of its two ways."""
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def has_compiled() -> bool:
    """Whether anything was compiled in this process."""
    utils = sys.modules.get("torch._dynamo.utils")
    return utils is not None and utils.counters["frames"]["total"] > 0


def trace_anew(name: str, what: str) -> None:
    """Have all code compiled so far compiled again when it is called next, with the hook in it.

    Dynamo does not look whether hooks came since, nor whether a sibling of the same class had them.
    """
    log.info("uniformity: %s: %s is compiled; torch.compiler.reset() has it traced anew, with the hook", name, what)
    torch.compiler.reset()


def leave_alone(hook: type) -> bool:
    """Have a hook not compiled by itself, as it would be where compiled code leaves off at the layer's call.

    Returns whether what it calls may be compiled then; not before Dynamo is imported, as making an optimizer does.
    """
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    skip = getattr(dynamo, "skip_code", None)
    if skip is not None:
        skip(hook.__call__.__code__)
    return dynamo is not None


def _is_compiled_function(value: object) -> bool:
    attributes = getattr(value, "__dict__", {})
    # torch.compiler.disable leaves the same mark, and one of its own.
    return "_torchdynamo_orig_callable" in attributes and "_torchdynamo_disable" not in attributes
