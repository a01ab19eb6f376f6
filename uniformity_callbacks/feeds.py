"""A writer behind a thread of its own, which keeps it from training, and readings until it takes them."""

from __future__ import annotations

import logging
import threading
import time as clock
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice, takewhile
from typing import Any, Literal

from uniformity_callbacks.alerts import Alert
from uniformity_callbacks.faults import Faults, in_words
from uniformity_callbacks.journal import readings_from
from uniformity_callbacks.names import key_of
from uniformity_callbacks.outage import Outage
from uniformity_callbacks.panel import Reading
from uniformity_callbacks.recording import JournalWriter
from uniformity_callbacks.worker import Worker
from uniformity_callbacks.writers import Entry, Refused, Writer, name_of

log = logging.getLogger("uniformity_callbacks")

_CAPACITY = 10_000
"""Readings that may wait for one slow writer, some MB; more are dropped, counted and still in the journal."""

_AT_MOST = 256
"""Readings in a call of a writer that takes many."""

_TRIES = 3
"""Of an alert: readings do not wait for a place for alerts that may never be there, such as MLflow's for artifacts."""

Item = Entry | Literal["alert"] | None
"""What a writer's queue holds: a reading, where an alert comes, or the word to close."""


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
        self._alerts: deque[tuple[Alert, str]] = deque()  # apart: they find room beside readings that wait
        self._marks = 0  # places of alerts in the queue
        self._failed = 0  # tries of the first alert
        self._ending = False  # the word to close is in the queue
        self._store: dict[str, Any] | None = None
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
        if not hasattr(self._writer, "alert"):
            return
        if len(self._alerts) >= _CAPACITY:
            self.faults.add("dropped alert", "too many are waiting", step=alert.step)
            return
        with self._lock:
            self._alerts.append((alert, key))
            self._marks += self._worker.put("alert", hurry=True)

    def finish(self) -> None:
        """Have the writer close when it is through, without waiting for it."""
        if not self._ending:
            self._ending = True
            self._worker.put(None, hurry=True, beyond=True)

    def close(self, timeout: float) -> None:
        """Let the writer finish and close, waiting at most ``timeout`` seconds."""
        self.finish()
        left = self._worker.close(timeout)
        lost = [f"{self.faults.count} readings failed"] if self.faults.count else []
        waiting = max(left - self._marks - 1, 0) + len(self._alerts)  # less the word to close
        outage = self._outage
        why = "" if outage is None else f" ({outage.why})"
        if waiting:
            lost.append(f"{waiting} were still waiting after {timeout:.0f} s{why}")
        elif left:
            lost.append(f"could not be closed in {timeout:.0f} s")
        if self._gap is not None:
            lost.append(f"older ones had no room{why if not waiting else ''}")
        if not lost:
            return
        told = f"writer {self._name}: {', '.join(lost)}"
        if self._journal is None:
            log.warning("%s", told)
            return
        target = getattr(self._writer, "target", None)
        sync = f"; to write what is missing: uniformity sync {self._journal.path} --to {target}" if target else ""
        log.warning("%s; all are in the journal %s%s", told, self._journal.path, sync)

    def _work(self, items: list[Item]) -> None:
        due = 0
        while (items or (self._gap is not None and not self._worker.waits)) and not self._worker.closed:
            readings = list(takewhile(_is_entry, items))
            if readings:
                if self._write(readings):  # type: ignore[arg-type]  # told apart
                    del items[: len(readings)]
            elif self._gap is not None and (not items or items[0] is None):  # all of it before the end
                self._fill()
            elif items[0] is None:
                self._end()
                del items[0]
            else:
                del items[0]
                due += 1
                with self._lock:
                    self._marks -= 1
            if self._outage is not None and not self._worker.pause(self._outage.rest(brief=self._ending)):
                return
        self._announce(due if self._worker.waits else len(self._alerts))

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

    def _announce(self, most: int, tries: int = _TRIES) -> None:
        """Hand on alerts in their order, up to one that is not taken and is to be tried again."""
        for _ in range(min(most, len(self._alerts))):
            alert, key = self._alerts[0]
            try:
                self._writer.alert(alert, key)  # type: ignore[attr-defined]  # optional, looked for in `alert`
            except Exception as error:
                self._failed += 1
                if self._many and self._failed < tries:
                    return
                self.faults.add("alert", error, step=alert.step)
            self._alerts.popleft()
            self._failed = 0

    def _end(self) -> None:
        self._announce(len(self._alerts))
        self._announce(len(self._alerts), tries=1)  # what was not taken, once more
        try:
            if (closer := getattr(self._writer, "close", None)) is not None:
                closer()
        except Exception as error:
            self.faults.add("close", error)

    def _fill(self) -> None:
        """Write some of the readings from the journal that had no room in memory."""
        assert self._journal is not None
        assert self._key is not None
        assert self._gap is not None
        begin, last = self._gap
        try:
            batch = list(islice(readings_from(self._journal.path, begin, last), _AT_MOST))
        except OSError as error:  # the file was taken away
            self.faults.add("older readings", error)
            batch = []
        entries = [({self._key(r) + name: value for name, value in r.values.items()}, r.step, r.time) for _, r in batch]
        if entries and not self._write(entries):
            return
        with self._lock:
            after = batch[-1][0] if batch else last + 1
            self._gap = None if self._gap is None or after > self._gap[1] else (after, self._gap[1])

    def _tell_outage(self, error: Exception, step: int) -> None:
        why = in_words(error)
        if self._outage is None:
            self._outage = Outage(why)
            log.warning(
                "writer %s: step %d: %s; training goes on, readings wait and are tried again", self._name, step, why
            )
        self._outage.why = why

    def _tell_recovery(self) -> None:
        if self._outage is not None:
            log.warning("writer %s: takes readings again after %.0f s", self._name, self._outage.seconds)
            self._outage = None
        store = getattr(self._writer, "store", None)
        if store is not None and store != self._store and self._journal is not None:
            self._store = store
            with suppress(OSError, ValueError):  # it waits in memory, as a reading does; or the run is over
                self._journal.store(store)


def _is_entry(item: Item) -> bool:
    return isinstance(item, tuple)
