"""The thread that turns captured rows into readings: metrics, then alerts, then the journal, then the writers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor

from uniformity_callbacks.alerts import Alert, AlertBook
from uniformity_callbacks.faults import Faults
from uniformity_callbacks.feeds import Feed
from uniformity_callbacks.load import Load, Overload
from uniformity_callbacks.panel import CORRECTED, Reading, measure, spectrum
from uniformity_callbacks.recording import JournalWriter
from uniformity_callbacks.sample import REPEATS_TOLD, Sample, StepSample, Views
from uniformity_callbacks.sample_size import LEAST_ROWS
from uniformity_callbacks.threads import compute_alone
from uniformity_callbacks.worker import Worker

log = logging.getLogger("uniformity_callbacks")

_CAPACITY = 16
"""Captures that may wait; each holds a step's rows. A reading that finds no room is dropped, counted and reported."""

_ABANDON_S = 1.0
"""What a reading that took too long has to end with the operation under way; a larger matrix' one takes longer."""

_LEAST_CLOSE_S = 0.5
"""What each writer has to finish, also where all else has taken the time."""


@dataclass(frozen=True)
class Capture:
    """What a due step hands over.

    Attributes:
        step: the optimizer step.
        layer: dotted path of the layer.
        key: what the metric names are appended to, e.g. ``uniformity/``.
        time: seconds since the epoch.
        sample: the rows; None if nothing was caught.
        extras: further values by name, as numbers or 0-dimensional tensors.
        stage: "train" or "val"; readings of validation are not judged by the alerts.
        why: why nothing was caught, in words.
        thinning: of each view one of so many rows is to be read.
    """

    step: int
    layer: str
    key: str
    time: float
    sample: Sample | None
    extras: dict[str, Tensor | float] = field(default_factory=dict)
    stage: str = "train"
    why: str = ""
    thinning: int = 1


@dataclass(frozen=True)
class Outcome:
    """A finished reading and the alerts it raised or ended.

    Attributes:
        reading: its values by name.
        key: what the full keys begin with, e.g. ``uniformity/``.
        alerts: in the order of the rules.
    """

    reading: Reading
    key: str
    alerts: list[Alert]

    @property
    def values(self) -> dict[str, float]:
        """The values under their full keys."""
        return {self.key + name: value for name, value in self.reading.values.items()}

    def to_plain(self) -> dict[str, Any]:
        """Return it as dicts, lists, numbers and strings."""
        alerts = [{**asdict(alert), "readings": list(alert.readings)} for alert in self.alerts]
        reading = {**asdict(self.reading), "spectrum": list(self.reading.spectrum)}
        return {"reading": reading, "key": self.key, "alerts": alerts}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Outcome:
        """Return what `to_plain` was called on."""
        alerts = [Alert(**{**alert, "readings": tuple(alert["readings"])}) for alert in plain["alerts"]]
        reading = {**plain["reading"], "spectrum": tuple(plain["reading"].get("spectrum", ()))}
        return cls(Reading(**reading), plain["key"], alerts)


