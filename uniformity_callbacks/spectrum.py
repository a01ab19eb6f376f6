"""Eigenvalues, the nuclear norm and its closed-form gradient, from the smaller Gram matrix in float64."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

RESOLUTION = 1e-7
"""Directions whose singular value is below this share of the largest get no gradient.

A Gram matrix squares singular values: in float64 its eigenvalues are known to some 2e-16 of the largest, so singular
values to some 2e-8 of it. Below 1e-7 the inverse is noise, and the polar factor's spectral norm could pass 1."""

_EIGENVALUE_NOISE = 4.0
"""Eigenvalues below this many epsilons of the largest are what round-off leaves of zeros, of which centred rows always
have one where n <= d; their square roots would add up."""


def gram(c: Float[Tensor, "n d"]) -> Float[Tensor, "k k"]:
    """Return the smaller Gram matrix of ``c``: ``c^T c`` where n >= d, else ``c c^T``; k = min(n, d)."""
    return c @ c.T if c.shape[0] < c.shape[1] else c.T @ c


def nuclear_norm(c: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return the sum of the singular values of ``c``, differentiable also where the rank is deficient.

    The gradient is the polar factor ``P = c (c^T c)^(-1/2)``, the subgradient of least norm where ``c`` is rank
    deficient: its spectral norm is at most 1, and directions below `RESOLUTION` of the largest get none. Autograd
    through ``eigh`` or ``svd`` divides by differences of singular values instead and is not finite there.

    Args:
        c: finite float64 matrix (n, d).
    """
    if not (torch.is_grad_enabled() and c.requires_grad):
        return _singular(torch.linalg.eigvalsh(gram(c))).sum()
    norm: Tensor = _NuclearNorm.apply(c)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return norm


def _singular(eigenvalues: Tensor) -> Tensor:
    noise = _EIGENVALUE_NOISE * torch.finfo(eigenvalues.dtype).eps * eigenvalues[-1]
    return torch.where(eigenvalues > noise, eigenvalues.clamp(min=0.0).sqrt(), 0.0)


class _NuclearNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, c: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(gram(c))
        singular = _singular(values)
        # Strictly greater: where all rows are zero nothing is kept, and the gradient is zero rather than 0 / 0.
        kept = singular > RESOLUTION * singular[-1]
        inverse = torch.where(kept, singular.clamp(min=torch.finfo(c.dtype).tiny).reciprocal(), 0.0)
        ctx.save_for_backward(c, (vectors * inverse) @ vectors.T)
        return singular.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        c, inverse_root = ctx.saved_tensors  # type: ignore[attr-defined]
        polar = inverse_root @ c if c.shape[0] < c.shape[1] else c @ inverse_root
        result: Tensor = grad * polar
        return result
