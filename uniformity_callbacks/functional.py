"""Every metric as a pure function of embeddings ``(n, d)``.

All functions take finite floating-point embeddings of any precision, work in float64 with autocast without effect,
normalise the rows to unit length (``normalize=False`` takes them as they are), leave zero rows out, and return a
0-dimensional tensor: float64 for float64 input, float32 otherwise. They are differentiable.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from uniformity_callbacks.sample import UnitRows, unit_rows

__all__ = [
    "effective_dims",
    "mean_resultant_length",
    "std_ratio",
    "wang_isola_uniformity",
    "wasserstein_uniformity",
]

_ROUND_OFF = 1e-28
"""Total variance of unit rows below which they are one point: centring equal float64 rows leaves some 1e-32 each."""

_IDEAL_SQUARED = 1e-14
"""W2^2 below this is the ideal: it is a difference of numbers near 1, known to about 1e-15."""

_PAIRS_AT_ONCE = 1 << 22
"""Entries of the pairwise distance matrix held at a time: 32 MB in float64."""


def wasserstein_uniformity(z: Float[Tensor, "n d"], *, normalize: bool = True) -> Float[Tensor, ""]:
    """Return W2, the quadratic Wasserstein distance between the unit rows and the ideal N(0, I/d).

    ``W2^2 = |mu|^2 + 1 + tr S - (2 / sqrt(d)) tr S^(1/2)``, mu the mean of the unit rows and S their covariance
    (divided by n). It sees constant and dimensional collapse. The gradient is in closed form and finite for rows of any
    rank, constant rows included.

    Args:
        z: embeddings (n, d), n >= 2.
        normalize: divide each row by its length first.

    Returns:
        A number in [0, sqrt(2)], smaller is more uniform: 0 at the ideal, ``sqrt(2) = 1.414`` where all rows are one
        point, ``sqrt(2 (1 - sqrt(r / d)))`` for an isotropic sample in r of d dimensions. A perfectly uniform *sample*
        reads well above 0 where n is not much larger than d (0.37 at n 512, d 256).

    Raises:
        ValueError: z is not (n, d) with n >= 2, or not finite.
        TypeError: z is not a floating-point tensor.

    Source:
        Fang et al., Rethinking the Uniformity Metric in Self-Supervised Learning, ICLR 2024, arXiv 2403.00642.

    Example:
        >>> z = torch.eye(64).repeat(2, 1) * torch.tensor([1.0, -1.0]).repeat_interleave(64)[:, None]
        >>> round(wasserstein_uniformity(z).item(), 6)  # each axis in both directions: the ideal
        0.0
        >>> round(wasserstein_uniformity(torch.ones(64, 8)).item(), 4)  # one point
        1.4142
    """
    return _result(z, w2(_prepare(z, normalize)))


def effective_dims(z: Float[Tensor, "n d"], *, normalize: bool = True) -> Float[Tensor, ""]:
    """Return how many dimensions the unit rows use: ``(tr S^(1/2))^2 / tr S``.

    Args:
        z: embeddings (n, d), n >= 2.
        normalize: divide each row by its length first.

    Returns:
        A number in [1, min(n - 1, d)]: d at the ideal, r for an isotropic sample in r dimensions, 1 where all rows
        lie on a line. NaN where all rows are one point: it is undefined there, and *near* one point it tells nothing
        (a point with 1 % noise reads 119 of 128), so read it beside `mean_resultant_length`.

    Raises:
        ValueError: z is not (n, d) with n >= 2, or not finite.
        TypeError: z is not a floating-point tensor.

    Source:
        The number of dimensions that gives the same W2, were all of them used alike; arXiv 2403.00642.

    Example:
        >>> z = torch.cat([torch.eye(8), -torch.eye(8)])
        >>> round(effective_dims(z).item(), 3)
        8.0
    """
    return _result(z, dims(_prepare(z, normalize)))


def mean_resultant_length(z: Float[Tensor, "n d"], *, normalize: bool = True) -> Float[Tensor, ""]:
    """Return the length of the mean unit row, whose square is about the mean cosine over pairs of rows.

    Args:
        z: embeddings (n, d), n >= 2.
        normalize: divide each row by its length first.

    Returns:
        A number in [0, 1]: 0 at the ideal (about ``1 / sqrt(n)`` for an ideal sample), 1 at constant collapse.
        Blind to dimensional collapse.

    Raises:
        ValueError: z is not (n, d) with n >= 2, or not finite.
        TypeError: z is not a floating-point tensor.

    Source:
        Mardia and Jupp, Directional Statistics, section 9.2 (Wiley, 2000).

    Example:
        >>> round(mean_resultant_length(torch.tensor([[1.0, 0.0], [0.0, 3.0]])).item(), 4)
        0.7071
    """
    return _result(z, resultant(_prepare(z, normalize)))


def std_ratio(z: Float[Tensor, "n d"], *, normalize: bool = True) -> Float[Tensor, ""]:
    """Return ``sqrt(d)`` times the mean over features of the standard deviation (n - 1) of the unit rows.

    Args:
        z: embeddings (n, d), n >= 2.
        normalize: divide each row by its length first.

    Returns:
        A number in [0, sqrt(n / (n - 1))]: 1 at the ideal, 0 at constant collapse; in use elsewhere: at most 0.30 is
        collapsed, at least 0.65 healthy. Blind to a dimensional collapse that is not along the axes (a rotated one
        to 8 of 256 dimensions reads 0.97).

    Raises:
        ValueError: z is not (n, d) with n >= 2, or not finite.
        TypeError: z is not a floating-point tensor.

    Source:
        Chen and He, Exploring Simple Siamese Representation Learning, section 4.1, arXiv 2011.10566.

    Example:
        >>> round(std_ratio(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item(), 4)
        1.0
    """
    return _result(z, deviation(_prepare(z, normalize)))


def wang_isola_uniformity(z: Float[Tensor, "n d"], *, t: float = 2.0, normalize: bool = True) -> Float[Tensor, ""]:
    """Return L_U, the logarithm of the mean Gaussian potential ``exp(-t |z_i - z_j|^2)`` over distinct pairs of rows.

    Memory is bounded: distances are formed in blocks.

    Args:
        z: embeddings (n, d), n >= 2.
        t: the potential's parameter, positive.
        normalize: divide each row by its length first.

    Returns:
        A number in [-4 t, 0], smaller is more uniform: about ``-2 t`` (-4 for t = 2) at the ideal in many dimensions, 0
        at constant collapse. Nearly blind to dimensional collapse: 8 of 256 dimensions read -3.1. NaN with fewer than
        two rows that are not zero.

    Raises:
        ValueError: z is not (n, d) with n >= 2, or not finite; t is not positive.
        TypeError: z is not a floating-point tensor.

    Source:
        Wang and Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity on the
        Hypersphere, equation 2, arXiv 2005.10242.

    Example:
        >>> round(wang_isola_uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item(), 4)
        -8.0
    """
    if not t > 0:
        raise ValueError(f"t must be positive, got {t}; the usual value is 2.0")
    return _result(z, potential(_prepare(z, normalize), t=t))


# The same on prepared rows, whose shared parts are computed once: what the loss and a run's panel call.


def w2(u: UnitRows) -> Float[Tensor, ""]:
    """Return W2 of prepared rows in float64; sqrt(2), as for one point, if none is valid."""
    count = u.count.clamp(min=1.0)
    # |mu|^2 + tr S is the mean squared length: exactly 1 on unit rows, but written so for rows taken as they are.
    length = torch.where(u.count > 0, u.rows.square().sum() / count, 1.0)
    squared = length + 1.0 - 2.0 * u.nuclear_norm / torch.sqrt(count * u.rows.shape[1])
    return _root(squared, above=_IDEAL_SQUARED)


def dims(u: UnitRows) -> Float[Tensor, ""]:
    """Return the effective dimensions of prepared rows in float64; NaN where they are one point."""
    total = u.scatter.sum()
    spread = total > _ROUND_OFF * u.count
    return torch.where(spread, u.nuclear_norm.square() / torch.where(spread, total, 1.0), math.nan)


def resultant(u: UnitRows) -> Float[Tensor, ""]:
    """Return the mean resultant length of prepared rows in float64; 1 if none is valid."""
    return torch.where(u.count > 0, torch.linalg.vector_norm(u.mean), 1.0)


def deviation(u: UnitRows) -> Float[Tensor, ""]:
    """Return the std ratio of prepared rows in float64; 0 if fewer than two are valid."""
    variance = u.scatter / (u.count - 1.0).clamp(min=1.0)
    return math.sqrt(u.rows.shape[1]) * _root(variance, above=_ROUND_OFF).mean()


def potential(u: UnitRows, *, t: float = 2.0) -> Float[Tensor, ""]:
    """Return L_U of prepared rows in float64; NaN if fewer than two are valid."""
    # Centred, since distances do not change and near-constant rows would lose all their digits otherwise.
    rows = u.centred[u.valid]
    n = rows.shape[0]
    if n < 2:
        return rows.sum() * math.nan
    lengths = rows.square().sum(1)
    block = max(1, _PAIRS_AT_ONCE // n)
    logs = []
    for start in range(0, n, block):
        part = rows[start : start + block]
        distances = lengths[start : start + block, None] + lengths[None, start:] - 2.0 * part @ rows[start:].T
        # Pairs i < j only: each once, no row with itself.
        upper = torch.ones_like(distances, dtype=torch.bool).triu(diagonal=1)
        exponents = torch.where(upper, -t * distances.clamp(min=0.0), -math.inf)
        logs.append(torch.logsumexp(exponents.flatten(), dim=0))
    return torch.logsumexp(torch.stack(logs), dim=0) - math.log(n * (n - 1) / 2)


def _root(x: Tensor, *, above: float) -> Tensor:
    """Square root, with value and gradient 0 where x is round-off: the root's slope is infinite at zero."""
    positive = x > above
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


def check_embeddings(z: Tensor, name: str = "z", *, least: int = 2) -> None:
    """Raise unless ``z`` is a floating-point tensor (n, d) with n >= least and d >= 1; values are not looked at."""
    if not isinstance(z, Tensor) or not z.is_floating_point():
        got = f"a tensor of {z.dtype}" if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {got}; convert it, e.g. {name}.float()")
    shape = tuple(z.shape)
    if z.ndim != 2:
        mend = f"{name}.flatten(1)" if z.ndim > 2 else f"{name}[None]"
        raise ValueError(f"{name} must be (n, d), got {shape}; one row a sample, e.g. {mend}")
    if shape[0] < least or shape[1] < 1:
        raise ValueError(f"{name} must be (n, d) with n >= {least} and d >= 1, got {shape}; collect more samples")


def _prepare(z: Tensor, normalize: bool) -> UnitRows:
    check_embeddings(z)
    finite = torch.isfinite(z.detach()).all(dim=1)
    if not finite.all():
        bad = int((~finite).sum())
        raise ValueError(f"z must be finite, got {bad} of {z.shape[0]} rows with NaN or infinity; leave them out first")
    return unit_rows(z, normalize=normalize)


def _result(z: Tensor, value: Tensor) -> Tensor:
    return value if z.dtype == torch.float64 else value.to(torch.float32)
