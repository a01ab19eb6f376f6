"""LoopMonitor: a monitor driven by what happens in a plain loop anyway, backward passes and optimizer steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from uniformity_callbacks.backward import Backwards, this_backward
from uniformity_callbacks.hook import Inert
from uniformity_callbacks.monitor import UniformityMonitor

log = logging.getLogger("uniformity_callbacks")

Batch = TypeVar("Batch")

_UNSTEPPED = 1000
"""Backward passes without a step of the optimizer after which that is told: more than are accumulated for one."""

_BY_HAND = "write loss = monitor.add_auxiliary(loss) before loss.backward()"


class LoopMonitor:
    """What `watch` returns; a context manager, which closes it.

    Between two steps of the optimizer a loop makes one pass, or several whose gradients add up. A pass ends with its
    `add_auxiliary`, with its backward, or with the step. Where the gradients of an earlier pass are gone (None) when a
    backward begins, as after a step that GradScaler has skipped, what that pass brought goes, too.

    Args:
        monitor: does the work.
        optimizer: its steps are counted.
        criterion: module to whose loss the auxiliary one is added, or None.
        first_step: the number of the first step.

    Attributes:
        monitor: does the work.
        step: optimizer steps done.
    """

    def __init__(
        self, monitor: UniformityMonitor, optimizer: Optimizer, *, criterion: nn.Module | None, first_step: int
    ) -> None:
        self.monitor, self.step = monitor, first_step
        self.model: nn.Module | None = None
        self._optimizer, self._criterion = optimizer, criterion
        self._handles: list[Any] = []
        self._added = False  # the loss was, in this step
        self._pending = False  # it was, and no backward came since
        self._told: int | None = None  # the last backward
        self._unstepped = 0  # backwards since the last step
        self._losses = Backwards(lambda fresh: self._backward(False))
        self._stepping = self._evaluated = False  # within optimizer.step(closure); and a backward came in it

    def attach(self, model: nn.Module, **options: Any) -> None:
        """Put the hooks on model, optimizer and criterion; ``options`` are those of `UniformityMonitor.attach`."""
        self.monitor.attach(model, on_backward=self._backward, opens=False, **options)
        self.model = model
        # Not to be compiled with the step. Dynamo, which this imports, any optimizer has imported already.
        before, after = torch.compiler.disable(self._steps), torch.compiler.disable(self._stepped)  # type: ignore[no-untyped-call]
        self._handles = [
            self._optimizer.register_step_pre_hook(before),
            self._optimizer.register_step_post_hook(after),
        ]
        if self._criterion is not None:
            self._handles.append(self._criterion.register_forward_hook(_OnCriterion(self._called)))
        self.monitor.begin(self.step)

    def add_auxiliary(self, loss: Tensor) -> Tensor:
        """Return ``loss`` plus the auxiliary loss of what the layers put out since the last call, or backward.

        Without an auxiliary loss, without gradients, and once the monitor is closed it returns ``loss`` as it is; that
        backward begins at it is then all that the monitor learns.

        Args:
            loss: what backward is called on, or a part of it, such as one micro-batch's.

        Raises:
            TypeError: loss is not a tensor.
            ValueError: in the first step, if there are no outputs, or were no others since the last call.
        """
        if not isinstance(loss, Tensor):
            raise TypeError(f"loss must be a tensor, got {loss!r}; give what backward is called on")
        if self.closed or not torch.is_grad_enabled():
            return loss
        if self.monitor.auxiliary is None:
            self._follow(loss)
            return loss
        self._open()
        try:
            loss = self.monitor.add_auxiliary(loss)
        except ValueError as error:
            if not self._pending:
                raise
            raise ValueError(
                f"add_auxiliary was called twice in one pass: call it once, on the sum; {error}"
            ) from error
        self._added = self._pending = True
        self._end_pass()
        self._follow(loss)
        return loss

    @property
    def should_stop(self) -> bool:
        """Whether an alert whose action is "stop" was raised; the same on all ranks."""
        return self.monitor.should_stop

    @property
    def last(self) -> dict[str, float]:
        """The newest values, by full key."""
        return self.monitor.last

    @property
    def layers(self) -> list[str]:
        """The dotted paths of the layers that are watched."""
        return self.monitor.layers

    @property
    def journal(self) -> Path | None:
        """The journal's path, once the first step has begun; None on ranks that do not record."""
        return self.monitor.journal

    def collect(self) -> dict[str, float]:
        """Wait a second at most for readings under way, and return the newest values; on several ranks, on all.

        Raises:
            CollapseError: by an alert whose action is "raise".
        """
        self.monitor.collect()
        self.monitor.enforce()
        return self.last

    def validation(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches, and read over all of them what the layers put out, under ``uniformity/val/``.

        Model and gradients are set to evaluation by whoever loops. Every call of a layer in a batch is a view.

        Args:
            batches: of a validation set; a loop may break off early, on all ranks alike.
        """
        if self.closed:
            yield from batches
            return
        self._open()
        self.monitor.begin_validation()
        try:
            for batch in batches:
                self.monitor.begin_validation_batch()
                try:
                    yield batch
                finally:
                    self.monitor.end_validation_batch()
        finally:
            if not self.closed:
                self.monitor.finish_validation()
                self.monitor.begin(self.step)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values, for ``torch.save`` beside the model's."""
        return {**self.monitor.state_dict(), "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned: steps, alerts, journal and writers go on.

        A state that cannot be read is reported and left: a run must resume all the same.

        Raises:
            RuntimeError: the first step has begun.
        """
        if self.monitor.is_open:
            raise RuntimeError("load_state_dict must come before the first step; call it right after watch()")
        self.monitor.load_state_dict(dict(state))
        try:
            self.step = int(state["step"])
        except Exception as error:
            self.monitor.faults.add("its step could not be restored", error)
        self._open()
        self.monitor.start(self.step)
        self.monitor.begin(self.step)

    def close(self, *, together: bool = False) -> None:
        """Leave model, optimizer and criterion as they were; finish readings, journal and writers. Twice is once.

        Args:
            together: on several ranks, that all of them close now: then all know of the last alerts.

        Raises:
            CollapseError: by an alert of the last readings whose action is "raise".
        """
        self.leave(together=together)
        self.monitor.enforce()

    def leave(self, *, together: bool = False) -> None:
        """Close without raising what an alert asks for."""
        for handle in self._handles:
            handle.remove()
        self._handles, self.model = [], None
        self.monitor.close(together=together)

    def __enter__(self) -> LoopMonitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()
        if kind is None:
            self.monitor.enforce()

    @property
    def closed(self) -> bool:
        """Whether it has left the model."""
        return self.model is None

    @property
    def _adds(self) -> bool:
        return self.monitor.auxiliary is not None and torch.is_grad_enabled() and not self.closed

    def _open(self) -> None:
        """Open journal and writers, as late as a state may be loaded."""
        if not self.monitor.is_open:
            self.monitor.open()

    def _follow(self, loss: Tensor) -> None:
        if self.monitor.listens:
            self._losses.follow(loss)

    def _backward(self, reaches: bool) -> None:
        before, self._told = self._told, this_backward()
        again = before == self._told
        self._pending = False
        self._evaluated |= self._stepping
        self._unstepped += not again
        if self._unstepped == _UNSTEPPED and not again:
            self._tell_unstepped()
        if not self.monitor.listens or (again and not reaches):
            return
        with self.monitor.kept_from_training("capture"):
            if again:
                self._begin_pass()  # what came since is the layer that ran again in backward, in compiled code
            else:
                self._end_pass()

    def _end_pass(self) -> None:
        self.monitor.pause()
        self.monitor.end_pass()
        self._begin_pass()

    def _begin_pass(self) -> None:
        self.monitor.begin(self.step, repeated=self._evaluated)

    def _steps(self, *args: Any) -> None:
        self._open()
        self._stepping, self._evaluated = True, False

    def _stepped(self, *args: Any) -> None:
        self._stepping = self._evaluated = False
        self._unstepped = 0
        with self.monitor.kept_from_training("the auxiliary loss"):
            if self.monitor.auxiliary is not None and not self._added:
                raise ValueError(self._missing())
        self.monitor.pause()
        self.monitor.end_pass()
        self.monitor.finish()
        self.step += 1
        self._added = self._pending = False
        self.monitor.begin(self.step)
        self.monitor.enforce()

    def _tell_unstepped(self) -> None:
        log.warning(
            "uniformity: nothing is read: %d backward passes came since step %d, and no step of the optimizer, %s; "
            "give the one that is stepped; if it was made anew, close() this monitor and watch() with the new one",
            self._unstepped,
            self.step,
            type(self._optimizer).__name__,
        )

    def _missing(self) -> str:
        if self._criterion is None:
            return f"auxiliary is given, but add_auxiliary was not called in this step: {_BY_HAND}"
        name = type(self._criterion).__name__
        return (
            f"auxiliary is given, but the criterion, {name}, was not called in this step; leave it out and {_BY_HAND}"
        )

    def _called(self, output: Any) -> Any:
        """Return what the criterion returned with the auxiliary loss in it."""
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if not self._adds or (isinstance(loss, Tensor) and not loss.requires_grad):
            return output
        with self.monitor.kept_from_training("the auxiliary loss"):
            if not isinstance(loss, Tensor):
                raise ValueError(
                    'criterion must return a tensor, or a mapping with one under "loss", got '
                    f"{type(output).__name__}; leave it out and {_BY_HAND}"
                )
            if self._pending:
                raise ValueError(
                    "criterion was called twice before one backward, and the auxiliary loss belongs to their sum; "
                    f"leave it out and {_BY_HAND}, once, where loss is the sum"
                )
            loss = self.add_auxiliary(loss)
        return {**output, "loss": loss} if isinstance(output, Mapping) else loss


class _OnCriterion:
    """The criterion's hook; a copied or pickled criterion gets one that does nothing."""

    def __init__(self, called: Callable[[Any], Any]) -> None:
        self._called = called

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        return self._called(output)

    def __reduce__(self) -> tuple[type[Inert], tuple[()]]:
        return Inert, ()
