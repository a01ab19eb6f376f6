"""Eigenvalues, the nuclear norm and its closed-form gradient, from the smaller Gram matrix in float64."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from uniformity_callbacks.polar import nuclear_norm_and_root

RESOLUTION = 1e-7
"""Directions whose singular value is below this share of the largest get no gradient.

A Gram matrix squares singular values: in float64 its eigenvalues are known to some 2e-16 of the largest, so singular
values to some 2e-8 of it. Below 1e-7 the inverse is noise."""

_EIGENVALUE_NOISE = 4.0
"""Eigenvalues below this many epsilons of the largest are what round-off leaves of zeros, of which centred rows always
have one where n <= d; their square roots would add up."""

_BLOCK = 192
"""Columns of a block of a Gram matrix: a multiple of 24, 32, 48 and 64, in which libraries compute. With 512, which is
none of 24 or 48, products of float64 took 1.2 to 1.5 times as long."""

_WEAK = 1e-12
"""Eigenvalues below this share of the largest are known to fewer than three digits: the Gram matrix's round-off is
some 1e-15 of the largest."""


def gram(c: Float[Tensor, "n d"]) -> Float[Tensor, "k k"]:
    """Return the smaller Gram matrix of ``c``: ``c^T c`` where n >= d, else ``c c^T``; k = min(n, d)."""
    if c.shape[0] < c.shape[1]:
        c = c.T
    if c.shape[1] <= _BLOCK or c.requires_grad or not may_look(c):
        return c.T @ c
    # Half of it is the other half's transpose.
    products = c.new_empty(c.shape[1], c.shape[1])
    for at in range(0, c.shape[1], _BLOCK):
        here = slice(at, at + _BLOCK)
        products[at:, here] = c[:, at:].T @ c[:, here]
        products[here, at:] = products[at:, here].T
    return products


def eigenvalues(symmetric: Float[Tensor, "k k"], *, scale: Float[Tensor, ""] | None = None) -> Float[Tensor, " k"]:
    """Return the eigenvalues of a positive semidefinite matrix, ascending, round-off of zeros made zero.

    Differentiable; the gradient is finite where eigenvalues are equal, too.

    Args:
        symmetric: float64 (k, k).
        scale: what round-off is relative to where that is more than the largest eigenvalue, since the matrix is a
            difference of larger ones.
    """
    values = torch.linalg.eigvalsh(symmetric)
    noise = _EIGENVALUE_NOISE * torch.finfo(values.dtype).eps * _largest(values, scale).detach()
    return torch.where(values > noise, values, 0.0)


def refined_eigenvalues(c: Float[Tensor, "n d"], whole: Float[Tensor, "k k"]) -> Float[Tensor, " k"]:
    """Return the eigenvalues of the smaller Gram matrix of ``c``, the weak ones as exact as the strong.

    Directions that the Gram matrix knows to few digits are taken out of ``c`` and decomposed once more on their own.
    Where there are none it costs nothing.

    Args:
        c: finite float64 matrix (n, d).
        whole: its smaller Gram matrix.
    """
    values = eigenvalues(whole)
    weak = int((values <= _WEAK * values[-1]).sum())
    if weak == 0:
        return values
    # Without gradient: to first order, the eigenvalues of a part do not feel that the part turns.
    basis = torch.linalg.eigh(whole.detach()).eigenvectors[:, :weak]
    part = basis.T @ c if c.shape[0] < c.shape[1] else (c @ basis).T
    return torch.cat([eigenvalues(part @ part.T), values[weak:]])


def root(x: Tensor, *, above: float = 0.0) -> Tensor:
    """Square root, with value and gradient 0 where x is at most ``above``: the root's slope is infinite at zero."""
    positive = x > above
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


