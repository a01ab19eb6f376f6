"""What is measured of pairs of rows: the potential of a set, in blocks, and the distances between views."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from uniformity_callbacks.spectrum import root, without_autocast
from uniformity_callbacks.unit_rows import UnitRows, unit_rows

_PAIRS_AT_ONCE = 1 << 22
"""Entries of the pairwise distance matrix held at a time: 16 MB in float32, 32 in float64."""

_ON_THE_DIAGONAL = 256
"""Rows of a block on the diagonal, of which only what lies above it counts."""

_STEEP = 20.0
"""t times the largest squared length above which exponentials leave float32's range: then by their logarithms."""

_ROWS_AT_ONCE = 4096
"""Rows that are centred at a time."""


def potential(u: UnitRows, *, t: float = 2.0, counts: Float[Tensor, " n"] | None = None) -> Float[Tensor, ""]:
    """Return L_U; NaN if fewer than two rows are valid.

    Args:
        u: the rows.
        t: the potential's parameter.
        counts: how many equal rows each row stands for, by which pairs are weighted; a row makes no pair with itself.
    """
    counts = None if counts is None else counts[u.valid]
    if u.is_wide and len(u.rows) ** 2 <= _PAIRS_AT_ONCE and not u.rows.requires_grad:  # other metrics need them, too
        products = u.products_about_mean
        return _of_products(products if bool(u.valid.all()) else products[u.valid][:, u.valid], t, counts)
    c = u.centred if bool(u.valid.all()) else u.centred[u.valid]
    return potential_of(c.to(torch.float32) if u.single else c, t=t, counts=counts)


def potential_of(c: Float[Tensor, "n d"], *, t: float = 2.0, counts: Float[Tensor, " n"] | None = None) -> Tensor:
    """Return L_U of rows, float64, as `potential` does.

    Args:
        c: rows less any one vector, best their mean: distances do not change, and near-constant rows would lose all
            their digits otherwise. In float32 each pair is known to some 1e-7, their mean to less.
        t: the potential's parameter.
        counts: as for `potential`.
    """
    n = c.shape[0]
    if n < 2:
        return c.sum(dtype=torch.float64) * math.nan
    with without_autocast(c.device.type):
        lengths = torch.linalg.vecdot(c, c)
        steep = bool(t * lengths.detach().amax() > _STEEP)
        total = _log_sum(c, lengths, t, counts) if steep else _sum(c, lengths, t, counts).log()
    return _mean(total, n, counts)


@torch.no_grad()
def centred(z: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """Return the valid rows of raw embeddings of at most float32, of unit length, centred, in float32.

    Both are done in float64, on some rows at a time: little is held beside what is returned.
    """
    total, m = z.new_zeros(z.shape[1], dtype=torch.float64), 0
    for block in torch.split(z, _ROWS_AT_ONCE):
        u = unit_rows(block)
        total, m = total + u.rows.sum(0), m + int(u.count)
    mean, c, m = total / max(m, 1), z.new_empty(m, z.shape[1], dtype=torch.float32), 0
    for block in torch.split(z, _ROWS_AT_ONCE):
        u = unit_rows(block)
        rows = (u.rows - mean)[u.valid]
        c[m : m + len(rows)] = rows
        m += len(rows)
    return c


def alignment(x: UnitRows, y: UnitRows, *, power: float = 2.0) -> Float[Tensor, ""]:
    """Return the mean distance to the ``power`` between rows of one number; NaN if no pair is valid."""
    return mean_distance(*total_distance(x, y, power=power))


def total_distance(x: UnitRows, y: UnitRows, *, power: float = 2.0) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the sum of the distances to the ``power`` between rows of one number, and how many pairs are valid."""
    both = x.valid & y.valid
    squares = torch.where(both, (x.rows - y.rows).square().sum(1), 0.0)
    distances = squares if power == 2.0 else root(squares).pow(power)
    return torch.where(both, distances, 0.0).sum(), both.sum().to(distances.dtype)


def mean_distance(total: Float[Tensor, "*k"], count: Float[Tensor, "*k"]) -> Float[Tensor, "*k"]:
    """Return the mean; NaN where there is no pair."""
    return total / torch.where(count > 0, count, math.nan)


def _of_products(products: Tensor, t: float, counts: Tensor | None) -> Tensor:
    """Return L_U of rows whose products (n, n), float64, these are."""
    n, lengths = len(products), products.diagonal()
    if n < 2:
        return products.sum() * math.nan
    exponents = torch.sub(lengths[:, None] + lengths, products, alpha=2.0).clamp_(min=0.0).mul_(-t)
    if counts is not None:
        logs = counts.to(torch.float64).log()
        exponents += logs[:, None] + logs
    exponents.fill_diagonal_(-math.inf)  # pairs twice
    return _mean(torch.logsumexp(exponents.flatten(), dim=0) - math.log(2.0), n, counts)


def _mean(total: Tensor, n: int, counts: Tensor | None) -> Tensor:
    """Return the logarithm of the mean over the pairs of n rows, given that of the sum."""
    many = total.new_ones(n) if counts is None else counts.to(torch.float64)
    pairs = (many.sum().square() - many.square().sum()) / 2.0
    return (total - pairs.log()).clamp(max=0.0)


def _sum(c: Tensor, lengths: Tensor, t: float, counts: Tensor | None) -> Tensor:
    """Return the sum of the potentials of all pairs, float64."""
    weights = torch.exp(-t * lengths)
    if counts is not None:
        weights = weights * counts
    total = c.new_zeros((), dtype=torch.float64)
    for first, second, on_diagonal in _blocks(c):
        products = (2.0 * t * c[first]) @ c[second].T
        potentials = products.exp() if products.requires_grad else products.exp_()
        if on_diagonal:
            potentials = potentials.triu(1)
        total = total + (weights[first] @ potentials).to(torch.float64) @ weights[second].to(torch.float64)
    return total


def _log_sum(c: Tensor, lengths: Tensor, t: float, counts: Tensor | None) -> Tensor:
    """Return the logarithm of that sum where the potentials themselves would leave the range of numbers."""
    logs = []
    for first, second, on_diagonal in _blocks(c):
        distances = lengths[first, None] + lengths[None, second] - 2.0 * c[first] @ c[second].T
        exponents = (-t * distances.clamp(min=0.0)).to(torch.float64)
        if counts is not None:
            exponents = exponents + counts[first, None].log() + counts[None, second].log()
        if on_diagonal:
            upper = torch.ones_like(exponents, dtype=torch.bool).triu(1)
            exponents = torch.where(upper, exponents, -math.inf)
        logs.append(torch.logsumexp(exponents.flatten(), dim=0))
    return torch.logsumexp(torch.stack(logs), dim=0)


def _blocks(c: Tensor) -> Iterator[tuple[slice, slice, bool]]:
    """Return blocks of pairs i < j: on the diagonal, whose upper triangle is meant, and above it."""
    n = c.shape[0]
    columns = _PAIRS_AT_ONCE // _ON_THE_DIAGONAL
    for start in range(0, n, _ON_THE_DIAGONAL):
        end = min(start + _ON_THE_DIAGONAL, n)
        if end - start > 1:
            yield slice(start, end), slice(start, end), True
        for left in range(end, n, columns):
            yield slice(start, end), slice(left, min(left + columns, n)), False
