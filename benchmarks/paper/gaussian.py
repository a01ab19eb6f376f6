"""Why the ideal is N(0, I/d): the coordinates of the uniform sphere, one by one and in pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Circle
from numpy.random import Generator
from scipy import stats
from scipy.integrate import quad

from benchmarks import page
from benchmarks.pairs import Spread
from benchmarks.paper.outcome import BLUE, GREEN, GREY, ORANGE, WIDTH, Outcome, numbers, plain_axes

DIMS = (2, 4, 8, 16, 32, 64, 128, 256)
SHOWN = (2, 4, 8, 32)
ROWS, DRAWS = 200_000, 10
BINS = np.concatenate([[-np.inf], np.linspace(-3.9, 3.9, 79), [np.inf]])
"""Edges of bins of a tenth of a standard deviation, and of the two at the ends that hold all else."""

PAIRS, PAIRS_DIMS = 1_000_000, 32

Sample = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Distances:
    """How far a sample is from the standard Gaussian.

    Attributes:
        kl: Kullback-Leibler divergence of the shares of the bins, nats.
        w1: Wasserstein distance of order one, standard deviations.
    """

    kl: float
    w1: float

    @classmethod
    def of(cls, x: Sample, other: Sample) -> Distances:
        """Return those of a sample, the second against another sample, of the Gaussian."""
        return cls(_binned(np.histogram(x, BINS)[0] / len(x)), float(stats.wasserstein_distance(x, other)))


def _binned(shares: Float[np.ndarray, " k"]) -> float:
    return float(stats.entropy(shares, np.diff(stats.norm.cdf(BINS))))


def coordinate(d: int) -> Any:
    """Return the law of a coordinate times sqrt(d), so that its variance is 1: a Beta law from -sqrt(d) to sqrt(d)."""
    shape, edge = (d - 1) / 2.0, math.sqrt(d)
    return stats.beta(shape, shape, loc=-edge, scale=2.0 * edge)


def exact(d: int) -> Distances:
    """Return the distances of the law itself, binned in the same way; W1 is the integral between the two laws."""
    law = coordinate(d)
    half, _ = quad(
        lambda x: abs(law.cdf(x) - stats.norm.cdf(x)),
        0.0,
        max(8.0, math.sqrt(d)),
        limit=500,
        points=[math.sqrt(d)] if d < 64 else None,
    )
    return Distances(_binned(np.diff(law.cdf(BINS))), 2.0 * half)


def exact_kl(d: int) -> float:
    """Return the KL divergence of the law without bins, nats, by its entropy."""
    # Variance 1 has it that -E log of the Gaussian density is half of log(2 pi e), whatever the law.
    return 0.5 * math.log(2.0 * math.pi * math.e) - float(coordinate(d).entropy())


def sphere(n: int, d: int, k: int, rng: Generator) -> Float[np.ndarray, "n k"]:
    """Return k coordinates of n uniform unit rows in d dimensions, times sqrt(d): the rest only gives its length."""
    y = rng.standard_normal((n, k))
    rest = rng.chisquare(d - k, n) if d > k else np.zeros(n)
    rows: Float[np.ndarray, "n k"] = y * np.sqrt(d / (np.square(y).sum(1) + rest))[:, None]
    return rows


def run(*, tiny: bool = False) -> Outcome:
    """Measure coordinates and pairs."""
    n, draws, pairs = (2_000, 3, 5_000) if tiny else (ROWS, DRAWS, PAIRS)
    rng = np.random.default_rng(0)
    found = {d: [Distances.of(sphere(n, d, 1, rng)[:, 0], rng.standard_normal(n)) for _ in range(draws)] for d in DIMS}
    floor = [Distances.of(rng.standard_normal(n), rng.standard_normal(n)) for _ in range(draws)]
    two = sphere(pairs, PAIRS_DIMS, 2, rng)
    lines = []
    for d, many in found.items():
        law = exact(d)
        w1 = [f"{law.w1:.2g}", _spread(many, "w1"), f"{law.w1 / math.sqrt(d):.2g}"]
        lines.append([f"{d}", f"{exact_kl(d):.2g}", f"{law.kl:.2g}", _spread(many, "kl"), *w1])
    lines.append(["a Gaussian sample", "0", "0", _spread(floor, "kl"), "0", _spread(floor, "w1"), "0"])
    head = ["d", "KL, nats", "KL of bins", "measured (quartiles)", "W1, sd", "measured (quartiles)", "W1 of unit rows"]
    csv = [(d, k, x.kl, x.w1) for d, many in [*found.items(), ("Gaussian", floor)] for k, x in enumerate(many)]
    return Outcome(
        f"{page.table(head, lines)}\n\n{_pairs_table(two)}",
        {"gaussian": _figure(found, floor, rng, n), "gaussian_pairs": _pairs_figure(two)},
        {"gaussian": numbers(["d", "draw", "binned KL, nats", "W1, sd"], csv)},
    )


def _spread(found: Sequence[Distances], name: str) -> str:
    return page.spread(Spread.of([getattr(x, name) for x in found]), digits=2)


def _pairs_table(two: Float[np.ndarray, "n 2"]) -> str:
    """How many pairs lie beyond the circles that hold a share of the Gaussian's, and how the squares go together."""
    square = np.square(two).sum(1)
    d, lines = PAIRS_DIMS, []
    for share in (0.5, 0.9, 0.99, 0.999):
        radius = stats.chi2(2).ppf(share)
        law = (1.0 - radius / d) ** ((d - 2) / 2)  # r^2 / d of two coordinates is of the Beta(1, (d - 2) / 2) law
        lines.append([f"{100 * (1 - share):g} %", f"{100 * law:.3g} %", f"{100 * (square > radius).mean():.3g} %"])
    together = np.corrcoef(np.square(two).T)[0, 1]
    plain = np.corrcoef(two.T)[0, 1]
    table = page.table(
        ["beyond the circle: Gaussian", f"uniform sphere, d = {d}, exact", f"measured, {len(two):,} pairs"], lines
    )
    return (
        f"{table}\n\nCorrelation of two coordinates: {plain:.4f}; of their squares: {together:.4f}, "
        f"exactly {coupling(d):.4f}; chance leaves {1 / math.sqrt(len(two)):.4f}."
    )


