"""What counts as collapse: the kinds of alerts, their thresholds and where these come from."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, get_args

from uniformity_callbacks.panel import Reading

if TYPE_CHECKING:
    from uniformity_callbacks.alerts import Alert

Kind = Literal["constant", "dimensional", "nonfinite", "blind"]
NamedAction = Literal["warn", "stop", "raise"]
Action = NamedAction | Callable[["Alert"], object]

CONSTANT_THRESHOLD = 0.95
"""Mean resultant length at which outputs count as one point: a mean cosine of 0.90 and a std ratio of about 0.31, where
lightly's documentation draws its line for collapse (0.30)."""

DIMENSIONAL_THRESHOLD = 9.0
"""Effective dims, corrected, at which outputs of mean zero count as dimensionally collapsed. Healthy runs go low:
SimSiam on digits keeps 10 to 12 of 128 in one set-up (28 to 34 in another), published BYOL 18 of 256; Barlow Twins
without its off-diagonal term falls to 5 of 128."""

LEAST_ABOUT_MEAN = 0.75
"""Where outputs share a mean, the directions about it have only 1 - R² of the energy, R the mean resultant length: the
default threshold is divided by that, but by no less than this, which makes it 12 dims at most. On digits, in 128 dims,
BYOL at ten times its rate is told by it (9 to 11 dims, R 0.44), while healthy MoCo v2 is not (9.5 to 13, R 0.03), nor
Barlow Twins with a tenth of its off-diagonal weight (13 to 18, R 0.7, the accuracy of the whole one)."""

CAPACITY_SHARE = 0.25
"""Effective dims count as few only below this share of what the sample can show, min(n - 1, d): 9 of 16 is no collapse,
and a small batch cannot show many more dimensions than it has rows."""

FALL = 0.33
"""Share of the run's own level at which a fall of the effective dims is an alert, wherever it ends: a level of the
run's own says more than any absolute number. Healthy runs on digits keep at least 0.86 of what they held since the end
of their warm-up (600 steps of Barlow Twins, SimCLR, VICReg, SimSiam and BYOL, three seeds each; measured); published
runs are longer, hence the margin."""

NONFINITE_THRESHOLD = 1.0
"""Rows of a reading that are NaN or infinite: none is healthy; the patience forgives a single bad batch."""

HYSTERESIS: dict[Kind, float] = {"constant": 1.0, "dimensional": 0.25}
"""How far past its threshold a metric must come back for a recovery, as a share of the threshold's distance from total
collapse: 0.90 for a mean resultant length of 0.95, 11.25 for 9 dims; but never more than halfway from the threshold to
the ideal (0, or d), or a strict threshold could not be recovered from. A run that hovers at the line is one alert, not
many, and a loss that is on while an alert stands gets time to work."""

WARMUP_STEPS = 100
"""Steps before which readings of collapse do not count: outputs are close to one point at initialisation, and dims fall
from their start in healthy runs as well. NaN and blindness have no warm-up: they are never healthy."""

PATIENCE: dict[Kind, int] = {"constant": 3, "dimensional": 3, "nonfinite": 3, "blind": 2}
"""Readings in a row that must agree: one batch can be odd. Blindness is to be told within two intervals."""

METRIC: dict[Kind, str] = {
    "constant": "mean_resultant",
    "dimensional": "effective_dims",
    "nonfinite": "nonfinite",
    "blind": "captured",
}
"""The metric that each kind watches; of blindness, whether a due step captured anything, 0 or 1."""

NEEDS: dict[Kind, tuple[str, ...]] = {
    "constant": ("mean_resultant", "w2"),
    "dimensional": ("effective_dims", "mean_resultant", "std_ratio", "w2"),
    "nonfinite": (),
    "blind": (),
}
"""Metrics that each kind reads; they are computed even where ``metrics`` does not name them."""

COLLAPSE: tuple[Kind, ...] = ("constant", "dimensional")
"""Kinds that the Wasserstein loss mends."""

_THRESHOLDS: dict[Kind, float] = {
    "constant": CONSTANT_THRESHOLD,
    "dimensional": DIMENSIONAL_THRESHOLD,
    "nonfinite": NONFINITE_THRESHOLD,
    "blind": 0.0,
}


