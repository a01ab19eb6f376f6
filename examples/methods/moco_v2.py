"""MoCo v2: a view is to be told by the momentum network's output for the other view, among a queue of older ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.digits.networks import OUTPUTS

from .method import Method, Target


class MoCoV2(Method):
    """InfoNCE against a queue, symmetrised: each view is query once and key once.

    The paper has one direction; symmetrised, as Chen and He have it too (arXiv 2011.10566), both views pass the online
    network. Keys enter the queue after they were used, or a view would be its own negative; the
    oldest leave. Shuffled BatchNorm is for several devices: on one there is nothing to shuffle between. The queue holds
    1,024 keys, fewer than there are images; temperature 0.2 is the paper's, the momentum 0.99 for short training.

    Source: Chen et al., *Improved Baselines with Momentum Contrastive Learning*, 2020, arXiv 2003.04297; He et al.,
    *Momentum Contrast*, CVPR 2020, arXiv 1911.05722, equations 1 and 2, algorithm 1.
    """

    lr = 0.3
    temperature = 0.2
    momentum = 0.99
    queue: Tensor

    def __init__(self, size: int = 1024) -> None:
        super().__init__()
        self.target = Target(self, self.momentum)
        self.register_buffer("queue", F.normalize(torch.randn(size, OUTPUTS), dim=1))

    def loss(self, z0: Tensor, z1: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """Return InfoNCE, the mean of both directions, and queue the keys."""
        k0, k1 = self.target(x0), self.target(x1)
        value = (info_nce(z0, k1, self.queue, self.temperature) + info_nce(z1, k0, self.queue, self.temperature)) / 2
        self.queue = enqueued(self.queue, torch.cat([k0, k1]))
        return value

    def stepped(self) -> None:
        """Let the momentum network follow."""
        self.target.follow(self)


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Return the mean of `-log(exp(q k+ / T) / (exp(q k+ / T) + sum_queue exp(q k / T)))` over unit vectors."""
    q, k = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


@torch.no_grad()
def enqueued(queue: Tensor, keys: Tensor) -> Tensor:
    """Return a queue of the same size, the normalised keys first, the oldest left out."""
    return torch.cat([F.normalize(keys, dim=1), queue])[: len(queue)]