def coupling(d: int) -> float:
    """Return the correlation of the squares of two coordinates: the squares add up to a constant."""
    return -1.0 / (d - 1)


def _figure(found: dict[int, list[Distances]], floor: Sequence[Distances], rng: Generator, n: int) -> Figure:
    figure = plt.figure(figsize=(WIDTH, 6.4), layout="constrained")
    grid = figure.add_gridspec(2, 1)
    top, bottom = (figure.add_subfigure(grid[k]) for k in range(2))
    x = np.linspace(-3.5, 3.5, 701)
    for axis, d in zip(top.subplots(1, len(SHOWN), sharey=True), SHOWN, strict=True):
        axis.hist(
            sphere(n, d, 1, rng)[:, 0], np.linspace(-3.5, 3.5, 71), density=True, color="lightgrey", label="sample"
        )
        axis.plot(x, coordinate(d).pdf(x), color=BLUE, lw=1.8, label="exact density")
        axis.plot(x, stats.norm.pdf(x), "--", color=ORANGE, lw=1.5, label="N(0, 1/d)")
        axis.set(title=f"d = {d}", xlabel="coordinate · √d", ylim=(0, 0.75))
        plain_axes(axis)
    top.axes[0].set_ylabel("density")
    handles, labels = top.axes[0].get_legend_handles_labels()
    top.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    for axis, name, title, unit in zip(
        bottom.subplots(1, 2),
        ("kl", "w1"),
        ("Binned KL divergence from N(0, 1/d)", "Wasserstein distance from N(0, 1/d)"),
        ("nats", "standard deviations"),
        strict=True,
    ):
        values = [[getattr(y, name) for y in found[d]] for d in DIMS]
        axis.plot(DIMS, [getattr(exact(d), name) for d in DIMS], color=BLUE, label="of the exact law")
        axis.plot(DIMS, np.median(values, axis=1), "o", color=GREEN, label=f"measured, {n:,} rows")
        noise = [getattr(y, name) for y in floor]
        axis.axhspan(min(noise), max(noise), color=GREY, alpha=0.3, lw=0, label="a Gaussian sample reads this")
        axis.set(title=title, xlabel="dimensions d", ylabel=unit, yscale="log")
        axis.set_xscale("log", base=2)
        axis.set_xticks(DIMS, [str(d) for d in DIMS])
        axis.legend(frameon=False, fontsize=9)
        plain_axes(axis)
    return figure


def _pairs_figure(two: Float[np.ndarray, "n 2"]) -> Figure:
    # A square axis is moved after room was made for its label.
    layout = ConstrainedLayoutEngine(w_pad=0.15)
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 4.2), layout=layout)
    image = left.hist2d(*two.T, bins=np.linspace(-3.5, 3.5, 71), density=True, cmap="Blues")[3]
    shares = (0.5, 0.9, 0.99)
    for share in shares:
        radius = math.sqrt(stats.chi2(2).ppf(share))
        left.add_patch(Circle((0, 0), radius, fill=False, color=ORANGE, lw=1.4, ls="--"))
        left.annotate(f"{100 * share:g} %", (0, radius), (0, 2), textcoords="offset points", ha="center", color=ORANGE)
    left.set(
        title=f"Two coordinates of the sphere, d = {PAIRS_DIMS}",
        aspect="equal",
        xlabel="coordinate 1 · √d",
        ylabel="coordinate 2 · √d",
    )
    figure.colorbar(image, ax=left, label="density", shrink=0.8)
    r = np.linspace(0.0, 4.5, 451)
    d = PAIRS_DIMS
    right.hist(
        np.sqrt(np.square(two).sum(1)), np.linspace(0.0, 4.5, 91), density=True, color="lightgrey", label="sample"
    )
    law = (d - 2) / d * r * np.clip(1.0 - r**2 / d, 0.0, None) ** ((d - 4) / 2)
    right.plot(r, law, color=BLUE, lw=1.8, label="exact density")
    right.plot(r, r * np.exp(-(r**2) / 2), "--", color=ORANGE, lw=1.5, label="N(0, I/d)")
    right.set(title="Distance of the pair from the centre", xlabel="√(x₁² + x₂²) · √d", ylabel="density")
    right.legend(frameon=False)
    plain_axes(right)
    return figure
