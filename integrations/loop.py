"""LoopMonitor: what a plain loop has of its monitor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from uniformity_callbacks.integrations.course import Course
from uniformity_callbacks.integrations.criterion import BY_HAND, OnCriterion, check_loss, loss_in, with_loss

Batch = TypeVar("Batch")


class LoopMonitor(Course):
    """What `watch` returns; a context manager, which closes it. Arguments and attributes are those of `Course`."""

    def attach(self, model: nn.Module, **options: Any) -> None:
        """Put the hooks on model, optimizer and criterion; ``options`` are those of `UniformityMonitor.attach`."""
        super().attach(model, **options)
        # Not to be compiled with the criterion or the step.
        called, self.add_auxiliary = map(torch.compiler.disable, (self._called, self.add_auxiliary))  # type: ignore[method-assign]
        if self._criterion is not None:
            self._handles.append(self._criterion.register_forward_hook(OnCriterion(called)))

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
        try:
            return self._with_auxiliary(loss)
        except Exception as error:
            self.monitor.absorb("the auxiliary loss", error)
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
        with self._harmless("collect"):
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
        with self._harmless("validation"):
            self._open()
            self.monitor.begin_validation()
        try:
            for batch in batches:
                if not self.closed:
                    with self._harmless("validation"):
                        self.monitor.begin_validation_batch()
                try:
                    yield batch
                finally:
                    if not self.closed:
                        with self._harmless("validation"):
                            self.monitor.end_validation_batch()
        finally:
            if not self.closed:
                with self._harmless("validation"):
                    self.monitor.finish_validation()
                    self.monitor.begin(self.step)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values, for ``torch.save`` beside the model's."""
        state = {"step": self.step}
        with self._harmless("state_dict"):
            state |= self.monitor.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned: steps, alerts, journal and writers go on.

        A state that cannot be read is reported and left: a run must resume all the same.

        Raises:
            RuntimeError: the first step has begun, or the monitor is closed.
        """
        if self.monitor.is_open or self.closed:
            raise RuntimeError("load_state_dict must come before the first step; call it right after watch()")
        self.monitor.load_state_dict(state)
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
        with self._harmless("close"):
            self.leave(together=together)
            self.monitor.enforce()

    def __enter__(self) -> LoopMonitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._harmless("close"):
            self.leave()
            if kind is None:
                self.monitor.enforce()

    @contextmanager
    def _harmless(self, doing: str) -> Iterator[None]:
        """Let only those errors out that are raised."""
        try:
            yield
        except Exception as error:
            self.monitor.absorb(doing, error)

    def _with_auxiliary(self, loss: Tensor) -> Tensor:
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
    def _adds(self) -> bool:
        return self.monitor.auxiliary is not None and torch.is_grad_enabled() and not self.closed

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
