"""ResNet-18 for images of 32 x 32 pixels with a projector, and SimCLR's loss: what a GPU's step is of."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TEMPERATURE = 0.5
"""SimCLR's on CIFAR-10 (arXiv 2002.05709, appendix B.9)."""


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al., arXiv 1512.03385, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, stride)
        self.second = _convolution(outputs, outputs, 3, 1)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (n, outputs, height / stride, width / stride)."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResNet18(nn.Module):
    """Encoder, with a first convolution of 3 x 3 and no pooling after it, and a projector to 256 dimensions."""

    def __init__(self) -> None:
        super().__init__()
        widths = (64, 64, 128, 256, 512)
        blocks: list[nn.Module] = []
        for k, (inputs, outputs) in enumerate(pairwise(widths)):
            blocks += [Block(inputs, outputs, 1 if k == 0 else 2), Block(outputs, outputs, 1)]
        self.encoder = nn.Sequential(
            _convolution(3, 64, 3, 1), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.projector = nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 256))

    def forward(self, images: Tensor) -> Tensor:
        """Return the projector's outputs (n, 256) for images (n, 3, 32, 32)."""
        outputs: Tensor = self.projector(self.encoder(images))
        return outputs


def contrast(z0: Tensor, z1: Tensor) -> Tensor:
    """Return SimCLR's loss of two views (n, d) of the same images (arXiv 2002.05709, equation 1)."""
    u = F.normalize(torch.cat([z0, z1]).float(), dim=1)
    alike = (u @ u.T / _TEMPERATURE).fill_diagonal_(float("-inf"))
    other = torch.arange(len(u), device=u.device).roll(len(z0))
    return F.cross_entropy(alike, other)


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
