"""The table of metrics a reading can have, and the one function that computes a reading's values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniformity_callbacks import measures, pairwise
from uniformity_callbacks.names import nearest
from uniformity_callbacks.sample import Views
from uniformity_callbacks.sample_size import LEAST_ROWS

Metric = Callable[[Views], Tensor | None]
"""A value in float64 on the CPU; None where the sample is not one that can tell: then it is not reported."""


def _each(measure: Callable[..., Tensor]) -> Metric:
    """Correct each view by itself and average: views of one image are not independent rows."""

    def metric(views: Views) -> Tensor | None:
        enough = [view for view in views.each if view.count >= LEAST_ROWS]
        return torch.stack([measure(view) for view in enough]).mean() if enough else None

    return metric


def _alignment(views: Views) -> Tensor | None:
    """Average over all pairs of views."""
    rows = views.rows
    if views.aligned is not None:
        return pairwise.mean_distance(*views.aligned.unbind(1)).mean()
    if len(rows) < 2 or not views.paired:
        return None
    pairs = [pairwise.alignment(a, b) for k, a in enumerate(rows) for b in rows[k + 1 :]]
    return torch.stack(pairs).mean()


def _lu(views: Views) -> Tensor | None:
    return pairwise.potential(views.sampled) if views.rows else None


METRICS: dict[str, Metric] = {
    "w2": lambda views: measures.w2(views.whole),
    "w2_corrected": _each(measures.w2_corrected),
    "effective_dims": _each(measures.dims_corrected),
    "mean_resultant": lambda views: measures.resultant(views.whole),
    "std_ratio": lambda views: measures.deviation(views.whole),
    "lu": _lu,
    "alignment": _alignment,
    "rankme": lambda views: measures.rankme(views.whole),
    "norm_mean": lambda views: measures.norm_mean(views.whole),
    "effective_rank": lambda views: measures.effective_rank(views.whole),
    "participation_ratio": lambda views: measures.participation_ratio(views.whole),
    "stable_rank": lambda views: measures.stable_rank(views.whole),
    "alpha": lambda views: measures.alpha(views.whole),
    "norm_cv": lambda views: measures.norm_cv(views.whole),
    "floor": lambda views: measures.floor(views.whole),
}
"""Name in the metric keys -> function of the views of a sample."""

COUNTS = ("samples", "nonfinite")
"""Part of every reading: rows measured (of all views) and rows left out because they were NaN or infinite."""

DEFAULT_METRICS = tuple(METRICS)[: tuple(METRICS).index("norm_mean") + 1]
"""What a reading has unless the user says otherwise."""

CORRECTED = frozenset({"w2_corrected", "effective_dims"})
"""Metrics corrected for sample size, which need `LEAST_ROWS` rows in a view, none of which repeats another."""

SPECTRAL = frozenset({"w2", "effective_rank", "participation_ratio", "stable_rank", "alpha"})
"""Metrics of the spectrum of all views together, which is then there to be kept."""

_RANKS, _DIGITS = 32, 4
"""How many eigenvalues a reading keeps, and to how many digits: a picture of the spectrum, in 300 bytes of journal."""


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """Return ``metrics`` as a tuple.

    Raises:
        ValueError: a name is not in `METRICS`; the nearest ones are given.
    """
    if isinstance(metrics, str):
        raise ValueError(f"metrics must be a list of names, got the string {metrics!r}; write [{metrics!r}]")
    for name in metrics:
        if not isinstance(name, str) or name not in METRICS:
            raise ValueError(f"metrics has no {name!r}; {nearest(str(name), METRICS)}")
    return tuple(metrics)


@dataclass(frozen=True)
class Reading:
    """The metrics of one layer at one step.

    Attributes:
        step: optimizer step, the number of steps done before the one that the rows come from.
        layer: dotted path of the layer.
        dims: d, the layer's output dimension; 0 if nothing was captured.
        values: metric name (without prefix) -> value.
        time: seconds since the epoch at which the rows were captured.
        stage: "train" (a step's rows, in train mode), or "val" (a validation epoch's, in eval mode).
        why: why nothing was captured, in words; empty if something was.
        spectrum: eigenvalues of the covariance of the unit rows of all views, times d, so that each is 1 at the ideal
            (of the population: a sample's are spread about it) and 0 at one point; those of `spectrum_ranks`, largest
            first, to four digits. Empty where they were not computed.
    """

    step: int
    layer: str
    dims: int
    values: dict[str, float]
    time: float
    stage: str = "train"
    why: str = ""
    spectrum: tuple[float, ...] = ()


def spectrum_ranks(d: int) -> list[int]:
    """Return the ranks, of 1 to d, of which a reading has the eigenvalues: all up to 32, else spaced geometrically."""
    if d <= _RANKS:
        return list(range(1, d + 1))
    return sorted({round(d ** (k / (_RANKS - 1))) for k in range(_RANKS)})


@torch.no_grad()
def spectrum(views: Views, metrics: Sequence[str]) -> tuple[float, ...]:
    """Return the sample's spectrum as a reading has it; empty where no metric needs it, or there are no valid rows."""
    whole = views.whole
    if not (SPECTRAL.intersection(metrics) and whole.count > 0):
        return ()
    values = whole.eigenvalues.flip(0).clamp(min=0.0) * whole.dims
    some = [values[rank - 1].item() if rank <= len(values) else 0.0 for rank in spectrum_ranks(whole.dims)]
    return tuple(float(f"{value:.{_DIGITS}g}") for value in some)


@torch.no_grad()
def measure(views: Views, metrics: Sequence[str] = DEFAULT_METRICS) -> dict[str, float]:
    """Return the values of ``metrics`` and `COUNTS` as floats; what this sample cannot tell is left out.

    Rows that are not finite are left out and counted in ``nonfinite``; zero rows have no direction and are left out of
    ``samples``. Where every finite row is zero the values are those of one point; where no row is finite they are NaN.
    """
    whole = views.whole
    samples, nonfinite = whole.count.item(), whole.nonfinite.item()
    lost = math.isnan(measures.norm_mean(whole).item())
    values: dict[str, float] = {}
    for name in metrics:
        value = torch.tensor(math.nan) if lost else METRICS[name](views)
        if value is not None:
            values[name] = value.item()
    return values | {"samples": samples, "nonfinite": nonfinite}
