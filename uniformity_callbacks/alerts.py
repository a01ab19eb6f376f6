"""When a sequence of readings means collapse: plain logic, readings in, alerts out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from uniformity_callbacks.panel import Reading

Kind = Literal["constant", "dimensional"]
Action = Literal["warn", "stop"]

CONSTANT_THRESHOLD = 0.95
"""Mean resultant length at which outputs count as one point: a mean cosine of 0.90 and a std ratio of about 0.31, where
lightly's documentation draws its line for collapse (0.30)."""

DIMENSIONAL_THRESHOLD = 9.0
"""Effective dims at which outputs count as dimensionally collapsed. Healthy runs go low: SimSiam on digits keeps 10 to
12 of 128, published BYOL 18 of 256; Barlow Twins without its off-diagonal term falls to 6 to 8 of 128."""

CAPACITY_SHARE = 0.25
"""Effective dims count as few only below this share of what the sample can show, min(n - 1, d): 9 of 16 is no collapse,
and a small batch cannot show more dimensions than it has rows."""

WARMUP_STEPS = 100
"""Steps before which readings do not count: the first ones after initialisation and learning-rate warm-up."""

PATIENCE = 3
"""Readings in a row that must agree: one batch can be odd."""

NEEDS: dict[Kind, tuple[str, ...]] = {
    "constant": ("mean_resultant", "w2"),
    "dimensional": ("effective_dims", "mean_resultant", "std_ratio", "w2"),
}
"""Metrics that each kind of alert reads; they are computed even where ``metrics`` does not name them."""

_THRESHOLDS: dict[Kind, float] = {"constant": CONSTANT_THRESHOLD, "dimensional": DIMENSIONAL_THRESHOLD}
_METRIC: dict[Kind, str] = {"constant": "mean_resultant", "dimensional": "effective_dims"}


@dataclass(frozen=True)
class Alert:
    """A collapse that was found.

    Attributes:
        kind: "constant" or "dimensional".
        step: the reading that made it certain.
        since: the first reading of the unbroken row that agrees.
        readings: the watched metric in the last readings of that row, as many as the patience.
        threshold: what the readings were compared with.
        action: "warn" or "stop".
        layer: dotted path of the layer.
        message: all of it in words, and what people do about it.
    """

    kind: str
    step: int
    since: int
    readings: tuple[float, ...]
    threshold: float
    action: str
    layer: str
    message: str


@dataclass(frozen=True)
class CollapseAlert:
    """A rule: which collapse to look for, when to call it one, what to do then.

    Args:
        kind: "constant" (all outputs nearly one point: mean resultant length at or above the threshold) or
            "dimensional" (outputs use few dimensions: effective dims at or below it; not judged while the outputs are
            nearly one point, where effective dims mean nothing).
        threshold: None for the default: 0.95 of [0, 1], or 9 dims, never more than a quarter of min(rows - 1, d).
        patience: readings in a row that must agree, >= 1.
        warmup_steps: readings before this step do not count.
        action: "warn" (say it, go on) or "stop" (say it and end training at the next due step).

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> CollapseAlert("dimensional", threshold=16, action="stop").patience
        3
    """

    kind: Kind
    threshold: float | None = None
    patience: int = PATIENCE
    warmup_steps: int = WARMUP_STEPS
    action: Action = "warn"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if self.action not in get_args(Action):
            raise ValueError(f"action must be one of {', '.join(get_args(Action))}, got {self.action!r}")
        if self.threshold is not None and not (math.isfinite(self.threshold) and self.threshold > 0):
            raise ValueError(f"threshold must be a positive number or None for the default, got {self.threshold!r}")
        if self.kind == "constant" and self.threshold is not None and self.threshold > 1:
            raise ValueError(
                f"threshold of a constant alert is a mean resultant length in (0, 1], got {self.threshold}"
            )
        if self.patience < 1:
            raise ValueError(f"patience must be at least 1 reading, got {self.patience!r}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be >= 0, got {self.warmup_steps!r}")

    @classmethod
    def defaults(cls, action: Action = "warn") -> list[CollapseAlert]:
        """Return the rules that ``alerts="warn"`` (or ``"stop"``) means: one of each kind."""
        return [cls(kind, action=action) for kind in get_args(Kind)]

    def limit(self, reading: Reading) -> float:
        """Return the threshold in force for a reading, which for dimensions depends on what its sample can show."""
        threshold = _THRESHOLDS[self.kind] if self.threshold is None else self.threshold
        if self.kind == "dimensional" and self.threshold is None:
            threshold = min(threshold, CAPACITY_SHARE * min(reading.values["samples"] - 1, reading.dims))
        return threshold

    def agrees(self, reading: Reading) -> bool | None:
        """Return whether one reading looks collapsed; None where it cannot tell."""
        value = reading.values[_METRIC[self.kind]]
        if math.isnan(value):
            return None
        if self.kind == "constant":
            return value >= self.limit(reading)
        if reading.values["mean_resultant"] >= CONSTANT_THRESHOLD:
            return None
        return value <= self.limit(reading)


