"""A run's local record read back: JSON lines, a whole line for each reading and alert."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

from uniformity_callbacks.alerts import Alert
from uniformity_callbacks.names import key_of
from uniformity_callbacks.panel import Reading

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
        unreadable: numbers, from 1, of lines that are not whole records, as a crash in mid-write leaves one.
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
    journal = Journal()
    first: dict[tuple[str, str], int] = {}  # (layer, stage) -> first step of the section that is being read
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                _take(journal, json.loads(line), first)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                journal.unreadable.append(number)
    if journal.unreadable and not (journal.runs or journal.readings or journal.alerts):
        raise ValueError(f"{str(path)!r} is no journal: none of its {len(journal.unreadable)} lines is a record")
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
            with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
                record = json.loads(line)
                if record.pop("type") == "reading":
                    yield begin, reading_of(record)


def reading_of(record: dict[str, Any]) -> Reading:
    """Return the reading of a line's record, less its type.

    Raises:
        KeyError: something is missing.
        TypeError, ValueError: something is of another type, or not known.
    """
    values = {str(name): _float(value) for name, value in record["values"].items()}
    reading = Reading(**{**record, "values": values})
    if not (isinstance(reading.step, int) and isinstance(reading.layer, str) and isinstance(reading.stage, str)):
        raise TypeError("a step is a number, layer and stage are names")
    return reading


def _take(journal: Journal, record: dict[str, Any], first: dict[tuple[str, str], int]) -> None:
    kind = record.pop("type")
    if kind == "run":
        journal.runs.append(record)
        first.clear()
    elif kind == "reading":
        reading = reading_of(record)
        if first.setdefault((reading.layer, reading.stage), reading.step) == reading.step and _resumed(journal):
            _abandon(journal, reading)
        journal.readings.append(reading)
    elif kind == "alert":
        record["readings"] = tuple(_float(value) for value in record["readings"])
        alert = Alert(**record)
        if not isinstance(alert.step, int):
            raise TypeError("a step is a number")
        (journal.recoveries if alert.recovered else journal.alerts).append(alert)
    elif kind == "store":
        journal.stores.append(record)
    else:
        raise ValueError(f"unknown record {kind!r}")


def _resumed(journal: Journal) -> bool:
    """Whether what is being read was resumed from a checkpoint, and not begun anew in the same journal."""
    return bool(journal.runs) and journal.runs[-1].get("resumed") is True


def _abandon(journal: Journal, first: Reading) -> None:
    """Set apart what came before the first reading of a section and is of its step or a later one."""
    same = [r for r in journal.readings if (r.layer, r.stage) == (first.layer, first.stage) and r.step >= first.step]
    if not same:
        return
    journal.abandoned.extend(same)
    dead = {id(reading) for reading in same}
    journal.readings[:] = [reading for reading in journal.readings if id(reading) not in dead]
    if first.stage == "train":
        for alerts in (journal.alerts, journal.recoveries):
            of_them = [alert.layer == first.layer and alert.step >= first.step for alert in alerts]
            journal.abandoned_alerts.extend(compress(alerts, of_them))
            alerts[:] = [alert for alert, is_dead in zip(alerts, of_them, strict=True) if not is_dead]


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)
