"""How far rows spread over the sphere, and how close the views of one image are."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from uniformity_callbacks import measures, pairwise
from uniformity_callbacks.functional.embeddings import check_finite, check_positive, prepare, result


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
        >>> import torch
        >>> round(mean_resultant_length(torch.tensor([[1.0, 0.0], [0.0, 3.0]])).item(), 4)
        0.7071
    """
    return result(z, measures.resultant(prepare(z, normalize)))


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
        >>> import torch
        >>> round(std_ratio(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item(), 4)
        1.0
    """
    return result(z, measures.deviation(prepare(z, normalize)))


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
        >>> import torch
        >>> round(wang_isola_uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item(), 4)
        -8.0
    """
    check_positive("t", t)
    follows = torch.is_grad_enabled() and z.requires_grad if isinstance(z, torch.Tensor) else True
    if follows or not normalize or z.dtype == torch.float64:
        return result(z, pairwise.potential(prepare(z, normalize), t=t))
    check_finite(z)
    return result(z, pairwise.potential_of(pairwise.centred(z), t=t))


def alignment(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], *, alpha: float = 2.0, normalize: bool = True
) -> Float[Tensor, ""]:
    """Return the mean distance to the power alpha between the unit rows of x and y: two views of the same images.

    Args:
        x: embeddings (n, d) of one view, n >= 2.
        y: embeddings (n, d) of the other, row for row of the same images.
        alpha: the power, positive.
        normalize: divide each row by its length first.

    Returns:
        A number in [0, 2^alpha], smaller is better aligned: 0 where the views agree, which they also do at constant
        collapse; about 2 (alpha = 2) for views that have nothing to do with one another. NaN if each pair has a zero
        row. Read it beside a uniformity.

    Raises:
        ValueError: x or y is not (n, d) with n >= 2 or not finite; their shapes differ; alpha is not positive.
        TypeError: x or y is not a floating-point tensor.

    Source:
        Wang and Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity on the
        Hypersphere, equation 1, arXiv 2005.10242.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> round(alignment(x, x.flip(0)).item(), 4)
        2.0
    """
    check_positive("alpha", alpha)
    u, v = prepare(x, normalize, "x"), prepare(y, normalize, "y")
    if x.shape != y.shape:
        raise ValueError(
            f"x and y must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}; row i of both is of one image"
        )
    return result(x, pairwise.alignment(u, v, power=alpha))
