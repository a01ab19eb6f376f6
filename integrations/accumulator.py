"""What our torchmetrics have in common: checked views, float64 states, and rows that are not finite told of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

try:
    from torchmetrics import Metric
    from torchmetrics.utilities import rank_zero_warn
except ImportError as error:
    raise ImportError("metrics need torchmetrics; pip install 'uniformity-callbacks[torchmetrics]'") from error

from uniformity_callbacks import panel
from uniformity_callbacks.functional.embeddings import check_embeddings, check_whole
from uniformity_callbacks.moments import Moments
from uniformity_callbacks.sample import Sums, Views
from uniformity_callbacks.unit_rows import UnitRows, unit_rows

__all__ = ["Accumulator", "SpectralMetric", "rank_zero_warn"]


class Accumulator(Metric):
    """Base of the metrics: `update` takes views, and states stay in float64 on the metric's device.

    Args:
        views: how many views each update brings.
        least: how many the metric needs.
        num_features: d, where a state's shape depends on it.
        options: as every torchmetrics metric has them.
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, views: int, *, least: int = 1, num_features: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.views = check_whole("views", views, least)
        self.num_features = None if num_features is None else check_whole("num_features", num_features, 1)

    def _prepared(self, views: Sequence[Tensor]) -> list[UnitRows]:
        """Return each view's rows, checked and without gradient.

        Raises:
            ValueError: not as many views as said, not (n, d), or of another d than said.
            TypeError: a view is not a floating-point tensor.
        """
        if len(views) != self.views:
            many = len(views)
            if many == 0 or isinstance(views[0], (list, tuple)):  # torchmetrics leaves out names that it can't place
                mend = "give them one by one and without names, e.g. metric.update(z0, z1)"
            else:
                mend = f"say how many there are, e.g. {type(self).__name__}(..., views={many})"
            raise ValueError(f"update must be given {self.views} views, each (n, d), got {many}; {mend}")
        for k, view in enumerate(views):
            check_embeddings(view, name=f"views[{k}]", least=0)
            if self.num_features not in (None, view.shape[1]):
                raise ValueError(
                    f"views[{k}] must be (n, {self.num_features}), got {tuple(view.shape)}; "
                    "num_features is the layer's output dimension"
                )
        return [unit_rows(view.detach()) for view in views]

    def _value(self, value: Tensor | float) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64, device=self.device)

    def _tell(self, nonfinite: Tensor) -> None:
        """Warn of rows that were left out: not in `update`, which would wait for the device at every batch."""
        if (many := int(nonfinite)) > 0:
            # Without the metric's name: the metrics of a collection say it once, by Python's own filter.
            rank_zero_warn(f"rows with NaN or infinity were left out: {many}; the metric is that of the others")

    def _apply(self, fn: Callable[[Tensor], Tensor], *arguments: Any, **options: Any) -> Accumulator:
        """Move the states, but leave them in float64.

        torchmetrics sees to that for ``half()``, but not for ``to(torch.float16)``, by which Lightning makes a model
        "16-true": ranks that then have rows and those that have none would send states of different types.
        """

        def moved(state: Tensor) -> Tensor:
            there = fn(state)
            return there if there.dtype == state.dtype else state.to(there.device)

        super()._apply(moved, *arguments, **options)
        return self


class SpectralMetric(Accumulator):
    """Base of the metrics that are computed from the moments of each view.

    All have this one state, by which a `MetricCollection` finds that one update does for all of them. It and what it
    begins from take 8 d^2 bytes each for each view (0.5 MB for both at d = 128 and two views, 134 MB at d = 2048).

    Args:
        num_features: d.
        views: how many views each update brings.
        options: as every torchmetrics metric has them.
    """

    moments: Tensor
    num_features: int
    metric: ClassVar[str]

    def __init__(self, num_features: int, *, views: int = 1, **options: Any) -> None:
        super().__init__(views, num_features=num_features, **options)
        zeros = torch.zeros(views, Moments.length(num_features), dtype=torch.float64)
        self.add_state("moments", zeros, dist_reduce_fx="sum")

    def update(self, *views: Tensor) -> None:
        """Add the rows (n, d) of each view; n may differ between them.

        Raises:
            ValueError: not as many views as said, not (n, d), or of another d than num_features.
            TypeError: a view is not a floating-point tensor.
        """
        # A new tensor each time: the metrics of a group share it, and one made in inference mode can't be changed.
        self.moments = self.moments + torch.stack([Moments.of(u).flat for u in self._prepared(views)])

    def compute(self) -> Tensor:
        """Return the metric of all rows so far."""
        views = Sums(tuple(Moments.unflatten(flat, self.num_features) for flat in self.moments)).views()
        self._tell(views.whole.nonfinite)
        return self._value(self._read(views))

    def _read(self, views: Views) -> Tensor | float:
        return panel.measure(views, [self.metric]).get(self.metric, math.nan)
