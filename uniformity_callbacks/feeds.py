"""A writer behind a thread of its own, which keeps it from training, and readings until it takes them."""

from __future__ import annotations

import logging
import threading
import time as clock
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice, takewhile
from typing import Any

from uniformity_callbacks.alerts import Alert
from uniformity_callbacks.faults import Faults, in_words
from uniformity_callbacks.journal import readings_from
from uniformity_callbacks.names import key_of
from uniformity_callbacks.panel import Reading
from uniformity_callbacks.recording import JournalWriter
from uniformity_callbacks.worker import Worker
from uniformity_callbacks.writers import Entry, Refused, Writer, name_of

log = logging.getLogger("uniformity_callbacks")

_CAPACITY = 10_000
"""Readings that may wait for one slow writer, some MB; more are dropped, counted and still in the journal."""

_FIRST_REST_S, _LONGEST_REST_S = 1.0, 30.0
"""Between two tries of a writer that takes nothing: the first rest, and the longest."""

_AT_MOST = 256
"""Readings in a call of a writer that takes many."""

Item = Entry | tuple[Alert, str] | None
"""What a writer's queue holds: a reading, an alert with its key, or the word to close."""


def feeds_of(writers: Sequence[Writer], journal: JournalWriter, prefix: str, layered: bool) -> list[Feed]:
    """Return a feed for each writer, opened; the journal is closed where one cannot be.

    Args:
        writers: of a run.
        journal: of the same.
        prefix: what its metric keys begin with.
        layered: whether they name the layer.
    """

    def key(reading: Reading) -> str:
        return key_of(prefix, reading.stage, reading.layer if layered else None)

    try:
        return [Feed(writer, journal, key) for writer in writers]
    except Exception:
        journal.close()
        raise


