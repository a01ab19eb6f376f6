"""A plain Siamese network: it pulls two views together and does nothing else, so that all outputs become one point."""

from __future__ import annotations

from torch import Tensor

from examples.digits.networks import distance

from .method import Method


class Siamese(Method):
    """The alignment term alone.

    Source: Wang and Isola, *Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere*, ICML 2020, arXiv 2005.10242, section 4.1 (alpha = 2). That it collapses: Chen and He, *Exploring
    Simple Siamese Representation Learning*, CVPR 2021, arXiv 2011.10566.
    """

    lr = 0.1

    def loss(self, z0: Tensor, z1: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """Return the mean squared distance, 0 to 4, of the normalised outputs; 0 at collapse."""
        return distance(z0, z1)
