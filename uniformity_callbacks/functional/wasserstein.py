"""W2, the quadratic Wasserstein distance to the ideal: of a sample, of its population, of an ideal sample."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from uniformity_callbacks import closed_form, measures
from uniformity_callbacks.functional.embeddings import check_finite, check_whole, prepare, prepare_sample, result
from uniformity_callbacks.sample_size import wasserstein_floor as _floor


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
    if normalize:
        check_finite(z)
        return result(z, closed_form.uniformity(z))
    return result(z, measures.w2(prepare(z, normalize)))


def corrected_wasserstein_uniformity(z: Float[Tensor, "n d"], *, normalize: bool = True) -> Float[Tensor, ""]:
    """Return W2 of the population that the rows are an independent sample of.

    W2 of a sample reads above its population's, the more the fewer rows there are for each dimension. Here the sample's
    eigenvalues are taken back to the population's first (see `population_spectrum`), so that the number is comparable
    between batch sizes. It has no gradient. It is for one view: two views of one image are not independent rows, so
    correct each view by itself and average. Unlike plain W2 it changes when instances are cloned.

    Args:
        z: embeddings (n, d), n >= 16.
        normalize: divide each row by its length first.

    Returns:
        A number in [0, sqrt(2)], smaller is more uniform: 0 at the ideal, ``sqrt(2) = 1.414`` where all rows are one
        point. A perfectly uniform population reads 0.02 to 0.1 at n >= d / 2 (0.07 +- 0.05 at n 64, d 128), where plain
        W2 reads up to 0.83. Others are met on average within 6 % at n = d / 2 and 2 % from n = d on (power laws,
        exponentials and half-empty spectra, d 128 and 384; measured).

    Raises:
        ValueError: z is not (n, d), not finite, or fewer than 16 rows are not zero.
        TypeError: z is not a floating-point tensor.

    Warns:
        UserWarning: rows repeat others to the last bit.

    Source:
        W2: Fang et al., arXiv 2403.00642. The inversion: El Karoui, Spectrum estimation for large dimensional
        covariance matrices using random matrix theory, Annals of Statistics 36 (2008).

    Example:
        >>> z = torch.randn(128, 128, generator=torch.Generator().manual_seed(0))
        >>> round(wasserstein_uniformity(z).item(), 1), round(corrected_wasserstein_uniformity(z).item(), 1)
        (0.6, 0.0)
    """
    return result(z, measures.w2_corrected(prepare_sample(z, normalize)))


def wasserstein_floor(n: int, d: int) -> Float[Tensor, ""]:
    """Return the W2 that a perfectly uniform sample of n rows in d dimensions reads.

    Args:
        n: rows, >= 2.
        d: dimensions, >= 1.

    Returns:
        A float64 number in (0, sqrt(2)): towards 0 for n far above d, 0.568 at n = d = 64, 1.017 at n 512, d 2048.

    Raises:
        ValueError: n or d is too small.
        TypeError: n or d is not an integer.

    Source:
        Marchenko and Pastur, Distribution of eigenvalues for some sets of random matrices (1967), at ratio d / (n - 1).

    Example:
        >>> round(wasserstein_floor(512, 256).item(), 3)
        0.369
    """
    return torch.tensor(_floor(check_whole("n", n, 2), check_whole("d", d, 1)), dtype=torch.float64)
