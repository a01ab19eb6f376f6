"""Additive moments, where rows would be too many."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from uniformity_callbacks import spectrum
from uniformity_callbacks.statistics import Statistics
from uniformity_callbacks.unit_rows import UnitRows, unit_rows

_COUNTS = 5


@dataclass(frozen=True)
class Moments(Statistics):
    """Sums over unit rows, which add up over batches and ranks. Float64, without gradients.

    A difference of large numbers where rows are nearly one point: eigenvalues are known to some 1e-15 of the whole, so
    singular values to 3e-8 of it.

    Attributes:
        counts: (5,): valid rows; rows that were not finite; finite rows, the sum of their lengths before normalising
            and the sum of its squares.
        total: (d,), sum of the valid rows.
        products: (d, d), sum of their outer products.
    """

    round_off: ClassVar[float] = 1e-13  # the covariance is a difference of sums known to some 1e-16 of their size

    counts: Float[Tensor, " 5"]
    total: Float[Tensor, " d"]
    products: Float[Tensor, "d d"]

    @classmethod
    @torch.no_grad()
    def of(cls, u: UnitRows) -> Moments:
        """Return the sums over some rows."""
        lengths = u.lengths.nan_to_num()
        finite = (~u.lengths.isnan()).sum().to(lengths.dtype)
        counts = torch.stack([u.count, u.nonfinite, finite, lengths.sum(), lengths.square().sum()])
        return cls(counts, u.rows.sum(0), u.rows.T @ u.rows if u.is_wide else spectrum.gram(u.rows))

    @classmethod
    def zeros(cls, d: int) -> Moments:
        """Return the sums over no rows."""
        return cls.of(unit_rows(torch.zeros(0, d)))

    @property
    def flat(self) -> Float[Tensor, " m"]:
        """All sums one after another."""
        return torch.cat([part.flatten() for part in self._parts])

    @classmethod
    def unflatten(cls, flat: Float[Tensor, " m"], d: int) -> Moments:
        """Return what `flat` came of."""
        counts, total, products = torch.split(flat, [_COUNTS, d, d * d])
        return cls(counts, total, products.view(d, d))

    @staticmethod
    def length(d: int) -> int:
        """Return the number of sums in `flat`."""
        return _COUNTS + d + d * d

    def __add__(self, other: Moments) -> Moments:
        """Return the sums over the rows of both."""
        return Moments(*(a + b for a, b in zip(self._parts, other._parts, strict=True)))

    def cpu(self) -> Moments:
        """Return the same on the CPU."""
        return Moments(*(part.cpu() for part in self._parts))

    @property
    def _parts(self) -> tuple[Tensor, ...]:
        return self.counts, self.total, self.products

    @property
    def count(self) -> Float[Tensor, ""]:
        """How many rows are valid."""
        return self.counts[0]

    @property
    def nonfinite(self) -> Float[Tensor, ""]:
        """How many rows were not finite."""
        return self.counts[1]

    @property
    def _n(self) -> Tensor:
        return self.count.clamp(min=1.0)

    @property
    def dims(self) -> int:
        """d, the number of features."""
        return self.total.shape[0]

    @cached_property
    def mean(self) -> Float[Tensor, " d"]:
        """The mean of the valid rows, zero if there are none."""
        return self.total / self._n

    @property
    def square(self) -> Float[Tensor, ""]:
        """The mean squared length of the valid rows; 1 if there are none."""
        return torch.where(self.count > 0, self.products.trace() / self._n, 1.0)

    @cached_property
    def _covariance(self) -> Tensor:
        return self.products / self._n - torch.outer(self.mean, self.mean)

    @property
    def scatter(self) -> Float[Tensor, " d"]:
        """The sum of squared deviations of each feature."""
        return self.count * self._covariance.diagonal().clamp(min=0.0)

    @cached_property
    def eigenvalues(self) -> Float[Tensor, " k"]:
        """Eigenvalues of the centred covariance, ascending."""
        return spectrum.eigenvalues(self._covariance, scale=self.square)

    @cached_property
    def raw_eigenvalues(self) -> Float[Tensor, " k"]:
        """Eigenvalues of the second moment about zero, ascending."""
        # Those of zeros are no more than rows would have: RankMe adds something to each.
        rows = max(int(self.counts[1] + self.counts[2]), 1)
        return spectrum.eigenvalues(self.products / self._n)[-rows:]

    @property
    def norms(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Mean and mean square of the lengths of all finite rows."""
        many = torch.where(self.counts[2] > 0, self.counts[2], math.nan)
        return self.counts[3] / many, self.counts[4] / many
