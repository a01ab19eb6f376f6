"""The figure of the methods: paired differences with intervals, a row for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

Interval = tuple[float, float, float]
"""Mean, low, high."""

COLOURS = ("#b35806", "#2166ac")
MARKS = ("s", "o")

WIDE = 3.0
"""A row whose difference is this many times all others' would flatten them: the axis leaves it outside, in words."""


@dataclass(frozen=True)
class Panel:
    """A measure: its name, the rows' names, and for each loss an interval a row."""

    title: str
    rows: Sequence[str]
    series: Mapping[str, Sequence[Interval]]


def draw(panels: Sequence[Panel]) -> Figure:
    """Draw all panels side by side."""
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 4.4), sharey=True, layout="constrained")
    for axis, panel in zip(axes, panels, strict=True):
        outside = _outside(panel)
        inner = [
            bound
            for intervals in panel.series.values()
            for k, interval in enumerate(intervals)
            if k not in outside
            for bound in interval
        ]
        low, high = min(0.0, *inner), max(0.0, *inner)
        margin = 0.08 * (high - low or 1.0)
        axis.set_xlim(low - margin, high + margin)
        axis.axvline(0, color="grey", lw=0.8)
        for j, (name, intervals) in enumerate(panel.series.items()):
            for k, (mean, least, most) in enumerate(intervals):
                y = k + 0.17 * (2 * j - 1)
                if k in outside:
                    side, where = ("right", 0.98) if mean > 0 else ("left", 0.02)
                    axis.text(
                        where,
                        y,
                        f"{mean:+.3g} ({least:+.3g} to {most:+.3g})",
                        transform=axis.get_yaxis_transform(),
                        ha=side,
                        va="center",
                        fontsize=7.5,
                        color=COLOURS[j],
                    )
                    continue
                axis.plot([least, most], [y, y], color=COLOURS[j], lw=1.6)
                axis.plot(mean, y, MARKS[j], color=COLOURS[j], ms=5, label=name if k == 0 else None)
        axis.set_title(panel.title, fontsize=10)
        axis.set_xlabel("difference to the run without", fontsize=9)
        axis.grid(axis="x", alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(panels[0].rows)), panels[0].rows)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, [f"with {label}" for label in labels], loc="outside lower center", ncols=2, frameon=False)
    return figure


def _outside(panel: Panel) -> set[int]:
    """Return the rows whose differences are far larger than those of all others."""
    reach = [max(abs(i[1]) + abs(i[2]) for i in row) for row in zip(*panel.series.values(), strict=True)]
    largest = max(range(len(reach)), key=lambda k: reach[k])
    others = max((r for k, r in enumerate(reach) if k != largest), default=0.0)
    return {largest} if others and reach[largest] > WIDE * others else set()
