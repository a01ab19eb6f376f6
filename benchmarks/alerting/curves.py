"""The figure of docs/alert_benchmark.md: where runs of each kind lie, and what thresholds make of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

from benchmarks.alerting import baselines, sweep
from benchmarks.alerting.cases import CONSTANT, DIMENSIONAL, HEALTHY, LOW
from benchmarks.alerting.sweep import Known, Point
from uniformity_callbacks import CollapseAlert, baseline
from uniformity_callbacks.panel import Reading
from uniformity_callbacks.rules import (
    CONSTANT_THRESHOLD,
    DIMENSIONAL_THRESHOLD,
    LEAST_ABOUT_MEAN,
    PATIENCE,
    WARMUP_STEPS,
)

COLOURS = {HEALTHY: "#1b7837", DIMENSIONAL: "#e08214", CONSTANT: "#c1272d", None: "#888888"}
"""Healthy by construction; or what a run with a fault turned out to be, grey if nothing."""

NAMES = {
    HEALTHY: "healthy",
    DIMENSIONAL: "faulty, dimensional collapse",
    CONSTANT: "faulty, constant collapse",
    None: "faulty, no collapse",
}


LABELLED = (3.0, 5.0, 7.0, 9.0, 10.0, 12.0, 16.0, 24.0)
"""Thresholds in dims that are written beside their points, as all shares are."""

MOST_FALSE = 4.0
"""False alarms in 20 healthy runs, beyond which nobody would go."""


def draw(runs: Sequence[Known], path: Path) -> None:
    """Draw all panels into a PNG."""
    runs = [one for one in runs if not one.run.case.spoilt]
    figure, axes = plt.subplots(1, 3, figsize=(15, 5.6), layout="constrained", width_ratios=(1, 1, 0.9))
    _strip(axes[0], sweep.about_mean(runs, LEAST_ABOUT_MEAN), "effective_dims", lowest=True)
    axes[0].axvline(DIMENSIONAL_THRESHOLD, color="black", lw=0.9, ls="--")
    axes[0].set(
        xscale="log",
        title="Fewest effective dims held for three readings",
        xlabel="dims, times 1 - R² (0.75 at least)",
    )
    axes[0].set_xticks([2, 4, 8, 16, 32, 64], [2, 4, 8, 16, 32, 64], minor=False)
    axes[0].minorticks_off()
    _strip(axes[1], runs, "mean_resultant", lowest=False)
    axes[1].axvline(CONSTANT_THRESHOLD, color="black", lw=0.9, ls="--")
    axes[1].set(title="Highest mean resultant held for three readings", xlabel="mean resultant length")
    axes[1].set_yticklabels([])
    _trade(axes[2], runs)
    marks = [Line2D([], [], ls="", marker="o", ms=6, color=colour) for colour in COLOURS.values()]
    marks.append(Line2D([], [], color="black", lw=0.9, ls="--"))
    figure.legend(marks, [*NAMES.values(), "the default"], loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def held(readings: Sequence[Reading], metric: str, *, lowest: bool) -> float:
    """Return the threshold at which a rule of the default patience would just tell, after the warm-up; NaN if none."""
    sign = 1 if lowest else -1
    values = [sign * r.values.get(metric, math.nan) for r in readings if r.step >= WARMUP_STEPS]
    return sign * baseline.held([value for value in values if not math.isnan(value)], PATIENCE[DIMENSIONAL])


def _strip(axis: Any, runs: Sequence[Known], metric: str, *, lowest: bool) -> None:
    groups = list(dict.fromkeys((one.run.case.name, one.run.case.title) for one in runs))
    for row, (name, _) in enumerate(groups):
        same = [one for one in runs if one.run.case.name == name]
        for k, one in enumerate(same):
            healthy = one.run.case.expected == HEALTHY
            colour = COLOURS[HEALTHY if healthy else one.label.kind]
            y = row + 0.3 * (k / max(len(same) - 1, 1) - 0.5)
            axis.plot(held(one.run.readings, metric, lowest=lowest), y, "o", color=colour, ms=4, alpha=0.8)
    axis.set_yticks(range(len(groups)), [title for _, title in groups], fontsize=8)
    axis.set_ylim(len(groups) - 0.4, -0.6)
    axis.grid(alpha=0.2)
    axis.spines[["top", "right"]].set_visible(False)


def _trade(axis: Any, runs: Sequence[Known]) -> None:
    """Draw dimensional collapses found over false alarms, along the threshold: absolute ones and a healthy run's."""
    usual = sweep.about_mean(runs, LEAST_ABOUT_MEAN)
    lines: dict[str, tuple[dict[float, Point], str, str, tuple[int, int]]] = {
        "effective dims": ({t: sweep.point(runs, _at(t)) for t in sweep.DIMS}, "#2166ac", "o", (5, -11)),
        "times 1 - R², as by default": ({t: sweep.point(usual, _at(t)) for t in sweep.DIMS}, "#762a83", "^", (-5, 5)),
        "share of a healthy run's, at half its rate": (
            {share: baselines.points(runs, runs, LOW, share) for share in baselines.SHARES},
            "#1b7837",
            "s",
            (5, 5),
        ),
    }
    for name, (points, colour, mark, place) in lines.items():
        x, y = [p.in_twenty for p in points.values()], [100 * p.share for p in points.values()]
        axis.plot(x, y, mark + "-", color=colour, ms=4.5, lw=1.2, label=name)
        for threshold, p in points.items():
            if (threshold in LABELLED and p.share < 1) or (threshold < 1 and p.in_twenty <= MOST_FALSE):
                at = (p.in_twenty, 100 * p.share)
                style = {"fontsize": 8, "color": colour, "ha": "left" if place[0] > 0 else "right"}
                axis.annotate(f"{threshold:g}", at, textcoords="offset points", xytext=place, **style)
    axis.axhline(90, color="grey", lw=0.8, ls=":")
    axis.axvline(1, color="grey", lw=0.8, ls=":")
    axis.set(
        title="Dimensional, along the threshold",
        xlabel="false alarms in 20 healthy runs (at most 1)",
        ylabel="told in time, % (at least 90)",
        xlim=(-0.5, MOST_FALSE + 0.3),
        ylim=(0, 106),
    )
    axis.legend(loc="center right", frameon=False, fontsize=9)
    axis.grid(alpha=0.2)
    axis.spines[["top", "right"]].set_visible(False)


def _at(threshold: float) -> CollapseAlert:
    return CollapseAlert(DIMENSIONAL, threshold=threshold)
