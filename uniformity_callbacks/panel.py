"""The table of metrics a reading can have, and the one function that computes a reading's values."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniformity_callbacks import functional
from uniformity_callbacks.sample import Sample, UnitRows, unit_rows

METRICS: dict[str, Callable[[UnitRows], Tensor]] = {
    "w2": functional.w2,
    "effective_dims": functional.dims,
    "mean_resultant": functional.resultant,
    "std_ratio": functional.deviation,
    "lu": functional.potential,
}
"""Name in the metric keys -> function of the unit rows of all views together."""

COUNTS = ("samples", "nonfinite")
"""Part of every reading: rows measured (of all views) and rows left out because they were NaN or infinite."""

DEFAULT_METRICS = tuple(METRICS)
"""What a reading has unless the user says otherwise."""


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """Return ``metrics`` as a tuple.

    Raises:
        ValueError: a name is not in `METRICS`; the nearest ones are given.
    """
    if isinstance(metrics, str):
        raise ValueError(f"metrics must be a list of names, got the string {metrics!r}; write [{metrics!r}]")
    for name in metrics:
        if name not in METRICS:
            near = difflib.get_close_matches(str(name), METRICS, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(METRICS)}"
            raise ValueError(f"metrics has no {name!r}; {hint}")
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
    """

    step: int
    layer: str
    dims: int
    values: dict[str, float]
    time: float


@torch.no_grad()
def measure(sample: Sample, metrics: Sequence[str] = DEFAULT_METRICS) -> dict[str, float]:
    """Return the values of ``metrics`` and `COUNTS` on all views' rows together, as floats.

    Rows that are not finite are left out and counted in ``nonfinite``; zero rows have no direction and are left out of
    ``samples``. Where every finite row is zero the values are those of one point; where no row is finite they are NaN.
    """
    rows = sample.rows.cpu()
    unit = unit_rows(rows)
    nonfinite = int((~torch.isfinite(rows).all(dim=1)).sum())
    lost = nonfinite == len(rows)
    values = {name: math.nan if lost else METRICS[name](unit).item() for name in metrics}
    return values | {"samples": unit.count.item(), "nonfinite": float(nonfinite)}
