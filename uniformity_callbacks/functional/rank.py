"""How many dimensions the rows use, by several counts of the spectrum."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from uniformity_callbacks import measures
from uniformity_callbacks.functional.embeddings import prepare, prepare_sample, result


def effective_dims(z: Float[Tensor, "n d"], *, corrected: bool = True, normalize: bool = True) -> Float[Tensor, ""]:
    """Return how many dimensions the unit rows' population uses: ``(tr S^(1/2))^2 / tr S``.

    By default S is the population's covariance, estimated from the sample (see `population_spectrum`): each view by
    itself, without gradient. ``corrected=False`` takes the sample's own, which is at most n - 1 and differentiable.

    Args:
        z: embeddings (n, d), n >= 16; n >= 2 if not corrected.
        corrected: for sample size.
        normalize: divide each row by its length first.

    Returns:
        A number in [1, d]: d at the ideal, r for an isotropic sample in r dimensions, 1 where all rows
        lie on a line. NaN where all rows are one point: it is undefined there, and *near* one point it tells nothing
        (a point with 1 % noise reads 119 of 128), so read it beside `mean_resultant_length`.

    Raises:
        ValueError: z is not (n, d), not finite, or has too few rows that are not zero.
        TypeError: z is not a floating-point tensor.

    Warns:
        UserWarning: corrected, and rows repeat others to the last bit.

    Source:
        The number of dimensions that gives the same W2, were all of them used alike; arXiv 2403.00642.

    Example:
        >>> z = torch.cat([torch.eye(8), -torch.eye(8)])
        >>> round(effective_dims(z, corrected=False).item(), 3)
        8.0
    """
    if corrected:
        return result(z, measures.dims_corrected(prepare_sample(z, normalize)))
    return result(z, measures.dims(prepare(z, normalize)))


def population_spectrum(
    z: Float[Tensor, "n d"], *, normalize: bool = True
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Return the spectrum of the covariance of the population that the rows are an independent sample of.

    The sample's eigenvalues spread wider than the population's, and d - n + 1 of them are zero where n <= d. The
    Marchenko-Pastur law says how; this inverts it.

    Args:
        z: embeddings (n, d), n >= 16, of one view.
        normalize: divide each row by its length first.

    Returns:
        Eigenvalues (m,), float64, ascending, and the share of the d dimensions that has each, (m,), which add up to 1:
        ``tr S = d (weights * eigenvalues).sum()``. Eigenvalues of share 0 are left out.

    Raises:
        ValueError: z is not (n, d), not finite, or fewer than 16 rows are not zero.
        TypeError: z is not a floating-point tensor.

    Warns:
        UserWarning: rows repeat others to the last bit.

    Source:
        El Karoui, Spectrum estimation for large dimensional covariance matrices using random matrix theory, Annals of
        Statistics 36 (2008), from Silverstein's equation at real negative points.

    Example:
        >>> z = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
        >>> z[:, 32:] = 0  # a quarter of the dimensions in use
        >>> eigenvalues, weights = population_spectrum(z)
        >>> round(weights[eigenvalues > 0.01].sum().item(), 2), round(128 * (eigenvalues * weights).sum().item(), 2)
        (0.25, 0.99)
    """
    found = prepare_sample(z, normalize).population
    order = found.eigenvalues.argsort()
    order = order[found.weights[order] > 0]
    eigenvalues, weights = (torch.from_numpy(part[order].copy()) for part in (found.eigenvalues, found.weights))
    return eigenvalues.to(z.device), weights.to(z.device)


def rankme(z: Float[Tensor, "n d"], *, normalize: bool = True) -> Float[Tensor, ""]:
    """Return RankMe: the exponential of the entropy of the singular values of the rows, not centred.

    ``p = s / sum(s) + 1e-7``. Not corrected for sample size.

    Args:
        z: embeddings (n, d), n >= 2.
        normalize: divide each row by its length first.

    Returns:
        A number in [1, min(n, d)]: about min(n, d) at the ideal, 1 at constant collapse, r for an isotropic sample in r
        dimensions. NaN if all rows are zero.

    Raises:
        ValueError: z is not (n, d) with n >= 2, or not finite.
        TypeError: z is not a floating-point tensor.

    Source:
        Garrido et al., RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised Representations by
        Their Rank, equation 1, arXiv 2210.02885; there of raw rows, here of unit rows.

    Example:
        >>> round(rankme(torch.eye(8)).item(), 3)
        8.0
    """
    return result(z, measures.rankme(prepare(z, normalize)))


