"""What of ours is timed: functions of embeddings (n, d), by name, so that a process of its own can be told one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.baselines import Measure
from uniformity_callbacks import functional
from uniformity_callbacks.panel import measure
from uniformity_callbacks.sample import Views

Work = Callable[[Tensor], object]
"""Something done with embeddings (n, d)."""

SPECTRAL = (
    "w2",
    "w2_corrected",
    "effective_dims",
    "rankme",
    "effective_rank",
    "participation_ratio",
    "stable_rank",
    "alpha",
)
"""All metrics of a spectrum."""


def value_of(metric: Measure) -> Work:
    """Return what computes the value alone."""

    @torch.no_grad()
    def work(z: Tensor) -> Tensor:
        return metric(z)

    return work


def gradient_of(metric: Measure) -> Work:
    """Return what computes value and gradient."""

    def work(z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        value = metric(z)
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return value

    return work


def panel(z: Tensor) -> dict[str, float]:
    """Read the whole default panel of one view."""
    return measure(Views.of([z]))


def panel_of_two_views(z: Tensor) -> dict[str, float]:
    """Read it of two views, each half of the rows."""
    return measure(Views.of(z.chunk(2)))


def spectral(z: Tensor) -> dict[str, float]:
    """Read all metrics of the spectrum."""
    return measure(Views.of([z]), SPECTRAL)


WORKS: dict[str, Work] = {
    "panel": panel,
    "loss": gradient_of(functional.wasserstein_uniformity),
    "wang_isola": value_of(functional.wang_isola_uniformity),
}
"""Those whose memory is measured in a process of its own."""
