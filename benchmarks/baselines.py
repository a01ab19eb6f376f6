"""What others compute, written from the formulas, in the input's own precision, with autograd through all of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Measure = Callable[[Tensor], Tensor]
"""Embeddings (n, d) -> a 0-dimensional tensor."""

_LEAST = 1e-12
"""Roots are taken of at least this: the slope of the root at zero would make the gradient NaN."""

_RANKME_EPSILON = 1e-7
"""Added to each share of the singular values, RankMe's equation 1."""


def published_w2(z: Tensor) -> Tensor:
    """Return W2 by the published algorithm: mean, covariance (d, d) and its general eigendecomposition.

    Source:
        Fang et al., Rethinking the Uniformity Metric in Self-Supervised Learning, ICLR 2024, arXiv 2403.00642.
    """
    mean, covariance = _moments(z)
    values = torch.linalg.eig(covariance).eigenvalues.real
    return _w2(mean, covariance, _root(values).sum())


def eigh_w2(z: Tensor) -> Tensor:
    """Return W2 by the symmetric eigendecomposition of the covariance (d, d)."""
    mean, covariance = _moments(z)
    return _w2(mean, covariance, _root(torch.linalg.eigvalsh(covariance)).sum())


def svdvals_w2(z: Tensor) -> Tensor:
    """Return W2 by the singular values of the centred unit rows (n, d)."""
    u = F.normalize(z, dim=1)
    mean = u.mean(0)
    centred = u - mean
    trace_root = torch.linalg.svdvals(centred).sum() / math.sqrt(len(u))
    square = mean.square().sum() + centred.square().sum() / len(u)
    return _root(square + 1.0 - 2.0 / math.sqrt(u.shape[1]) * trace_root)


def pdist_wang_isola(z: Tensor) -> Tensor:
    """Return Wang and Isola's uniformity, t = 2, as their paper prints it (ICML 2020, arXiv 2005.10242)."""
    potentials: Tensor = torch.pdist(F.normalize(z, dim=1)).pow(2).mul(-2).exp()
    return potentials.mean().log()


def svdvals_rankme(z: Tensor) -> Tensor:
    """Return RankMe (arXiv 2210.02885) of the unit rows."""
    singular = torch.linalg.svdvals(F.normalize(z, dim=1))
    p = singular / singular.sum() + _RANKME_EPSILON
    return torch.exp(-(p * p.log()).sum())


def _moments(z: Tensor) -> tuple[Tensor, Tensor]:
    u = F.normalize(z, dim=1)
    mean = u.mean(0)
    centred = u - mean
    return mean, centred.T @ centred / len(u)


def _root(values: Tensor) -> Tensor:
    return values.clamp(min=_LEAST).sqrt()


def _w2(mean: Tensor, covariance: Tensor, trace_root: Tensor) -> Tensor:
    d = len(mean)
    square = mean.square().sum() + 1.0 + covariance.trace() - 2.0 / math.sqrt(d) * trace_root
    return _root(square)
