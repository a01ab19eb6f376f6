"""SwAV: the cluster of a view is to be told by the other view of the same image; all clusters get equal shares."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.digits.networks import OUTPUTS

from .method import Method


class SwAV(Method):
    """Swapped prediction with two views, without small crops and without a queue.

    Temperature 0.1, epsilon 0.05 and 3 rounds of Sinkhorn are the paper's; 64 prototypes for 10 digits.

    Source: Caron et al., *Unsupervised Learning of Visual Features by Contrasting Cluster Assignments*, NeurIPS 2020,
    arXiv 2006.09882, equations 1 to 5 and algorithm 1.
    """

    lr = 0.1
    temperature = 0.1
    epsilon = 0.05

    def __init__(self, prototypes: int = 64) -> None:
        super().__init__()
        self.prototypes = nn.Linear(OUTPUTS, prototypes, bias=False)

    def loss(self, z0: Tensor, z1: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """Return the swapped prediction of both views; the prototypes are brought to unit length first."""
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        s0, s1 = (self.prototypes(F.normalize(z, dim=1)) for z in (z0, z1))
        return swapped(s0, s1, sinkhorn(s0, self.epsilon), sinkhorn(s1, self.epsilon), self.temperature)


def swapped(s0: Tensor, s1: Tensor, q0: Tensor, q1: Tensor, temperature: float) -> Tensor:
    """Return the mean cross entropy between one view's codes and the softmax of the other's scores `(n, prototypes)`.

    `-(sum q1 log softmax(s0 / T) + sum q0 log softmax(s1 / T)) / 2`, a mean over n (the paper's sum, halved).
    """
    p0, p1 = (F.log_softmax(s / temperature, dim=1) for s in (s0, s1))
    return -((q1 * p0).sum(1) + (q0 * p1).sum(1)).mean() / 2


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, rounds: int = 3) -> Tensor:
    """Return codes `(n, prototypes)` from cosines: rows sum to 1, columns to nearly `n / prototypes`; constants.

    Sinkhorn and Knopp's algorithm on `exp(scores / epsilon)`, columns first, rows last (equations 3 to 5).
    """
    q = torch.exp(scores / epsilon)
    for _ in range(rounds):
        q = F.normalize(q, p=1, dim=0)
        q = F.normalize(q, p=1, dim=1)
    return q