class Feed:
    """One writer behind its thread.

    Args:
        writer: what takes readings.
        journal: what all readings are recorded in, which has those for which there is no room; None without one.
        key: what the metric names of a reading from there are appended to.

    Attributes:
        faults: readings that the writer raised on or that were dropped.
    """

    def __init__(
        self, writer: Writer, journal: JournalWriter | None = None, key: Callable[[Reading], str] | None = None
    ) -> None:
        self._writer, self._journal, self._key = writer, journal, key
        self._name = name_of(writer)
        self.faults = Faults(f"writer {self._name}")
        self._many = hasattr(writer, "many")
        self._outage: Outage | None = None
        self._gap: tuple[int, int] | None = None  # where in the journal the readings begin that had no room
        self._store: dict[str, Any] | None = None
        self._finished = False
        self._lock = threading.Lock()
        self._worker: Worker[Item] = Worker(
            self._work,
            name=f"uniformity-{self._name}",
            capacity=_CAPACITY,
            failed=partial(self.faults.add, "its thread"),
            at_most=_AT_MOST if self._many else 1,
            rest=float(getattr(writer, "flush_secs", 0.0)) if self._many else 0.0,
        )
        opener = getattr(writer, "open", None)
        if opener is not None:
            opener()

    def put(
        self, values: Mapping[str, float], step: int, time: float | None = None, *, begin: int | None = None
    ) -> None:
        """Hand the writer a reading, its own to do with as it likes, without waiting for it.

        Args:
            values: by key.
            step: the optimizer step.
            time: when its rows were captured, in seconds since the epoch; None for now.
            begin: where in the journal it begins; None if it is not there.
        """
        if self._worker.put((values, step, clock.time() if time is None else time)):
            return
        if self._many and begin is not None and self._journal is not None:
            with self._lock:
                self._gap = (begin if self._gap is None else self._gap[0], begin)
        else:
            self.faults.add("dropped", "its queue is full", step=step)

    def alert(self, alert: Alert, key: str) -> None:
        """Hand the writer an alert, if it takes any, without waiting for it."""
        if hasattr(self._writer, "alert") and not self._worker.put((alert, key), hurry=True):
            self.faults.add("dropped alert", "its queue is full", step=alert.step)

    def finish(self) -> None:
        """Have the writer close when it is through, without waiting for it."""
        if not self._finished:
            self._finished = True
            self._worker.put(None, hurry=True)

    def close(self, timeout: float) -> None:
        """Let the writer finish and close, waiting at most ``timeout`` seconds."""
        self.finish()
        left = self._worker.close(timeout) - 1  # less the word to close
        with self._lock:
            behind = left > 0 or self._gap is not None
        if not (behind or self.faults.count):
            return
        lost = [f"{self.faults.count} readings failed"] if self.faults.count else []
        if behind:
            why = "" if self._outage is None else f" ({self._outage.why})"
            lost.append(f"{max(left, 0)} were still waiting after {timeout:.0f} s{why}")
        if self._gap is not None:
            lost.append("older ones had no room")
        told = f"writer {self._name}: {', '.join(lost)}"
        if self._journal is None:
            log.warning("%s", told)
            return
        target = getattr(self._writer, "target", None)
        sync = (
            "" if target is None else f"; to write what is missing: uniformity sync {self._journal.path} --to {target}"
        )
        log.warning("%s; all are in the journal %s%s", told, self._journal.path, sync)

    def _work(self, items: list[Item]) -> None:
        while items:
            readings = list(takewhile(_is_entry, items))
            done = self._write(readings) if readings else self._other(items[0])  # type: ignore[arg-type]  # told apart
            if done:
                del items[: max(len(readings), 1)]
            if self._outage is not None and not self._worker.pause(self._outage.rest()):
                return
        while self._gap is not None and not self._worker.waits:
            self._fill()
            if self._outage is not None and not self._worker.pause(self._outage.rest()):
                return

    def _write(self, readings: Sequence[Entry]) -> bool:
        """Write readings; return False if they are to be tried again."""
        try:
            if self._many:
                self._writer.many(list(readings))  # type: ignore[attr-defined]  # optional, looked for at the start
            else:
                ((values, step, _),) = readings
                self._writer(values, step)
        except Refused as error:
            self.faults.add("refused", error, step=readings[0][1], times=error.count)
        except Exception as error:  # a writer's error is never training's
            if self._many:
                self._tell_outage(error, readings[0][1])
                return False
            self.faults.add("write", error, step=readings[0][1], times=len(readings))
        self._tell_recovery()
        return True

    def _other(self, item: tuple[Alert, str] | None) -> bool:
        """Hand on an alert or close; return False if it is to be tried again."""
        try:
            if item is not None:
                self._writer.alert(*item)  # type: ignore[attr-defined]  # optional, looked for in `alert`
            elif (closer := getattr(self._writer, "close", None)) is not None:
                closer()
        except Exception as error:
            if self._many and item is not None:
                self._tell_outage(error, item[0].step)
                return False
            kind, step = ("close", None) if item is None else ("alert", item[0].step)
            self.faults.add(kind, error, step=step)
        return True

    def _fill(self) -> None:
        """Write some of the readings from the journal that had no room in memory."""
        assert self._journal is not None
        assert self._key is not None
        assert self._gap is not None
        begin, last = self._gap
        batch = list(islice(readings_from(self._journal.path, begin, last), _AT_MOST))
        entries = [({self._key(r) + name: value for name, value in r.values.items()}, r.step, r.time) for _, r in batch]
        if entries and not self._write(entries):
            return
        with self._lock:
            after = batch[-1][0] if batch else last + 1
            self._gap = None if self._gap is None or after > self._gap[1] else (after, self._gap[1])

    def _tell_outage(self, error: Exception, step: int) -> None:
        if self._outage is None:
            self._outage = Outage(in_words(error))
            log.warning(
                "writer %s: step %d: %s; training goes on, readings wait and are tried again",
                self._name,
                step,
                in_words(error),
            )

    def _tell_recovery(self) -> None:
        if self._outage is not None:
            log.warning("writer %s: takes readings again after %.0f s", self._name, self._outage.seconds)
            self._outage = None
        store = getattr(self._writer, "store", None)
        if store is not None and store != self._store and self._journal is not None:
            self._store = store
            with suppress(OSError):  # it waits in memory, as a reading does
                self._journal.store(store)


class Outage:
    """A time in which a writer takes nothing.

    Attributes:
        why: its first error in words.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        self._since, self._rest = clock.monotonic(), _FIRST_REST_S

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return clock.monotonic() - self._since

    def rest(self) -> float:
        """Return how long to wait before the next try: each time longer."""
        rest, self._rest = self._rest, min(2 * self._rest, _LONGEST_REST_S)
        return rest


def _is_entry(item: Item) -> bool:
    return item is not None and not isinstance(item[0], Alert)
