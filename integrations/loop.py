"""LoopMonitor: a monitor driven by what happens in a plain loop anyway, backward passes and optimizer steps."""

from __future__ import annotations

import atexit
import logging
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from uniformity_callbacks.backward import Backwards, this_backward
from uniformity_callbacks.integrations.criterion import BY_HAND, OnCriterion, check_loss, loss_in, not_added, with_loss
from uniformity_callbacks.monitor import UniformityMonitor

log = logging.getLogger("uniformity_callbacks")

Batch = TypeVar("Batch")

_UNSTEPPED = 1000
"""Backward passes without a step of the optimizer after which that is told: more than are accumulated for one."""


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
        self._early = False  # a backward came before it was
        self._told: int | None = None  # the last backward
        self._unstepped = 0  # backwards since the last step
        self._losses = Backwards(lambda fresh: self._backward(False))
        self._stepping = self._evaluated = False  # within optimizer.step(closure); and a backward came in it
        self._end: weakref.finalize[..., LoopMonitor] | None = None  # what is done where it is garbage, still open

    def attach(self, model: nn.Module, **options: Any) -> None:
        """Put the hooks on model, optimizer and criterion; ``options`` are those of `UniformityMonitor.attach`."""
        self.monitor.attach(model, on_backward=self._backward, opens=False, **options)
        self.model = model
        # Not to be compiled with the step or the loss. Dynamo, which this imports, any optimizer has imported already.
        before, after, called, self.add_auxiliary = map(  # type: ignore[method-assign]
            torch.compiler.disable, (self._steps, self._stepped, self._called, self.add_auxiliary)
        )
        self._handles = [
            self._optimizer.register_step_pre_hook(before),
            self._optimizer.register_step_post_hook(after),
        ]
        if self._criterion is not None:
            self._handles.append(self._criterion.register_forward_hook(OnCriterion(called)))
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
            if not (self._pending or self._early):
                raise
            twice = "was called twice in one pass: call it once, on the sum"
            late = "came after a backward, or autograd.grad, through the layer: call it before, on the first loss"
            raise ValueError(f"add_auxiliary {twice if self._pending else late}; {error}") from error
        # Not pending where nothing was there to add, as of an evaluation: the next loss is to have it.
        self._added, self._pending = True, not self.monitor.wants_auxiliary
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
                if not self.closed:
                    self.monitor.begin_validation_batch()
                try:
                    yield batch
                finally:
                    if not self.closed:
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
            RuntimeError: the first step has begun, or the monitor is closed.
        """
        if self.monitor.is_open or self.closed:
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
        if self._end is not None:
            self._end.detach()

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
            finish = self.monitor.open()
            # Not at once: garbage may be found on the thread that this would wait for.
            self._end = weakref.finalize(self, atexit.register, finish)
            self._end.atexit = False

    def _follow(self, loss: Tensor) -> None:
        if self.monitor.listens:
            self._losses.follow(loss)

    def _backward(self, reaches: bool) -> None:
        before, self._told = self._told, this_backward()
        again = before == self._told
        self._pending = False
        self._early |= not self._added
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
        if not self._stepping:
            return  # an optimizer whose step calls its parent's has both of them call the hooks
        self._stepping = self._evaluated = False
        self._unstepped = 0
        with self.monitor.kept_from_training("the auxiliary loss"):
            if self.monitor.auxiliary is not None and not self._added:
                raise ValueError(not_added(self._criterion))
        if self.monitor.listens:  # off a due step nothing is left to do but count
            self.monitor.pause()
            self.monitor.end_pass()
        self.monitor.finish()
        if self.closed:
            return  # by what an alert called
        self.step += 1
        self._added = self._pending = self._early = False
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

    def _called(self, output: Any) -> Any:
        """Return what the criterion returned with the auxiliary loss in it."""
        loss = loss_in(output)
        if not self._adds or (isinstance(loss, Tensor) and not loss.requires_grad):
            return output
        with self.monitor.kept_from_training("the auxiliary loss"):
            check_loss(loss, output)
            if self._pending:
                raise ValueError(
                    "criterion was called twice before one backward, and the auxiliary loss belongs to their sum; "
                    f"leave it out and {BY_HAND}, once, where loss is the sum"
                )
            return with_loss(output, self.add_auxiliary(loss))
        return output
