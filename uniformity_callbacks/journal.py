"""A run's local record read back: JSON lines, a whole line for each reading and alert."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Generic, TypeVar

from uniformity_callbacks.alerts import Alert
from uniformity_callbacks.lines import NOT_OURS, alert_of, reading_of, record_of, run_of
from uniformity_callbacks.names import key_of
from uniformity_callbacks.panel import Reading

_Record = TypeVar("_Record", Reading, Alert)

FORMAT = 1
"""Version of the lines' layout, in each run's first line."""


@dataclass(frozen=True)
class Journal:
    """A journal read back.

    Where a run was resumed from a checkpoint that is older than its last readings, these belong to a branch that died:
    they are apart, so that each step is there once. Another training that goes on in the same journal, as a second fit
    with the same callback, is no resumption: all of it is there.

    Attributes:
        runs: what was said at the start of the run and of each resumption.
        readings: in the order they were written, those of validation among them.
        alerts: likewise, as they were raised.
        recoveries: the ends of alerts.
        stores: what the writers said of where they write, such as the MLflow run.
        abandoned: readings of steps that were done again after a resumption.
        abandoned_alerts: alerts, and ends of alerts, of such steps.
        unreadable: numbers, from 1, of lines that are not records as a monitor writes them: a crash in mid-write leaves
            one, and whatever else is there is never an error.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    recoveries: list[Alert] = field(default_factory=list)
    stores: list[dict[str, Any]] = field(default_factory=list)
    abandoned: list[Reading] = field(default_factory=list)
    abandoned_alerts: list[Alert] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)

    @property
    def id(self) -> str:
        """What tells the journal from all others; empty in one that was written before there were such."""
        return next((str(run["id"]) for run in self.runs if "id" in run), "")

    def series(self, metric: str, layer: str | None = None, stage: str = "train") -> tuple[list[int], list[float]]:
        """Return the steps and values of one metric, of one layer or of the only one, in training or validation."""
        rows = [r for r in self.readings if metric in r.values and layer in (None, r.layer) and r.stage == stage]
        return [r.step for r in rows], [r.values[metric] for r in rows]

    def keyed(self, reading: Reading) -> dict[str, float]:
        """Return a reading's values under the full keys that writers got."""
        run = self.runs[-1] if self.runs else {}
        layered = len(run.get("layers", ())) > 1
        key = key_of(str(run.get("prefix", "uniformity")), reading.stage, reading.layer if layered else None)
        return {key + name: value for name, value in reading.values.items()}


def read_journal(path: str | Path) -> Journal:
    """Return what a journal holds; lines that are not whole are left out and their numbers returned.

    Args:
        path: a ``.jsonl`` file that a monitor wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is there but is no journal: not one line of it is a record.
    """
    journal, live = Journal(), _Live()
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                _take(journal, line, live)
            except NOT_OURS:
                journal.unreadable.append(number)
    if journal.unreadable and len(journal.unreadable) == number:
        raise ValueError(f"{str(path)!r} is no journal: none of its {number} lines is a record")
    journal.readings.extend(live.readings)
    journal.alerts.extend(live.alerts)
    journal.recoveries.extend(live.recoveries)
    return journal


def readings_from(path: str | Path, begin: int, last: int) -> Iterator[tuple[int, Reading]]:
    """Yield the readings of a part of a journal, each after where the next line begins.

    Args:
        path: the file.
        begin: where the first line begins.
        last: where the last one begins.
    """
    with open(path, "rb") as file:
        file.seek(begin)
        for line in file:
            if begin > last:
                return
            begin += len(line)
            with suppress(*NOT_OURS):
                kind, record = record_of(line)
                if kind == "reading":
                    yield begin, reading_of(record)


class _Branch(Generic[_Record]):
    """Records in the order they came, of which those of a step and all later ones are cut off in n log n."""

    def __init__(self) -> None:
        self._records: dict[int, _Record] = {}
        self._steps: defaultdict[Hashable, list[tuple[int, int]]] = defaultdict(list)  # heaps of (-step, number)
        self._next = 0

    def __iter__(self) -> Iterator[_Record]:
        return iter(self._records.values())

    def add(self, series: Hashable, record: _Record) -> None:
        self._records[self._next] = record
        heappush(self._steps[series], (-record.step, self._next))
        self._next += 1

    def cut(self, series: Hashable, step: int) -> list[_Record]:
        """Take out and return what a series has from a step on."""
        heap, numbers = self._steps[series], []
        while heap and -heap[0][0] >= step:
            numbers.append(heappop(heap)[1])
        return [self._records.pop(number) for number in sorted(numbers)]


class _Live:
    """What is not set apart, and what the section that is being read has.

    Attributes:
        begun: the series, by layer and stage, of which the section has a reading.
    """

    def __init__(self) -> None:
        self.readings, self.alerts, self.recoveries = _Branch[Reading](), _Branch[Alert](), _Branch[Alert]()
        self.begun: set[tuple[str, str]] = set()


def _take(journal: Journal, line: bytes, live: _Live) -> None:
    kind, record = record_of(line)
    if kind == "run":
        journal.runs.append(run_of(record))
        live.begun.clear()
    elif kind == "reading":
        reading = reading_of(record)
        series = (reading.layer, reading.stage)
        if series not in live.begun:
            live.begun.add(series)
            if _resumed(journal):
                _abandon(journal, reading, live)
        live.readings.add(series, reading)
    elif kind == "alert":
        alert = alert_of(record)
        (live.recoveries if alert.recovered else live.alerts).add(alert.layer, alert)
    elif kind == "store":
        journal.stores.append(record)
    else:
        raise ValueError(f"unknown record {kind!r}")


def _resumed(journal: Journal) -> bool:
    """Whether what is being read was resumed from a checkpoint, and not begun anew in the same journal."""
    return bool(journal.runs) and journal.runs[-1].get("resumed") is True


def _abandon(journal: Journal, first: Reading, live: _Live) -> None:
    """Set apart what came before the first reading of a section and is of its step or a later one."""
    same = live.readings.cut((first.layer, first.stage), first.step)
    if not same:
        return
    journal.abandoned.extend(same)
    if first.stage == "train":
        for alerts in (live.alerts, live.recoveries):
            journal.abandoned_alerts.extend(alerts.cut(first.layer, first.step))
