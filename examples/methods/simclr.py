"""SimCLR: each view is to be told by the other view of its image, among all views of the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .method import Method


class SimCLR(Method):
    """NT-Xent at a temperature of 0.5, as in the paper's experiments on small images (its appendix B.9).

    Source: Chen et al., *A Simple Framework for Contrastive Learning of Visual Representations*, ICML 2020, arXiv
    2002.05709, equation 1 and algorithm 1.
    """

    lr = 0.3
    temperature = 0.5

    def loss(self, z0: Tensor, z1: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """Return NT-Xent of both views' outputs."""
        return nt_xent(z0, z1, self.temperature)


def nt_xent(z0: Tensor, z1: Tensor, temperature: float) -> Tensor:
    """Return the normalised temperature-scaled cross entropy, the mean over all 2n views.

    For each view, `-log(exp(s_pos / T) / sum_{k != i} exp(s_ik / T))`, where `s` is the cosine, `s_pos` that of the
    other view of the same image, and k runs over the 2n - 1 other views. About `log(2n - 1)` where all are one point.
    """
    z = F.normalize(torch.cat([z0, z1]), dim=1)
    logits = (z @ z.T / temperature).masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
    n = len(z0)
    positives = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(logits, positives)
