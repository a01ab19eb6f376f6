"""Models whose steps are watched, and what a step of a plain loop is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from uniformity_callbacks.integrations.loop import LoopMonitor


class Projecting(nn.Module):
    """Nothing but a projector: what a step of ours costs is not lost in a model's own."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.projector = nn.Linear(d, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the projector's outputs (n, d)."""
        outputs: Tensor = self.projector(x)
        return outputs


class Loop:
    """A plain loop, watched or not; a call is a step.

    Args:
        model: what is trained.
        views: of a batch, always the same.
        monitor: what watches, or None.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, views: Sequence[Tensor]) -> None:
        self.model, self.optimizer, self.views = model, optimizer, views
        self.monitor: LoopMonitor | None = None

    @classmethod
    def of(cls, n: int, d: int, *, calls: int = 2) -> Loop:
        """Return one of a `Projecting` and ``calls`` views of n rows each."""
        model = Projecting(d)
        views = torch.randn(calls, n, d, generator=torch.Generator().manual_seed(0))
        return cls(model, torch.optim.SGD(model.parameters(), lr=1e-6), list(views))

    def __call__(self) -> None:
        """Train for a step."""
        first, *others = [self.model(view) for view in self.views]
        loss = sum(((first - z).square().mean() for z in others), start=first.square().mean())
        if self.monitor is not None and self.monitor.monitor.auxiliary is not None:
            loss = self.monitor.add_auxiliary(loss)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimizer.step()
        self.optimizer.zero_grad()

    def steps(self, many: int) -> None:
        """Train for so many steps."""
        for _ in range(many):
            self()
