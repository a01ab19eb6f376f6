"""Whole runs, watched and not, in turns: how much longer a step takes on average, and what our threads use."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from torch import Tensor

from benchmarks import page
from benchmarks.pairs import ROUNDS, Spread, ratio, say
from examples.digits import data
from examples.digits.models import BarlowTwins
from uniformity_callbacks import Writer
from uniformity_callbacks.integrations.mlflow import MLflowWriter
from uniformity_callbacks.integrations.pytorch import watch
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter

EVERY = 50
STEPS = 8 * EVERY
"""Steps of a run that are timed, after the first `EVERY`."""

BATCH = 256

_STORE_S = 60.0
"""How long a run waits for MLflow to have made its own, before steps are timed."""


@dataclass(frozen=True)
class Run:
    """Seconds of a run.

    Attributes:
        opening: from before `watch` to the end of the first step.
        step: a step on average, once all is running.
        closing: `close`.
        used: processor time of the threads that came with watching, per second of the timed steps, by name.
    """

    opening: float
    step: float
    closing: float
    used: dict[str, float]


def run(*, tiny: bool = False) -> str:
    """Measure all, and return tables in Markdown."""
    digits = data.load()
    steps, rounds = (2 * EVERY, 2) if tiny else (STEPS, ROUNDS + 2)
    batches = partial(_batches, digits, EVERY + steps, 32 if tiny else BATCH)
    runs: dict[str, list[Run]] = {"bare": [], "watched": [], "bare again": []}
    with TemporaryDirectory() as folder:
        _train(batches(), 1, Path(folder))  # makes MLflow's database, and imports
        for k in range(rounds):
            for name in runs if k % 2 == 0 else reversed(runs):
                runs[name].append(_train(batches(), steps, Path(folder) if name == "watched" else None))
            say(f"runs: {k + 1} of {rounds}")
    took = {name: [run.step for run in same] for name, same in runs.items()}
    watched = runs["watched"]
    bare = [(a + b) / 2 for a, b in zip(took["bare"], took["bare again"], strict=True)]
    rows = [
        ["watched against bare", page.longer(ratio(took["watched"], bare)), "1 %"],
        ["bare against bare, the noise", page.longer(ratio(took["bare again"], took["bare"])), ""],
    ]
    head = [f"{rounds} runs of {steps} steps, of {1e3 * statistics.median(bare):.1f} ms each", "longer", "at most"]
    shares = [[name, _share([run.used.get(name, 0.0) for run in watched])] for name in _names(watched)]
    shares.append(["together", _share([sum(run.used.values()) for run in watched])])
    opening, closing = statistics.median(r.opening for r in watched), statistics.median(r.closing for r in watched)
    bare_opening = statistics.median(run.opening for run in runs["bare"])
    apart = (
        f"Not in these: the first step, with `watch` before it, takes {opening:.2f} s instead of {bare_opening:.2f} s,"
        f" and `close` {closing:.2f} s, in which readings and writers finish."
    )
    return f"{page.table(head, rows)}\n\n{page.table(['thread', 'of one core'], shares)}\n\n{apart}"


def _train(batches: Iterator[data.Batch], steps: int, folder: Path | None) -> Run:
    """Train from the same weights, watched if there is a folder, and time ``steps`` steps after the first `EVERY`."""
    torch.manual_seed(0)
    model = BarlowTwins()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def train(some: Iterator[data.Batch]) -> None:
        for (x0, x1), _ in some:
            loss: Tensor = model.compare(model(x0), model(x1))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()

    before = {thread.id for thread in psutil.Process().threads()}
    with ExitStack() as stack:
        began = time.perf_counter()
        if folder is not None:
            writer = MLflowWriter(f"sqlite:///{folder / 'mlflow.db'}")
            journal = folder / "uniformity.jsonl"
            writers: list[Writer] = [TensorBoardWriter(folder / "tensorboard"), writer]
            stack.enter_context(
                watch(model, optimizer=optimizer, every_n_steps=EVERY, writers=writers, journal=journal)
            )
        train(islice(batches, 1))
        opening = time.perf_counter() - began
        train(islice(batches, EVERY - 1))
        if folder is not None:
            _settle(writer)
        used, began = _used(before), time.perf_counter()
        train(islice(batches, steps))
        timed = time.perf_counter() - began
        used = {name: (seconds - used.get(name, 0.0)) / timed for name, seconds in _used(before).items()}
        began = time.perf_counter()
    return Run(opening, timed / steps, time.perf_counter() - began, used if folder is not None else {})


def _batches(digits: data.Digits, steps: int, size: int) -> Iterator[data.Batch]:
    return iter(data.train_loader(digits, steps=steps, batch_size=size))


def _settle(writer: MLflowWriter) -> None:
    """Wait until MLflow has its run and has written the first reading: that is start, not steady state."""
    deadline = time.monotonic() + _STORE_S
    while writer.run_id is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert writer.run_id is not None, f"MLflow has made no run within {_STORE_S:.0f} s"
    time.sleep(1.0)


def _used(before: set[int]) -> dict[str, float]:
    """Return the processor seconds so far of the threads that were not there before, by name.

    Those that Python does not know are the workers with which torch computes on the reader's thread.
    """
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    seconds: dict[str, float] = {}
    for thread in psutil.Process().threads():
        if thread.id not in before:
            name = names.get(thread.id, "torch's workers")
            name = name if name.startswith(("uniformity-", "torch's")) else "others, of TensorBoard's and MLflow's own"
            seconds[name] = seconds.get(name, 0.0) + thread.user_time + thread.system_time
    return seconds


def _names(runs: list[Run]) -> list[str]:
    return sorted({name for run in runs for name in run.used})


def _share(values: list[float]) -> str:
    return f"{page.spread(Spread.of(values).scaled(100), digits=2)} %"
