"""Checks of a monitor's arguments, before the first step: each error names the argument, what came and the mend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

from torch import nn

from uniformity_callbacks.alerts import AlertBook
from uniformity_callbacks.load import Overload
from uniformity_callbacks.loss import WassersteinLoss
from uniformity_callbacks.rules import COLLAPSE
from uniformity_callbacks.schedules import Schedule

Layer = str | nn.Module | None


def check_cadence(every_n_steps: int, window: int, total_steps: int | None) -> None:
    """Raise ValueError unless all three are whole numbers in their ranges."""
    if not _is_whole(every_n_steps) or every_n_steps < 1:
        raise ValueError(f"every_n_steps must be an integer >= 1, got {every_n_steps!r}")
    if not _is_whole(window) or not 1 <= window <= every_n_steps:
        raise ValueError(f"window must be an integer from 1 to every_n_steps ({every_n_steps}), got {window!r}")
    if total_steps is not None and (not _is_whole(total_steps) or total_steps < 1):
        raise ValueError(f"total_steps must be a positive number of optimizer steps or None, got {total_steps!r}")


def check_names(scope: str, prefix: str) -> str:
    """Return the prefix without its slash; raise ValueError unless scope and prefix are names of their kind."""
    if scope not in ("global", "rank"):
        raise ValueError(f'scope must be "global" or "rank", got {scope!r}')
    if not isinstance(prefix, str) or not prefix.strip("/"):
        raise ValueError(f'prefix must be a name, got {prefix!r}; e.g. "uniformity"')
    return prefix.strip("/")


def check_overload(overload: str) -> Overload:
    """Return it; raise ValueError unless it is what can give way."""
    for known in get_args(Overload):
        if overload == known:
            return known  # type: ignore[no-any-return]
    raise ValueError(
        f'overload must be "skip" (due steps are passed over) or "subsample" (rows are left out), got {overload!r}'
    )


def check_durable(durable: bool) -> bool:
    """Return it; raise TypeError unless it is True or False."""
    if not isinstance(durable, bool):
        raise TypeError(f"durable must be True or False, got {durable!r}")
    return durable


def check_timeout(close_timeout: float) -> float:
    """Return it as a float; raise TypeError or ValueError unless it is a number of seconds, 0 to a billion."""
    if isinstance(close_timeout, bool) or not isinstance(close_timeout, (int, float)):
        raise TypeError(f"close_timeout must be a number of seconds, got {close_timeout!r}")
    if not 0 <= close_timeout <= 1e9:  # threads wait no longer
        raise ValueError(f"close_timeout must be seconds from 0 to a billion, got {close_timeout!r}")
    return float(close_timeout)


def check_layers(layer: Layer | Sequence[Layer]) -> tuple[Layer, ...]:
    """Return the layers as a tuple; raise ValueError if there is none."""
    layers = (layer,) if layer is None or isinstance(layer, (str, nn.Module)) else tuple(layer)
    if not layers:
        raise ValueError("layer must name at least one layer, got an empty list")
    return layers


def check_writers(writers: Sequence[Any]) -> tuple[Any, ...]:
    """Return the writers as a tuple; raise TypeError unless each can be called."""
    for writer in writers:
        if isinstance(writer, type) or not callable(writer):
            raise TypeError(f"writers must be callables (values, step), got {writer!r}")
    return tuple(writers)


def check_loss(auxiliary: float | Schedule | WassersteinLoss | None, book: AlertBook) -> WassersteinLoss | None:
    """Return the loss that is meant; raise ValueError if it waits for alerts that cannot come."""
    if not (auxiliary is None or isinstance(auxiliary, WassersteinLoss)):
        auxiliary = WassersteinLoss(auxiliary)
    if auxiliary is not None and auxiliary.when == "alert" and not any(map(book.rule, COLLAPSE)):
        raise ValueError(
            f'auxiliary with when="alert" waits for an alert of {" or ".join(COLLAPSE)} collapse, and alerts name '
            'neither; give alerts="warn"'
        )
    return auxiliary


def check_length(auxiliary: WassersteinLoss | None, total_steps: float | None) -> float:
    """Return the number of steps of the training; raise ValueError if the loss needs it and it is not known."""
    total = math.inf if total_steps is None or total_steps <= 0 else float(total_steps)
    if auxiliary is not None and auxiliary.needs_progress and not math.isfinite(total):
        raise ValueError(
            f"total_steps must be given: the weight of {auxiliary} depends on how much of the training is done, and "
            "this one has no end that is known; give total_steps=, limit the training, or take a constant weight"
        )
    return total


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
