"""What is the case with a run, by a look at the whole training set: the rule that the alerts are held against.

It was written before the runs. It shares with the alerts neither the sample (a view of each of the 1,297 training
images, rather than a batch) nor the numbers (mean cosine between pairs, components of 99 % of the variance), neither
thresholds nor patience nor warm-up: it looks at whole runs, and back from their end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.alerting.cases import CONSTANT, DIMENSIONAL, NONFINITE
from examples.digits.networks import Network
from uniformity_callbacks.rules import Kind

COSINE = 0.99
"""Constant collapse: the mean cosine between outputs of different images is at least this."""

VARIANCE = 0.99
SHARE = 1 / 3
"""Dimensional collapse: 99 % of the outputs' variance lies in at most this share of the principal components that it
takes in the intact run of the same method, seed and step."""


@dataclass(frozen=True)
class Look:
    """The outputs of the whole training set before a step, in train mode as one batch, normalised.

    Attributes:
        step: as in readings.
        cosine: mean cosine between outputs of different images; NaN where not all are finite.
        components: principal components that hold 99 % of the variance; 0 where not all are finite.
    """

    step: int
    cosine: float
    components: int

    @property
    def finite(self) -> bool:
        """Whether all outputs are finite."""
        return not math.isnan(self.cosine)


@torch.no_grad()
def look(step: int, twin: Network, method: Network, images: Tensor) -> Look:
    """Return what there is to see; `twin` takes the weights, so that nothing of the run is touched."""
    twin.encoder.load_state_dict(method.encoder.state_dict())
    twin.projector.load_state_dict(method.projector.state_dict())
    z = F.normalize(twin.train()(images).double(), dim=1)
    if not bool(z.isfinite().all()):
        return Look(step, math.nan, 0)
    n, mean = len(z), z.mean(0)
    cosine = (n * mean.square().sum() - 1) / (n - 1)
    variances = torch.linalg.svdvals(z - mean).square()
    reached = variances.cumsum(0) >= VARIANCE * variances.sum()
    return Look(step, cosine.item(), int(reached.int().argmax()) + 1)


@dataclass(frozen=True)
class Label:
    """What is the case with a run.

    Attributes:
        kind: "constant", "dimensional", "nonfinite", or None where it does not collapse.
        onset: the first step from which on it is so at every later look; None where it does not collapse.
    """

    kind: Kind | None
    onset: int | None


def label(looks: Sequence[Look], intact: Sequence[Look] | None, share: float = SHARE) -> Label:
    """Return what a run ends in, not finite before constant before dimensional, and since when without interruption.

    Args:
        looks: of the run.
        intact: of the intact run of the same method and seed; None for one that is itself intact, or has none, in which
            there is nothing to compare with.
        share: what the dimensional collapse of a run is told by; only to see what depends on it.
    """
    components = {one.step: one.components for one in intact or ()}
    found: list[tuple[Kind, list[bool]]] = [
        (NONFINITE, [not one.finite for one in looks]),
        (CONSTANT, [one.cosine >= COSINE for one in looks]),
        (DIMENSIONAL, [one.finite and one.components <= share * components.get(one.step, 0) for one in looks]),
    ]
    for kind, holds in found:
        if holds and holds[-1]:
            first = len(holds) - next((k for k, held in enumerate(reversed(holds)) if not held), len(holds))
            return Label(kind, looks[first].step)
    return Label(None, None)
