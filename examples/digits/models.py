"""Two small self-supervised models that collapse, each in its own way."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from ..methods.barlow_twins import redundancy
from .data import Batch
from .networks import distance, encoder, projector


class TwoViewModule(LightningModule):
    """Encoder and projector, trained on two views of a batch; a subclass says how the views are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = encoder()
        self.projector = projector()

    def forward(self, images: Tensor) -> Tensor:
        """Return the projector's outputs `(n, 128)` for images `(n, 1, 8, 8)`."""
        outputs: Tensor = self.projector(self.encoder(images))
        return outputs

    def compare(self, z0: Tensor, z1: Tensor) -> Tensor:
        """Return the loss, a scalar, of the two views' outputs, `(n, 128)` each."""
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch `((x0, x1), y)`, logged as `train/loss`; the labels are not used."""
        (x0, x1), _ = batch
        loss = self.compare(self(x0), self(x1))
        self.log("train/loss", loss, prog_bar=True)
        return loss


class Siamese(TwoViewModule):
    """A plain Siamese network: pull two views together and do nothing else, so that all become one point.

    The loss is `mean |z0/|z0| - z1/|z1||^2`, the alignment term (alpha = 2) of Wang and Isola, *Understanding
    Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere*, ICML 2020, arXiv
    2005.10242. That it collapses with neither stop-gradient nor predictor is shown by Chen and He, *Exploring
    Simple Siamese Representation Learning*, CVPR 2021, arXiv 2011.10566.
    """

    def compare(self, z0: Tensor, z1: Tensor) -> Tensor:
        """Return the mean squared distance, 0 to 4, of the normalised outputs; 0 at collapse."""
        return distance(z0, z1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam at a constant rate."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


class BarlowTwins(TwoViewModule):
    """Barlow Twins: make the views' cross-correlation `(128, 128)` the identity.

    The loss is `scale * (sum_i (c_ii - 1)^2 + off_diagonal * sum_{i != j} c_ij^2)` with every output brought to
    mean 0 and variance 1 over the batch. With `off_diagonal=0` nothing keeps the outputs from repeating one
    another: they fill few dimensions (dimensional collapse) while each alone varies as it should.

    Source: Zbontar et al., *Barlow Twins: Self-Supervised Learning via Redundancy Reduction*, ICML 2021, arXiv
    2103.03230, equations 1 and 2; `off_diagonal` is the paper's lambda, 0.005 there.
    """

    def __init__(self, *, off_diagonal: float = 0.005, scale: float = 0.05) -> None:
        super().__init__()
        self.off_diagonal = off_diagonal
        self.scale = scale

    def compare(self, z0: Tensor, z1: Tensor) -> Tensor:
        """Return the scaled loss; 0 where the cross-correlation is the identity."""
        return self.scale * redundancy(z0, z1, self.off_diagonal)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD with momentum at a constant rate."""
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
