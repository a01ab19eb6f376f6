"""The five desiderata of the paper, for six metrics: what holds, what fails, and by how much."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks import page
from benchmarks.paper import populations
from benchmarks.paper.encoders import encoder
from benchmarks.paper.outcome import Outcome, numbers
from uniformity_callbacks import functional

ROWS, DIMS = 1024, 128
CLONES = (1, 2, 4, 16)

EXACT = 1e-6
"""Difference up to which two values are one: float64 leaves 1e-9, what fails is above 1e-4."""

WORSE = 1e-3
"""Least worsening that counts, in units of the metric's value at the ideal less that at collapse: below it nobody would
see it. What does not worsen differs by 1e-5 at most (RankMe's 1e-7 on each share)."""


@dataclass(frozen=True)
class Metric:
    """A metric, and which way is better.

    Attributes:
        value: of rows (n, d).
        sign: 1 where larger is more uniform, -1 where smaller is.
        span: how far the ideal is from collapse in d dimensions, the unit of differences.
    """

    value: Callable[[Tensor], Tensor]
    sign: int
    span: Callable[[int], float]

    def worsening(self, before: Tensor, after: Tensor) -> float:
        """Return how much worse the value is of what was made of the rows, in units of the span of those before."""
        difference = self.value(after).item() - self.value(before).item()
        return -self.sign * difference / self.span(before.shape[1])


def _share(value: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda z: value(z) / z.shape[1]


def _one(d: int) -> float:
    return 1.0


METRICS: dict[str, Metric] = {
    "W2": Metric(functional.wasserstein_uniformity, -1, lambda d: 2**0.5),
    "W2 corrected": Metric(functional.corrected_wasserstein_uniformity, -1, lambda d: 2**0.5),
    "L_U": Metric(functional.wang_isola_uniformity, -1, lambda d: 4.0),
    "RankMe": Metric(functional.rankme, 1, float),
    "RankMe / d": Metric(_share(functional.rankme), 1, _one),
    "RankMe, raw rows": Metric(partial(functional.rankme, normalize=False), 1, float),
    "effective rank": Metric(functional.effective_rank, 1, float),
    "effective rank / d": Metric(_share(functional.effective_rank), 1, _one),
    "std_ratio": Metric(functional.std_ratio, 1, _one),
}
"""By name. Ranks are there as such and as the share of the dimensions: the two differ in what adding features does."""


def _permuted(z: Tensor) -> Tensor:
    return z[torch.randperm(len(z), generator=torch.Generator().manual_seed(1))]


def _scaled(z: Tensor) -> Tensor:
    factors = torch.rand(len(z), 1, generator=torch.Generator().manual_seed(2), dtype=z.dtype)
    return z * 10.0 ** (2.0 * factors - 1.0)


def _cloned(z: Tensor) -> Tensor:
    return torch.cat([z, z])


def _features_cloned(z: Tensor) -> Tensor:
    return torch.cat([z, z], dim=1)


def _zeros_added(z: Tensor) -> Tensor:
    return torch.cat([z, torch.zeros_like(z)], dim=1)


def _constants_added(z: Tensor) -> Tensor:
    """Each new feature is as large as those that there are: the root of their mean square."""
    return torch.cat([z, z.square().mean().sqrt().expand_as(z)], dim=1)


@dataclass(frozen=True)
class Desideratum:
    """What is to be so.

    Attributes:
        change: makes other rows of rows (n, d).
        says: the change in words.
        worse: the value is to be strictly worse; otherwise it is to stay.
    """

    change: Callable[[Tensor], Tensor]
    says: str
    worse: bool

    def holds(self, worsenings: Mapping[str, float]) -> bool:
        """Return whether it holds, by the worsening on each kind of data; it does if it does on all."""
        values = worsenings.values()
        return min(values) >= WORSE if self.worse else max(map(abs, values)) <= EXACT

    def told(self, worsenings: Mapping[str, float]) -> str:
        """Return a cell of the table: whether it holds, and the least and the largest worsening over the data."""
        low, high = (_percent(extreme(worsenings.values())) for extreme in (min, max))
        return f"{'holds' if self.holds(worsenings) else '**fails**'}, {low if low == high else f'{low} to {high}'}"


DESIDERATA: dict[str, Desideratum] = {
    "instances permuted": Desideratum(_permuted, "the rows in another order", worse=False),
    "instances scaled": Desideratum(_scaled, "each row times a factor of its own, 0.1 to 10", worse=False),
    "instances cloned": Desideratum(_cloned, "each row twice", worse=False),
    "features cloned": Desideratum(_features_cloned, "[z, z]", worse=True),
    "features added, zero": Desideratum(_zeros_added, "[z, 0], d zeros", worse=True),
    "features added, constant": Desideratum(_constants_added, "[z, c], d constants as large as z's own", worse=True),
}
"""By name: the paper's five (Fang et al., arXiv 2403.00642, whose baby features are zeros), and constants not zero."""


def synthetic(n: int = ROWS, d: int = DIMS) -> dict[str, Tensor]:
    """Return rows (n, d) of several kinds, float64, of lengths about 1 that differ."""
    generator = torch.Generator().manual_seed(0)
    made = {name: populations.sample(populations.SPECTRA[name](d), n, generator) for name in ("isotropic", "i^-1")}
    turned = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    half = populations.sample(populations.SPECTRA["isotropic in d/2"](d), n, generator) @ turned
    cone = torch.randn(n, d, generator=generator, dtype=torch.float64) / d**0.5 + 3.0 * turned[0]
    made |= {"half of d, rotated": half, "a cone": cone}
    lengths = 0.8 + 0.4 * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    return {name: z * lengths for name, z in made.items()}


def clones(n: int, d: int) -> str:
    """Return a table of W2 of n rows, of each many times, plain and corrected, and what is true of the population."""
    lines = []
    generator = torch.Generator().manual_seed(4)
    for name in ("isotropic", "i^-1", "i^-2"):
        variances = populations.SPECTRA[name](d)
        z = populations.sample(variances, n, generator)
        with _repeats_expected():
            read = [functional.corrected_wasserstein_uniformity(z.repeat(many, 1)).item() for many in CLONES]
        plain = functional.wasserstein_uniformity(z.repeat(CLONES[-1], 1)).item()
        truth = populations.true_reading(variances).w2
        lines.append([name, f"{truth:.3f}", *(f"{x:.3f}" for x in read), f"{plain:.3f}"])
    times = [f"corrected, {'once' if many == 1 else f'{many} times'}" for many in CLONES]
    return page.table([f"W2 of {n} rows, d = {d}", "population", *times, "plain, however often"], lines)


@contextmanager
def _repeats_expected() -> Iterator[None]:
    """That rows repeat is what is looked at here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "z has .* rows that repeat another", UserWarning)
        yield


def worsenings(metric: Metric, desideratum: Desideratum, rows: Mapping[str, Tensor]) -> dict[str, float]:
    """Return how much worse the change makes the metric, by kind of data."""
    with _repeats_expected():
        return {name: metric.worsening(z, desideratum.change(z)) for name, z in rows.items()}


def run(*, tiny: bool = False) -> Outcome:
    """Measure all cells."""
    n, d = (64, 16) if tiny else (ROWS, DIMS)
    rows = synthetic(n, d)
    _, draw = encoder("SimCLR", steps=3) if tiny else encoder("SimCLR")
    rows["SimCLR on digits"] = draw(n, torch.Generator().manual_seed(3)).double()
    lines, measured = [], []
    for name, metric in METRICS.items():
        line = [f"{name}, {'larger' if metric.sign > 0 else 'smaller'} is better"]
        for wanted, desideratum in DESIDERATA.items():
            found = worsenings(metric, desideratum, rows)
            line.append(desideratum.told(found))
            measured += [(name, wanted, kind, value) for kind, value in found.items()]
        lines.append(line)
    text = page.table(["metric, in % of its span", *DESIDERATA], lines)
    csv = numbers(["metric", "desideratum", "data", "worsening, share of the span"], measured)
    return Outcome(f"{text}\n\n{clones(2 * d, d)}", tables={"desiderata": csv})


def _percent(x: float) -> str:
    return "0" if abs(x) <= EXACT else f"{100 * x:+.2g}"
