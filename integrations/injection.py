"""The auxiliary loss in a LightningModule's ``training_step`` or ``manual_backward``, without an edit of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from uniformity_callbacks.integrations.steps import Steps
from uniformity_callbacks.monitor import UniformityMonitor


class Injection:
    """Stands in for a method of a module until `remove`.

    A copy or pickle of the module, taken meanwhile, has its own method.
    """

    method: str

    def __init__(self, module: Any, monitor: UniformityMonitor) -> None:
        self._module, self._monitor = module, monitor
        self._call = getattr(module, self.method)
        self._shadowed = vars(module).get(self.method)
        # Lightning reads the signature one level down to see whether to pass batch_idx: show it what it saw before.
        self.__wrapped__ = getattr(self._call, "__wrapped__", self._call)
        self.__name__ = self.method
        self.__doc__ = self._call.__doc__
        setattr(module, self.method, self)

    @property
    def accumulating(self) -> bool:
        """Whether the loss is in gradients that no optimizer has used yet, and is not to be added again."""
        return False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the method does, with the auxiliary loss in it."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        if self._shadowed is not None:
            return _same, (self._shadowed,)
        return getattr, (self._module, self.method)

    def remove(self) -> None:
        """Put back what was there."""
        if vars(self._module).get(self.method) is self:
            if self._shadowed is None:
                delattr(self._module, self.method)
            else:
                setattr(self._module, self.method, self._shadowed)


class InjectedLoss(Injection):
    """Adds the auxiliary loss to what ``training_step`` returns, which Lightning divides, scales and clips."""

    method = "training_step"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the module's own does, with the auxiliary loss in it."""
        self._monitor.repeat()
        output = self._call(*args, **kwargs)
        if not self._monitor.wants_auxiliary:  # a validation_step may call it, too
            return output
        if isinstance(output, Tensor):
            return self._monitor.add_auxiliary(output)
        if isinstance(output, Mapping) and isinstance(output.get("loss"), Tensor):
            return {**output, "loss": self._monitor.add_auxiliary(output["loss"])}
        return output  # None skips the batch, anything else is Lightning's to refuse


class InjectedBackward(Injection):
    """Adds the auxiliary loss to the first ``manual_backward`` of a batch that comes after the layer was called.

    Where gradients are accumulated by hand, that is the first such batch since an optimizer stepped: by what the user
    divides the micro-batches' losses cannot be known, and so one of them has the whole of it.

    Args:
        module: the LightningModule.
        monitor: decides whether a loss is the one to add to.
        steps: sees the optimizers step.
    """

    method = "manual_backward"

    def __init__(self, module: Any, monitor: UniformityMonitor, steps: Steps) -> None:
        super().__init__(module, monitor)
        self._steps = steps
        self._added_at: int | None = None

    @property
    def accumulating(self) -> bool:
        """Whether no optimizer has stepped since the loss was added."""
        return self._added_at == self._steps.taken

    def __call__(self, loss: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Propagate the loss back, the auxiliary loss with it."""
        if self._monitor.wants_auxiliary:
            loss = self._monitor.add_auxiliary(loss, required=False)
            if not self._monitor.wants_auxiliary:
                self._added_at = self._steps.taken
        return self._call(loss, *args, **kwargs)


def inject(module: Any, monitor: UniformityMonitor, steps: Steps) -> Injection | None:
    """Have a LightningModule's training add the monitor's loss, if it has one, in the way that its optimization asks.

    Args:
        module: the LightningModule.
        monitor: adds the loss.
        steps: of the fit.
    """
    if monitor.auxiliary is None:
        return None
    return InjectedLoss(module, monitor) if module.automatic_optimization else InjectedBackward(module, monitor, steps)


def _same(value: Any) -> Any:
    return value
