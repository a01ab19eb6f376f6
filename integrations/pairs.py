"""The torchmetrics of pairs of rows, which the moments of the rows do not tell."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from uniformity_callbacks import pairwise
from uniformity_callbacks.functional.embeddings import check_positive, check_whole
from uniformity_callbacks.integrations import row_sample
from uniformity_callbacks.integrations.accumulator import Accumulator, rank_zero_warn


class Alignment(Accumulator):
    """Mean distance to the power alpha between the unit rows of two views, averaged over all pairs of views.

    As `functional.alignment`, to round-off: in [0, 2^alpha], 0 where the views agree, which they also do at constant
    collapse, so that no direction is the better one; about 2 (alpha = 2) for views that have nothing to do with one
    another. A pair with a row that is zero or not finite is left out; NaN where that is every pair of two views.

    Args:
        alpha: the power, positive.
        views: how many views each update brings, at least 2.
        options: as every torchmetrics metric has them.

    Raises:
        ValueError: alpha is not positive, or views is below 2.
        TypeError: views is not an integer.

    Source:
        Wang and Isola, equation 1, arXiv 2005.10242.

    Example:
        >>> metric = Alignment()
        >>> metric.update(torch.eye(2), torch.eye(2).flip(0))
        >>> round(metric.compute().item(), 4)
        2.0
    """

    higher_is_better = None  # best at constant collapse
    distances: Tensor
    nonfinite: Tensor

    def __init__(self, *, alpha: float = 2.0, views: int = 2, **options: Any) -> None:
        super().__init__(views, least=2, **options)
        self.alpha = check_positive("alpha", alpha)
        # Collections take metrics of equal states for one, and a first batch without rows leaves those of any power
        # equal. It stands first: torchmetrics 1.4 compares no other state.
        self.add_state("power", torch.tensor(float(alpha), dtype=torch.float64), dist_reduce_fx="max")
        zeros = torch.zeros(views * (views - 1) // 2, 2, dtype=torch.float64)
        self.add_state("distances", zeros, dist_reduce_fx="sum")
        self.add_state("nonfinite", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, *views: Tensor) -> None:
        """Add the rows (n, d) of each view, row for row of the same images.

        Raises:
            ValueError: not as many views as said, not (n, d), or of different shapes.
            TypeError: a view is not a floating-point tensor.
        """
        rows = self._prepared(views)
        if len({view.shape for view in views}) > 1:
            shapes = ", ".join(str(tuple(view.shape)) for view in views)
            raise ValueError(f"views must have one shape, got {shapes}; row i of each is of one image")
        totals = [pairwise.total_distance(a, b, power=self.alpha) for a, b in combinations(rows, 2)]
        self.distances = self.distances + torch.stack([torch.stack(total) for total in totals])
        self.nonfinite = self.nonfinite + torch.stack([u.nonfinite for u in rows]).sum()

    def compute(self) -> Tensor:
        """Return the metric of all rows so far."""
        self._tell(self.nonfinite)
        return self._value(pairwise.mean_distance(*self.distances.unbind(1)).mean())


class WangIsolaUniformity(Accumulator):
    """L_U, the logarithm of the mean Gaussian potential over distinct pairs of the unit rows of all views together.

    As `functional.wang_isola_uniformity`: in [-4 t, 0], smaller is more uniform; NaN with fewer than two rows.

    Pairs of rows do not add up, so that rows are kept. As long as no more than max_rows differ, all are, rows that are
    equal to the last bit as one with its count, and the value is exact. Beyond, max_rows are kept, chosen by a hash of
    their bits: no random number is drawn, and they are the same whatever the order, the batches and the ranks. The
    standard error for t = 2 and 4096 of many rows is 0.0002 where they are isotropic, 0.001 in a cone, 0.002 in 8
    dimensions or ten tight clusters, 0.03 where half are near one point (measured); it goes as 1 / sqrt(max_rows).

    Rows that repeat do no harm where all are kept, or all repeat about as often. One that makes up much of a set of
    more than max_rows different rows is kept with all its copies or with none, and the value can be far off, -3.9 for
    -1.3 where half of the rows are equal: `compute` warns of it.

    The state takes 8 max_rows (2 + d) bytes (4 MB at d = 128, 67 MB at d = 2048), its start as much again.

    Args:
        num_features: d.
        t: the potential's parameter, positive.
        views: how many views each update brings.
        max_rows: rows to keep, at least 2.
        options: as every torchmetrics metric has them.

    Raises:
        ValueError: t is not positive, num_features or views is below 1, or max_rows below 2.
        TypeError: num_features, views or max_rows is not an integer.

    Source:
        Wang and Isola, equation 2, arXiv 2005.10242. The sample: Cohen and Kaplan, Summarizing Data using Bottom-k
        Sketches, PODC 2007.

    Example:
        >>> metric = WangIsolaUniformity(2)
        >>> metric.update(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        >>> round(metric.compute().item(), 4)
        -8.0
    """

    higher_is_better = False
    num_features: int
    sample: Tensor
    rows: Tensor
    nonfinite: Tensor

    def __init__(
        self, num_features: int, *, t: float = 2.0, views: int = 1, max_rows: int = 4096, **options: Any
    ) -> None:
        super().__init__(views, num_features=num_features, **options)
        self.t = check_positive("t", t)
        self.max_rows = check_whole("max_rows", max_rows, 2)
        self.add_state("sample", row_sample.empty(max_rows, num_features), dist_reduce_fx=row_sample.join)
        self.add_state("rows", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("nonfinite", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, *views: Tensor) -> None:
        """Take in the rows (n, d) of each view; n may differ between them.

        Raises:
            ValueError: not as many views as said, not (n, d), or of another d than num_features.
            TypeError: a view is not a floating-point tensor.
        """
        prepared = self._prepared(views)
        # As they came: a unit row's last bits depend on how its batch lies in memory.
        raw = torch.cat([view.detach().to(torch.float64)[u.valid] for view, u in zip(views, prepared, strict=True)])
        self.sample = row_sample.keep(torch.cat([self.sample, row_sample.packed(raw)]), self.max_rows)
        self.rows = self.rows + len(raw)
        self.nonfinite = self.nonfinite + torch.stack([u.nonfinite for u in prepared]).sum()

    def compute(self) -> Tensor:
        """Return the metric of all rows so far."""
        self._tell(self.nonfinite)
        if not row_sample.is_even(self.sample, self.rows):
            rank_zero_warn(
                "some rows repeat much more often than others, and the sample does not tell of all; L_U can be far "
                f"off: give a max_rows above {self.max_rows}, or leave repeats out"
            )
        return self._value(row_sample.potential(self.sample, self.rows, t=self.t))
