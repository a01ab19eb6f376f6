"""Thresholds: how well each does on a set of runs, and which are best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.alerting import replay
from benchmarks.alerting.cases import CONSTANT, DIMENSIONAL, NONFINITE
from benchmarks.alerting.record import Run
from benchmarks.alerting.replay import Verdict, false_alarms, healthy, labelled, verdict
from benchmarks.alerting.truth import SHARE, Label, label
from uniformity_callbacks.rules import LEAST_ABOUT_MEAN, CollapseAlert

CONSTANTS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995)
DIMS = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 9.5, 10.0, 10.5, 11.0, 12.0, 14.0, 16.0, 20.0, 24.0, 28.0)
LEAST = (1.0, 0.9, 0.8, LEAST_ABOUT_MEAN, 0.7, 0.6, 0.5, 0.0)
"""What counts at least of the share of energy about the mean, in the threshold of dims."""

SHARES = {"at most 1/4": 1 / 4, "at most 1/3, the rule": SHARE, "at most 1/2": 1 / 2}
"""Lines of the label of dimensional collapse: the rule's, a stricter one and a laxer one."""

FALLS = (None, 0.2, 0.25, 0.33, 0.4, 0.5, 0.6, 0.7)


BEARABLE = 1.0
"""False alarms in 20 healthy runs."""


@dataclass(frozen=True)
class Known:
    """A run and what is the case with it."""

    run: Run
    label: Label


@dataclass(frozen=True)
class Point:
    """How well a rule does.

    Attributes:
        rule: the rule.
        found: collapses of its kind that it tells in time.
        collapses: collapses of its kind that there are.
        false: healthy runs in which it tells one.
        healthy: healthy runs that there are.
    """

    rule: CollapseAlert
    found: int
    collapses: int
    false: int
    healthy: int

    @property
    def share(self) -> float:
        """The share found, 0 to 1; 1 where there is none to find."""
        return self.found / self.collapses if self.collapses else 1.0

    @property
    def in_twenty(self) -> float:
        """False alarms in 20 healthy runs; NaN where there is none."""
        return 20 * self.false / self.healthy if self.healthy else math.nan


def with_labels(runs: Sequence[Run], share: float = SHARE) -> list[Known]:
    """Return runs with what is the case with each; `share` is the rule's own, but to see what depends on it."""
    looks = {(run.case.name, run.seed): run.looks for run in runs}
    whole = (looks.get((run.case.intact, run.seed)) if run.case.intact != run.case.name else None for run in runs)
    return [Known(run, label(run.looks, intact, share)) for run, intact in zip(runs, whole, strict=True)]


def about_mean(runs: Iterable[Known], least: float) -> list[Known]:
    """Return runs of which as much of the effective dims as is about the mean is looked at, with the same labels."""
    return [Known(replay.about_mean(known.run, least), known.label) for known in runs]


def point(runs: Iterable[Known], rule: CollapseAlert) -> Point:
    """Return how well one rule does on runs."""
    verdicts = [verdict(known.run, known.label, [rule]) for known in runs]
    of_its_kind = labelled(verdicts, rule.kind)
    found = sum(v.found for v in of_its_kind)
    return Point(rule, found, len(of_its_kind), false_alarms(verdicts, rule.kind), healthy(verdicts))


def constants() -> list[CollapseAlert]:
    """Return rules of constant collapse, by threshold."""
    return [CollapseAlert(CONSTANT, threshold=threshold) for threshold in CONSTANTS]


def dims() -> list[CollapseAlert]:
    """Return rules of dimensional collapse, by threshold."""
    return [CollapseAlert(DIMENSIONAL, threshold=threshold) for threshold in DIMS]


def falls() -> list[CollapseAlert]:
    """Return rules of dimensional collapse at the default number of dims, by the share of the run's own level."""
    return [CollapseAlert(DIMENSIONAL, fall=fall) for fall in FALLS]


def best(points: Sequence[Point]) -> Point:
    """Return, of those with at most one false alarm in 20 healthy runs, the one that finds most; of equals the middle.

    Of equals those with fewest false alarms; if all have more than one in 20, these.
    """
    bearable = [p for p in points if p.in_twenty <= BEARABLE] or points
    score = [(p.share, -p.false) if p.in_twenty <= BEARABLE else (0.0, -p.false) for p in bearable]
    equals = [p for p, s in zip(bearable, score, strict=True) if s == max(score)]
    return equals[len(equals) // 2]


def chosen(runs: Sequence[Known]) -> list[CollapseAlert]:
    """Return the rules that do best on runs, of the sweeps over thresholds; the fall is left as it is."""
    constant, dimensional = (best([point(runs, rule) for rule in rules]).rule for rules in (constants(), dims()))
    return [constant, dimensional, CollapseAlert(NONFINITE)]


def defaults() -> list[CollapseAlert]:
    """Return the package's own rules, of the three kinds that a reading can tell."""
    return [rule for rule in CollapseAlert.defaults() if rule.kind in (CONSTANT, DIMENSIONAL, NONFINITE)]


def verdicts(runs: Iterable[Known], rules: Sequence[CollapseAlert]) -> list[Verdict]:
    """Return what rules say of runs."""
    return [verdict(known.run, known.label, rules) for known in runs]
