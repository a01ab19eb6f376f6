"""W2 of unit rows and its gradient in closed form, from raw embeddings in one step.

With unit rows u, their centred rows c, P the polar factor of c and R = (c^T c)^(-1/2) or (c c^T)^(-1/2), the gradient
with respect to u is ``P / sqrt(n)``, P = c R or R c, whose columns have mean zero as those of c. Dividing each row by
its length l takes from it what lies along the row: ``(g - u (u . g)) / l``. Where n <= d that is one product of an
(n, n) matrix and the rows, and in single precision not even centred rows are formed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from uniformity_callbacks import spectrum
from uniformity_callbacks.deflation import Weak, weak_part
from uniformity_callbacks.unit_rows import UnitRows, unit_rows

WELL_SPREAD = 0.02
"""Singular values above this share of the largest are done in single precision.

A Gram matrix in float32 is known to some 1e-7 of its largest eigenvalue, so that the weakest of these directions' share
of the gradient is known to 1e-7 / 0.02^2 / 2 = 1e-4. Weaker ones are taken out and done in float64."""

_WEAK_SHARE = 0.25
"""Share of weak directions above which that would take as long as doing all in float64."""

_VARIED = 1e-4
"""Share of the rows' squared length that is variance, below which all of them are weak."""

_NEAR_IDEAL = 0.995
"""Share of the ideal's ``tr S^(1/2)`` above which W2, then below 0.1, is a difference of near numbers: float64, too."""

_IDEAL_SQUARED = 1e-14
"""W2^2 below this is the ideal: it is a difference of numbers near 1, known to about 1e-15."""

_SQUARES = 1e-30, 1e30
"""Squared lengths that single precision takes: far from both ends of its range."""


@dataclass(frozen=True)
class Rooted:
    """``tr S^(1/2)`` of some rows' directions, and what its gradient is made of.

    Attributes:
        value: ``tr S^(1/2)``, float64.
        matrix: R, (k, k); where rows are raw (n, n), what makes their gradient of them.
        rows: (n, d), centred unit rows, zero where not valid; where n <= d in single precision raw.
        mean: (d,), of the valid unit rows; None where the rows are raw.
        scales: (n,): 1 / (length sqrt(count)), 0 where a row is not valid.
        weak: the part in weak directions, where that is apart.
    """

    value: Float[Tensor, ""]
    matrix: Float[Tensor, "k k"]
    rows: Float[Tensor, "n d"]
    mean: Float[Tensor, " d"] | None
    scales: Float[Tensor, " n"]
    weak: Weak | None = None

    def gradient(self, factor: Tensor | float = 1.0, part: slice = slice(None)) -> Float[Tensor, "m d"]:
        """Return ``factor`` times the gradient with respect to a part of the raw rows, in the precision worked in."""
        matrix, wide, mean = self.matrix, is_wide(self.rows), self.mean
        if mean is None:
            return (matrix[part] * factor) @ self.rows
        rows = self.rows[part]
        polar: Tensor = matrix[part] @ self.rows if wide else rows @ matrix
        if self.weak is not None:
            polar.addmm_(self.weak.left[part], self.weak.right)
        along = (torch.linalg.vecdot(rows, polar) + polar @ mean)[:, None]
        polar.addcmul_(rows + mean, along, value=-1.0).mul_((self.scales[part] * factor)[:, None])
        return polar


def is_wide(z: Tensor) -> bool:
    """Whether rows are no more than features: the smaller Gram matrix is then that of rows."""
    return z.shape[0] <= z.shape[1]