def effective_rank(z: Float[Tensor, "n d"], *, normalize: bool = True) -> Float[Tensor, ""]:
    """Return the effective rank of the covariance: the exponential of the entropy of its normalised eigenvalues.

    Args:
        z: embeddings (n, d), n >= 2.
        normalize: divide each row by its length first.

    Returns:
        A number in [1, min(n - 1, d)]: d at the ideal, r for an isotropic sample in r dimensions, 1 where all rows lie
        on a line; NaN at constant collapse, near which it tells nothing. In use elsewhere: below 10 is a warning.

    Raises:
        ValueError: z is not (n, d) with n >= 2, or not finite.
        TypeError: z is not a floating-point tensor.

    Source:
        Roy and Vetterli, The Effective Rank: A Measure of Effective Dimensionality, EUSIPCO 2007, of the covariance.

    Example:
        >>> round(effective_rank(torch.cat([torch.eye(8), -torch.eye(8)])).item(), 3)
        8.0
    """
    return result(z, measures.effective_rank(prepare(z, normalize)))


def participation_ratio(z: Float[Tensor, "n d"], *, normalize: bool = True) -> Float[Tensor, ""]:
    """Return the participation ratio of the covariance's eigenvalues, ``(tr S)^2 / tr S^2``.

    Args:
        z: embeddings (n, d), n >= 2.
        normalize: divide each row by its length first.

    Returns:
        A number in [1, min(n - 1, d)]: d at the ideal, r for an isotropic sample in r dimensions, 1 where all rows lie
        on a line; NaN at constant collapse. It weighs strong dimensions more than `effective_dims` does.

    Raises:
        ValueError: z is not (n, d) with n >= 2, or not finite.
        TypeError: z is not a floating-point tensor.

    Source:
        Gao et al., A theory of multineuronal dimensionality, dynamics and measurement, bioRxiv 214262 (2017).

    Example:
        >>> round(participation_ratio(torch.cat([torch.eye(8), -torch.eye(8)])).item(), 3)
        8.0
    """
    return result(z, measures.participation_ratio(prepare(z, normalize)))


def stable_rank(z: Float[Tensor, "n d"], *, normalize: bool = True) -> Float[Tensor, ""]:
    """Return the stable rank of the centred rows, ``tr S`` over the largest eigenvalue of S.

    Args:
        z: embeddings (n, d), n >= 2.
        normalize: divide each row by its length first.

    Returns:
        A number in [1, min(n - 1, d)]: d at the ideal, r for an isotropic sample in r dimensions, 1 where all rows lie
        on a line; NaN at constant collapse.

    Raises:
        ValueError: z is not (n, d) with n >= 2, or not finite.
        TypeError: z is not a floating-point tensor.

    Source:
        Rudelson and Vershynin, Sampling from large matrices, J. ACM 54 (2007), arXiv math/0503442.

    Example:
        >>> round(stable_rank(torch.cat([torch.eye(8), -torch.eye(8)])).item(), 3)
        8.0
    """
    return result(z, measures.stable_rank(prepare(z, normalize)))


def alpha_req(z: Float[Tensor, "n d"], *, normalize: bool = True) -> Float[Tensor, ""]:
    """Return alpha, the exponent of the power law ``lambda_i ~ i^(-alpha)`` that the covariance's eigenvalues follow.

    By least squares of the logarithms, over the eigenvalues of rank 6 to 100, each weighted by 1 / rank.

    Args:
        z: embeddings (n, d), n >= 2.
        normalize: divide each row by its length first.

    Returns:
        A number >= 0: near 0 at the ideal for n far above d, the larger the fewer dimensions are in use; about 1 is
        said to go with good representations. NaN where fewer than 3 of those eigenvalues are not zero (d < 8, few
        rows, a collapse to fewer than 8 dimensions).

    Raises:
        ValueError: z is not (n, d) with n >= 2, or not finite.
        TypeError: z is not a floating-point tensor.

    Source:
        Agrawal et al., alpha-ReQ: Assessing Representation Quality in Self-Supervised Learning by measuring
        eigenspectrum decay, NeurIPS 2022; range and weights as in its authors' code, reptrix.

    Example:
        >>> z = torch.eye(64) * torch.arange(1, 65)[:, None] ** -0.5
        >>> round(alpha_req(torch.cat([z, -z]), normalize=False).item(), 3)
        1.0
    """
    return result(z, measures.alpha(prepare(z, normalize)))
