"""A threshold of the method's own: half of what an earlier healthy run of it held, and other shares of that."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import page
from benchmarks.alerting.cases import DIMENSIONAL, HEALTHY, LOW
from benchmarks.alerting.sweep import Known, Point, point
from uniformity_callbacks import CollapseAlert, threshold_from
from uniformity_callbacks.baseline import SHARE
from uniformity_callbacks.journal import Journal

SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
RATES = {"its own": 1.0, f"times {LOW:g}": LOW}
"""Learning rate of the healthy run that sets the threshold, in words and as a factor."""

COLUMNS = [f"{what}, {of}" for of in ("the half that judges", "all") for what in ("told in time", "false alarms")]


def table(runs: Sequence[Known], judging: Sequence[Known]) -> str:
    """Return what is found by shares of what a healthy run of the same method and another seed held.

    Args:
        runs: all.
        judging: those in whose column the default share is to be judged.
    """
    rows = []
    for title, rate in RATES.items():
        for share in SHARES:
            whole, half = points(runs, runs, rate, share), points(judging, runs, rate, share)
            name = f"{share:g}, the default" if share == SHARE else f"{share:g}"
            rows.append([title, name, *cells(half, whole)])
    return page.table(["rate of the healthy run", "share of its dims", *COLUMNS], rows)


def points(runs: Sequence[Known], among: Sequence[Known], rate: float, share: float) -> Point:
    """Return how well runs do by the thresholds that healthy ones of their method and of the next seed set."""
    healthy = {
        (one.run.case.method, one.run.seed): one.run.readings
        for one in among
        if one.run.case.expected == HEALTHY and one.run.case.rate == rate
    }
    seeds = sorted({one.run.seed for one in among})
    found = []
    for one in runs:
        other = seeds[(seeds.index(one.run.seed) + 1) % len(seeds)]
        if readings := healthy.get((one.run.case.method, other)):  # the plain Siamese network is never healthy
            threshold = threshold_from(Journal(readings=list(readings)), share=share)
            found.append(point([one], CollapseAlert(DIMENSIONAL, threshold=threshold)))
    counts = (sum(getattr(p, name) for p in found) for name in ("found", "collapses", "false", "healthy"))
    return Point(CollapseAlert(DIMENSIONAL), *counts)


def cells(*points: Point) -> list[str]:
    """Return what is found and what is false, point by point, as under `COLUMNS`."""
    return [cell for p in points for cell in (f"{p.found} of {p.collapses}", f"{p.false} of {p.healthy}")]
