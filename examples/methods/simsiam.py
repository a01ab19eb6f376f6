"""SimSiam: one view's prediction is to be the other view's output, which is held constant."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .method import Method, predictor


class SimSiam(Method):
    """Negative cosine with stop-gradient and predictor, symmetrised.

    The paper's projector has BatchNorm after its last layer, too; with that of the hidden layers alone it works nearly
    as well (its ablation, "hidden-only"). With `stopping=False` gradients pass into both sides, and it collapses (its
    figure 2).

    Source: Chen and He, *Exploring Simple Siamese Representation Learning*, CVPR 2021, arXiv 2011.10566, equations 1
    to 4 and algorithm 1.
    """

    lr = 0.3

    def __init__(self, *, stopping: bool = True) -> None:
        super().__init__()
        self.stopping = stopping
        self.predictor = predictor()

    def loss(self, z0: Tensor, z1: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """Return the mean of both directions, -1 to 1."""
        t0, t1 = (z0.detach(), z1.detach()) if self.stopping else (z0, z1)
        return (negative_cosine(self.predictor(z0), t1) + negative_cosine(self.predictor(z1), t0)) / 2


def negative_cosine(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of `-cos(p, t)`, -1 to 1."""
    return -F.cosine_similarity(predictions, targets, dim=1).mean()
