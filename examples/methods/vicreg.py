"""VICReg: views alike, each output's variance kept up, outputs decorrelated."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .method import Method


class VICReg(Method):
    """Invariance, variance and covariance, weighed 25, 25 and 1.

    `scale` only brings the gradient to a size that suits SGD. With `covariance=0` each output varies and nothing keeps
    them from repeating one another: they fill few dimensions.

    Source: Bardes et al., *VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning*, ICLR
    2022, arXiv 2105.04906, equations 1 to 6; the invariance term is a mean over outputs, as in the authors' code.
    """

    lr = 0.1
    scale = 0.04

    def __init__(self, *, covariance: float = 1.0) -> None:
        super().__init__()
        self.covariance = covariance

    def loss(self, z0: Tensor, z1: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """Return the scaled sum of the three terms."""
        apart = hinge(z0) + hinge(z1)
        alike = covariances(z0) + covariances(z1)
        return self.scale * (25 * F.mse_loss(z0, z1) + 25 * apart + self.covariance * alike)


def hinge(z: Tensor, gamma: float = 1.0, eps: float = 1e-4) -> Tensor:
    """Return the mean over outputs of `max(0, gamma - sqrt(Var + eps))` (equations 1 and 2)."""
    return F.relu(gamma - torch.sqrt(z.var(0) + eps)).mean()


def covariances(z: Tensor) -> Tensor:
    """Return the sum of squared covariances of different outputs, over d (equations 3 and 4)."""
    centred = z - z.mean(0)
    c = centred.T @ centred / (len(z) - 1)
    return (c.square().sum() - c.diagonal().square().sum()) / z.shape[1]
