"""Zero-CL: two views agree in outputs that were decorrelated over instances, and over features, by whitening."""

from __future__ import annotations

import torch
from torch import Tensor

from .method import Method


class ZeroCL(Method):
    """Instance-wise and feature-wise agreement after ZCA whitening, both terms as means.

    Whitening alone keeps outputs apart: there are neither negatives nor a predictor. The whitening matrices are
    constants to the gradient and are taken of a covariance shrunk to the identity, since 256 instances have a rank of
    at most 127 in 128 features.

    Source: Zhang et al., *Zero-CL: Instance and Feature Decorrelation for Negative-Free Symmetric Contrastive
    Learning*, ICLR 2022, openreview RAW9tCdVxLj: ZCA whitening in the instance and in the feature dimension.
    """

    lr = 0.03
    shrinkage = 0.1

    def loss(self, z0: Tensor, z1: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """Return the sum of both terms, each 0 where the whitened views agree."""
        instances = agreement(z0.T, z1.T, self.shrinkage)
        return instances + agreement(z0, z1, self.shrinkage)


def agreement(z0: Tensor, z1: Tensor, shrinkage: float) -> Tensor:
    """Return the mean over columns of `(1 - h0_j . h1_j / rows)^2`, where `h` is standardised and then whitened.

    Columns are what is decorrelated: features of `(n, d)`, instances of `(d, n)`.
    """
    h0, h1 = whitened(z0, shrinkage), whitened(z1, shrinkage)
    return (1 - (h0 * h1).mean(0)).square().mean()


def whitened(z: Tensor, shrinkage: float, eps: float = 1e-5) -> Tensor:
    """Return `z` with columns standardised, then decorrelated: `x E L^(-1/2) E^T` of their covariance `E L E^T`.

    ZCA: of all whitening transforms the one that changes the columns least. The covariance is `(1 - shrinkage)` of the
    columns' own and `shrinkage` of the identity; the transform is a constant to the gradient.
    """
    variance, mean = torch.var_mean(z, dim=0, correction=0)
    x = (z - mean) * torch.rsqrt(variance + eps)
    with torch.no_grad():
        covariance = (1 - shrinkage) * x.T @ x / len(x)
        covariance.diagonal().add_(shrinkage)
        eigenvalues, vectors = torch.linalg.eigh(covariance)
        transform = (vectors * eigenvalues.rsqrt()) @ vectors.T
    decorrelated: Tensor = x @ transform
    return decorrelated
