"""The thread that turns captured rows into readings: metrics, then alerts, then the journal, then the writers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from uniformity_callbacks.alerts import Alert, AlertBook
from uniformity_callbacks.faults import Faults
from uniformity_callbacks.journal import JournalWriter
from uniformity_callbacks.panel import Reading, measure
from uniformity_callbacks.sample import Sample
from uniformity_callbacks.worker import Worker
from uniformity_callbacks.writers import Feed

log = logging.getLogger("uniformity_callbacks")

_CAPACITY = 16
"""Captures that may wait; each holds a step's rows. A reading that finds no room is dropped, counted and reported."""


@dataclass(frozen=True)
class Capture:
    """What a due step hands over.

    Attributes:
        step: the optimizer step.
        layer: dotted path of the layer.
        key: what the metric names are appended to, e.g. ``uniformity/``.
        time: seconds since the epoch.
        sample: the rows.
        extras: further values by name, as numbers or 0-dimensional tensors.
    """

    step: int
    layer: str
    key: str
    time: float
    sample: Sample
    extras: dict[str, Tensor | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A finished reading, its values under their full keys, and the alerts it raised."""

    reading: Reading
    values: dict[str, float]
    alerts: list[Alert]


class Reader:
    """Reads captures on a thread of its own and keeps the outcomes until they are collected.

    Args:
        metrics: names to compute.
        book: the alerts.
        faults: takes captures that could not be read, were dropped, or did not reach the journal.
        journal: where readings are recorded first, or None.
        feeds: the writers.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        book: AlertBook,
        *,
        faults: Faults,
        journal: JournalWriter | None = None,
        feeds: Sequence[Feed] = (),
    ) -> None:
        self.faults = faults
        self._metrics, self._book, self._journal, self._feeds = metrics, book, journal, feeds
        self._outcomes: list[Outcome] = []
        self._lock = threading.Lock()
        self._worker: Worker[Capture] = Worker(self._read, name="uniformity-reader", capacity=_CAPACITY)

    def submit(self, capture: Capture) -> None:
        """Hand over a capture without waiting."""
        if not self._worker.put(capture):
            waiting = f"{_CAPACITY} others are waiting to be read; choose a larger every_n_steps"
            self.faults.add("dropped", waiting, step=capture.step)

    def settle(self, timeout: float) -> bool:
        """Wait until all captures are read, at most ``timeout`` seconds; return whether they are."""
        return self._worker.settle(timeout)

    def collect(self) -> list[Outcome]:
        """Return the outcomes finished since the last call, in order."""
        with self._lock:
            outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def close(self, timeout: float) -> None:
        """Read what is waiting, then let the writers finish and close the journal; ``timeout`` seconds for each."""
        left = self._worker.close(timeout)
        if left:
            log.warning("uniformity: %d readings were not finished after %.0f s and are lost", left, timeout)
        for feed in self._feeds:
            feed.close(timeout)
        if self._journal is not None:
            self._journal.close()

    def _read(self, capture: Capture) -> None:
        try:
            values = measure(capture.sample, self._metrics)
            values |= {name: float(value) for name, value in capture.extras.items()}
            dims = capture.sample.views[0].shape[1]
            reading = Reading(capture.step, capture.layer, dims, values, capture.time)
            outcome = Outcome(
                reading, {capture.key + name: value for name, value in values.items()}, self._book.update(reading)
            )
        except Exception as error:  # a reading that fails is lost, the run is not
            self.faults.add("reading", error, step=capture.step)
            return
        self._record(outcome)
        for feed in self._feeds:
            feed.put(outcome.values, reading.step)
        with self._lock:
            self._outcomes.append(outcome)

    def _record(self, outcome: Outcome) -> None:
        if self._journal is None:
            return
        try:
            self._journal.reading(outcome.reading)
            for alert in outcome.alerts:
                self._journal.alert(alert)
        except Exception as error:  # a full disk must not cost the reading its other ways out
            self.faults.add("journal", error, step=outcome.reading.step)
