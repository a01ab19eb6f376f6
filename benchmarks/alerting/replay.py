"""Readings through the package's own rules, for any thresholds, without training again; and how right that was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.alerting.cases import CONSTANT, DIMENSIONAL, EVERY, HEALTHY, NONFINITE
from benchmarks.alerting.record import Run
from benchmarks.alerting.truth import Label
from uniformity_callbacks.alerts import Alert, AlertBook
from uniformity_callbacks.panel import Reading
from uniformity_callbacks.rules import PATIENCE, WARMUP_STEPS, CollapseAlert, Kind

KINDS: tuple[Kind, ...] = (CONSTANT, DIMENSIONAL, NONFINITE)

GRACE = 2
"""Readings beyond the patience within which a collapse is to be told."""


@dataclass(frozen=True)
class Told:
    """An alert, and the step at which it was over, or None."""

    alert: Alert
    over: int | None


@dataclass(frozen=True)
class Verdict:
    """What the rules said of a run whose label is known.

    Attributes:
        run: the run.
        label: what is the case with it.
        told: all alerts that were raised.
        begins: the first step from which the rule of the label's kind counts readings.
        patience: of that rule.
    """

    run: Run
    label: Label
    told: Sequence[Told]
    begins: int
    patience: int

    @property
    def first(self) -> Alert | None:
        """The first alert of the label's kind that stands at the onset or comes after it, if there is one."""
        onset = self.label.onset
        mine = (told for told in self.told if told.alert.kind == self.label.kind and onset is not None)
        return next((told.alert for told in mine if told.over is None or told.over > (onset or 0)), None)

    @property
    def delay(self) -> int | None:
        """Readings from the onset, or from where the rule begins to count if that is later, to the alert that tells it.

        1 for the very reading of the onset; 0 or less where it was told before the onset; None where it is not told.
        """
        if self.first is None or self.label.onset is None:
            return None
        return (self.first.step - max(self.label.onset, self.begins)) // EVERY + 1

    @property
    def found(self) -> bool:
        """Whether the collapse was told within the patience and two readings."""
        return self.delay is not None and self.delay <= self.patience + GRACE

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that were told, in their order."""
        return tuple(dict.fromkeys(told.alert.kind for told in self.told))


def told_of(readings: Sequence[Reading], rules: Sequence[CollapseAlert]) -> list[Told]:
    """Return the alerts that a monitor with these rules raises of these readings."""
    book = AlertBook(list(rules))
    said = [alert for reading in readings for alert in book.update(reading)]
    ends = [alert for alert in said if alert.recovered]
    return [
        Told(alert, next((end.step for end in ends if end.kind == alert.kind and end.step > alert.step), None))
        for alert in said
        if not alert.recovered
    ]


def about_mean(run: Run, least: float = 0.0) -> Run:
    """Return a run whose effective dims are multiplied by the share of the energy about the mean, 1 - R².

    The share is taken for ``least`` at least: 1 leaves effective dims as they are, 0 has the dims that W2 sees,
    `d (1 - W2^2 / 2)^2 = (tr S^(1/2))^2`. A threshold here is one of effective dims that is divided by the share.
    """

    def less(reading: Reading) -> Reading:
        values = reading.values
        if not {"mean_resultant", "effective_dims"} <= values.keys():
            return reading
        share = max(least, 1 - values["mean_resultant"] ** 2)
        return replace(reading, values=values | {"effective_dims": share * values["effective_dims"]})

    return replace(run, readings=[less(reading) for reading in run.readings])


def verdict(run: Run, label: Label, rules: Sequence[CollapseAlert]) -> Verdict:
    """Return what the rules say of a run."""
    rule = next((rule for rule in rules if rule.kind == label.kind), None)
    begins, patience = (rule.begins, rule.count) if rule else (WARMUP_STEPS, PATIENCE[CONSTANT])
    return Verdict(run, label, told_of(run.readings, rules), begins, patience)


def false_alarms(verdicts: Sequence[Verdict], kind: str) -> int:
    """Return the number of healthy runs in which a kind was told."""
    return sum(kind in v.kinds for v in verdicts if v.run.case.expected == HEALTHY)


def healthy(verdicts: Sequence[Verdict]) -> int:
    """Return the number of healthy runs."""
    return sum(v.run.case.expected == HEALTHY for v in verdicts)


def labelled(verdicts: Sequence[Verdict], kind: str) -> list[Verdict]:
    """Return those that collapse in a kind, by the label, and are not among the healthy."""
    return [v for v in verdicts if v.label.kind == kind and v.run.case.expected != HEALTHY]
