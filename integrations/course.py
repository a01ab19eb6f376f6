"""The course of a plain loop, known by what happens in it anyway: backward passes, and steps of an optimizer."""

from __future__ import annotations

import atexit
import logging
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from uniformity_callbacks.backward import Backwards, this_backward
from uniformity_callbacks.integrations.criterion import not_added
from uniformity_callbacks.monitor import UniformityMonitor

log = logging.getLogger("uniformity_callbacks")

_UNSTEPPED = 1000
"""Backward passes without a step of the optimizer after which that is told: more than are accumulated for one."""


class Course:
    """Drives a monitor through a loop that does not know of it.

    Between two steps of the optimizer a loop makes one pass, or several whose gradients add up. A pass ends with its
    auxiliary loss, with its backward, or with the step. Where the gradients of an earlier pass are gone (None) when a
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
        self._end: weakref.finalize[..., Course] | None = None  # what is done where it is garbage, still open

    def attach(self, model: nn.Module, **options: Any) -> None:
        """Put the hooks on model and optimizer; ``options`` are those of `UniformityMonitor.attach`."""
        self.monitor.attach(model, on_backward=self._backward, opens=False, **options)
        self.model = model
        # Not to be compiled with the step. Dynamo, which this imports, any optimizer has imported already.
        before, after = map(torch.compiler.disable, (self._steps, self._stepped))
        self._handles = [
            self._optimizer.register_step_pre_hook(before),
            self._optimizer.register_step_post_hook(after),
        ]
        self.monitor.begin(self.step)

    def leave(self, *, together: bool = False) -> None:
        """Close without raising what an alert asks for."""
        for handle in self._handles:
            handle.remove()
        self._handles, self.model = [], None
        self.monitor.close(together=together)
        if self._end is not None:
            self._end.detach()

    @property
    def closed(self) -> bool:
        """Whether it has left the model."""
        return self.model is None

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
        try:
            self._hear_backward(reaches)
        except Exception as error:
            self.monitor.absorb("backward", error)

    def _hear_backward(self, reaches: bool) -> None:
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
        if self._end is None:
            self._open()
        self._stepping, self._evaluated = True, False

    def _stepped(self, *args: Any) -> None:
        if not self._stepping:
            return  # an optimizer whose step calls its parent's has both of them call the hooks
        self._stepping = self._evaluated = False
        self._unstepped = 0
        step = self.step
        try:
            self._end_step()
        except Exception as error:
            self.step = step + 1
            self.monitor.absorb("step", error)

    def _end_step(self) -> None:
        if self.monitor.pass_over(self.step + 1):
            self.step += 1
            return
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
            "uniformity: nothing is read: at least %d backward passes came since step %d, and no step of the "
            "optimizer, %s; give the one that is stepped; if it was made anew, close() this monitor and watch() with "
            "the new one",
            self._unstepped,
            self.step,
            type(self._optimizer).__name__,
        )
