"""Rows ready to measure: in float64, at unit length, those that cannot be measured masked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from uniformity_callbacks import flat, spectrum
from uniformity_callbacks.sample_size import LEAST_ROWS
from uniformity_callbacks.statistics import Statistics

_SPREAD = 0.1
"""Share of the rows' squared length that is variance, above which centring after the product costs no more than a digit
of the smallest eigenvalues that float64 knows."""

_MANY = 2
"""Rows, in units of d, up to which each row's own part in the weak directions is looked at: with more the correction
is small, and they are not always there."""

_IN_CACHE = 2**18
"""Numbers that are prepared at a time where there are many: they stay in the cache between the steps."""


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
        return self._about_mean(self.rows, self.valid)

    def _about_mean(self, rows: Tensor, valid: Tensor) -> Tensor:
        return torch.where(valid[:, None], rows - self.mean, 0.0)

    @cached_property
    def scatter(self) -> Float[Tensor, " d"]:
        """The sum of squared deviations of each feature."""
        size = max(1, _IN_CACHE // self.dims) if spectrum.may_look(self.rows) else len(self.rows)
        parts = zip(torch.split(self.rows, size), torch.split(self.valid, size), strict=True)
        return torch.stack([self._about_mean(*part).square().sum(0) for part in parts]).sum(0)

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
        scale = self.count * self.square if self._spreads else None
        return spectrum.eigenvalues(self.products_about_mean, scale=scale) / self.count.clamp(min=1.0)

    @cached_property
    def products_about_mean(self) -> Float[Tensor, "k k"]:
        """The smaller Gram matrix of `centred`."""
        n = self.count.clamp(min=1.0)
        if not self._spreads:
            return spectrum.gram(self.centred)
        if not self.is_wide:
            return self.products - n * torch.outer(self.mean, self.mean)
        by_row = self.products.sum(1) / n
        about = self.products - by_row - (by_row - by_row.sum() / n)[:, None]
        return torch.where(self.valid[:, None] & self.valid, about, 0.0)

    def directions(self) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "n k"] | None]:
        """Return `eigenvalues`, and the rows' squared components along each where there are not many rows."""
        n = int(self.count)
        if not LEAST_ROWS <= n <= _MANY * self.dims:
            return super().directions()
        # Single precision knows directions down to 1e-7 of the strongest: weaker ones absorb nothing at any point.
        products = self.products_about_mean.detach()
        scaled = products / products.diagonal().max().clamp(min=torch.finfo(products.dtype).tiny)
        vectors = torch.linalg.eigh(scaled.float()).eigenvectors.double()
        parts = (vectors if self.is_wide else self.centred.detach() @ vectors).square()
        leverage = parts / parts.sum(0).clamp(min=torch.finfo(parts.dtype).tiny)
        return self.eigenvalues.detach().cpu().numpy(), leverage[self.valid].cpu().numpy()

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
