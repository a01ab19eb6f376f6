"""What a step brought, view by view, and the unit rows that the metrics are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from uniformity_callbacks import spectrum


@dataclass(frozen=True)
class UnitRows:
    """Rows ready to measure: float64, those that cannot be measured masked instead of taken out.

    The mask keeps shapes static, so that nothing waits for a device to say how many rows are good. What several
    metrics need is computed once and kept.

    Attributes:
        rows: float64 (n, d), zero where not valid.
        valid: (n,), False where the row was zero or not finite.
    """

    rows: Float[Tensor, "n d"]
    valid: Bool[Tensor, " n"]

    @cached_property
    def count(self) -> Float[Tensor, ""]:
        """How many rows are valid."""
        return self.valid.sum().to(torch.float64)

    @cached_property
    def mean(self) -> Float[Tensor, " d"]:
        """The mean of the valid rows, zero if there are none."""
        return self.rows.sum(0) / self.count.clamp(min=1.0)

    @cached_property
    def centred(self) -> Float[Tensor, "n d"]:
        """The valid rows less their mean; masked rows are zero."""
        return torch.where(self.valid[:, None], self.rows - self.mean, 0.0)

    @cached_property
    def scatter(self) -> Float[Tensor, " d"]:
        """The sum of squared deviations of each feature."""
        return self.centred.square().sum(0)

    @cached_property
    def nuclear_norm(self) -> Float[Tensor, ""]:
        """The sum of the singular values of the centred rows, ``sqrt(n) tr S^(1/2)``."""
        return spectrum.nuclear_norm(self.centred)


def unit_rows(z: Float[Tensor, "n d"], *, normalize: bool = True) -> UnitRows:
    """Return the rows of ``z`` in float64 and at unit length; rows that are zero or not finite are masked.

    Differentiable, with zero gradient for masked rows; never raises on values and never waits for a device.

    Args:
        z: embeddings (n, d) of any floating-point type.
        normalize: divide each row by its length; otherwise rows are taken as they are and zero rows count.
    """
    # Subnormal rows count as zero: little is left of their direction, and 1 / length overflows in backward.
    smallest = torch.finfo(z.dtype).tiny
    z = z.to(torch.float64)
    peak = z.detach().abs().amax(dim=1)  # one pass tells zero, infinite and NaN rows
    valid = torch.isfinite(peak) & (peak >= smallest if normalize else True)
    rows = torch.where(valid[:, None], z, 0.0)
    if normalize:
        # By the peak first: squares of 1e-200 or 1e200 would leave float64's range. The detached factor cancels.
        rows = rows / torch.where(valid, peak, 1.0)[:, None]
        rows = rows / torch.where(valid, torch.linalg.vector_norm(rows, dim=1), 1.0)[:, None]
    return UnitRows(rows, valid)


@dataclass(frozen=True)
class Sample:
    """The rows that one reading is made of, as the layer gave them, detached, on the model's device.

    Attributes:
        views: for each view its rows (n, d), in any floating-point type; n may differ between views.
    """

    views: tuple[Tensor, ...]

    @classmethod
    def of(cls, passes: Sequence[Sequence[Tensor]]) -> Sample:
        """Join the passes (micro-batches, steps of a window), each a list of views: the k-th views are one view."""
        most = max((len(views) for views in passes), default=0)
        joined = (torch.cat([views[k] for views in passes if len(views) > k]) for k in range(most))
        return cls(tuple(joined))

    @property
    def rows(self) -> Tensor:
        """All views' rows in one matrix."""
        return torch.cat(self.views)
