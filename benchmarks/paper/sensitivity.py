"""What W2 and Wang-Isola's uniformity tell of a collapse: over its degree, over the dimensions, over large means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from scipy.special import hyp0f1
from torch import Tensor

from benchmarks import page
from benchmarks.pairs import say
from benchmarks.paper.outcome import BLUE, GREEN, ORANGE, PINK, WIDTH, Outcome, numbers, plain_axes
from uniformity_callbacks import functional

ROWS = 20_000
DIMS = (200, 500, 1000)
DEGREES = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 100)
OVER_DIMS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
FIXED = (0, 25, 50, 75)
MEANS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)

ENDS = {"W2": (0.0, math.sqrt(2.0)), "L_U": (-4.0, 0.0)}
"""Value at the ideal in many dimensions, and where all rows are one point."""

COLOURS = (BLUE, ORANGE, GREEN, PINK)


@dataclass(frozen=True)
class Point:
    """What is read of rows.

    Attributes:
        d: dimensions.
        degree: percent of them that are zeroed; at 100 one is left, since rows of zeros have no direction.
        w2: W2.
        lu: Wang-Isola's uniformity.
    """

    d: int
    degree: int
    w2: float
    lu: float

    @classmethod
    def of(cls, rows: Tensor, degree: int) -> Point:
        """Zero the last dimensions of rows (n, d), and read."""
        d = rows.shape[1]
        kept = used(d, degree)
        z = rows.clone()
        z[:, kept:] = 0.0
        # Distances do not change where dimensions of zeros are left out, and are found sooner.
        lu = functional.wang_isola_uniformity(z[:, :kept]).item()
        return cls(d, degree, functional.wasserstein_uniformity(z).item(), lu)


def used(d: int, degree: int) -> int:
    """Return how many of d dimensions are left where ``degree`` percent are zeroed."""
    return max(1, d - round(d * degree / 100))


def true_w2(d: int, kept: int) -> float:
    """Return W2 of the uniform distribution on the sphere of ``kept`` of d dimensions."""
    return math.sqrt(2.0 - 2.0 * math.sqrt(kept / d))


def true_lu(kept: int, t: float = 2.0) -> float:
    """Return L_U of it: ``E exp(2 t cos)`` is a hypergeometric function of t^2; in one dimension rows are 1 or -1."""
    return -2.0 * t + math.log(float(hyp0f1(kept / 2.0, t * t)))


def rows_of(n: int, d: int, mean: float = 0.0) -> Tensor:
    """Return rows (n, d) of a Gaussian of variance 1, each feature of a mean; float32."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(d)) + mean


def run(*, tiny: bool = False) -> Outcome:
    """Measure all three."""
    n, dims, over = (500, (20, 50), (2, 16, 64)) if tiny else (ROWS, DIMS, OVER_DIMS)
    say(f"{n} rows, over degrees at d {dims}, and over d to {over[-1]}")
    by_degree = [Point.of(z, degree) for z in (rows_of(n, d) for d in dims) for degree in DEGREES]
    by_dims = [
        Point.of(z, degree) for z in (rows_of(n, d) for d in over) for degree in FIXED if z.shape[1] * degree % 100 == 0
    ]
    by_mean = [(mean, Point.of(rows_of(n, 2, mean), 0)) for mean in MEANS]
    text = f"{_degree_table(by_degree, dims)}\n\n{_dims_table(by_dims, over)}\n\n{_mean_table(by_mean)}"
    head = ["d", "zeroed, %", "W2", "L_U"]
    return Outcome(
        text,
        {
            "sensitivity_degree": _degree_figure(by_degree, dims),
            "sensitivity_dims": _dims_figure(by_dims),
            "sensitivity_mean": _mean_figure(by_mean, n),
        },
        {
            "sensitivity_degree": numbers(head, [(p.d, p.degree, p.w2, p.lu) for p in by_degree]),
            "sensitivity_dims": numbers(head, [(p.d, p.degree, p.w2, p.lu) for p in by_dims]),
            "sensitivity_mean": numbers(["mean", "W2", "L_U"], [(mean, p.w2, p.lu) for mean, p in by_mean]),
        },
    )


def _degree_table(points: Sequence[Point], dims: Sequence[int]) -> str:
    at = {(p.d, p.degree): p for p in points}
    degrees = (0, 50, 90, 99, 100)
    lines = []
    for d in dims:
        lines.append([f"W2, d = {d}", *(f"{at[d, k].w2:.3f}" for k in degrees)])
        lines.append([f"L_U, d = {d}", *(f"{at[d, k].lu:.3f}" for k in degrees)])
    return page.table(["zeroed", *(f"{k} %" for k in degrees)], lines)


def _dims_table(points: Sequence[Point], over: Sequence[int]) -> str:
    """The step from no dimension zeroed to half of them, as a share of each metric's way to collapse."""
    at = {(p.d, p.degree): p for p in points}
    w2 = [f"{100 * (at[d, 50].w2 - at[d, 0].w2) / ENDS['W2'][1]:.1f} %" for d in over]
    lu = [f"{100 * (at[d, 50].lu - at[d, 0].lu) / -ENDS['L_U'][0]:.2g} %" for d in over]
    return page.table(["half of d zeroed", *(f"d = {d}" for d in over)], [["W2 moves by", *w2], ["L_U moves by", *lu]])