@dataclass(frozen=True)
class Watch:
    """What one rule remembers of one layer; `advance` is the pure function from reading to reading."""

    since: int | None = None
    recent: tuple[float, ...] = ()
    length: int = 0
    standing: bool = False

    def advance(self, rule: CollapseAlert, reading: Reading) -> tuple[Watch, Alert | None]:
        """Return the memory after a reading, and the alert if it is this reading that makes it certain."""
        if reading.step < rule.warmup_steps:
            return self, None
        agrees = rule.agrees(reading)
        if agrees is None:
            return self, None
        if not agrees:
            return Watch(), None
        recent = (*self.recent, reading.values[_METRIC[rule.kind]])[-rule.patience :]
        since = reading.step if self.since is None else self.since
        now = replace(self, since=since, recent=recent, length=self.length + 1)
        if self.standing or now.length < rule.patience:
            return now, None
        now = replace(now, standing=True)
        return now, _alert(rule, now, reading)


class AlertBook:
    """The rules of a run and what they remember of each layer.

    Args:
        rules: None, "warn", "stop", or a list of `CollapseAlert`.

    Raises:
        ValueError: rules is none of these, or names one kind twice.
    """

    def __init__(self, rules: str | Sequence[CollapseAlert] | None) -> None:
        self.rules = _rules(rules)
        self._watches: dict[tuple[str, str], Watch] = {}

    @property
    def needs(self) -> tuple[str, ...]:
        """Metrics that the rules read."""
        return tuple(dict.fromkeys(name for rule in self.rules for name in NEEDS[rule.kind]))

    def update(self, reading: Reading) -> list[Alert]:
        """Take in the next reading of its layer and return the alerts it raises."""
        alerts = []
        for rule in self.rules:
            key = (reading.layer, rule.kind)
            self._watches[key], alert = self._watches.get(key, Watch()).advance(rule, reading)
            if alert:
                alerts.append(alert)
        return alerts

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what is remembered as plain lists, dicts, numbers and strings."""
        return [
            {"layer": layer, "kind": kind, "since": w.since, "recent": list(w.recent), "length": w.length}
            | {"standing": w.standing}
            for (layer, kind), w in self._watches.items()
        ]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Take up what `state_dict` returned."""
        self._watches = {
            (s["layer"], s["kind"]): Watch(s["since"], tuple(s["recent"]), s["length"], s["standing"]) for s in state
        }


def _rules(rules: str | Sequence[CollapseAlert] | None) -> tuple[CollapseAlert, ...]:
    if rules is None:
        return ()
    for action in get_args(Action):
        if rules == action:
            return tuple(CollapseAlert.defaults(action))
    if isinstance(rules, str) or not all(isinstance(rule, CollapseAlert) for rule in rules):
        raise ValueError(f'alerts must be None, "warn", "stop" or a list of CollapseAlert, got {rules!r}')
    kinds = [rule.kind for rule in rules]
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"alerts must name each kind once, got {', '.join(kinds)}")
    return tuple(rules)


_MEANS: dict[Kind, str] = {
    "constant": "the outputs of {layer} are close to one point (mean resultant length 1 is one point)",
    "dimensional": "the outputs of {layer} use {value:.1f} of {d} dimensions; std_ratio, blind to it, reads "
    "{std_ratio:.2f}",
}
_MENDS: dict[Kind, str] = {
    "constant": "stop-gradient or a predictor on one branch, a momentum target, negatives, a lower learning rate",
    "dimensional": "a decorrelation term (Barlow Twins, VICReg), another projector, a lower learning rate",
}


def _alert(rule: CollapseAlert, watch: Watch, reading: Reading) -> Alert:
    values, limit, recent = reading.values, rule.limit(reading), watch.recent
    since = reading.step if watch.since is None else watch.since
    means = _MEANS[rule.kind].format(
        layer=reading.layer, value=recent[-1], d=reading.dims, std_ratio=values.get("std_ratio", math.nan)
    )
    lines = [
        f"{rule.kind} collapse at step {reading.step}, since step {since}",
        f"  seen:  {_METRIC[rule.kind]} {', '.join(f'{value:.4g}' for value in recent)}, threshold {limit:.3g}; "
        f"W2 {values['w2']:.3f} (0 is ideal, 1.414 one point)",
        f"  means: {means}",
        f"  mends: {_MENDS[rule.kind]};",
        "         or the Wasserstein loss, auxiliary=WassersteinLoss(weight=1.0)",
    ]
    if rule.action == "stop":
        lines.append("  training stops, as alerts asked")
    return Alert(rule.kind, reading.step, since, recent, limit, rule.action, reading.layer, "\n".join(lines))
