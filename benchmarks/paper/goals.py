"""How far readings are from their population, and how far they drift with the number of rows: goals and what is met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks import page
from benchmarks.paper.populations import METRICS, Reading, median

NEAR, DRIFT = 0.05, 0.10
"""What is to be reached from n = d/2 on: the distance to the population, and from there to 8 d the change."""

_ZERO = 1e-6
"""W2 up to which it is 0 but for round-off: nothing can be told as a share of it."""


@dataclass(frozen=True)
class Curve:
    """What samples of a population read.

    Attributes:
        name: of the population.
        d: dimensions.
        truth: what is true of it.
        plain: by rows for each dimension, a reading for each draw.
        corrected: the same, corrected for sample size.
    """

    name: str
    d: int
    truth: Reading
    plain: Mapping[float, list[Reading]]
    corrected: Mapping[float, list[Reading]]

    def off(self, field: str, ratio: float, *, of: str = "corrected") -> float:
        """Return how far the median is from the truth, as a share of it; W2 of 0 as it is."""
        truth: float = getattr(self.truth, field)
        return (self.median(field, ratio, of=of) - truth) / (truth if truth > 1e-6 else 1.0)

    def median(self, field: str, ratio: float, *, of: str = "corrected") -> float:
        """Return the median of the draws."""
        return median(getattr(self, of)[ratio], field)[1]

    def drift(self, field: str, *, of: str = "corrected") -> float:
        """Return how far the median moves from n = d/2 to 8 d, as a share of the truth; W2 of 0 as it is."""
        return self.off(field, 8.0, of=of) - self.off(field, 0.5, of=of)

    def is_ideal(self, field: str) -> bool:
        """Return whether a metric is 0 in truth."""
        return bool(getattr(self.truth, field) <= _ZERO)

    def near(self, field: str, ratio: float, *, of: str) -> float:
        """Return the share of single draws that are as near as medians are to be."""
        truth: float = getattr(self.truth, field)
        held = [bool(abs(getattr(x, field) - truth) <= NEAR * truth) for x in getattr(self, of)[ratio]]
        return sum(held) / len(held)


def table(groups: Mapping[str, Sequence[Curve]]) -> str:
    """Return the worst over each group's populations and sizes, plain and corrected, each with where it is."""
    lines = []
    for field, name in METRICS.items():
        for group, curves in groups.items():
            for of in ("plain", "corrected"):
                some = [curve for curve in curves if not curve.is_ideal(field)]
                near, ratio, who = min((c.near(field, r, of=of), r, c.name) for c in some for r in _sizes(c))
                single = f"{near:.0%}".replace("%", " %")
                if 0.0 < near < 1.0:  # else it is so in more places than one
                    single += f" ({who}, {named(ratio)})"
                lines.append(
                    [f"{name}, {of}", f"{group}, d = {curves[0].d}", *_line(some, field, of, "{:.1%}"), single]
                )
    for curves in groups.values():
        ideal = [curve for curve in curves if curve.is_ideal("w2")]
        for of in ("plain", "corrected") if ideal else ():
            where = f"isotropic, truly 0, d = {curves[0].d}"
            lines.append([f"W2, {of}", where, *_line(ideal, "w2", of, "{:.3f}"), ""])
    head = [
        "median of the draws",
        "of",
        "n = d/4, off by at most",
        f"n from d/2 on, off by at most (goal {100 * NEAR:.0f} %)",
        f"drift from d/2 to 8 d (goal {100 * DRIFT:.0f} %)",
        f"n from d/2 on, single samples within {100 * NEAR:.0f} %, at least",
    ]
    return page.table(head, lines)


def named(ratio: float) -> str:
    """Return rows for each dimension in words."""
    return f"n = d/{round(1 / ratio)}" if ratio < 1 else "n = d" if ratio == 1 else f"n = {ratio:g} d"


def _sizes(curve: Curve) -> list[float]:
    return [ratio for ratio in curve.plain if ratio >= 0.5]


def _line(curves: Sequence[Curve], field: str, of: str, form: str) -> list[str]:
    few, who = max((abs(curve.off(field, 0.25, of=of)), curve.name) for curve in curves)
    off, at, whose = max(
        (abs(curve.off(field, ratio, of=of)), ratio, curve.name) for curve in curves for ratio in _sizes(curve)
    )
    moved, mover = max((abs(curve.drift(field, of=of)), curve.name) for curve in curves)
    values = [form.format(x).replace("%", " %") for x in (few, off, moved)]
    return [f"{x} ({place})" for x, place in zip(values, (who, f"{whose}, {named(at)}", mover), strict=True)]
