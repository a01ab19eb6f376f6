"""The hook on a criterion, by which the auxiliary loss gets into what it returns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, no_type_check

from torch import Tensor, nn

from uniformity_callbacks.hook import Inert

BY_HAND = "write loss = monitor.add_auxiliary(loss) before loss.backward()"
"""What to do where a criterion does not serve."""


@no_type_check  # torch.compile traces it, and cannot trace a run-time checker
class OnCriterion:
    """The criterion's hook; a copied or pickled criterion gets one that does nothing.

    Args:
        called: gets what the criterion returned, and returns what it is to return.
    """

    def __init__(self, called: Callable[[Any], Any]) -> None:
        self._called = called

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Return what the criterion is to return."""
        return self._called(output)

    def __reduce__(self) -> tuple[type[Inert], tuple[()]]:
        return Inert, ()


def loss_in(output: Any) -> Any:
    """Return the loss of what a criterion returned, or what stands in its place."""
    return output.get("loss") if isinstance(output, Mapping) else output


def check_loss(loss: Any, output: Any) -> None:
    """Check that there is a loss in what a criterion returned.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(loss, Tensor):
        raise ValueError(
            'criterion must return a tensor, or a mapping with one under "loss", got '
            f"{type(output).__name__}; leave it out and {BY_HAND}"
        )


def not_added(criterion: nn.Module | None) -> str:
    """Return why a step had no auxiliary loss, in words."""
    if criterion is None:
        return f"auxiliary is given, but add_auxiliary was not called in this step: {BY_HAND}"
    name = type(criterion).__name__
    return f"auxiliary is given, but the criterion, {name}, was not called in this step; leave it out and {BY_HAND}"


def with_loss(output: Any, loss: Tensor) -> Any:
    """Return what a criterion returned with another loss in it: of the same type, as loops ask for ``output.loss``."""
    if not isinstance(output, Mapping):
        return loss
    changed: MutableMapping[str, Any] = copy.copy(output) if isinstance(output, MutableMapping) else dict(output)
    changed["loss"] = loss
    return changed
