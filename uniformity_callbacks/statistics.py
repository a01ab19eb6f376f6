"""What the metrics are computed from: the moments of unit rows, and the rows themselves."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from uniformity_callbacks import flat, spectrum
from uniformity_callbacks.sample_size import Population, population

_SPREAD = 0.1
"""Share of the rows' squared length that is variance, above which centring after the product costs no more than a digit
of the smallest eigenvalues that float64 knows."""

_IN_CACHE = 2**18
"""Numbers that are prepared at a time where there are many: they stay in the cache between the steps."""


class Statistics(ABC):
    """First and second moments of unit rows, in float64; what several metrics need is computed once and kept."""

    round_off: ClassVar[float]
    """Total variance of unit rows at and below which they are one point: what round-off leaves of equal rows."""

    unit: bool = True
    """Whether rows were normalised, rather than taken as they are."""

    @property
    @abstractmethod
    def dims(self) -> int:
        """d, the number of features."""

    @property
    @abstractmethod
    def count(self) -> Float[Tensor, ""]:
        """How many rows are valid: finite, and not zero."""

    @property
    @abstractmethod
    def nonfinite(self) -> Float[Tensor, ""]:
        """How many rows were not finite."""

    @property
    @abstractmethod
    def mean(self) -> Float[Tensor, " d"]:
        """The mean of the valid rows, zero if there are none."""

    @property
    @abstractmethod
    def square(self) -> Float[Tensor, ""]:
        """The mean squared length of the valid rows: 1 if they are unit rows; 1 if there are none."""

    @property
    @abstractmethod
    def scatter(self) -> Float[Tensor, " d"]:
        """The sum of squared deviations of each feature."""

    @property
    @abstractmethod
    def eigenvalues(self) -> Float[Tensor, " k"]:
        """Eigenvalues of the centred covariance (divided by n), ascending; the min(n, d) that need not be zero."""

    @property
    @abstractmethod
    def raw_eigenvalues(self) -> Float[Tensor, " k"]:
        """The same of the second moment about zero."""

    @property
    @abstractmethod
    def norms(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Mean and mean square of the lengths before normalising, over all finite rows; NaN if there are none."""

    @property
    def trace_root(self) -> Float[Tensor, ""]:
        """``tr S^(1/2)``, S the centred covariance."""
        return spectrum.root(self.eigenvalues).sum()

    @property
    def is_one_point(self) -> Bool[Tensor, ""]:
        """Whether all valid rows are equal but for round-off; true if there are none."""
        return self.scatter.sum() <= self.round_off * self.count

    @cached_property
    def population(self) -> Population:
        """The spectrum of the population that the rows are a sample of; at least 2 valid rows."""
        square = 1.0 if self.unit else math.inf
        return population(self.eigenvalues.detach().cpu().numpy(), int(self.count), self.dims, mean_square=square)


