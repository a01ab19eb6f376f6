"""The nuclear norm and its gradient by matrix products alone, for devices where ``eigh`` is slow and synchronises."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

RESOLUTION = 1e-5
"""Directions whose singular value is at least this share of the largest get their gradient to 1e-4 (float64).

Weaker ones get a smoothly smaller share, never more than 1: 0.8 to 1 at 3e-6, 0.3 to 0.8 at 1e-6, 0.03 to 0.1 at 1e-7,
by the slack below. In the norm each of them lacks less than 1e-6 of the largest singular value."""

_SLACK = 3.0
"""How far the bound that normalises may lie above the largest singular value: at most k^(1/8), so 3 for k = 6561."""

_RIDGE = 4.0
"""Added to the diagonal, in epsilons of the bound, to outweigh what round-off makes of the Gram matrix's eigenvalues.

Without it the polar factor's spectral norm passes 1 by some 1e-6 where many directions lie near the resolution, and in
float32 negative eigenvalues, which the steps blow up, pass all bounds. At the resolution it costs at most 2e-5 of a
direction's share (k = 512; 4e-5 for k = 6561)."""

_WIDE = (4.01592039040699, -10.7165695836122, 7.70064919320519)
"""Coefficients (a, b, c) of ``x (a + b x^2 + c x^4)`` while singular values may still lie anywhere below 1.

The minimax approximation of 1 on [0.06, 1], scaled to a maximum of 1; small singular values grow by 4.0. That for the
interval's true lower end l would make them grow by 4.26, but its minimum inside the interval is as low as its value at
l: a strong direction that lands there is taken down to the weakest and loses its digits (measured, in float64: polar
factor off by 2e-4). Here nothing above 0.06 falls below 0.23."""

_CLOSING = (
    (3.39076333681541, -6.66157035780455, 4.27080702098914),  # for [0.2235, 1]
    (2.25987449778939, -2.14728385644422, 0.887409358654833),  # for [0.6858, 1]
    (1.88269093373548, -1.26542926061116, 0.382738326875687),  # for [0.9918, 1], to 1 - 9e-8 and less
)
"""Minimax on what each step leaves to the next, scaled likewise; the last is near the classical 15/8, -10/8, 3/8."""

_WIDE_STEPS = 8
"""Takes RESOLUTION / _SLACK = 3.3e-6 to 0.22: seven steps by the factor 4.0, the eighth from 0.056."""

_WIDE_STEPS_SINGLE = 3
"""The same for float32, whose Gram matrix knows singular values to some 1e-3 of the largest: takes 3.5e-3 to 0.22.

Shares are then 1 to 5e-3 at 1e-2 of the largest, 0.96 at 3e-3, 0.6 at 1e-3. More steps would amplify round-off only."""


def nuclear_norm_and_root(gram: Float[Tensor, "k k"]) -> tuple[Float[Tensor, ""], Float[Tensor, "k k"]]:
    """Return the nuclear norm of the matrix ``c`` whose smaller Gram matrix is given, and `inverse_root` of it.

    The norm's gradient is the polar factor: ``c @ root`` where the Gram matrix is ``c^T c``, ``root @ c`` where it is
    ``c c^T``. A zero matrix has the norm 0 and the gradient 0.
    """
    root = inverse_root(gram)
    return (gram * root).sum(), root


def inverse_root(gram: Float[Tensor, "k k"]) -> Float[Tensor, "k k"]:
    """Return ``G^(-1/2)`` of a Gram matrix, with directions below `RESOLUTION` of the largest attenuated.

    The odd quintic polar iteration ``X <- X M``, ``M = a I + b A + c A^2``, ``A = X^T X``, needs no ``X``: carried
    along are ``A <- A M^2`` and ``root <- root M``, four products of k x k matrices a step. Nothing waits for the
    device, no shape and no branch depends on values. 11 steps, 41 products in float64; 6 steps, 21 products in float32.

    Of a zero eigenvalue round-off leaves some e, of either sign, which the steps multiply by the square of their slopes
    at zero, 1e12 in all: in float64 to 1e-3, where the steps are still linear. Down to e = -1e-12 of the largest
    eigenvalue nothing is harmed (measured).

    Source: coefficients by interval as in Polar Express (arXiv 2505.16932), with a floor under the interval.

    Args:
        gram: ``c^T c`` or ``c c^T``, finite, in float64 (or float32, with TF32 off).
    """
    eps = torch.finfo(gram.dtype).eps
    eye = torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
    # By the trace first: entries of the square, and squares of those, would leave the range of numbers.
    trace = _divisor(gram.diagonal().sum())
    a = gram / trace
    square = a @ a
    # The fourth root of tr G^4 is at least the largest eigenvalue and at most k^(1/4) of it.
    bound = _divisor(torch.linalg.vector_norm(square).sqrt())
    a = a / bound + _RIDGE * eps * eye

    wide = _WIDE_STEPS if gram.dtype == torch.float64 else _WIDE_STEPS_SINGLE
    (constant, linear, quadratic), *rest = (_WIDE,) * wide + _CLOSING
    # The first square is at hand. That it lacks the ridge is harmless: both lines of the iteration use the same M.
    step = linear * a + quadratic / bound.square() * square
    root = step + constant * eye
    for coefficients in rest:
        # `step` is M without its constant, which `beta` adds: no further pass over the matrices.
        half = torch.addmm(a, a, step, beta=constant)
        a = torch.addmm(half, half, step, beta=constant)
        constant, linear, quadratic = coefficients
        step = torch.addmm(a, a, a, beta=linear, alpha=quadratic)
        root = torch.addmm(root, root, step, beta=constant)
    return root / (trace.sqrt() * bound.sqrt())


def _divisor(scale: Tensor) -> Tensor:
    """Return ``scale``, or 1 where it is zero: constant rows, whose centred matrix is zero."""
    return torch.where(scale > 0, scale, 1.0)
