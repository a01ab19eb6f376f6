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
from examples.methods.simclr import nt_xent
from examples.methods.vicreg import covariances, hinge
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


def _simclr(z0: Tensor, z1: Tensor) -> Tensor:
    return nt_xent(z0, z1, 0.2)


def _simclr_with_w2(z0: Tensor, z1: Tensor) -> Tensor:
    added: Tensor = WassersteinLoss(1.0)(z0, z1)
    return _simclr(z0, z1) + added


def _vicreg(z0: Tensor, z1: Tensor) -> Tensor:
    return 25.0 * (F.mse_loss(z0, z1) + hinge(z0) + hinge(z1)) + covariances(z0) + covariances(z1)


LOSSES: dict[str, Callable[[], Loss]] = {
    "SimCLR": lambda: _simclr,
    "SimCLR + W2": lambda: _simclr_with_w2,
    "Barlow Twins": lambda: BarlowTwins().compare,
    "VICReg": lambda: _vicreg,
}
"""Name of a method -> what makes its loss of two views' outputs."""