@dataclass(frozen=True)
class UnitRows(Statistics):
    """Rows ready to measure: float64, those that cannot be measured masked instead of taken out.

    The mask keeps shapes static, so that nothing waits for a device to say how many rows are good.

    Attributes:
        rows: float64 (n, d), zero where not valid.
        valid: (n,), False where the row was zero or not finite.
        lengths: (n,), before normalising; NaN where the row was not finite.
        unit: whether rows were normalised.
        single: whether they were of at most float32 before: nobody asks for more than it has.
        within: the rows that these are some of, and which, where products of rows are to be computed once for all.
    """

    round_off: ClassVar[float] = 1e-28  # centring equal float64 rows leaves some 1e-32 each

    rows: Float[Tensor, "n d"]
    valid: Bool[Tensor, " n"]
    lengths: Float[Tensor, " n"]
    unit: bool = True
    single: bool = False
    within: tuple[UnitRows, slice] | None = None

    @classmethod
    def join(cls, parts: Sequence[UnitRows]) -> UnitRows:
        """Return the rows of all parts."""
        if len(parts) == 1:
            return parts[0]
        wholes = [part.within[0] for part in parts if part.within is not None]
        of_one = len(wholes) == len(parts) and all(whole is wholes[0] for whole in wholes)
        if of_one and sum(len(part.rows) for part in parts) == len(wholes[0].rows):
            return wholes[0]
        rows, valid, lengths = (torch.cat([getattr(p, name) for p in parts]) for name in ("rows", "valid", "lengths"))
        return cls(rows, valid, lengths, parts[0].unit, all(p.single for p in parts))

    def split(self, sizes: Sequence[int]) -> tuple[UnitRows, ...]:
        """Return the rows in parts of some sizes, one after another."""
        places = [slice(end - size, end) for end, size in zip(accumulate(sizes), sizes, strict=True)]
        return tuple(
            UnitRows(self.rows[place], self.valid[place], self.lengths[place], self.unit, self.single, (self, place))
            for place in places
        )

    @property
    def dims(self) -> int:
        """d, the number of features."""
        return self.rows.shape[1]

    @property
    def is_wide(self) -> bool:
        """Whether there are fewer rows than features."""
        return self.rows.shape[0] < self.rows.shape[1]

    @cached_property
    def count(self) -> Float[Tensor, ""]:
        """How many rows are valid."""
        return self.valid.sum().to(torch.float64)

    @property
    def nonfinite(self) -> Float[Tensor, ""]:
        """How many rows were not finite."""
        return self.lengths.isnan().sum().to(torch.float64)

    @cached_property
    def mean(self) -> Float[Tensor, " d"]:
        """The mean of the valid rows, zero if there are none."""
        return self.rows.sum(0) / self.count.clamp(min=1.0)

    @property
    def square(self) -> Float[Tensor, ""]:
        """The mean squared length of the valid rows; 1 if there are none."""
        if self.unit:
            return torch.ones((), dtype=self.rows.dtype, device=self.rows.device)
        return torch.where(self.count > 0, self.rows.square().sum() / self.count.clamp(min=1.0), 1.0)

    @cached_property
    def is_one_point(self) -> Bool[Tensor, ""]:
        """Whether all valid rows are equal but for round-off; true if there are none."""
        return ~self.valid.any() if self._spreads else super().is_one_point

    @cached_property
    def _spreads(self) -> bool:
        """Whether rows are known to differ by far: then nothing is lost if the mean is taken out of sums."""
        return spectrum.may_look(self.rows) and bool(self.square - self.mean.square().sum() > _SPREAD * self.square)

    @cached_property
    def centred(self) -> Float[Tensor, "n d"]:
        """The valid rows less their mean; masked rows are zero."""
        return torch.where(self.valid[:, None], self.rows - self.mean, 0.0)

    @cached_property
    def scatter(self) -> Float[Tensor, " d"]:
        """The sum of squared deviations of each feature."""
        return self.centred.square().sum(0)

    @cached_property
    def products(self) -> Float[Tensor, "k k"]:
        """The smaller Gram matrix of the rows: of pairs of rows (n, n) where `is_wide`, else (d, d)."""
        if self.is_wide and self.within is not None and self.within[0].is_wide:
            whole, place = self.within
            return whole.products[place, place]
        return spectrum.gram(self.rows)

    @cached_property
    def eigenvalues(self) -> Float[Tensor, " k"]:
        """Eigenvalues of the centred covariance, ascending."""
        if self._flat is not None:
            return self._flat[0]
        n = self.count.clamp(min=1.0)
        if not self._spreads:
            return spectrum.eigenvalues(spectrum.gram(self.centred)) / n
        if self.is_wide:
            by_row = self.products.sum(1) / n
            about = self.products - by_row - (by_row - by_row.sum() / n)[:, None]
            about = torch.where(self.valid[:, None] & self.valid, about, 0.0)
        else:
            about = self.products - n * torch.outer(self.mean, self.mean)
        return spectrum.eigenvalues(about, scale=n * self.square) / n

    @cached_property
    def raw_eigenvalues(self) -> Float[Tensor, " k"]:
        """Eigenvalues of the second moment about zero, ascending."""
        if self._flat is not None:
            return self._flat[1]
        # Refined, since RankMe adds 1e-7 to each share, so that shares of 1e-8 are felt.
        return spectrum.refined_eigenvalues(self.rows, self.products) / self.count.clamp(min=1.0)

    @cached_property
    def _flat(self) -> tuple[Tensor, Tensor] | None:
        """Both spectra, where float32 is enough for them."""
        worth = self.single and flat.is_worth(self.rows)
        return flat.spectra(self.rows, self.mean, self.count.clamp(min=1.0)) if worth else None

    @cached_property
    def norms(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Mean and mean square of the lengths of all finite rows."""
        return self.lengths.nanmean(), self.lengths.square().nanmean()

    @cached_property
    def trace_root(self) -> Float[Tensor, ""]:
        """``tr S^(1/2)`` with its closed-form gradient; without gradients it shares the decomposition of the others."""
        if self.rows.requires_grad or spectrum.by_products(self.rows):
            return spectrum.nuclear_norm(self.centred) / self.count.clamp(min=1.0).sqrt()
        return spectrum.root(self.eigenvalues).sum()


def unit_rows(z: Float[Tensor, "n d"], *, normalize: bool = True) -> UnitRows:
    """Return the rows of ``z`` in float64 and at unit length; rows that are zero or not finite are masked.

    Differentiable, with zero gradient for masked rows; never raises on values and never waits for a device.

    Args:
        z: embeddings (n, d) of any floating-point type.
        normalize: divide each row by its length; otherwise rows are taken as they are and zero rows count.
    """
    # Subnormal rows count as zero: little is left of their direction, and 1 / length overflows in backward.
    smallest, single = torch.finfo(z.dtype).tiny if normalize else 0.0, z.dtype != torch.float64
    if z.numel() <= _IN_CACHE or z.requires_grad or not spectrum.may_look(z):
        return UnitRows(*_prepared(z, smallest, normalize=normalize), unit=normalize, single=single)
    rows = torch.empty(z.shape, dtype=torch.float64)
    valid, lengths = torch.empty(len(z), dtype=torch.bool), torch.empty(len(z), dtype=torch.float64)
    size = max(1, _IN_CACHE // z.shape[1])
    for at in range(0, len(z), size):
        place = slice(at, at + size)
        rows[place], valid[place], lengths[place] = _prepared(z[place], smallest, normalize=normalize)
    return UnitRows(rows, valid, lengths, unit=normalize, single=single)


def _prepared(z: Tensor, smallest: float, *, normalize: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows, whether they are valid, and their lengths, as `UnitRows` has them."""
    z = z.to(torch.float64)
    peak = z.detach().abs().amax(dim=1)  # one pass tells zero, infinite and NaN rows
    finite = torch.isfinite(peak)
    valid = finite & (peak >= smallest)
    rows = torch.where(valid[:, None], z, 0.0)
    # By the peak first: squares of 1e-200 or 1e200 would leave float64's range. The detached factor cancels.
    peak = torch.where(valid & (peak > 0), peak, 1.0)
    scaled = rows / peak[:, None]
    length = torch.linalg.vector_norm(scaled, dim=1)
    lengths = torch.where(finite, peak * length.detach(), math.nan)
    return scaled / torch.where(valid, length, 1.0)[:, None] if normalize else rows, valid, lengths
