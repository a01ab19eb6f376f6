"""A bounded sample of a set of rows that is the same whatever the order, the batches and the ranks they come in.

Each different row is kept together with how often it came, as ``(key, count, row)``; its key is a hash of its bits, and
the rows with the largest keys stay. A row that is among those of the whole set is among those of every part of it, so
that no copy of it is missed.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uniformity_callbacks import pairwise
from uniformity_callbacks.unit_rows import unit_rows

_STEP, _FIRST, _SECOND = (x - (1 << 64) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""The constants of splitmix64 (Steele et al. 2014), as signed numbers."""

_KEY_BITS = 53
"""Of the hash: as many as float64 holds. Two of a million different rows are taken for one with probability 5e-5."""


_SIGMAS = 5.0
"""By how many standard deviations the number of rows kept may differ from that of an even set."""


def empty(most: int, d: int) -> Float[Tensor, "most k"]:
    """Return a sample with no row in it: all keys and counts are 0."""
    return torch.zeros(most, 2 + d, dtype=torch.float64)


def packed(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
    """Return float64 rows with their keys, each counted once."""
    return torch.cat([keys(rows)[:, None], torch.ones_like(rows[:, :1]), rows], dim=1)


def keys(rows: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Return a number in (0, 1] for each float64 row, as if drawn at random, and the same for equal rows."""
    bits = (rows + 0.0).view(torch.int64)  # -0.0 becomes 0.0, to which it is equal
    place = torch.arange(1, rows.shape[1] + 1, device=rows.device) * _STEP
    # Whole numbers wrap around: their sum is the same in any order.
    mixed = _mix(_mix(bits + place).sum(1))
    return (_shift(mixed, 64 - _KEY_BITS) + 1).to(torch.float64) * 2.0**-_KEY_BITS


def _mix(x: Int[Tensor, "*k"]) -> Int[Tensor, "*k"]:
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def _shift(x: Int[Tensor, "*k"], by: int) -> Int[Tensor, "*k"]:
    """Shift right, zeros coming in: torch's own shift repeats the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def keep(rows: Float[Tensor, "n k"], most: int) -> Float[Tensor, "most k"]:
    """Return the sample of packed rows: the ``most`` with the largest keys, in their order; copies are counted."""
    order = rows[:, 0].argsort(descending=True)
    rows = rows[order]
    key, count = rows[:, 0], rows[:, 1]
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[1:] != key[:-1]
    counts = torch.zeros_like(key).index_add(0, first.cumsum(0) - 1, count)
    chosen = first.nonzero()[:most, 0]
    kept = rows.new_zeros(most, rows.shape[1])
    kept[: len(chosen)] = rows[chosen]
    kept[: len(chosen), 1] = counts[: len(chosen)]
    return kept


def join(samples: Float[Tensor, "parts most k"]) -> Float[Tensor, "most k"]:
    """Return the sample of the whole set from those of its parts."""
    return keep(samples.flatten(0, 1), samples.shape[1])


def is_even(sample: Float[Tensor, "most k"], rows: Float[Tensor, ""]) -> bool:
    """Whether rows of a set repeat so evenly that the sample can tell of all.

    Where each different row came as often, the sample has the same share of the rows as of the keys' range, to
    1 / sqrt(most) of itself.

    Args:
        sample: packed rows.
        rows: how many rows the set has.
    """
    kept = sample[:, 1].sum()
    share = kept / rows / (1.0 - sample[-1, 0])
    return bool((kept == rows) | ((share - 1.0).abs() <= _SIGMAS / math.sqrt(len(sample))))


def potential(sample: Float[Tensor, "most k"], rows: Float[Tensor, ""], *, t: float) -> Float[Tensor, ""]:
    """Return L_U of the set that the sample is of; NaN if it has fewer than two rows.

    Pairs of different rows are weighted by how often they came. Pairs of equal rows are their exact number where all
    different rows are kept; otherwise estimated by those that a row has on average, since among the few that are kept
    with all their copies they would be far too many.

    Args:
        sample: packed rows.
        rows: how many rows the set has.
        t: the potential's parameter.
    """
    sample = sample[sample[:, 1] > 0]
    counts = sample[:, 1]
    if rows < 2:
        return rows * math.nan
    share = (counts * (counts - 1.0)).sum() / counts.sum() / (rows - 1.0)
    if len(sample) < 2:
        return torch.zeros_like(rows)  # all rows are equal
    different = pairwise.potential(unit_rows(sample[:, 2:]), t=t, counts=counts)
    return torch.logaddexp(torch.log1p(-share) + different, share.log())
