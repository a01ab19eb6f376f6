"""How a training drives what watches it: the calls of a step and of a validation epoch, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from uniformity_callbacks.alerts import CollapseError
from uniformity_callbacks.collector import Collector
from uniformity_callbacks.company import Company
from uniformity_callbacks.desk import Desk
from uniformity_callbacks.faults import Faults
from uniformity_callbacks.gathered import Gathered
from uniformity_callbacks.loss import WassersteinLoss
from uniformity_callbacks.reader import Outcome
from uniformity_callbacks.responder import Responder

_FIRST_READING_S = 30.0
"""How long the first step, and the end of a validation epoch, wait for their reading: whoever looks for our keys there,
as ``EarlyStopping`` and ``ModelCheckpoint`` do, must find them, and not those of an epoch ago."""

_READING_S = 1.0
"""How long a due step waits for the reading before it, which had a whole interval to finish: normally not at all, and
where readings are known to take too long never."""


class Driver:
    """The calls of a step and of a validation epoch; `UniformityMonitor` adds what begins and ends a run.

    A run begins by `start`. A step is: `begin`, the forward passes, `add_auxiliary` (where there is a loss), `pause`
    before backward, `end_pass` after it; after the optimizer's step `finish`, which returns the readings that are
    ready. Where several backwards follow each other in a pass, each has its own `add_auxiliary` and `pause`, and
    `resume` comes after it. A validation epoch is: `begin_validation`, around each batch `begin_validation_batch` and
    `end_validation_batch`, `finish_validation`.

    Up to the end of the first `finish` errors are raised; after it the first of each kind is logged, all are counted in
    `faults`, and training goes on. Only `enforce` raises then, if an alert's action is "raise".

    Attributes:
        prefix: what the metric keys begin with.
        auxiliary: the loss that `add_auxiliary` adds, or None.
        faults: errors of ours that were kept from training; writers count their own.
    """

    auxiliary: WassersteinLoss | None = None

    def __init__(self, responder: Responder, faults: Faults, *, prefix: str) -> None:
        self.prefix, self.faults = prefix, faults
        self._responder = responder
        self._collector: Collector | None = None
        self._desk: Desk | None = None
        self._company: Company | None = None
        self._resumed = False
        self._begun, self._started = False, False

    @property
    def should_stop(self) -> bool:
        """Whether an alert with the action "stop" was collected."""
        return self._responder.should_stop

    @property
    def last(self) -> dict[str, float]:
        """The newest values collected, by full key; part of the state."""
        return self._responder.last

    def announce_by(self, announce: Callable[[str], None]) -> None:
        """Have the text of each alert announced by a function, on the caller's thread, instead of logged."""
        self._responder.announce = announce

    def start(self, step: int) -> None:
        """Begin the run at a step; `begin` does, if nobody has.

        At step 0, unless a state was loaded, nothing is known of a run that the monitor watched before.
        """
        self._begun, step = True, int(step)
        self._collecting.start(step)
        if step == 0 and not self._resumed:
            self._responder.reset()
        self._responder.resume(step, self._collecting.names, loaded=self._resumed)
        self._collecting.alert(self._responder.collapsed)

    def begin(self, step: int, *, accumulating: bool = False, repeated: bool = False) -> None:
        """Begin a forward and backward pass of optimizer step ``step``; passes of one step are read together.

        Args:
            step: the optimizer step.
            accumulating: the auxiliary loss is in gradients that no optimizer has used yet: it is not added again.
            repeated: an optimizer evaluates the same batch once more: the loss gets the new views, the reading has
                those that came first, before the optimizer moved the weights.
        """
        with self.kept_from_training("begin"):
            step = int(step)  # NumPy's and torch's numbers are not JSON's
            if not self._begun:
                self.start(step)
            self._collecting.begin(step, accumulating=accumulating, repeated=repeated)

    def pass_over(self, step: int) -> bool:
        """Begin ``step`` without a `finish` of the one before, where nothing is wanted of either; else return False."""
        return self._started and self._collector is not None and self._collector.pass_over(step)

    def repeat(self) -> None:
        """Begin the pass anew, as a repeated one, if it was paused already."""
        with self.kept_from_training("begin"):
            self._collecting.repeat()

    @property
    def wants_auxiliary(self) -> bool:
        """Whether a pass is open whose auxiliary loss has not been added yet."""
        return self._collector is not None and self._collector.wants_auxiliary

    def add_auxiliary(self, loss: Tensor, *, required: bool = True) -> Tensor:
        """Return ``loss`` plus the auxiliary loss of the views that this pass has captured so far.

        Args:
            loss: the training loss.
            required: False leaves the loss as it is if nothing was captured yet, as one of several losses of a step
                may come before the layer is called; `wants_auxiliary` says whether it was added.

        Raises:
            ValueError: in the first step, if nothing was captured, unless it is not required of this loss.
        """
        if self.auxiliary is None:
            return loss
        with self.kept_from_training("the auxiliary loss"):
            loss, problem = self._collecting.add_auxiliary(loss, required=required)
            if problem is not None:
                raise problem
        return loss

    def require_auxiliary(self) -> None:
        """Say so if the pass ends without the auxiliary loss in it; to be called before `end_pass`.

        Raises:
            ValueError: in the first step.
        """
        with self.kept_from_training("the auxiliary loss"):
            self._collecting.require_auxiliary()

    def pause(self) -> None:
        """Collect no more in this pass: checkpointed layers run again in backward.

        Raises:
            ValueError: in the first step, if the layer's output could not be taken.
        """
        with self.kept_from_training("capture"):
            self._collecting.pause()

    def resume(self) -> None:
        """Collect again after a backward in which the layer had no part, if more forward passes are to come."""
        with self.kept_from_training("capture"):
            self._collecting.resume()

    @property
    def listens(self) -> bool:
        """Whether a pass is open of which anything is collected, for a reading or the auxiliary loss."""
        return self._collector is not None and self._collector.listens

    def end_pass(self) -> None:
        """Take over what the pass captured and let go of its graph."""
        with self.kept_from_training("capture"):
            self._collecting.end_pass()

    def finish(self) -> list[Outcome]:
        """End the optimizer step: on a due one hand the rows to the reader and return the readings before it.

        Raises:
            RuntimeError: in the first step, on all ranks, if something went wrong on one of them.
        """
        outcomes: list[Outcome] = []
        first = not self._started
        fresh = first and not self._resumed  # a resumed run shows its last values meanwhile
        if self._collecting.is_due:
            # First: what is collected may switch the loss for the steps to come.
            gathered = self._gathered(self._collecting.take)
            ready = self._open.ready(0.0 if self._open.reader.is_behind else _READING_S)
            pooled = self._open.exchange(gathered, ready, waits=fresh, first=first)
            with self.kept_from_training("finish"):
                self._collecting.settle([layer.layer for layer in pooled.gathered])
                outcomes = self._act(pooled.outcomes)
                self._open.submit(pooled.gathered, step=self._collecting.step, stage="train", first=first)
            if pooled.waits:
                outcomes += self.collect(_FIRST_READING_S if fresh else _READING_S)
        if first and self._company is not None:
            self._company.confirm()
        self._started = True
        return outcomes

    def begin_validation(self) -> None:
        """Begin a validation epoch, whose rows are read together, apart from the training's."""
        with self.kept_from_training("validation", always=True):
            self._collecting.validating.begin()

    def begin_validation_batch(self) -> None:
        """Open the taps for a batch, with or without gradients."""
        with self.kept_from_training("validation", always=True):
            self._collecting.validating.begin_batch()

    def end_validation_batch(self) -> None:
        """Add up what the batch's forward passes brought."""
        with self.kept_from_training("validation", always=True):
            self._collecting.validating.end_batch()

    def finish_validation(self) -> list[Outcome]:
        """End the validation epoch and return its reading, of the step of the last `begin`, and those before it."""
        gathered = self._gathered(self._collecting.validating.take, always=True)
        with self.kept_from_training("validation", always=True):
            gathered = self._open.validation(gathered)
            self._open.submit(gathered, step=self._collecting.step, stage="val")
        return self.collect(_FIRST_READING_S if gathered else _READING_S)

    def collect(self, timeout: float = _READING_S) -> list[Outcome]:
        """Return the readings finished since the last call, waiting at most ``timeout`` seconds for those under way.

        On several ranks all must call this together; all get the same.
        """
        outcomes: list[Outcome] = []
        if self._desk is not None:
            ready = self._desk.ready(timeout)
            with self.kept_from_training("collect", always=True):
                outcomes = self._act(self._desk.tell(ready))
        return outcomes

    def absorb(self, doing: str, error: Exception) -> None:
        """Take an error that has come through all guards to a hook, so that it goes no further; or raise it.

        Args:
            doing: what the hook does.
            error: which it raised: before the end of the first step, or for an alert, it is raised again.
        """
        if not self._started or isinstance(error, CollapseError):
            raise error
        self.faults.add(doing, error)

    def enforce(self) -> None:
        """Raise the error of an alert whose action is "raise"; to be called once its outcome was published.

        Raises:
            CollapseError: such an alert was collected since the last call.
        """
        self._responder.enforce()

    def _attached(self, collector: Collector, company: Company | None) -> None:
        self._collector, self._company = collector, company
        self._begun, self._started, self._responder.should_stop = False, False, False

    @property
    def _collecting(self) -> Collector:
        assert self._collector is not None, "steps come between attach() and close()"
        return self._collector

    @property
    def _open(self) -> Desk:
        assert self._desk is not None, "steps come between attach() and close()"
        return self._desk

    def _gathered(self, take: Callable[[], list[Gathered]], *, always: bool = False) -> list[Gathered]:
        """Return what the collector has; nothing on an error, for other ranks wait for this one."""
        with self.kept_from_training("capture", always=always):
            return take()
        return self._collecting.nothing("its rows could not be taken")

    def _act(self, outcomes: list[Outcome]) -> list[Outcome]:
        outcomes = self._open.act(outcomes)
        if self._collector is not None:
            self._collector.alert(self._responder.collapsed)
        return outcomes

    @contextmanager
    def kept_from_training(self, doing: str, *, always: bool = False) -> Iterator[None]:
        """Raise what goes wrong inside only where errors are raised; on several ranks, where all of them can.

        Args:
            doing: what it is, as the log has it.
            always: never raise.
        """
        try:
            yield
        except Exception as error:
            kept = self._started or always
            if self._company is not None:  # raised, if at all, where all ranks can raise
                self._company.note(error, fatal=not kept)
            elif not kept:
                raise
            if kept:
                self.faults.add(doing, error, step=None if self._collector is None else self._collector.step)