def _mean_table(points: Sequence[tuple[float, Point]]) -> str:
    lines = [[name, *(f"{value:.3f}" for value in values)] for name, values in _by_metric(points).items()]
    return page.table(["mean", *(f"{mean:g}" for mean, _ in points)], lines)


def _by_metric(points: Sequence[tuple[float, Point]]) -> dict[str, list[float]]:
    return {"W2, d = 2": [p.w2 for _, p in points], "L_U, d = 2": [p.lu for _, p in points]}


def _degree_figure(points: Sequence[Point], dims: Sequence[int]) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.9), layout="constrained")
    for d, colour in zip(dims, COLOURS, strict=False):
        line = [p for p in points if p.d == d]
        degrees = [p.degree for p in line]
        left.plot(degrees, [p.w2 for p in line], "o-", ms=4, color=colour, label=f"d = {d}")
        right.plot(degrees, [p.lu for p in line], "o-", ms=4, color=colour)
    fine = [k / 200 for k in range(200)]
    left.plot([100 * x for x in fine], [true_w2(200, round(200 * (1 - x))) for x in fine], "--", color="black", lw=1)
    left.plot([], [], "--", color="black", lw=1, label="infinitely many rows")
    left.set(title="W2 rises from the first dimension lost", ylabel="W2", ylim=(-0.03, 1.45))
    right.set(title="$L_U$ hardly moves until few are left", ylabel="$L_U$", ylim=(-4.1, 0.1))
    _ends(left, right)
    for axis in (left, right):
        axis.set_xlabel("dimensions zeroed, %")
        plain_axes(axis)
    left.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.0, 0.93))
    return figure


def _dims_figure(points: Sequence[Point]) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.9), layout="constrained")
    for degree, colour in zip(FIXED, COLOURS, strict=True):
        line = [p for p in points if p.degree == degree]
        left.plot([p.d for p in line], [p.w2 for p in line], "o-", ms=4, color=colour, label=f"{degree} % zeroed")
        right.plot([p.d for p in line], [p.lu for p in line], "o-", ms=4, color=colour)
    left.set(title="W2 keeps the degrees apart at any d", ylabel="W2", ylim=(-0.03, 1.45))
    right.set(title="$L_U$ of all degrees meets as d grows", ylabel="$L_U$", ylim=(-4.1, 0.1))
    _ends(left, right)
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        ticks = [2, 8, 32, 128, 512, 2048]
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.set_xlabel("dimensions d")
        plain_axes(axis)
    left.legend(frameon=False, ncols=2, loc="upper left", bbox_to_anchor=(0.0, 0.93))
    return figure


def _ends(left: Axes, right: Axes) -> None:
    for axis, name in ((left, "W2"), (right, "L_U")):
        axis.axhline(ENDS[name][1], color="grey", lw=0.8, ls=":")
        axis.annotate(
            "one point",
            (0.02, ENDS[name][1]),
            (0, -3),
            ("axes fraction", "data"),
            "offset points",
            va="top",
            color="grey",
            fontsize=9,
        )


def _mean_figure(points: Sequence[tuple[float, Point]], n: int) -> Figure:
    figure = plt.figure(figsize=(WIDTH, 3.9), layout="constrained")
    grid = figure.add_gridspec(1, 2, width_ratios=(1.35, 1))
    curves, circles = (figure.add_subfigure(grid[k]) for k in range(2))
    axis = curves.subplots()
    means = [mean for mean, _ in points]
    ideal = true_lu(2)
    w2 = [p.w2 / ENDS["W2"][1] for _, p in points]
    lu = [(p.lu - ideal) / -ideal for _, p in points]
    axis.plot(means, w2, "o-", ms=4, color=BLUE, label="W2")
    axis.plot(means, lu, "s-", ms=4, color=ORANGE, label="$L_U$")
    axis.set_xscale("symlog", base=2, linthresh=0.25)
    axis.set_xticks(means, [f"{mean:g}" for mean in means])
    axis.set(
        title="Both see rows that draw together",
        xlabel="mean of each feature, standard deviations",
        ylabel="share of the way to one point",
        ylim=(-0.03, 1.05),
    )
    axis.legend(frameon=False)
    plain_axes(axis)
    for small, mean in zip(circles.subplots(2, 2).flat, (0.0, 1.0, 4.0, 32.0), strict=True):
        z = rows_of(n, 2, mean)[:300]
        z = z / z.norm(dim=1, keepdim=True)
        small.add_patch(Circle((0, 0), 1, fill=False, color="lightgrey"))
        small.plot(z[:, 0], z[:, 1], ".", color=BLUE, ms=4, alpha=0.5)
        small.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal")
        small.set_title(f"mean {mean:g}", fontsize=9)
        small.axis("off")
    return figure
