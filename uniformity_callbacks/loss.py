"""The Wasserstein uniformity loss: the term that keeps a run from collapsing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from uniformity_callbacks import functional
from uniformity_callbacks.sample import unit_rows


class WassersteinLoss(nn.Module):
    """``weight`` times W2 of all views' rows together, the term to add to the training loss.

    Usable by itself, ``loss = criterion(z0, z1) + WassersteinLoss(0.2)(z0, z1)``, or injected by a callback's or
    monitor's ``auxiliary=``. It has no parameters and draws no random number; the gradient is in closed form and finite
    for rows of any rank. Rows that are zero or not finite get no gradient.

    Args:
        weight: a number >= 0; 0 measures the term without adding anything. Published: BYOL 0.2, MoCo v2 1.0.
        when: "always".

    Raises:
        ValueError: weight is negative or not finite; when is unknown.
        TypeError: weight is not a number.

    Source:
        Fang et al., Rethinking the Uniformity Metric in Self-Supervised Learning, ICLR 2024, arXiv 2403.00642.

    Example:
        >>> loss = WassersteinLoss(weight=0.5)
        >>> round(loss(torch.ones(8, 4), torch.ones(8, 4)).item(), 4)  # one point: 0.5 * sqrt(2)
        0.7071
    """

    def __init__(self, weight: float = 0.1, when: str = "always") -> None:
        super().__init__()
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise TypeError(f"weight must be a number, got {weight!r}; e.g. 0.1")
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"weight must be finite and >= 0, got {weight}; published settings are 0.2 to 1.0")
        if when != "always":
            raise ValueError(f'when must be "always", got {when!r}')
        self.weight = float(weight)
        self.when = when

    def forward(self, *views: Tensor) -> Tensor:
        """Return weight x W2 as a 0-dimensional tensor, float64 if a view is, float32 otherwise.

        Args:
            views: one or more (n, d) embeddings of one dimension d; n may differ.

        Returns:
            A number in [0, sqrt(2) * weight]: 0 at the ideal, ``sqrt(2) * weight`` where all rows are one point.

        Raises:
            ValueError: no view, not (n, d), or views of different d.
            TypeError: a view is not a floating-point tensor.
        """
        if not views:
            raise ValueError("views must be one or more (n, d) tensors, got none; call loss(z0, z1)")
        for k, view in enumerate(views):
            functional.check_embeddings(view, name=f"views[{k}]", least=1)
        if len({view.shape[1] for view in views}) > 1:
            shapes = ", ".join(str(tuple(view.shape)) for view in views)
            raise ValueError(f"views must have the same dimension d, got {shapes}; pass outputs of one layer")
        rows = torch.cat(views)
        value = self.weight * functional.w2(unit_rows(rows))  # in float64, which autocast leaves alone
        return value if rows.dtype == torch.float64 else value.to(torch.float32)

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        return f"weight={self.weight:g}, when={self.when!r}"