@dataclass(frozen=True)
class CollapseAlert:
    """A rule: what to look for, when to say that it is there, what to do then.

    Args:
        kind: "constant" (all outputs nearly one point: mean resultant length at or above the threshold), "dimensional"
            (outputs use few dimensions: corrected effective dims at or below it, or a fall to a share of the run's own
            level after the warm-up; not judged while the outputs are nearly one point, where they mean nothing),
            "nonfinite" (as many rows are NaN or infinite), or "blind" (due steps without anything to read).
        threshold: None for the default: 0.95 of [0, 1]; 9 / (1 - R²) dims for a mean resultant length R, at most 12,
            never more than a quarter of min(rows - 1, d); 1 row. Blindness has none.
        fall: dimensional only: the share of the level that the run held after its warm-up; None looks at the threshold
            alone.
        patience: readings in a row that must agree, >= 1; as many must be clear of it for a recovery. None for 3, and 2
            for blindness.
        warmup_steps: readings before this step do not count. None for 100, and 0 for nonfinite and blind.
        hysteresis: how far past the threshold a recovery is, as a share of the distance between threshold and total
            collapse (1 for constant, 0 for dimensional), at most halfway to the ideal. None for 1.0 (0.90 at a
            threshold of 0.95) and 0.25 (11.25 dims at 9); the other kinds have none.
        action: "warn" (say it, go on), "stop" (say it and end training at the next due step), "raise" (say it and raise
            `CollapseError` there), or a function of the `Alert`, called on the training thread.

    Raises:
        ValueError: an argument is out of its range, or is for another kind.
        TypeError: threshold, fall or hysteresis is no number.

    Example:
        >>> CollapseAlert("dimensional", threshold=16, action="stop").patience
        3
    """

    kind: Kind
    _: KW_ONLY
    threshold: float | None = None
    fall: float | None = FALL
    patience: int | None = None
    warmup_steps: int | None = None
    hysteresis: float | None = None
    action: Action = "warn"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if not callable(self.action) and self.action not in get_args(NamedAction):
            names = ", ".join(get_args(NamedAction))
            raise ValueError(f"action must be one of {names} or a function of the alert, got {self.action!r}")
        for name in ("threshold", "fall", "hysteresis"):
            if isinstance(number := getattr(self, name), bool) or not isinstance(number, Real | None):
                raise TypeError(f"{name} must be a number or None, got {number!r}")
        if self.threshold is not None:
            self._check_threshold(self.threshold)
            object.__setattr__(self, "threshold", float(self.threshold))  # frozen; the journal takes no NumPy number
        if self.fall is not None and not 0 < self.fall < 1:
            raise ValueError(f"fall must be a share in (0, 1) or None, got {self.fall!r}")
        if self.kind != "dimensional" and self.fall not in (FALL, None):
            raise ValueError(f"fall is for dimensional alerts, got {self.fall!r} for {self.kind}; leave it out")
        if self.hysteresis is not None:
            self._check_hysteresis(self.hysteresis)
        defaults = {"patience": PATIENCE[self.kind], "hysteresis": HYSTERESIS.get(self.kind)}
        defaults["warmup_steps"] = WARMUP_STEPS if self.kind in COLLAPSE else 0
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name, whole, least in (("patience", self.patience, 1), ("warmup_steps", self.warmup_steps, 0)):
            if isinstance(whole, bool) or not isinstance(whole, int) or whole < least:
                raise ValueError(f"{name} must be an integer >= {least} or None for the default, got {whole!r}")

    @classmethod
    def defaults(cls, action: Action = "warn") -> list[CollapseAlert]:
        """Return the rules that ``alerts="warn"`` (or another action) means: one of each kind.

        Blindness is the monitor's own failure and only warns: it is no reason to end a run.
        """
        return [cls(kind, action="warn" if kind == "blind" else action) for kind in get_args(Kind)]

    @property
    def count(self) -> int:
        """The patience in force."""
        assert self.patience is not None, "set by __post_init__"
        return self.patience

    @property
    def begins(self) -> int:
        """The first step that counts."""
        assert self.warmup_steps is not None, "set by __post_init__"
        return self.warmup_steps

    @property
    def action_name(self) -> str:
        """The action in a word: a function's name for a function."""
        action: Any = self.action
        return action if isinstance(action, str) else getattr(action, "__name__", type(action).__name__)

    def value(self, reading: Reading) -> float | None:
        """Return what is watched in a reading; None where it cannot tell."""
        blind = reading.dims == 0
        if self.kind == "blind":
            return float(not blind)
        value = reading.values.get(METRIC[self.kind], math.nan)
        return None if blind or math.isnan(value) else value

    def limit(self, reading: Reading, level: float | None = None) -> float:
        """Return the threshold in force for a reading, given the level of effective dims that the run has held."""
        threshold = _THRESHOLDS[self.kind] if self.threshold is None else self.threshold
        if self.kind != "dimensional":
            return threshold
        if self.threshold is None:
            about_mean = 1.0 - reading.values.get("mean_resultant", 0.0) ** 2
            threshold /= max(LEAST_ABOUT_MEAN, about_mean)
            threshold = min(threshold, CAPACITY_SHARE * min(reading.values["samples"] - 1, reading.dims))
        return threshold if level is None or self.fall is None else max(threshold, self.fall * level)

    def collapsed(self, value: float, limit: float) -> bool:
        """Return whether a value is at the threshold or on its wrong side."""
        return value <= limit if self.kind in ("dimensional", "blind") else value >= limit

    def recovered(self, value: float, limit: float, dims: int) -> bool:
        """Return whether a value is clear of the threshold by the hysteresis."""
        line = self.recovery(limit, dims)
        return value > line if self.kind in ("dimensional", "blind") else value < line

    def recovery(self, limit: float, dims: int) -> float:
        """Return the value that a recovery must pass, where outputs have ``dims`` dimensions."""
        if self.hysteresis is None:
            return limit
        if self.kind == "constant":
            return max(1.0 - (1.0 + self.hysteresis) * (1.0 - limit), limit / 2.0)
        return min(limit * (1.0 + self.hysteresis), (limit + dims) / 2.0)

    def _check_hysteresis(self, hysteresis: float) -> None:
        if self.kind not in HYSTERESIS:
            raise ValueError(f"hysteresis is for {' and '.join(HYSTERESIS)} alerts, got {hysteresis!r} for {self.kind}")
        if not 0 <= hysteresis <= sys.float_info.max:
            raise ValueError(f"hysteresis must be >= 0 or None for the default, got {hysteresis!r}")

    def _check_threshold(self, threshold: float) -> None:
        if self.kind == "blind":
            raise ValueError(f"threshold is not for blind alerts, got {threshold!r}; leave it out and set patience")
        if not 0 < threshold <= sys.float_info.max:  # an integer may be beyond what is a float
            raise ValueError(f"threshold must be a positive number or None for the default, got {threshold!r}")
        if self.kind == "constant" and threshold > 1:
            raise ValueError(f"threshold of a constant alert is a mean resultant length in (0, 1], got {threshold}")