def uniformity(z: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return W2 of the unit rows of ``z``, float64, differentiable; sqrt(2) if no row is valid.

    Rows that are zero or not finite are left out and get no gradient.
    """
    if not (torch.is_grad_enabled() and z.requires_grad):
        centred = _Centred.of(unit_rows(z))
        trace_root = spectrum.nuclear_norm(centred.rows) / centred.root_count
        return distance(torch.ones_like(trace_root), trace_root, z.shape[1])
    w2: Tensor = _Uniformity.apply(z)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return w2


def distance(square: Float[Tensor, ""], trace_root: Float[Tensor, ""], d: int) -> Float[Tensor, ""]:
    """Return W2 from the mean squared length, 1 for unit rows, and ``tr S^(1/2)``."""
    return spectrum.root(square + 1.0 - 2.0 * trace_root / math.sqrt(d), above=_IDEAL_SQUARED)


@torch.no_grad()
def rooted(z: Float[Tensor, "n d"]) -> Rooted:
    """Return ``tr S^(1/2)`` and its gradient's parts.

    In single precision where that is enough, on a CPU; in float64 without looking at a value elsewhere.
    """
    if spectrum.may_look(z) and z.dtype != torch.float64 and z.numel():
        with spectrum.without_autocast():
            found = _single(z.to(torch.float32)) if _products_are_exact() else None
        if found is not None:
            return found
    return _double(z)


def by_lengths(gradient: Float[Tensor, "n d"], u: UnitRows) -> Float[Tensor, "n d"]:
    """Return the gradient with respect to raw rows from that with respect to unit rows; 0 where not valid."""
    along: Tensor = torch.linalg.vecdot(u.rows, gradient)[:, None]
    return torch.where(u.valid, 1.0 / u.lengths, 0.0)[:, None] * (gradient - u.rows * along)


def _products_are_exact() -> bool:
    """Whether products of float32 matrices are: settings may let them run in bfloat16 or TF32."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    precision = getattr(matmul, "fp32_precision", None) or torch.get_float32_matmul_precision()
    return precision in ("ieee", "none", "highest")


def _single(z: Float[Tensor, "n d"]) -> Rooted | None:
    """Return it by float32, weak directions apart; None where most are weak, or a row is not valid."""
    (n, d), wide = z.shape, is_wide(z)
    products = z @ z.T if wide else None
    squares = torch.linalg.vecdot(z, z) if products is None else products.diagonal().clone()
    least, most = squares.aminmax()
    if not (float(least) > _SQUARES[0] and float(most) < _SQUARES[1]):  # NaN is neither
        return None
    scales = squares.rsqrt()
    if products is not None:
        products.mul_(scales).mul_(scales[:, None])  # (n, n), cosines
        by_row = products.mean(1)
        square = float(by_row.mean())  # |mean|^2
        gram = products - by_row - (by_row - square)[:, None]
    else:
        c = z * scales[:, None]
        mean = c.mean(0)
        square = float(mean @ mean)
        c -= mean
        gram = c.T @ c
    trace = float(gram.diagonal().sum())
    if trace <= _VARIED * n:
        return None
    top = float(torch.linalg.vector_norm(gram)) ** 2 / trace  # the mean eigenvalue, weighted by themselves
    if products is not None:  # centred rows have no part in the vector of ones: it gets an eigenvalue among the strong
        top = max(top, 2.0 * WELL_SPREAD**2 * n)
        gram += top / n
    values, vectors = torch.linalg.eigh(gram)
    s = int((values <= WELL_SPREAD**2 * (float(values[-1]) + n * square)).sum())
    if s > _WEAK_SHARE * len(values):
        return None
    strong, singular = vectors[:, s:], values[s:].sqrt()
    root = (strong / singular) @ strong.T
    # The mean of tr(R G) and tr(R^-1) knows the norm to second order in R's error. Eigenvectors are of length 1 nearly.
    norm = (root * gram).sum(dtype=torch.float64)
    norm = 0.5 * (norm + singular.double() @ (2.0 - strong.double().square().sum(0)))
    if products is not None:
        norm -= math.sqrt(top)
        root -= 1.0 / (math.sqrt(top) * n)
    weak = None
    if s:
        exact = z.to(torch.float64)
        exact *= torch.linalg.vecdot(exact, exact).rsqrt()[:, None]
        centre = exact.mean(0)
        exact -= centre
        weak = weak_part(exact, vectors, values, s)
        norm += weak.norm
        c, mean, products = exact.to(torch.float32), centre.to(torch.float32), None
    value = norm / math.sqrt(n)
    if float(value) > _NEAR_IDEAL * math.sqrt(d):
        return None
    scales = scales / math.sqrt(n)
    if products is None:
        return Rooted(value, root, c, mean, scales, weak)
    along = torch.linalg.vecdot(root, products)
    root.diagonal().sub_(along)
    return Rooted(value, root.mul_(scales).mul_((scales * math.sqrt(n))[:, None]), z, None, scales)


def _double(z: Float[Tensor, "n d"]) -> Rooted:
    """Return it by float64, for rows of any kind, without a look at a value."""
    u = unit_rows(z)
    c, mean, root_count = _Centred.of(u)
    scales = torch.where(u.valid, 1.0 / (u.lengths * root_count), 0.0)
    gram = c @ c.T if is_wide(z) else c.T @ c
    norm, root = spectrum.norm_and_root(gram)
    value = norm / root_count
    return Rooted(value, root, c, mean, scales)


class _Centred(NamedTuple):
    """What `UnitRows` has under these names; torch.compile traces no cached property."""

    rows: Float[Tensor, "n d"]
    mean: Float[Tensor, " d"]
    root_count: Float[Tensor, ""]

    @classmethod
    def of(cls, u: UnitRows) -> _Centred:
        count = u.valid.sum().clamp(min=1).to(torch.float64)
        mean = u.rows.sum(0) / count
        return cls(torch.where(u.valid[:, None], u.rows - mean, 0.0), mean, count.sqrt())


class _Uniformity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, z: Tensor) -> Tensor:
        found = rooted(z)
        w2 = distance(torch.ones_like(found.value), found.value, z.shape[1])
        # The slope is infinite at the ideal, where there is nothing to gain.
        slope = torch.where(w2 > 0, -1.0 / (math.sqrt(z.shape[1]) * torch.where(w2 > 0, w2, 1.0)), 0.0)
        weak = found.weak or (None, None, None)
        ctx.save_for_backward(found.matrix, found.rows, found.mean, found.scales, slope, *weak[1:])  # type: ignore[arg-type]  # or None
        ctx.dtype = z.dtype  # type: ignore[attr-defined]
        return w2

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        matrix, rows, mean, scales, slope, left, right = ctx.saved_tensors  # type: ignore[attr-defined]
        found = Rooted(slope, matrix, rows, mean, scales, None if left is None else Weak(slope, left, right))
        with spectrum.without_autocast():  # float64, all there is elsewhere, is left alone by it
            gradient = found.gradient((grad * slope).to(matrix.dtype))
        return gradient.to(ctx.dtype)  # type: ignore[attr-defined]
