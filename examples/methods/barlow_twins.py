"""Barlow Twins: the cross-correlation of two views' outputs is to be the identity."""

from __future__ import annotations

import torch
from torch import Tensor

from .method import Method


class BarlowTwins(Method):
    """Redundancy reduction.

    `off_diagonal` is the paper's lambda: 0.005 there, for 8,192 outputs, whose square weighs the second sum up; 0.05
    here, for 128. `scale` only brings the gradient to a size that suits SGD. With `off_diagonal=0` nothing keeps
    outputs from repeating one another: they fill few dimensions.

    Source: Zbontar et al., *Barlow Twins: Self-Supervised Learning via Redundancy Reduction*, ICML 2021, arXiv
    2103.03230, equations 1 and 2.
    """

    lr = 0.03
    scale = 0.05

    def __init__(self, *, off_diagonal: float = 0.05) -> None:
        super().__init__()
        self.off_diagonal = off_diagonal

    def loss(self, z0: Tensor, z1: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """Return the scaled loss; 0 where the cross-correlation is the identity."""
        return self.scale * redundancy(z0, z1, self.off_diagonal)


def redundancy(z0: Tensor, z1: Tensor, off_diagonal: float) -> Tensor:
    """Return `sum_i (1 - c_ii)^2 + off_diagonal * sum_{i != j} c_ij^2` of the cross-correlation c `(d, d)`."""
    c = standardised(z0).T @ standardised(z1) / len(z0)
    on = c.diagonal()
    return (1 - on).square().sum() + off_diagonal * (c.square().sum() - on.square().sum())


def standardised(z: Tensor, eps: float = 1e-5) -> Tensor:
    """Return `z` with columns of mean 0 and variance 1; `eps`, as in BatchNorm, keeps a constant column finite."""
    variance, mean = torch.var_mean(z, dim=0, correction=0)
    return (z - mean) * torch.rsqrt(variance + eps)
