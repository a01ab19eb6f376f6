"""One loop for all methods, watched; `add_auxiliary` is the one line by which the Wasserstein loss gets in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

from examples.digits.data import Batch
from uniformity_callbacks import CollapseAlert, WassersteinLoss, functional
from uniformity_callbacks.integrations.pytorch import watch
from uniformity_callbacks.rules import Action

from .method import Method


def train(
    method: Method,
    batches: Iterable[Batch],
    *,
    auxiliary: float | WassersteinLoss | None = None,
    wang_isola: float = 0.0,
    lr: float | None = None,
    every_n_steps: int = 20,
    alerts: Sequence[CollapseAlert] | Action | None = "warn",
    journal: Path | None = None,
) -> Path | None:
    """Train on batches `((x0, x1), y)`, whose labels are not used, and return the journal's path.

    Args:
        method: what is trained.
        batches: one for each step.
        auxiliary: weight of the Wasserstein loss, or the loss itself; None adds nothing.
        wang_isola: weight of Wang and Isola's loss, to compare with; 0 adds nothing.
        lr: learning rate; None for the method's own.
        every_n_steps: steps between readings.
        alerts: as for `watch`.
        journal: as for `watch`.
    """
    optimizer = method.optimizer(lr)
    with watch(
        method,
        "projector",
        optimizer=optimizer,
        every_n_steps=every_n_steps,
        auxiliary=auxiliary,
        alerts=alerts,
        journal=journal,
    ) as monitor:
        for (x0, x1), _ in batches:
            z0, z1 = method(x0), method(x1)
            loss = method.loss(z0, z1, x0, x1)
            if wang_isola:
                loss = loss + wang_isola * wang_isola_loss(z0, z1)
            loss = monitor.add_auxiliary(loss)  # with the Wasserstein loss, if there is a weight for it
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            method.stepped()
            if monitor.should_stop:
                break
    return monitor.journal


def wang_isola_loss(z0: Tensor, z1: Tensor) -> Tensor:
    """Return the mean of both views' `log mean exp(-2 |zi - zj|^2)`, about -4 at the ideal and 0 at one point.

    Source: Wang and Isola, ICML 2020, arXiv 2005.10242, section 4.1 (t = 2).
    """
    return (functional.wang_isola_uniformity(z0) + functional.wang_isola_uniformity(z1)) / 2
