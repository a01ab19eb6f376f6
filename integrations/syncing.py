"""What of a journal a store does not have yet, written to it: by key and step, so that a second time adds nothing."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from uniformity_callbacks.alerts import Alert
from uniformity_callbacks.journal import Journal
from uniformity_callbacks.panel import Reading

_BATCH = 1000
"""Points that are written together: as many as MLflow takes in a request."""


class SyncError(RuntimeError):
    """What keeps a journal from a store and is not a fault of ours; one line for the user."""


@dataclass(frozen=True)
class Point:
    """One value of a curve.

    Attributes:
        key: in full, as writers got it.
        step: optimizer step.
        value: a finite number or NaN: other stores than ours take infinity for a very large one.
        time: seconds since the epoch at which its rows were captured.
        reading: number in the journal of the reading that it is part of.
    """

    key: str
    step: int
    value: float
    time: float
    reading: int


@dataclass(frozen=True)
class Notice:
    """An alert, or the end of one.

    Attributes:
        alert: as it was raised.
        key: what the layer's metric keys begin with, ``uniformity/``.
        time: of the reading that made it certain; None if that is not in the journal.
    """

    alert: Alert
    key: str
    time: float | None


@dataclass
class Outcome:
    """What was done.

    Attributes:
        points: written.
        readings: that these are part of.
        alerts: written, ends of alerts among them.
        points_there: that were in the store before.
        alerts_there: likewise.
        again: points that were there, and are written again behind others.
        refused: what the store cannot take, and why.
    """

    points: int = 0
    readings: int = 0
    alerts: int = 0
    points_there: int = 0
    alerts_there: int = 0
    again: int = 0
    refused: list[str] = field(default_factory=list)


@runtime_checkable
class Store(Protocol):
    """Where a journal goes; its text is what to call it.

    Attributes:
        ordered: it shows a curve only up to a step that is written after a later one: the later ones are to be written
            again behind it.
    """

    ordered: bool

    def steps(self, keys: Collection[str]) -> Mapping[str, Collection[int]]:
        """Return the steps that are there, of each key that has any."""
        ...

    def write(self, points: Sequence[Point]) -> list[str]:
        """Write points that are not there, and return what was refused and why."""
        ...

    def announce(self, notices: Sequence[Notice]) -> int:
        """Write those alerts that are not there, and return how many they were; all of the journal's, in order."""
        ...

    def close(self) -> None:
        """Have all of it on the disk."""
        ...


def sync(journal: Journal, store: Store, progress: Callable[[int, int], None] = lambda done, of: None) -> Outcome:
    """Write what of a journal is not in a store, and return what that was.

    Args:
        journal: whose live branch is written: steps that were done again after a resumption only as they were then.
        store: where.
        progress: told now and then how many points of how many are written.
    """
    points, notices, outcome = points_of(journal), notices_of(journal), Outcome()
    try:
        there = store.steps({point.key for point in points})
        missing = [point for point in points if point.step not in there.get(point.key, ())]
        due = _from_first(points, missing) if store.ordered else missing
        outcome.points_there, outcome.again = len(points) - len(missing), len(due) - len(missing)
        for k in range(0, len(due), _BATCH):
            batch = due[k : k + _BATCH]
            outcome.refused += (failed := store.write(batch))
            outcome.points -= len(failed)
            progress(k + len(batch), len(due))
        outcome.points += len(missing)
        outcome.readings = len({point.reading for point in missing})
        outcome.alerts = store.announce(notices)
        outcome.alerts_there = len(notices) - outcome.alerts
    finally:
        store.close()
    return outcome


def points_of(journal: Journal) -> list[Point]:
    """Return the points of a journal by their steps, each key and step once."""
    points: dict[tuple[str, int], Point] = {}
    for number, reading in enumerate(journal.readings):
        for key, value in journal.keyed(reading).items():
            point = Point(_text(key), reading.step, value if math.isfinite(value) else math.nan, reading.time, number)
            points[point.key, point.step] = point  # of two, as by two validations at a step, the last counts
    return sorted(points.values(), key=lambda point: point.step)


def notices_of(journal: Journal) -> list[Notice]:
    """Return the alerts of a journal and their ends, in the order of their steps."""
    times = {(r.layer, r.step): r.time for r in journal.readings if r.stage == "train"}
    notices: dict[tuple[str, str, int, bool], Notice] = {}
    for alert in sorted([*journal.alerts, *journal.recoveries], key=lambda alert: (alert.step, alert.recovered)):
        (key,) = journal.keyed(Reading(alert.step, alert.layer, 0, {"": 0.0}, 0.0))
        plain = replace(alert, kind=_text(alert.kind), message=_text(alert.message))
        notice = Notice(plain, _text(key), times.get((alert.layer, alert.step)))
        notices[notice.key, plain.kind, plain.step, plain.recovered] = notice
    return list(notices.values())


def _from_first(points: Sequence[Point], missing: Sequence[Point]) -> list[Point]:
    """Return what is missing and, of each curve, all behind the first of it."""
    first: dict[str, float] = {}
    for point in missing:
        first.setdefault(point.key, point.step)
    return [point for point in points if point.step >= first.get(point.key, math.inf)]


def identity(journal: Journal) -> str:
    """Return what tells a journal from all others, in letters and digits: its id, or a hash of how it begins."""
    if re.fullmatch(r"[\w-]{1,100}", journal.id, re.ASCII):
        return journal.id
    runs = [[run.get(name) for name in ("time", "prefix", "layers")] for run in journal.runs[:1]]
    return hashlib.sha256(repr([runs, journal.readings[:1]]).encode()).hexdigest()[:32]


def _text(text: str) -> str:
    """Without the halves of characters that JSON can spell and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()
