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
        readings: for each interval, how much longer its first half is than its second: what a reading costs, if there
            is one, whatever else the machine does meanwhile.
        closing: `close`.
        used: processor time of the threads that came with watching, per second of the timed steps, by name.
    """

    opening: float
    step: float
    readings: list[float]
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
    for name, kind in (("watched", "with a reading"), ("bare", "without, the noise")):
        halves = Spread.of([seconds for run in runs[name] for seconds in run.readings])
        share = halves.median / (EVERY * statistics.median(bare))
        rows.append(
            [
                f"first half of an interval against its second, {kind}",
                f"{page.spread(halves.scaled(1e3))} ms, {share:+.2%}",
                "",
            ]
        )
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

    def train(some: Iterator[data.Batch]) -> list[float]:
        ends = [time.perf_counter()]
        for (x0, x1), _ in some:
            loss: Tensor = model.compare(model(x0), model(x1))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            ends.append(time.perf_counter())
        return ends

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
        used, ends = _used(before), train(islice(batches, steps))
        timed = ends[-1] - ends[0]
        used = {name: (seconds - used.get(name, 0.0)) / timed for name, seconds in _used(before).items()}
        began = time.perf_counter()
    return Run(opening, timed / steps, _halves(ends), time.perf_counter() - began, used if folder is not None else {})


def _halves(ends: list[float]) -> list[float]:
    """Return for each interval how much longer its first half takes; the first step is due."""
    half = EVERY // 2
    return [
        (ends[k + half] - ends[k]) - (ends[k + 2 * half] - ends[k + half])
        for k in range(0, len(ends) - 2 * half, 2 * half)
    ]


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
