"""watch: a monitor for a plain PyTorch loop, or for one of Fabric or Accelerate."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from uniformity_callbacks.integrations.loop import LoopMonitor
from uniformity_callbacks.integrations.publishing import above_the_bar, be_heard
from uniformity_callbacks.layers import unwrapped
from uniformity_callbacks.loss import WassersteinLoss
from uniformity_callbacks.monitor import UniformityMonitor
from uniformity_callbacks.panel import DEFAULT_METRICS
from uniformity_callbacks.rules import Action, CollapseAlert
from uniformity_callbacks.schedules import Schedule
from uniformity_callbacks.tap import Output
from uniformity_callbacks.writers import Writer

__all__ = ["LoopMonitor", "watch"]

_watching: weakref.WeakSet[LoopMonitor] = weakref.WeakSet()


def watch(
    model: nn.Module,
    layer: str | Sequence[str] | nn.Module | None = None,
    *,
    optimizer: Optimizer,
    criterion: nn.Module | None = None,
    every_n_steps: int = 50,
    output: Output = None,
    views: int | None = None,
    calls: str | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    alerts: Sequence[CollapseAlert] | Action | None = "warn",
    auxiliary: float | Schedule | WassersteinLoss | None = None,
    scope: str = "global",
    writers: Sequence[Writer] = (),
    window: int = 1,
    overload: str = "skip",
    prefix: str = "uniformity",
    journal: str | Path | None = None,
    durable: bool = False,
    close_timeout: float = 10.0,
    total_steps: int | None = None,
    first_step: int = 0,
    together: bool = True,
    group: dist.ProcessGroup | None = None,
) -> LoopMonitor:
    """Watch a layer of a model for collapse while a loop of your own trains it; return the monitor.

    The loop stays as it is. Steps are those of the optimizer, counted by a hook; a reading is of what the layer put out
    with gradients since the step before, each call between two backward passes a view. With ``auxiliary`` one line
    changes, ``loss = monitor.add_auxiliary(loss)``, before whatever divides or scales the loss for backward; or none,
    with ``criterion``. Whether an alert asks to stop is in ``monitor.should_stop``. Readings go to the journal and to
    the writers. Model, optimizer and criterion are as they were once the monitor is closed, which the end of the
    process sees to. Copies and pickles of them are not watched.

    Under DistributedDataParallel, FSDP, Fabric or Accelerate the call is the same, on every rank: with the wrapped
    model and optimizer or the bare ones, before or after ``torch.compile``.

    Args:
        model: the module that holds the layer.
        layer: dotted path, list of paths, module, or None: the module named like a projector that is trained.
        optimizer: the one whose steps are counted.
        criterion: where the loop cannot be edited, a module that returns the loss, or a mapping with it under "loss":
            the auxiliary loss is added to that. It must be called once for each backward.
        every_n_steps: steps between readings, >= 1; step 0 is read.
        output: which tensor of the layer's output: None (it is a tensor), key, index, or a function of it.
        views: None (each call of the layer is a view) or 2 (one call holds both views stacked along the batch).
        calls: which of a pass's calls with gradients are read: None or "all", "first:N" (large crops) or "last:N".
        metrics: names to compute, without prefix.
        alerts: None, "warn", "stop", "raise", a function of the alert, or a list of `CollapseAlert`.
        auxiliary: None, a weight (a number or a schedule), or a `WassersteinLoss` to add to the training loss.
        scope: "global" (the batch of all ranks together) or "rank" (the loss of each rank's own rows, readings of
            rank zero's); the same in one process.
        writers: each called with every reading's values and step, on a thread of its own.
        window: steps up to a due one whose rows are read together, 1 to every_n_steps.
        overload: what gives way where readings take too long: "skip" (due steps) or "subsample" (rows of each view).
        prefix: what the metric keys begin with.
        journal: file to record readings in; None for ``uniformity.jsonl`` in the working directory. A file of another
            run stays: ``uniformity-2.jsonl`` it is then.
        durable: have the disk confirm each record of the journal (fdatasync): a crash of the machine costs none, and a
            reading, on its thread, takes as long as the disk does.
        close_timeout: seconds that the end of training waits for readings and writers, >= 0; what a writer has not
            taken by then is in the journal, and a warning says how to write it.
        total_steps: steps of the whole training, for a loss whose weight depends on how much is done.
        first_step: the number of the first step, of a training that goes on without this monitor's state.
        together: whether the ranks of torch.distributed, where it is initialised, train this model together.
        group: which ranks these are; None for all.

    Returns:
        A monitor, which is a context manager, too: ``add_auxiliary``, ``should_stop``, ``last`` (the newest values),
        ``validation(loader)``, ``state_dict``, ``load_state_dict``, ``close``.

    Raises:
        ValueError: an argument is out of its range; no such layer; the model is watched already under this prefix; a
            weight that decays over a training whose length is not given. In the first step: the layer's output cannot
            be taken, the journal cannot be written, the auxiliary loss was not added.
        TypeError: an argument is of another type.
        CollapseError: by ``optimizer.step()``, from an alert whose action is "raise".

    Example:
        >>> import torch
        >>> model = nn.Sequential()
        >>> model.add_module("projector", nn.Linear(4, 8))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with watch(model, optimizer=optimizer, alerts="stop") as monitor:
        ...     print(monitor.layers, monitor.should_stop)
        ['projector'] False
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {model!r}")
    if isinstance(first_step, bool) or not isinstance(first_step, int) or first_step < 0:
        raise ValueError(f"first_step must be an integer >= 0, got {first_step!r}")
    _check_criterion(criterion, auxiliary)
    stepped = _innermost(optimizer)
    monitor = UniformityMonitor(
        layer,
        every_n_steps=every_n_steps,
        output=output,
        views=views,
        calls=calls,
        metrics=metrics,
        alerts=alerts,
        auxiliary=auxiliary,
        scope=scope,
        writers=writers,
        window=window,
        overload=overload,
        prefix=prefix,
        journal=journal,
        durable=durable,
        close_timeout=close_timeout,
        total_steps=total_steps,
    )
    _check_free(model, monitor.prefix)
    be_heard()
    monitor.announce_by(above_the_bar)
    loop = LoopMonitor(monitor, stepped, criterion=criterion, first_step=first_step)
    loop.attach(model, together=together, group=group)
    if not _watching:
        atexit.unregister(_leave_all)  # at most once
        atexit.register(_leave_all)
    _watching.add(loop)
    return loop


def _check_criterion(criterion: object, auxiliary: object) -> None:
    if criterion is None:
        return
    if not isinstance(criterion, nn.Module):
        raise TypeError(
            f"criterion must be a torch.nn.Module, got {criterion!r}; of another loss write "
            "loss = monitor.add_auxiliary(loss) instead"
        )
    if auxiliary is None:
        raise ValueError("criterion is where an auxiliary loss is added, and there is none; give auxiliary, e.g. 0.1")


def _innermost(optimizer: object) -> Optimizer:
    """Return the optimizer inside of what Fabric or Accelerate made of it, whose hooks know which steps are taken."""
    inner = optimizer
    while isinstance(getattr(inner, "optimizer", None), Optimizer):
        inner = inner.optimizer  # type: ignore[attr-defined]
    if not isinstance(inner, Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer, or what Fabric or Accelerate made of one, got "
            f"{type(optimizer).__name__}; of several give the one whose steps are to be counted"
        )
    return inner


def _check_free(model: nn.Module, prefix: str) -> None:
    for other in _watching:
        if other.model is None or other.monitor.prefix != prefix:
            continue
        if _holds(model, other.model) or _holds(other.model, model):
            raise ValueError(
                f"model is watched already, under the prefix {prefix!r}, every {other.monitor.every_n_steps} steps; "
                "close() that monitor first, or give another prefix"
            )


def _holds(whole: nn.Module, part: nn.Module) -> bool:
    """Whether a model is part of another; wrappers such as torch.compile's make no difference."""
    return bool(unwrapped(part) & set(whole.modules()))


def _leave_all() -> None:
    for loop in list(_watching):
        loop.leave()
