"""Populations whose spectrum is known, samples of them, and what is read of a spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.special import xlogy
from torch import Tensor

from uniformity_callbacks import functional
from uniformity_callbacks.sample_size import population

STRONG, FLOOR = 16, 0.01
"""Directions of variance 1, and the variance of all others, in the population named by them."""


def _power(exponent: float) -> Callable[[int], Tensor]:
    return lambda d: torch.arange(1, d + 1, dtype=torch.float64) ** -exponent


def _half(d: int) -> Tensor:
    return (torch.arange(d) < d // 2).double()


def _strong(d: int) -> Tensor:
    return torch.where(torch.arange(d) < STRONG, 1.0, FLOOR).double()


SPECTRA: dict[str, Callable[[int], Tensor]] = {
    "isotropic": _power(0.0),
    "isotropic in d/2": _half,
    "i^-1/2": _power(0.5),
    "i^-1": _power(1.0),
    "i^-2": _power(2.0),
    "16 strong over a floor": _strong,
}
"""Name of a population -> the variances (d,) of y, whose rows are y / |y|, y Gaussian about zero."""


@dataclass(frozen=True)
class Reading:
    """What is read of a sample, or true of a population.

    Attributes:
        w2: 0 at the ideal, sqrt(2) at one point.
        dims: effective dims, 1 to d.
        rankme: RankMe, 1 to d.
    """

    w2: float
    dims: float
    rankme: float


METRICS = {"w2": "W2", "dims": "effective dims", "rankme": "RankMe"}
"""Fields of a reading -> their names."""


def sample(variances: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return rows (n, d) of y / |y|, float64."""
    y = torch.randn(n, len(variances), generator=generator, dtype=torch.float64) * variances.sqrt()
    return F.normalize(y, dim=1)


def true_eigenvalues(variances: Tensor) -> Tensor:
    """Return the eigenvalues (d,) of the covariance of y / |y|, exactly.

    ``E y_i^2 / |y|^2 = v_i int_0^inf prod_j (1 + 2 s v_j)^(-1/2) / (1 + 2 s v_i) ds``, since ``1 / |y|^2`` is the
    integral of ``exp(-s |y|^2)``. Even in log s the trapezoid rule is good to more digits than are shown.
    """
    v = variances / variances.sum()
    s = torch.logspace(-12, 12, 4001, dtype=torch.float64)
    falls = 1.0 / (1.0 + 2.0 * s[:, None] * v)
    density = (0.5 * falls.log().sum(1)).exp() * s * math.log(float(s[1] / s[0]))
    return v * (density @ falls)


def true_reading(variances: Tensor) -> Reading:
    """Return what is true of the population of y / |y|, whose mean is zero."""
    values = true_eigenvalues(variances).numpy()
    total, d = float(np.sqrt(values).sum()), len(values)
    w2 = math.sqrt(max(2.0 - 2.0 * total / math.sqrt(d), 0.0))
    return Reading(w2, total**2 / float(values.sum()), _rankme(values, np.ones(d)))


def _rankme(moments: Float[np.ndarray, " m"], counts: Float[np.ndarray, " m"]) -> float:
    """Return RankMe of eigenvalues of the second moment about zero, and how many directions have each."""
    roots = np.sqrt(moments)
    shares = roots / float(counts @ roots)
    return math.exp(-float(counts @ xlogy(shares, shares)))


def plain(z: Tensor) -> Reading:
    """Return what a sample reads, as it is."""
    return Reading(
        functional.wasserstein_uniformity(z).item(),
        functional.effective_dims(z, corrected=False).item(),
        functional.rankme(z).item(),
    )


def corrected(z: Tensor) -> Reading:
    """Return what a sample says of its population.

    RankMe is not among what the package corrects. It is of the rows as they are, not about their mean: n such rows tell
    of their second moment as n + 1 tell of their covariance, so the package's inversion does for it, too.
    """
    n, d = z.shape
    moments = torch.linalg.svdvals(F.normalize(z.double(), dim=1)).square().numpy() / (n + 1)
    about_zero = population(moments, n + 1, d, mean_square=1.0)
    return Reading(
        functional.corrected_wasserstein_uniformity(z).item(),
        functional.effective_dims(z).item(),
        _rankme(about_zero.eigenvalues, d * about_zero.weights),
    )


def median(readings: list[Reading], field: str) -> tuple[float, float, float]:
    """Return the median of a field, and the quartiles."""
    low, middle, high = np.quantile([getattr(reading, field) for reading in readings], [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)
