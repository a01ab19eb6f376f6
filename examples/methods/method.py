"""What the methods have in common: an online network, a loss of two views, and what follows a step of the optimizer."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from examples.digits.networks import HIDDEN, OUTPUTS, Network


class Method(Network):
    """Encoder and projector, trained on two views of a batch; a subclass says how the views are compared.

    All methods have the encoder and the projector of `examples.digits.networks`: one hidden layer with BatchNorm, none
    after the last layer. Papers differ in the depth of theirs; here the loss is what differs.

    Attributes:
        lr: learning rate of SGD with momentum at which the method trains well here, at batches of 256.
    """

    lr = 0.1

    def loss(self, z0: Tensor, z1: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            z0: outputs `(n, 128)` of this network for the first view, with gradients.
            z1: the same for the second view.
            x0: the first view itself, `(n, 1, 8, 8)`, for methods with a second network.
            x1: the second view.
        """
        raise NotImplementedError

    def stepped(self) -> None:
        """Do what the method does after each step of the optimizer."""

    def optimizer(self, lr: float | None = None) -> torch.optim.Optimizer:
        """Return SGD with momentum over all that is trained, at the method's own rate or another one."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.SGD(trained, lr=self.lr if lr is None else lr, momentum=0.9, weight_decay=1e-4)


class Target(nn.Module):
    """A network that follows the online one as a moving average of its weights, without gradients.

    Source: He et al., *Momentum Contrast for Unsupervised Visual Representation Learning*, CVPR 2020, arXiv
    1911.05722, equation 2; Grill et al., arXiv 2006.07733, equation 1.
    """

    def __init__(self, online: Network, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.network = nn.Sequential(copy.deepcopy(online.encoder), copy.deepcopy(online.projector))
        self.network.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return outputs `(n, 128)`, constants to the gradient; BatchNorm sees the batch, as in the online network."""
        outputs: Tensor = self.network(images)
        return outputs

    @torch.no_grad()
    def follow(self, online: Network) -> None:
        """Move each weight to `momentum * own + (1 - momentum) * online`; BatchNorm's statistics are its own."""
        theirs = nn.Sequential(online.encoder, online.projector)
        for own, their in zip(self.network.parameters(), theirs.parameters(), strict=True):
            own.lerp_(their, 1.0 - self.momentum)


def predictor() -> nn.Sequential:
    """Return a perceptron of one hidden layer from outputs `(n, 128)` to predictions `(n, 128)`."""
    return nn.Sequential(nn.Linear(OUTPUTS, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUTPUTS))
