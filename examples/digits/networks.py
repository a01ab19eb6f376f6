"""Encoder, projector and a loss that collapses: plain PyTorch, for any loop."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 64
HIDDEN = 256
OUTPUTS = 128


def encoder() -> nn.Sequential:
    """Return a convolutional network from images `(n, 1, 8, 8)` to features `(n, 64)`."""

    def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    blocks = block(1, 16, 1), block(16, 32, 2), block(32, 64, 2)
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 * 2 * 2, FEATURES))


def projector() -> nn.Sequential:
    """Return a perceptron of one hidden layer from features `(n, 64)` to outputs `(n, 128)`."""
    return nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUTPUTS))


class Network(nn.Module):
    """Encoder and projector."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = encoder()
        self.projector = projector()

    def forward(self, images: Tensor) -> Tensor:
        """Return the projector's outputs `(n, 128)` for images `(n, 1, 8, 8)`."""
        outputs: Tensor = self.projector(self.encoder(images))
        return outputs


def distance(z0: Tensor, z1: Tensor) -> Tensor:
    """Return the mean squared distance, 0 to 4, of the normalised outputs `(n, 128)` of two views; 0 at collapse.

    As the whole loss it makes a plain Siamese network, which collapses: see `examples.digits.models.Siamese`.
    """
    return (F.normalize(z0, dim=1) - F.normalize(z1, dim=1)).square().sum(1).mean()
