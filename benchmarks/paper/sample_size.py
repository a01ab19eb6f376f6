"""Plain and corrected readings over the number of rows, against the population's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks import page
from benchmarks.pairs import say
from benchmarks.paper import assumptions, goals, populations
from benchmarks.paper.encoders import LOSSES, encoder
from benchmarks.paper.goals import Curve, named
from benchmarks.paper.outcome import BLUE, ORANGE, WIDTH, Outcome, numbers, plain_axes
from benchmarks.paper.populations import METRICS, Reading, corrected, median, plain

DIMS = 128
RATIOS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Rows for each dimension."""

DRAWS = 30
MANY = 100_000
"""Rows that stand for an encoder's population."""

CHECKED, CHECKED_RATIOS, CHECKED_DRAWS = 384, (1 / 4, 1 / 2, 1.0, 2.0, 8.0), 10
"""Dimensions, sizes and draws of a second look at the populations that are known."""

Draw = Callable[[int, torch.Generator], Tensor]


def measure(name: str, truth: Reading, draw: Draw, d: int, *, ratios: Sequence[float], draws: int) -> Curve:
    """Draw samples of all sizes, and read them."""
    say(f"{name}, d = {d}: {draws} draws")
    generator = torch.Generator().manual_seed(0)
    found: tuple[dict[float, list[Reading]], dict[float, list[Reading]]] = ({}, {})
    for ratio in ratios:
        samples = [draw(round(ratio * d), generator) for _ in range(draws)]
        for kept, read in zip(found, (plain, corrected), strict=True):
            kept[ratio] = [read(z) for z in samples]
    return Curve(name, d, truth, *found)


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
        some = (1 / 4, 1 / 2, 1.0, 8.0)
        known, encoders = synthetic(64, ratios=some, draws=2), trained(ratios=some, draws=2, many=1024, steps=2)
        larger = synthetic(96, ratios=some, draws=2)
    else:
        known, encoders = synthetic(DIMS, ratios=RATIOS, draws=DRAWS), trained(ratios=RATIOS, draws=DRAWS, many=MANY)
        larger = synthetic(CHECKED, ratios=CHECKED_RATIOS, draws=CHECKED_DRAWS)
    bounds = assumptions.measure(tiny=tiny)
    curves = known + encoders
    reached = goals.table({"six spectra": known, "encoders": encoders, "six spectra, larger": larger})
    text = "\n\n".join([reached, *(_table(curves, field) for field in METRICS), bounds.text])
    rows = [
        (curve.name, curve.d, ratio, of, field, *median(getattr(curve, of)[ratio], field), getattr(curve.truth, field))
        for curve in curves + larger
        for ratio in curve.plain
        for of in ("plain", "corrected")
        for field in METRICS
    ]
    head = ["population", "d", "n / d", "reading", "metric", "lower quartile", "median", "upper quartile", "truth"]
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
        [f"{METRICS[field]}, plain / corrected", *(named(ratio) for ratio in ratios), "population"], lines
    )


def _figure(curves: Sequence[Curve], field: str) -> Figure:
    figure, axes = plt.subplots(2, 5, figsize=(WIDTH, 4.6), sharex=True, sharey=field == "w2", layout="constrained")
    for axis, curve in zip(axes.flat, curves, strict=True):
        for of, colour, mark in (("plain", ORANGE, "s"), ("corrected", BLUE, "o")):
            readings = getattr(curve, of)
            quartiles = np.array([median(readings[ratio], field) for ratio in readings])
            axis.fill_between(list(readings), quartiles[:, 0], quartiles[:, 2], color=colour, alpha=0.25, lw=0)
            axis.plot(list(readings), quartiles[:, 1], mark + "-", ms=3.5, color=colour, label=of)
        truth = getattr(curve.truth, field)
        axis.axhline(truth, color="black", lw=1, ls="--", label="population")
        axis.set_title(re.sub(r"\^([-/\d]+)", r"$^{\1}$", curve.name), fontsize=9)
        axis.set_xscale("log", base=2)
        axis.set_xticks([1 / 8, 1 / 2, 2, 8], ["1/8", "1/2", "2", "8"])
        axis.tick_params(labelsize=8)
        highest = max(1.25 * truth, 1.05 * median(curve.corrected[min(curve.corrected)], field)[2])
        axis.set_ylim(*(-0.06, 1.45) if field == "w2" else (0.0, highest))
        plain_axes(axis)
    figure.supxlabel("rows for each dimension, n / d", fontsize=10)
    figure.supylabel(METRICS[field], fontsize=10)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure
