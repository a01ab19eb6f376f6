"""Metrics for torchmetrics: of whole sets of embeddings, batch by batch and over ranks.

``update(*views)`` takes the embeddings (n, d) of one or more views, of any floating-point type; n may be 0. ``compute``
returns a 0-dimensional float64 tensor on the metric's device: what `uniformity_callbacks.functional` says of all rows,
however they came in batches and on ranks. Zero rows are left out; so are those with NaN or infinity, of which
``compute`` warns. A set with no finite row reads NaN.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from uniformity_callbacks import measures
from uniformity_callbacks.integrations.accumulator import SpectralMetric
from uniformity_callbacks.integrations.pairs import Alignment, WangIsolaUniformity
from uniformity_callbacks.sample import Views

__all__ = [
    "Alignment",
    "CorrectedWassersteinUniformity",
    "EffectiveDims",
    "RankMe",
    "WangIsolaUniformity",
    "WassersteinUniformity",
]


class WassersteinUniformity(SpectralMetric):
    """W2, the quadratic Wasserstein distance between the unit rows of all views together and the ideal N(0, I/d).

    As `functional.wasserstein_uniformity`: in [0, sqrt(2)], smaller is more uniform, 0 at the ideal, sqrt(2) where all
    rows are one point, and where all are zero. It agrees to round-off, at worst (near a line or one point) to 2e-7.

    Args:
        num_features: d.
        views: how many views each update brings.
        options: as every torchmetrics metric has them.

    Raises:
        ValueError: num_features or views is below 1.
        TypeError: num_features or views is not an integer.

    Source:
        Fang et al., Rethinking the Uniformity Metric in Self-Supervised Learning, ICLR 2024, arXiv 2403.00642.

    Example:
        >>> import torch
        >>> metric = WassersteinUniformity(8, views=2)
        >>> metric.update(torch.eye(8), -torch.eye(8))  # each axis in both directions: the ideal
        >>> round(metric.compute().item(), 4)
        0.0
    """

    higher_is_better = False
    metric = "w2"


class CorrectedWassersteinUniformity(SpectralMetric):
    """W2 of the population that the rows are an independent sample of: of each view by itself, averaged.

    As `functional.corrected_wasserstein_uniformity`, to 2e-7 where a view has more than 2 d rows (fewer are looked at
    one by one there, which sums do not allow): in [0, sqrt(2)], smaller is more uniform, near 0 at the
    ideal from n = d / 2 on, sqrt(2) where all rows are one point. Views with fewer than 16 rows that are not zero are
    left out, NaN if none is left. Repeated rows, which the sums do not show, are not warned of: they read too high.

    Args:
        num_features: d.
        views: how many views each update brings.
        options: as every torchmetrics metric has them.

    Raises:
        ValueError: num_features or views is below 1.
        TypeError: num_features or views is not an integer.

    Source:
        Fang et al., arXiv 2403.00642; El Karoui, Annals of Statistics 36 (2008).

    Example:
        >>> import torch
        >>> metric = CorrectedWassersteinUniformity(128)
        >>> metric.update(torch.randn(128, 128, generator=torch.Generator().manual_seed(0)))
        >>> round(metric.compute().item(), 1)  # plain W2 reads 0.6
        0.1
    """

    higher_is_better = False
    metric = "w2_corrected"


class EffectiveDims(SpectralMetric):
    """How many dimensions the unit rows' population uses, ``(tr S^(1/2))^2 / tr S``.

    As `functional.effective_dims`, to 1e-6 of itself where a view has more than 2 d rows (fewer are looked at one by
    one there, which sums do not allow), 1e-5 if not corrected: in [1, d], d at the ideal, r where rows are isotropic in
    r dimensions. NaN at constant collapse, *near* which it tells nothing: no direction is the better one, and it is to
    be read beside W2. Sums tell less of it there than rows: it agrees to 5e-4 of itself where unit rows lie 1e-4 from
    their mean, to 2 % at 1e-5, to 20 % at 1e-6, and below 3e-7 is NaN. Corrected for sample size, S is that of each
    view's population, averaged; views with fewer than 16 rows that are not zero are left out, NaN if none is left.

    Args:
        num_features: d.
        views: how many views each update brings.
        corrected: for sample size; otherwise S is the sample's own covariance, of all views together.
        options: as every torchmetrics metric has them.

    Raises:
        ValueError: num_features or views is below 1.
        TypeError: num_features or views is not an integer.

    Source:
        The number of dimensions that gives the same W2, were all of them used alike; arXiv 2403.00642.

    Example:
        >>> import torch
        >>> metric = EffectiveDims(8, views=2, corrected=False)
        >>> metric.update(torch.eye(8), -torch.eye(8))
        >>> round(metric.compute().item(), 3)
        8.0
    """

    higher_is_better = None  # near one point it reads high
    metric = "effective_dims"

    def __init__(self, num_features: int, *, views: int = 1, corrected: bool = True, **options: Any) -> None:
        super().__init__(num_features, views=views, **options)
        self.corrected = corrected

    def _read(self, views: Views) -> Tensor | float:
        return super()._read(views) if self.corrected else measures.dims(views.whole)


class RankMe(SpectralMetric):
    """RankMe: the exponential of the entropy of the singular values of the unit rows of all views, not centred.

    As `functional.rankme`: in [1, min(n, d)], about min(n, d) at the ideal, 1 at constant collapse. It agrees with that
    to round-off, but where rows use fewer than d dimensions to 5e-5 of itself: sums do not tell singular values below
    3e-8 of the largest from zero, as the rows themselves do (measured up to d 1024).

    Args:
        num_features: d.
        views: how many views each update brings.
        options: as every torchmetrics metric has them.

    Raises:
        ValueError: num_features or views is below 1.
        TypeError: num_features or views is not an integer.

    Source:
        Garrido et al., RankMe, equation 1, arXiv 2210.02885; there of raw rows, here of unit rows.

    Example:
        >>> import torch
        >>> metric = RankMe(8)
        >>> metric.update(torch.eye(8))
        >>> round(metric.compute().item(), 3)
        8.0
    """

    higher_is_better = True
    metric = "rankme"
