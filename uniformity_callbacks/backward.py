"""When a backward pass goes through a layer, where nobody tells: in a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle, unserializable_hook


def this_backward() -> int | None:
    """Return the number of the backward pass that this thread is in, where checkpointed layers run again, or None."""
    # Private, and what torch.utils.checkpoint itself asks; there is no public name for it.
    number = torch._C._current_graph_task_id()
    return None if number == -1 else int(number)


_DOZES = 100
"""Backward passes that are slept through at most."""


class Backwards:
    """Tells of the backward passes that go through a layer.

    Of one it may tell several times: when the gradient comes to an output that was followed, when the layer runs again
    since it is checkpointed, and when the gradient comes to a parameter, which is after the layer has run again, and
    all that can be known of a layer in compiled code.

    Args:
        tell: called with what is known of the gradients that the pass adds to: None, or whether there were none yet,
            so that those of the passes before were used, or thrown away.

    Attributes:
        dozing: whether nobody wants to know of the next `_DOZES`, since nothing is collected.
        slept: through how many since.
    """

    def __init__(self, tell: Callable[[bool | None], None]) -> None:
        self._tell = tell
        self._handles: list[RemovableHandle] = []
        self.dozing, self.slept = False, 0

    def attach(self, layers: Iterable[nn.Module], model: nn.Module) -> None:
        """Listen at a parameter of each module that may be the layer; at one of the model's where none is trained."""
        own = [parameter for layer in layers for parameter in _trained(layer)[:1]]
        for parameter in own or _trained(model)[:1]:
            self._handles.append(_register(parameter, self._at(parameter)))

    def detach(self) -> None:
        """Take the hooks off the parameters."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def follow(self, z: Tensor) -> None:
        """Listen at an output of a layer; its graph takes the hook along."""
        if z.requires_grad:
            _register(z, self._at(None))

    def begun(self) -> None:
        """Tell of a backward pass."""
        self._tell(None)

    def _at(self, parameter: Tensor | None) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            if self.dozing:
                self.slept += 1
                if self.slept < _DOZES:
                    return
            self._tell(None if parameter is None else parameter.grad is None)

        return hook


def _trained(module: nn.Module) -> list[nn.Parameter]:
    # A lazy one takes no hook before the first forward pass has given it its shape.
    return [parameter for parameter in module.parameters() if parameter.requires_grad and not is_lazy(parameter)]


def _register(tensor: Tensor, hook: Callable[[Tensor], None]) -> RemovableHandle:
    # Unserializable, or a model that is sent to another process would warn that the hook stays behind.
    handle: RemovableHandle = tensor.register_hook(unserializable_hook(hook))  # type: ignore[no-untyped-call]
    return handle
