"""An append-only local record of every reading and alert: JSON lines, one whole line a write."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from uniformity_callbacks.alerts import Alert
from uniformity_callbacks.panel import Reading

FORMAT = 1
"""Version of the lines' layout, in each run's first line."""


class JournalWriter:
    """Appends records to a file, each in one unbuffered write, so that a killed process loses no finished record.

    Args:
        path: file to create; where it is taken, ``name-2``, ``name-3``, ... is created instead, since two runs must not
            share one journal.
        resume: append to ``path`` if it is there.
        run: what to say of the run in its first line; plain values.

    Raises:
        ValueError: the file cannot be created.
    """

    def __init__(self, path: str | Path, *, resume: bool = False, run: dict[str, Any]) -> None:
        try:
            self.path, self._file = _open(Path(path), resume)
        except OSError as error:
            raise ValueError(
                f"journal {str(path)!r} cannot be written ({error}); give another path by journal="
            ) from error
        self._torn = False
        self._write({"type": "run", "format": FORMAT, "time": time.time(), **run})

    def reading(self, reading: Reading) -> None:
        """Append a reading."""
        self._write({"type": "reading", **asdict(reading)})

    def alert(self, alert: Alert) -> None:
        """Append an alert, or the end of one."""
        self._write({"type": "alert", **asdict(alert)})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, record: dict[str, Any]) -> None:
        line = (json.dumps(_plain(record), allow_nan=False) + "\n").encode()
        if self._torn:  # a full disk cut the line before: this one must not be lost with it
            line = b"\n" + line
        written = self._file.write(line)
        self._torn = written != len(line)
        if self._torn:
            raise OSError(f"only {written} of {len(line)} bytes could be written")


@dataclass(frozen=True)
class Journal:
    """A journal read back.

    Attributes:
        runs: what was said at the start of the run and of each resumption.
        readings: in the order they were written, those of validation among them.
        alerts: likewise, as they were raised.
        recoveries: the ends of alerts.
        unreadable: numbers, from 1, of lines that are not whole records, as a crash in mid-write leaves one.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    recoveries: list[Alert] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)

    def series(self, metric: str, layer: str | None = None, stage: str = "train") -> tuple[list[int], list[float]]:
        """Return the steps and values of one metric, of one layer or of the only one, in training or validation."""
        rows = [r for r in self.readings if metric in r.values and layer in (None, r.layer) and r.stage == stage]
        return [r.step for r in rows], [r.values[metric] for r in rows]


def read_journal(path: str | Path) -> Journal:
    """Return what a journal holds; lines that are not whole are left out and their numbers returned.

    Args:
        path: a ``.jsonl`` file that a monitor wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is there but is no journal: not one line of it is a record.
    """
    journal = Journal()
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                _take(journal, json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                journal.unreadable.append(number)
    if journal.unreadable and not (journal.runs or journal.readings or journal.alerts):
        raise ValueError(f"{str(path)!r} is no journal: none of its {len(journal.unreadable)} lines is a record")
    return journal


def _take(journal: Journal, record: dict[str, Any]) -> None:
    kind = record.pop("type")
    if kind == "run":
        journal.runs.append(record)
    elif kind == "reading":
        record["values"] = {name: _float(value) for name, value in record["values"].items()}
        journal.readings.append(Reading(**record))
    elif kind == "alert":
        record["readings"] = tuple(_float(value) for value in record["readings"])
        alert = Alert(**record)
        (journal.recoveries if alert.recovered else journal.alerts).append(alert)
    else:
        raise ValueError(f"unknown record {kind!r}")


def _open(path: Path, resume: bool) -> tuple[Path, BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    if resume and path.exists():
        file = open(path, "r+b", buffering=0)  # noqa: SIM115 - held for the whole run
        if file.seek(0, 2) > 0:
            file.seek(-1, 2)
            if file.read(1) != b"\n":  # a crash cut the last line: the next must not be lost with it
                file.write(b"\n")
        return path, file
    for k in range(1, 1000):
        free = path if k == 1 else path.with_stem(f"{path.stem}-{k}")
        try:
            return free, open(free, "xb", buffering=0)
        except FileExistsError:
            continue
    raise FileExistsError(f"{path} and 998 more of that name are taken")


def _plain(value: Any) -> Any:
    """Strict JSON has no NaN or infinity: both become null, which is read back as NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)
