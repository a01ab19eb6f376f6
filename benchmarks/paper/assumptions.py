"""Where the correction's assumptions end: rows that are not independent, repeated, heavy-tailed, or in clusters."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks import page
from benchmarks.pairs import say
from benchmarks.paper.outcome import BLUE, ORANGE, WIDTH, Outcome, numbers, plain_axes
from benchmarks.paper.populations import SPECTRA, sample
from uniformity_callbacks import functional

SIZES, DIMS = (64, 256), 128
"""Rows of a sample: half as many as dimensions, and twice; the figure has the latter."""

DRAWS, MANY = 20, 100_000

Draw = Callable[[int, float, torch.Generator], Tensor]


@dataclass(frozen=True)
class Bound:
    """An assumption that is given up by degrees.

    Attributes:
        title: what is given up.
        label: of the degrees.
        degrees: from none on.
        draw: ``(n, degree, generator)``: rows (n, DIMS).
        population: the same, with the assumption kept where the degree does not change the population.
    """

    title: str
    label: str
    degrees: tuple[float, ...]
    draw: Draw
    population: Draw


def _rows(n: int, d: int, generator: torch.Generator) -> Tensor:
    return sample(SPECTRA["i^-1"](d), n, generator)


def _unit(y: Tensor) -> Tensor:
    return F.normalize(y, dim=1)


def _kept(n: int, degree: float, generator: torch.Generator) -> Tensor:
    return _rows(n, DIMS, generator)


def _repeated(n: int, share: float, generator: torch.Generator) -> Tensor:
    """A share of the rows repeats others."""
    z = _rows(n, DIMS, generator)
    again = round(share * n)
    return torch.cat([z[: n - again], z[torch.randint(n - again, (again,), generator=generator)]])


def _views(n: int, many: float, generator: torch.Generator) -> Tensor:
    """Each image comes ``many`` times; its views share 0.8 of their variance."""
    std = SPECTRA["i^-1"](DIMS).sqrt()
    images = torch.randn(math.ceil(n / many), DIMS, generator=generator, dtype=torch.float64)
    own = torch.randn(n, DIMS, generator=generator, dtype=torch.float64)
    shared = images.repeat_interleave(int(many), dim=0)[:n]
    return _unit((math.sqrt(0.8) * shared + math.sqrt(0.2) * own) * std)


def _tails(n: int, degrees: float, generator: torch.Generator) -> Tensor:
    """Each feature by itself of Student's law: the fewer degrees of freedom, the heavier the tails."""
    y = torch.randn(n, DIMS, generator=generator, dtype=torch.float64)
    if math.isfinite(degrees):
        half = torch.full((n, DIMS), degrees / 2.0, dtype=torch.float64)
        chi_square = 2.0 * torch._standard_gamma(half, generator=generator)
        y = y / (chi_square / degrees).sqrt()
    return _unit(y * SPECTRA["i^-1"](DIMS).sqrt())


def _clusters(n: int, share: float, generator: torch.Generator) -> Tensor:
    """Ten centres, the same in each sample, hold a share of the variance; the rest is about them."""
    std = SPECTRA["i^-1"](DIMS).sqrt()
    centres = torch.randn(10, DIMS, generator=torch.Generator().manual_seed(10), dtype=torch.float64)
    own = torch.randn(n, DIMS, generator=generator, dtype=torch.float64)
    which = torch.randint(10, (n,), generator=generator)
    return _unit((math.sqrt(share) * centres[which] + math.sqrt(1.0 - share) * own) * std)


BOUNDS = (
    Bound("Repeated rows", "share of rows that repeat", (0.0, 0.05, 0.1, 0.2, 0.3, 0.5), _repeated, _kept),
    Bound("Several views of an image in one sample", "views of each image", (1, 2, 4, 8), _views, _kept),
    Bound("Ten clusters", "share of the variance between them", (0.0, 0.25, 0.5, 0.75, 0.9), _clusters, _clusters),
    Bound("Heavy tails", "degrees of freedom of Student's t", (math.inf, 8.0, 4.0, 2.0, 1.0), _tails, _tails),
)


def measure(*, tiny: bool = False) -> Outcome:
    """Measure all bounds."""
    sizes, draws, many = ((16, 32), 2, 500) if tiny else (SIZES, DRAWS, MANY)
    lines: list[list[str]] = []
    csv: list[tuple[object, ...]] = []
    series = []
    for bound in BOUNDS:
        say(bound.title)
        found = {n: [_read(bound, degree, n, draws, many) for degree in bound.degrees] for n in sizes}
        series.append(found[sizes[-1]])
        for degree, *reads in zip(bound.degrees, *found.values(), strict=True):
            cells = [f"{np.median(values) - truth:+.3f}" for truth, *both in reads for values in both]
            lines.append([bound.title, f"{bound.label}: {degree:g}", f"{reads[0][0]:.3f}", *cells])
            for n, (truth, *both) in zip(sizes, reads, strict=True):
                csv += [(bound.title, degree, n, truth, *values) for values in zip(*both, strict=True)]
    off = [f"n = {n}: {name} off by" for n in sizes for name in ("plain", "corrected")]
    head = ["what is given up", "degree", "W2 of the population", *off]
    return Outcome(
        page.table(head, lines),
        {"sample_size_assumptions": _figure(series)},
        {
            "sample_size_assumptions": numbers(
                ["what is given up", "degree", "n", "population", "plain", "corrected"], csv
            )
        },
    )


Read = tuple[float, list[float], list[float]]


def _read(bound: Bound, degree: float, n: int, draws: int, many: int) -> Read:
    """Return W2 of the population, and of each draw, plain and corrected."""
    truth = functional.wasserstein_uniformity(bound.population(many, degree, torch.Generator().manual_seed(1))).item()
    generator = torch.Generator().manual_seed(2)
    samples = [bound.draw(n, degree, generator) for _ in range(draws)]
    with warnings.catch_warnings():
        # That rows repeat is what is looked at here.
        warnings.filterwarnings("ignore", "z has .* rows that repeat another", UserWarning)
        both = [
            (functional.wasserstein_uniformity(z).item(), functional.corrected_wasserstein_uniformity(z).item())
            for z in samples
        ]
    return truth, [plain for plain, _ in both], [corrected for _, corrected in both]


def _figure(series: Sequence[Sequence[Read]]) -> Figure:
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 6.2), sharey=True, layout="constrained")
    for axis, bound, found in zip(axes.flat, BOUNDS, series, strict=True):
        at = range(len(bound.degrees))
        for k, colour, mark, name in ((1, ORANGE, "s", "plain"), (2, BLUE, "o", "corrected")):
            quartiles = np.array([np.quantile(read[k], [0.25, 0.5, 0.75]) for read in found])
            axis.fill_between(at, quartiles[:, 0], quartiles[:, 2], color=colour, alpha=0.25, lw=0)
            axis.plot(at, quartiles[:, 1], mark + "-", ms=4, color=colour, label=name)
        axis.plot(at, [truth for truth, *_ in found], "--", color="black", lw=1.2, label="population")
        axis.set_xticks(at, ["∞" if math.isinf(degree) else f"{degree:g}" for degree in bound.degrees])
        axis.set(title=bound.title, xlabel=bound.label)
        plain_axes(axis)
    for axis in axes[:, 0]:
        axis.set_ylabel("W2")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure
