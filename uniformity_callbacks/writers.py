"""What a writer is, and the thread of its own that keeps it from training."""

from __future__ import annotations

import logging
import time as clock
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from uniformity_callbacks.alerts import Alert
from uniformity_callbacks.faults import Faults
from uniformity_callbacks.worker import Worker

log = logging.getLogger("uniformity_callbacks")

_CAPACITY = 10_000
"""Readings that may wait for one slow writer, some MB; more are dropped, counted and still in the journal."""

_AT_MOST = 256
"""Readings in a call of a writer that takes many."""

Entry = tuple[Mapping[str, float], int, float]
"""A reading as a writer that takes many of them gets it: its values, its step, and when its rows were captured, in
seconds since the epoch."""


@runtime_checkable
class Writer(Protocol):
    """Anything callable with a reading's values: ``writer({"uniformity/w2": 0.71, ...}, step=50)``.

    Called on a thread of its own, one reading at a time, in order. It may also have ``open()``, called without
    arguments on the caller's thread before the first step; ``alert(alert, key)``, called on its own thread with each
    `Alert` after the reading that made it certain, and what the layer's metric keys begin with, ``uniformity/``; and
    ``close()``, called on its own thread after the last. What it raises is reported once, counted, and never reaches
    training.

    A writer to which a call is dear may have ``many(readings)`` instead of being called: with a list of one `Entry` or
    more, in order; and ``flush_secs``, from one call to the next in which readings gather. Alerts and the end of
    training do not wait for it. Where it raises on several it gets each of them once more, alone.

    A writer that is to go on where a resumed run left it may have ``state_dict()``, called on the caller's thread when
    a checkpoint is saved and not to take long, which returns dicts, lists, numbers and strings; and
    ``load_state_dict(state)``, called with it before ``open()``.
    """

    def __call__(self, values: Mapping[str, float], step: int, /) -> None:
        """Take one reading."""
        ...


def writer_states(writers: Sequence[Writer], faults: Faults) -> list[Any]:
    """Return the writers' states in their order, None for one that has none."""
    states: list[Any] = []
    for writer in writers:
        state = None
        try:
            if hasattr(writer, "state_dict"):
                state = writer.state_dict()
        except Exception as error:  # a checkpoint is worth more than what a writer wants to remember
            faults.add(f"state of the writer {_name(writer)}", error)
        states.append(state)
    return states


def load_writer_states(writers: Sequence[Writer], states: Sequence[Any], faults: Faults) -> None:
    """Have the writers take up what `writer_states` returned, of as many as there are in both."""
    for writer, state in zip(writers, states, strict=False):
        try:
            if state is not None and hasattr(writer, "load_state_dict"):
                writer.load_state_dict(state)
        except Exception as error:  # a run must resume all the same
            faults.add(f"state of the writer {_name(writer)}", error)


def _name(writer: Writer) -> str:
    return getattr(writer, "__name__", type(writer).__name__)


Item = Entry | tuple[Alert, str] | None
"""What a writer's queue holds: a reading, an alert with its key, or the word to close."""


class Feed:
    """One writer behind its thread.

    Attributes:
        faults: readings that the writer raised on or that were dropped.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._name = _name(writer)
        self.faults = Faults(f"writer {self._name}")
        many = hasattr(writer, "many")
        self._worker: Worker[Item] = Worker(
            self._work,
            name=f"uniformity-{self._name}",
            capacity=_CAPACITY,
            at_most=_AT_MOST if many else 1,
            rest=float(getattr(writer, "flush_secs", 0.0)) if many else 0.0,
        )
        opener = getattr(writer, "open", None)
        if opener is not None:
            opener()

    def put(self, values: Mapping[str, float], step: int, time: float | None = None) -> None:
        """Hand the writer a reading, its own to do with as it likes, without waiting for it.

        Args:
            values: by key.
            step: the optimizer step.
            time: when its rows were captured, in seconds since the epoch; None for now.
        """
        if not self._worker.put((values, step, clock.time() if time is None else time)):
            self.faults.add("dropped", "its queue is full", step=step)

    def alert(self, alert: Alert, key: str) -> None:
        """Hand the writer an alert, if it takes any, without waiting for it."""
        if hasattr(self._writer, "alert") and not self._worker.put((alert, key), hurry=True):
            self.faults.add("dropped alert", "its queue is full", step=alert.step)

    def close(self, timeout: float) -> None:
        """Let the writer finish and close, waiting at most ``timeout`` seconds."""
        self._worker.put(None, hurry=True)
        left = self._worker.close(timeout)
        if left or self.faults.count:
            lost = f"{self.faults.count} readings failed, {left} were still waiting after {timeout:.0f} s"
            log.warning("writer %s: %s; all are in the journal", self._name, lost)

    def _work(self, items: list[Item]) -> None:
        readings: list[Entry] = []
        for item in items:
            if item is not None and not isinstance(item[0], Alert):
                readings.append(item)
                continue
            self._write(readings)
            readings = []
            self._other(item)
        self._write(readings)

    def _write(self, readings: list[Entry]) -> None:
        if not readings:
            return
        try:
            if hasattr(self._writer, "many"):
                self._writer.many(readings)
            else:
                ((values, step, _),) = readings
                self._writer(values, step)
        except Exception as error:  # a writer's error is never training's
            if len(readings) == 1:
                self.faults.add("write", error, step=readings[0][1])
                return
            for reading in readings:  # one that is not taken must not cost the others
                self._write([reading])

    def _other(self, item: tuple[Alert, str] | None) -> None:
        try:
            if item is not None:
                self._writer.alert(*item)  # type: ignore[attr-defined]  # optional, looked for in `alert`
            elif (closer := getattr(self._writer, "close", None)) is not None:
                closer()
        except Exception as error:
            kind, step = ("close", None) if item is None else ("alert", item[0].step)
            self.faults.add(kind, error, step=step)
