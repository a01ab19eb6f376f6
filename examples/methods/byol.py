"""BYOL: the online network predicts what a network that slowly follows it puts out for the other view."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .method import Method, Target, predictor


class BYOL(Method):
    """Prediction of a momentum target, symmetrised.

    The target's momentum is 0.99 throughout; the paper's goes from 0.996 to 1 over a long training. With
    `predicting=False` the predictor is the identity, which the paper reports to collapse (its table 5b).

    Source: Grill et al., *Bootstrap Your Own Latent*, NeurIPS 2020, arXiv 2006.07733, equations 1 and 2.
    """

    lr = 0.1
    momentum = 0.99

    def __init__(self, *, predicting: bool = True) -> None:
        super().__init__()
        self.target = Target(self, self.momentum)
        self.predictor = predictor() if predicting else nn.Identity()

    def loss(self, z0: Tensor, z1: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """Return the regression losses of both directions, 0 to 8."""
        return regression(self.predictor(z0), self.target(x1)) + regression(self.predictor(z1), self.target(x0))

    def stepped(self) -> None:
        """Let the target follow."""
        self.target.follow(self)


def regression(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of `2 - 2 cos(p, t)`, 0 to 4; targets are constants."""
    return (2 - 2 * F.cosine_similarity(predictions, targets.detach(), dim=1)).mean()