class Reader:
    """Reads captures on a thread of its own and keeps the outcomes until they are collected.

    Args:
        metrics: names to compute.
        book: the alerts.
        faults: takes captures that could not be read, were dropped, or did not reach the journal.
        journal: where readings are recorded first, or None.
        feeds: the writers.
        overload: what gives way where readings take too long, as `Load` has it.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        book: AlertBook,
        *,
        faults: Faults,
        journal: JournalWriter | None = None,
        feeds: Sequence[Feed] = (),
        overload: Overload = "skip",
    ) -> None:
        self.faults = faults
        self._metrics, self._book, self._journal, self._feeds = metrics, book, journal, feeds
        self._outcomes: list[Outcome] = []
        self._noted: set[str] = set()
        self._load = Load(overload)
        self._lock = threading.Lock()
        self._worker: Worker[Capture] = Worker(
            self._read,
            name="uniformity-reader",
            capacity=_CAPACITY,
            failed=partial(faults.add, "its thread"),
            begin=compute_alone,
        )

    @property
    def is_behind(self) -> bool:
        """Whether readings take so long that not all are made, and nobody is to wait for one at a due step."""
        return self._load.is_high

    def submit(self, captures: Sequence[Capture]) -> None:
        """Hand over the captures of one step without waiting; of training, there may be no time to read them."""
        if captures and captures[0].stage == "train":
            with self._lock:
                verdict = self._load.due(captures[0].step, time.monotonic(), [_rows(each.sample) for each in captures])
            if verdict.told:
                log.warning("uniformity: %s", verdict.told)
            if not verdict.reads:
                return
            captures = [replace(capture, thinning=verdict.thinning) for capture in captures]
        for capture in captures:
            if not self._worker.put(capture):
                with self._lock:
                    self._load.dropped(capture.step)
                waiting = f"{_CAPACITY} others are waiting to be read; choose a larger every_n_steps"
                self.faults.add("dropped", waiting, step=capture.step)

    def settle(self, timeout: float) -> bool:
        """Wait until all captures are read, at most ``timeout`` seconds; return whether they are."""
        since = time.monotonic()
        done = self._worker.settle(timeout)
        with self._lock:
            self._load.waited(time.monotonic() - since)
        return done

    def uncollected(self) -> list[Outcome]:
        """Return what `collect` would, and leave it there."""
        with self._lock:
            return list(self._outcomes)

    def collect(self) -> list[Outcome]:
        """Return the outcomes finished since the last call, in order."""
        with self._lock:
            outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def close(self, timeout: float) -> None:
        """Read what is waiting, then let the writers finish and close the journal, in ``timeout`` seconds for all."""
        deadline = time.monotonic() + timeout
        left = self._worker.close(timeout)
        if left:
            log.warning("uniformity: %d readings were not finished after %.0f s and are lost", left, timeout)
        self._worker.abandon(_ABANDON_S)
        try:
            for feed in self._feeds:
                feed.finish()
            for feed in self._feeds:
                feed.close(max(_LEAST_CLOSE_S, deadline - time.monotonic()))
        finally:
            if self._journal is not None:
                self._journal.close()

    def _read(self, captures: list[Capture]) -> None:
        (capture,) = captures
        if capture.stage != "train":
            self._make(capture)
            return
        with self._lock:
            self._load.began(capture.step, time.monotonic())
        try:
            self._make(capture)
        finally:
            with self._lock:
                self._load.ended(capture.step, time.monotonic())

    def _make(self, capture: Capture) -> None:
        try:
            outcome = self._outcome(capture)
        except Exception as error:  # a reading that fails is lost, the run is not
            self.faults.add("reading", error, step=capture.step)
            return
        begin, reading = self._record(outcome), outcome.reading
        for feed in self._feeds:
            feed.put(outcome.values, reading.step, reading.time, begin=begin)  # values made anew for each
            for alert in outcome.alerts:
                feed.alert(alert, capture.key)
        with self._lock:
            self._outcomes.append(outcome)

    def _outcome(self, capture: Capture) -> Outcome:
        dims, values, eigenvalues = 0, {"samples": 0.0, "nonfinite": 0.0}, tuple[float, ...]()
        if capture.sample is not None:
            views = _thinned(capture).views()
            dims, values = views.whole.dims, measure(views, self._metrics)
            eigenvalues = spectrum(views, self._metrics)
            self._note(views, values, capture)
        values |= {name: float(value) for name, value in capture.extras.items()}
        said = capture.time, capture.stage, capture.why
        reading = Reading(capture.step, capture.layer, dims, values, *said, eigenvalues)
        alerts = self._book.update(reading) if capture.stage == "train" else []
        return Outcome(reading, capture.key, alerts)

    def _note(self, views: Views, values: dict[str, float], capture: Capture) -> None:
        """Say once of each layer and stage why its corrected numbers are not there, or not to be trusted."""
        asked = [name for name in self._metrics if name in CORRECTED]
        if not asked or capture.key in self._noted:
            return
        where = f"{' and '.join(asked)} of {capture.layer} at step {capture.step}"
        if not all(name in values for name in asked):
            most = int(max(view.count for view in views.each))
            mend = "a larger batch, or window=, which reads several steps together"
            note = f"{where} are not reported: a view has {most} rows, {LEAST_ROWS} are needed; {mend}"
        else:
            repeated, rows = views.repeated
            if views.whole.is_one_point or repeated <= REPEATS_TOLD * rows:
                return
            note = f"{where} are biased: {repeated} of {rows} rows repeat another of their view; does a sampler pad?"
        self._noted.add(capture.key)
        log.warning("uniformity: %s", note)

    def _record(self, outcome: Outcome) -> int | None:
        """Write to the journal, and return where in it the reading begins, if it is there."""
        begin = None
        if self._journal is None:
            return begin
        try:
            begin = self._journal.reading(outcome.reading)
            for alert in outcome.alerts:
                self._journal.alert(alert)
        except Exception as error:  # a full disk must not cost the reading its other ways out; there, it waits
            self.faults.add("journal", error, step=outcome.reading.step)
        return begin


def _rows(sample: Sample | None) -> int | None:
    """Return the rows of the shortest view of those that can be thinned; 0 if none can, None if there is no sample."""
    return min(map(len, sample.raw), default=0) if isinstance(sample, StepSample) else None if sample is None else 0


def _thinned(capture: Capture) -> Sample:
    sample = capture.sample
    assert sample is not None, "only asked of what was caught"
    return sample.thinned(capture.thinning) if isinstance(sample, StepSample) and capture.thinning > 1 else sample
