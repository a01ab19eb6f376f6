"""The loops that are watched."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def squares(*views: Tensor) -> Tensor:
    """Return a loss that costs next to nothing, of any number of views."""
    return sum((z.square().mean() for z in views[1:]), start=views[0].square().mean())


class Loop:
    """A plain loop, watched or not; a call is a step.

    Args:
        model: what is trained.
        optimizer: its optimizer.
        views: of a batch, always the same.
        criterion: the loss of the views' outputs.
        autocast: on which type of device to compute in bfloat16; empty for none.

    Attributes:
        monitor: what watches, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        views: Sequence[Tensor],
        *,
        criterion: Callable[..., Tensor] = squares,
        autocast: str = "",
    ) -> None:
        self.model, self.optimizer, self.views = model, optimizer, views
        self.monitor: LoopMonitor | None = None
        self._criterion, self._autocast = criterion, autocast

    @classmethod
    def of(cls, n: int, d: int, *, calls: int = 2, device: str = "cpu") -> Loop:
        """Return one of a `Projecting` and ``calls`` views of n rows each."""
        model = Projecting(d).to(device)
        views = torch.randn(calls, n, d, generator=torch.Generator().manual_seed(0)).to(device)
        return cls(model, torch.optim.SGD(model.parameters(), lr=1e-6), list(views))

    def __call__(self) -> None:
        """Train for a step."""
        if self._autocast:
            with torch.autocast(self._autocast, dtype=torch.bfloat16):
                loss = self._loss()
        else:
            loss = self._loss()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.optimizer.step()
        self.optimizer.zero_grad()

    def steps(self, many: int) -> None:
        """Train for so many steps."""
        for _ in range(many):
            self()

    def _loss(self) -> Tensor:
        loss = self._criterion(*[self.model(view) for view in self.views])
        if self.monitor is not None and self.monitor.monitor.auxiliary is not None:
            loss = self.monitor.add_auxiliary(loss)
        return loss