def nuclear_norm(c: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return the sum of the singular values of ``c``, differentiable also where the rank is deficient.

    The gradient is the polar factor ``P = c (c^T c)^(-1/2)``, the subgradient of least norm where ``c`` is rank
    deficient: its spectral norm is at most 1 (1.03 measured where many directions lie at the resolution, whose
    eigenvalues are half round-off), and directions below `RESOLUTION` of the largest get none. Autograd through
    ``eigh`` or ``svd`` divides by differences of singular values instead and is not finite there. On an accelerator
    value and gradient come of matrix products alone, with `polar.RESOLUTION` instead.

    Args:
        c: finite float64 matrix (n, d).
    """
    if not (torch.is_grad_enabled() and c.requires_grad):
        return norm_and_root(gram(c))[0] if by_products(c) else root(eigenvalues(gram(c))).sum()
    norm: Tensor = _NuclearNorm.apply(c)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return norm


def by_products(c: Tensor) -> bool:
    """Whether to use matrix products alone: elsewhere than on a CPU ``eigh`` is slow and waits for the device."""
    return c.device.type != "cpu"  # not is_cuda: without a GPU, tests take this path on the meta device


def may_look(c: Tensor) -> bool:
    """Whether a branch may depend on values: on a CPU, where looking waits for nothing, and outside of a trace."""
    return not (by_products(c) or torch.compiler.is_compiling())


def without_autocast(device: str = "cpu") -> AbstractContextManager[object]:
    """Return a context in which products of float32 matrices are done in float32.

    Where autocast is off it does nothing: at the end of an autocast context that is a thread's outermost, even one that
    switches it off, torch forgets the half-precision weights of all threads, also of one in its forward pass.
    """
    enabled: Callable[..., bool] = torch.is_autocast_enabled
    if hasattr(torch, "get_autocast_dtype"):
        on = enabled(device)
    else:  # before torch 2.4
        on = torch.is_autocast_cpu_enabled() if device == "cpu" else enabled()
    return torch.autocast(device, enabled=False) if on else nullcontext()


def norm_and_root(
    symmetric: Float[Tensor, "k k"], *, scale: Float[Tensor, ""] | None = None
) -> tuple[Float[Tensor, ""], Float[Tensor, "k k"]]:
    """Return the nuclear norm of ``c`` and the inverse root of its Gram matrix, which the polar factor comes of.

    Args:
        symmetric: the Gram matrix of ``c``, float64.
        scale: as for `eigenvalues`.
    """
    if by_products(symmetric):
        return nuclear_norm_and_root(symmetric)
    values, vectors = torch.linalg.eigh(symmetric)
    noise = _EIGENVALUE_NOISE * torch.finfo(values.dtype).eps * _largest(values, scale)
    singular = root(torch.where(values > noise, values, 0.0))
    # Strictly greater: where all rows are zero nothing is kept, and the gradient is zero rather than 0 / 0.
    kept = singular > RESOLUTION * singular[-1]
    # Noise on top, or weak directions whose eigenvalue round-off made smaller would get more than their share.
    inverse = torch.where(kept, (values + noise).clamp(min=torch.finfo(values.dtype).tiny).rsqrt(), 0.0)
    return singular.sum(), (vectors * inverse) @ vectors.T


def _largest(values: Tensor, scale: Tensor | None) -> Tensor:
    return values[-1] if scale is None else torch.maximum(values[-1], scale)


def polar_factor(c: Float[Tensor, "n d"], inverse_root: Float[Tensor, "k k"]) -> Float[Tensor, "n d"]:
    """Return ``c (c^T c)^(-1/2)``, the gradient of the nuclear norm, from the inverse root of `gram`."""
    return inverse_root @ c if c.shape[0] < c.shape[1] else c @ inverse_root


class _NuclearNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, c: Tensor) -> Tensor:
        norm, inverse_root = norm_and_root(gram(c))
        ctx.save_for_backward(c, inverse_root)
        return norm

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        c, inverse_root = ctx.saved_tensors  # type: ignore[attr-defined]
        result: Tensor = grad * polar_factor(c, inverse_root)
        return result
