"""The mathematics of every metric, on prepared statistics: what the public functions, the loss and a run's panel call.

All work in float64, never raise on values, and return a 0-dimensional tensor.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from uniformity_callbacks.closed_form import distance
from uniformity_callbacks.sample_size import LEAST_ROWS, wasserstein_floor
from uniformity_callbacks.spectrum import root
from uniformity_callbacks.statistics import Statistics

RANKME_EPSILON = 1e-7
"""Added to each share of the singular values, as RankMe's paper has it (arXiv 2210.02885, equation 1)."""

ALPHA_RANKS = (6, 100)
"""Ranks of the eigenvalues that the power law is fitted to, weighted by 1 / rank: the first few do not follow it. The
range and the weights are those of reptrix, the code of alpha-ReQ's authors."""

_LEAST_FITTED = 3
"""Eigenvalues that a power law needs: two always lie on a line."""


def w2(s: Statistics) -> Float[Tensor, ""]:
    """Return W2; sqrt(2), as for one point, if no row is valid."""
    # |mu|^2 + tr S is the mean squared length: exactly 1 on unit rows, but written so for rows taken as they are.
    return distance(s.square, s.trace_root, s.dims)


def w2_corrected(s: Statistics) -> Float[Tensor, ""]:
    """Return W2 of the population that the rows are a sample of; NaN with fewer than `LEAST_ROWS` valid rows."""
    if s.count < LEAST_ROWS:
        return torch.tensor(math.nan, dtype=torch.float64)
    return distance(s.square.detach().cpu(), torch.tensor(s.population.root_trace, dtype=torch.float64), s.dims)


def dims_corrected(s: Statistics) -> Float[Tensor, ""]:
    """Return the population's effective dims; NaN at one point, or with fewer than `LEAST_ROWS` valid rows."""
    if s.count < LEAST_ROWS or s.is_one_point:
        return torch.tensor(math.nan, dtype=torch.float64)
    return torch.tensor(s.population.effective_dims, dtype=torch.float64)


def dims(s: Statistics) -> Float[Tensor, ""]:
    """Return the sample's effective dims; NaN at one point."""
    total = s.scatter.sum()
    return _where_spread(s, s.count * s.trace_root.square() / torch.where(total > 0, total, 1.0))


def resultant(s: Statistics) -> Float[Tensor, ""]:
    """Return the mean resultant length; 1 if no row is valid."""
    return torch.where(s.count > 0, torch.linalg.vector_norm(s.mean), 1.0)


def deviation(s: Statistics) -> Float[Tensor, ""]:
    """Return the std ratio; 0 if fewer than two rows are valid."""
    variance = s.scatter / (s.count - 1.0).clamp(min=1.0)
    return math.sqrt(s.dims) * root(variance, above=s.round_off).mean()


def rankme(s: Statistics) -> Float[Tensor, ""]:
    """Return RankMe, the exponential of the entropy of the singular values about zero; NaN if no row is valid."""
    singular = root(s.raw_eigenvalues)
    total = singular.sum()
    p = singular / torch.where(total > 0, total, math.nan) + RANKME_EPSILON
    return torch.exp(-(p * p.log()).sum())


def effective_rank(s: Statistics) -> Float[Tensor, ""]:
    """Return the exponential of the entropy of the covariance's eigenvalues; NaN at one point."""
    total = s.eigenvalues.sum()
    p = s.eigenvalues / torch.where(total > 0, total, 1.0)
    return _where_spread(s, torch.exp(-torch.xlogy(p, torch.where(p > 0, p, 1.0)).sum()))


def participation_ratio(s: Statistics) -> Float[Tensor, ""]:
    """Return ``(tr S)^2 / tr S^2``; NaN at one point."""
    squares = s.eigenvalues.square().sum()
    return _where_spread(s, s.eigenvalues.sum().square() / torch.where(squares > 0, squares, 1.0))


def stable_rank(s: Statistics) -> Float[Tensor, ""]:
    """Return ``tr S`` over S's largest eigenvalue; NaN at one point."""
    top = s.eigenvalues.amax()
    return _where_spread(s, s.eigenvalues.sum() / torch.where(top > 0, top, 1.0))


def alpha(s: Statistics) -> Float[Tensor, ""]:
    """Return the exponent of the power law of the covariance's eigenvalues; NaN where too few are left to fit."""
    first, last = ALPHA_RANKS
    values = s.eigenvalues.flip(0)[first - 1 : last]
    ranks = torch.arange(first, first + len(values), dtype=values.dtype, device=values.device)
    positive = values > 0
    weights = torch.where(positive, 1.0 / ranks, 0.0)
    x, y = ranks.log(), torch.where(positive, values, 1.0).log()
    total = weights.sum()
    centre_x, centre_y = (weights * x).sum() / total, (weights * y).sum() / total
    slope = (weights * (x - centre_x) * (y - centre_y)).sum() / (weights * (x - centre_x).square()).sum()
    return torch.where(positive.sum() >= _LEAST_FITTED, -slope, math.nan)


def norm_mean(s: Statistics) -> Float[Tensor, ""]:
    """Return the mean length of the finite rows before normalising."""
    return s.norms[0]


def norm_cv(s: Statistics) -> Float[Tensor, ""]:
    """Return the coefficient of variation of those lengths: their standard deviation (n) over their mean."""
    mean, square = s.norms
    return root(square - mean.square()) / mean


def floor(s: Statistics) -> Float[Tensor, ""]:
    """Return the W2 that ideal samples of as many rows read."""
    return torch.tensor(wasserstein_floor(int(s.count), s.dims) if s.count >= 2 else math.nan, dtype=torch.float64)


def _where_spread(s: Statistics, value: Tensor) -> Tensor:
    return torch.where(s.is_one_point, math.nan, value)
