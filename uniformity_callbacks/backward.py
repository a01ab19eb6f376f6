"""When a backward pass goes through a layer, where nobody tells: in a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle, unserializable_hook


def in_backward() -> bool:
    """Whether this thread is in a backward pass, in which checkpointed layers run again."""
    # Private, and what torch.utils.checkpoint itself asks; there is no public name for it.
    return bool(torch._C._current_graph_task_id() != -1)


class Backwards:
    """Tells of the backward passes that go through some layers.

    Of one it may tell several times: when the gradient comes to an output that was followed, when a checkpointed layer
    runs again, and when it comes to a parameter, which is after the layer has run again, and the only one of the three
    where the layer is called in compiled code.

    Args:
        tell: called with what is known of the gradients that this pass adds to: None, or whether there were none yet
            (then those of the passes before were thrown away, or used).
    """

    def __init__(self, tell: Callable[[bool | None], None]) -> None:
        self._tell = tell
        self._handles: list[RemovableHandle] = []

    def attach(self, layers: Iterable[nn.Module], model: nn.Module) -> None:
        """Listen at a parameter of each layer, of the model's where one has none that is trained."""
        for layer in layers:
            trained = (parameter for module in (layer, model) for parameter in module.parameters())
            parameter = next((parameter for parameter in trained if parameter.requires_grad), None)
            if parameter is not None:
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
            self._tell(None if parameter is None else parameter.grad is None)

        return hook


def _register(tensor: Tensor, hook: Callable[[Tensor], None]) -> RemovableHandle:
    # Unserializable, or a model that is sent to another process would warn that the hook stays behind.
    handle: RemovableHandle = tensor.register_hook(unserializable_hook(hook))  # type: ignore[no-untyped-call]
    return handle
