"""Plain and corrected readings over the number of rows, against the population's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks import page
from benchmarks.pairs import say
from benchmarks.paper import assumptions, populations
from benchmarks.paper.encoders import LOSSES, encoder
from benchmarks.paper.outcome import BLUE, ORANGE, WIDTH, Outcome, numbers, plain_axes
from benchmarks.paper.populations import METRICS, Reading, corrected, median, plain

DIMS = 128
RATIOS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Rows for each dimension."""

DRAWS = 20
MANY = 100_000
"""Rows that stand for an encoder's population: their plain W2 is within 0.001 of it."""

NEAR, DRIFT = 0.05, 0.10
"""What is to be reached from n = d/2 on: the distance to the population, and from there to 8 d the change."""

Draw = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Curve:
    """What samples of a population read.

    Attributes:
        name: of the population.
        truth: what is true of it.
        plain: by rows for each dimension, a reading for each draw.
        corrected: the same, corrected for sample size.
    """

    name: str
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


def measure(name: str, truth: Reading, draw: Draw, d: int, *, ratios: Sequence[float], draws: int) -> Curve:
    """Draw samples of all sizes, and read them."""
    say(f"{name}, d = {d}: {draws} draws")
    generator = torch.Generator().manual_seed(len(name))
    found: tuple[dict[float, list[Reading]], dict[float, list[Reading]]] = ({}, {})
    for ratio in ratios:
        samples = [draw(round(ratio * d), generator) for _ in range(draws)]
        for kept, read in zip(found, (plain, corrected), strict=True):
            kept[ratio] = [read(z) for z in samples]
    return Curve(name, truth, *found)


def synthetic(d: int, *, ratios: Sequence[float], draws: int) -> list[Curve]:
    """Return the curves of the populations whose truth is known."""
    curves = []
    for name, spectrum in populations.SPECTRA.items():
        variances = spectrum(d)
        draw = partial(populations.sample, variances)
        curves.append(measure(name, populations.true_reading(variances), draw, d, ratios=ratios, draws=draws))
    return curves


def trained(*, ratios: Sequence[float], draws: int, many: int, steps: int | None = None) -> list[Curve]:
    """Return the curves of the trained encoders; their population is a very large sample."""
    curves = []
    for name in LOSSES:
        _, draw = encoder(name) if steps is None else encoder(name, steps=steps)
        z = draw(many, torch.Generator().manual_seed(7))
        curves.append(measure(name, plain(z), draw, z.shape[1], ratios=ratios, draws=draws))
    return curves


def run(*, tiny: bool = False) -> Outcome:
    """Measure the curves, and where the assumptions end."""
    if tiny:
        curves = synthetic(32, ratios=RATIOS[2:], draws=2) + trained(ratios=RATIOS[2:], draws=2, many=2048, steps=2)
    else:
        curves = synthetic(DIMS, ratios=RATIOS, draws=DRAWS) + trained(ratios=RATIOS, draws=DRAWS, many=MANY)
    bounds = assumptions.measure(tiny=tiny)
    text = "\n\n".join(
        [_table(curves, "w2"), _table(curves, "dims"), _table(curves, "rankme"), _goals(curves), bounds.text]
    )
    rows = [
        (curve.name, ratio, of, field, *median(getattr(curve, of)[ratio], field), getattr(curve.truth, field))
        for curve in curves
        for ratio in curve.plain
        for of in ("plain", "corrected")
        for field in METRICS
    ]
    head = ["population", "n / d", "reading", "metric", "lower quartile", "median", "upper quartile", "truth"]
    figures = {f"sample_size_{field}": _figure(curves, field) for field in METRICS}
    return Outcome(text, figures | dict(bounds.figures), {"sample_size": numbers(head, rows)} | dict(bounds.tables))


def _table(curves: Sequence[Curve], field: str) -> str:
    digits = 3 if field == "w2" else 1
    ratios = [ratio for ratio in curves[0].plain if ratio in (1 / 4, 1 / 2, 1.0, 2.0, 8.0)]
    lines = []
    for curve in curves:
        cells = [
            " / ".join(f"{curve.median(field, ratio, of=of):.{digits}f}" for of in ("plain", "corrected"))
            for ratio in ratios
        ]
        lines.append([curve.name, *cells, f"{getattr(curve.truth, field):.{digits}f}"])
    return page.table(
        [f"{METRICS[field]}, plain / corrected", *(_named(ratio) for ratio in ratios), "population"], lines
    )


def _named(ratio: float) -> str:
    return f"n = d/{round(1 / ratio)}" if ratio < 1 else "n = d" if ratio == 1 else f"n = {ratio:g} d"


def _goals(curves: Sequence[Curve]) -> str:
    """The worst over populations and sizes from n = d/2 on, plain and corrected, each with where it is."""
    lines = []
    for field, name in METRICS.items():
        for of in ("plain", "corrected"):
            line = [f"{name}, {of}"]
            for some in ([c for c in curves if getattr(c.truth, field) > 1e-6], curves[:1]):
                if not some or (some == curves[:1] and field != "w2"):
                    line += ["", ""]
                    continue
                sizes = [ratio for ratio in some[0].plain if ratio >= 0.5]
                off, at, who = max((abs(c.off(field, r, of=of)), r, c.name) for c in some for r in sizes)
                moved, mover = max((abs(c.drift(field, of=of)), c.name) for c in some)
                unit = "{:.3f}" if some == curves[:1] else "{:.1%}"
                line += [f"{unit.format(off)} ({who}, {_named(at)})", f"{unit.format(moved)} ({mover})"]
            lines.append(line)
    head = [
        "",
        f"farthest from the population, n >= d/2 (goal {100 * NEAR:.0f} %)",
        f"drift d/2 to 8 d (goal {100 * DRIFT:.0f} %)",
        "isotropic, where W2 is 0: farthest",
        "isotropic: drift",
    ]
    return page.table(head, lines)


def _figure(curves: Sequence[Curve], field: str) -> Figure:
    figure, axes = plt.subplots(
        2, 5, figsize=(WIDTH * 1.25, 5.2), sharex=True, sharey=field == "w2", layout="constrained"
    )
    for axis, curve in zip(axes.flat, curves, strict=True):
        for of, colour, mark in (("plain", ORANGE, "s"), ("corrected", BLUE, "o")):
            readings = getattr(curve, of)
            quartiles = np.array([median(readings[ratio], field) for ratio in readings])
            axis.fill_between(list(readings), quartiles[:, 0], quartiles[:, 2], color=colour, alpha=0.25, lw=0)
            axis.plot(list(readings), quartiles[:, 1], mark + "-", ms=3.5, color=colour, label=of)
        axis.axhline(getattr(curve.truth, field), color="black", lw=1, ls="--", label="population")
        axis.set_title(curve.name, fontsize=10)
        axis.set_xscale("log", base=2)
        axis.set_xticks([1 / 8, 1 / 2, 2, 8], ["⅛", "½", "2", "8"])
        axis.set_ylim(bottom=0, top=1.45 if field == "w2" else None)
        plain_axes(axis)
    figure.supxlabel("rows for each dimension, n / d", fontsize=10)
    figure.supylabel(METRICS[field], fontsize=10)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure
