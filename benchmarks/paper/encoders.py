"""Encoders trained on digits, whose outputs are no sample of a known law; one function is all that others need."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.digits import data
from examples.digits.evaluate import projector_outputs
from examples.digits.models import BarlowTwins
from examples.digits.networks import Network
from uniformity_callbacks import WassersteinLoss

STEPS, BATCH = 300, 128

Loss = Callable[[Tensor, Tensor], Tensor]
Draw = Callable[[int, torch.Generator], Tensor]
"""``(n, generator)``: outputs (n, 128), in eval mode, of new views of n training images, drawn with repetition."""


def encoder(name: str, *, steps: int = STEPS) -> tuple[Network, Draw]:
    """Return a trained encoder by its method's name, and what draws samples of its outputs."""
    network, digits = _trained(name, steps), data.load()
    augment = data.Augment()

    def draw(n: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(digits.train_images), (n,), generator=generator)
        return projector_outputs(network, augment(digits.train_images[rows], generator))

    return network, draw


@lru_cache
def _trained(name: str, steps: int) -> Network:
    """Train, or return what was trained before: two parts look at one encoder."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = Network()
        compare = LOSSES[name]()
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        for (x0, x1), _ in data.train_loader(data.load(), steps=steps, batch_size=BATCH, seed=0):
            loss = compare(network(x0), network(x1))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
    return network


def _simclr(z0: Tensor, z1: Tensor, *, temperature: float = 0.2) -> Tensor:
    """Each row's other view against all other rows: Chen et al., arXiv 2002.05709, equation 1."""
    z = F.normalize(torch.cat([z0, z1]), dim=1)
    similarity = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarity, torch.arange(len(z)).roll(len(z0)))


def _simclr_with_w2(z0: Tensor, z1: Tensor) -> Tensor:
    added: Tensor = WassersteinLoss(1.0)(z0, z1)
    return _simclr(z0, z1) + added


def _vicreg(z0: Tensor, z1: Tensor) -> Tensor:
    """Invariance 25, variance 25, covariance 1: Bardes et al., arXiv 2105.04906, equations 1 to 6."""
    loss = 25.0 * F.mse_loss(z0, z1)
    for z in (z0, z1):
        covariance = z.T.cov()
        spread = F.relu(1.0 - (covariance.diagonal() + 1e-4).sqrt()).mean()
        off = covariance.square().sum() - covariance.diagonal().square().sum()
        loss = loss + 25.0 * spread + off / z.shape[1]
    return loss


LOSSES: dict[str, Callable[[], Loss]] = {
    "SimCLR": lambda: _simclr,
    "SimCLR + W2": lambda: _simclr_with_w2,
    "Barlow Twins": lambda: BarlowTwins().compare,
    "VICReg": lambda: _vicreg,
}
"""Name of a method -> what makes its loss of two views' outputs."""
