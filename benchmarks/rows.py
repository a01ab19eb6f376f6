"""Random embeddings of three populations: a batch as it should be, and two on the way to collapse."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_NOISE = 1e-4
"""Standard deviation of what the strong directions leave, where they have 1."""

_STRONG = 16


def isotropic(n: int, d: int) -> Tensor:
    """Return rows (n, d) of N(0, I), float32."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def power_law(n: int, d: int) -> Tensor:
    """Return rows whose covariance has the eigenvalues 1/i, in no axis's direction."""
    return _turned(isotropic(n, d) * torch.arange(1, d + 1).rsqrt())


def few_dimensions(n: int, d: int) -> Tensor:
    """Return rows in 16 of d dimensions, and noise of 1e-4 in the others."""
    scale = torch.full((d,), _NOISE)
    scale[:_STRONG] = 1.0
    return _turned(isotropic(n, d) * scale)


SPECTRA: dict[str, Callable[[int, int], Tensor]] = {
    "isotropic": isotropic,
    "1/i": power_law,
    "16 dims": few_dimensions,
}
"""Name of a population -> rows (n, d) of it."""


def _turned(z: Tensor) -> Tensor:
    """Reflect twice, which mixes all axes; a random rotation of 8192 dimensions would take a minute to make."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        v = torch.randn(z.shape[1], generator=generator)
        z = z - torch.outer(z @ v, v * (2.0 / v.square().sum()))
    return z
