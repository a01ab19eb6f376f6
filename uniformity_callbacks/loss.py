"""The Wasserstein uniformity loss: the term that keeps a run from collapsing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uniformity_callbacks import closed_form
from uniformity_callbacks.functional.embeddings import check_embeddings, result
from uniformity_callbacks.names import nearest
from uniformity_callbacks.schedules import Constant, LinearDecay, Schedule, check_weight

PUBLISHED: dict[str, Schedule] = {"byol": Constant(0.2), "mocov2": Constant(1.0), "barlow_twins": LinearDecay(30.0)}
"""Weights of the paper's experiments (arXiv 2403.00642): BYOL and MoCo v2 constant, Barlow Twins linear to 0."""


class WassersteinLoss(nn.Module):
    """``weight`` times W2 of all views' rows together, the term to add to the training loss.

    Usable by itself, ``loss = criterion(z0, z1) + WassersteinLoss(0.2)(z0, z1)``, or injected by a callback's or
    monitor's ``auxiliary=``. It has no parameters and draws no random number; the gradient is in closed form and finite
    for rows of any rank. Rows that are zero or not finite get no gradient.

    Args:
        weight: a number >= 0 (0 measures the term without adding anything), or a function of the fraction of training
            done, 0 to 1, such as `LinearDecay`. Published settings: `published`.
        when: "always"; or "alert": a callback or monitor adds it only while an alert of constant or dimensional
            collapse stands, and takes it off after recovery.

    Raises:
        ValueError: weight, or what it gives at the beginning or end, is negative or not finite; when is unknown.
        TypeError: weight is neither a number nor callable.

    Attributes:
        progress: the fraction of training done, 0 to 1, that the weight is taken at; a callback or monitor sets it, a
            loop of your own may.

    Source:
        Fang et al., Rethinking the Uniformity Metric in Self-Supervised Learning, ICLR 2024, arXiv 2403.00642.

    Example:
        >>> loss = WassersteinLoss(weight=0.5)
        >>> round(loss(torch.ones(8, 4), torch.ones(8, 4)).item(), 4)  # one point: 0.5 * sqrt(2)
        0.7071
    """

    def __init__(self, weight: float | Schedule = 0.1, when: str = "always") -> None:
        super().__init__()
        if when not in ("always", "alert"):
            raise ValueError(f'when must be "always" or "alert", got {when!r}')
        self.schedule = weight if callable(weight) else Constant(check_weight(weight))
        self.when = when
        self.progress = 0.0
        for fraction in (0.0, 1.0):
            check_weight(self.schedule(fraction), f"weight at {fraction:.0%} of training")

    @classmethod
    def published(cls, method: str, when: str = "always") -> WassersteinLoss:
        """Return the loss with the weight of the paper's experiment with a method.

        Args:
            method: "byol" (0.2), "mocov2" (1.0) or "barlow_twins" (30 to 0, linear; in the paper by the epoch).
            when: as for the class.

        Raises:
            ValueError: no such method; the nearest ones are given.

        Example:
            >>> WassersteinLoss.published("barlow_twins").schedule
            LinearDecay(start=30.0, end=0.0)
        """
        if method not in PUBLISHED:
            raise ValueError(f"method has no published weight for {method!r}; {nearest(method, PUBLISHED)}")
        return cls(PUBLISHED[method], when)

    @property
    def weight(self) -> float:
        """The weight now.

        Raises:
            ValueError: the schedule gives a negative number or one that is not finite.
            TypeError: it gives no number.
        """
        return check_weight(self.schedule(self.progress), f"weight at {self.progress:.1%} of training")

    @property
    def needs_progress(self) -> bool:
        """Whether the weight depends on how much of the training is done."""
        return not isinstance(self.schedule, Constant)

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
        rows = self.rows(*views)
        return self.weigh(closed_form.uniformity(rows), rows)

    def rows(self, *views: Tensor) -> Tensor:
        """Return the checked rows of all views together.

        Raises:
            ValueError: no view, not (n, d), or views of different d.
            TypeError: a view is not a floating-point tensor.
        """
        if not views:
            raise ValueError("views must be one or more (n, d) tensors, got none; call loss(z0, z1)")
        for k, view in enumerate(views):
            check_embeddings(view, name=f"views[{k}]", least=1)
        if len({view.shape[1] for view in views}) > 1:
            shapes = ", ".join(str(tuple(view.shape)) for view in views)
            raise ValueError(f"views must have the same dimension d, got {shapes}; pass outputs of one layer")
        return torch.cat(views)

    def weigh(self, w2: Tensor, rows: Tensor) -> Tensor:
        """Return weight x W2, which was computed in float64 that autocast leaves alone, in the rows' precision."""
        return result(rows, self.weight * w2)

    def extra_repr(self) -> str:
        """Return the arguments, for ``repr``."""
        weight = f"{self.schedule.weight:g}" if isinstance(self.schedule, Constant) else repr(self.schedule)
        return f"weight={weight}, when={self.when!r}"
