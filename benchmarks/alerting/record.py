"""Train the runs, unalarmed, and keep their readings and what there is to see of the whole training set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.alerting.cases import BATCH, EVERY, Case
from benchmarks.alerting.truth import Look, look
from benchmarks.workers import PROCESSES, channels_last, in_processes
from examples.digits import data
from examples.digits.data import Batch, Digits
from examples.digits.networks import Network
from examples.methods import METHODS
from examples.methods.loop import train
from examples.methods.method import Method
from uniformity_callbacks import read_journal
from uniformity_callbacks.panel import Reading

FOLDER = Path(__file__).parents[2] / "build" / "alerting"

VIEW_SEED = 1000


@dataclass(frozen=True)
class Task:
    """A run to record: a case, a seed, where to, and how many steps."""

    case: Case
    seed: int
    folder: Path
    steps: int

    @property
    def journal(self) -> Path:
        """The readings."""
        return self.folder / f"{self.case.name}-seed{self.seed}.jsonl"

    @property
    def looks(self) -> Path:
        """What there was to see."""
        return self.journal.with_suffix(".json")


@dataclass(frozen=True)
class Run:
    """What is kept of a run."""

    case: Case
    seed: int
    readings: Sequence[Reading]
    looks: Sequence[Look]


def record_all(tasks: Sequence[Task], *, processes: int = PROCESSES) -> None:
    """Train all."""
    for task in tasks:
        task.folder.mkdir(parents=True, exist_ok=True)
        task.journal.unlink(missing_ok=True)  # or the run would be recorded beside it
    in_processes(record, tasks, of="runs", processes=processes)


def record(task: Task) -> None:
    """Train one run and keep its readings and looks; one that raises ends there, as it would for its user."""
    digits, twin = _digits(), Network()
    torch.manual_seed(task.seed)
    method = channels_last(METHODS[task.case.method](**task.case.arguments))
    spoil(method, task.case.spoilt_at(task.seed))
    view = data.Augment()(digits.train_images, torch.Generator().manual_seed(VIEW_SEED))
    looks: list[Look] = []
    batches = data.train_loader(digits, steps=task.steps, batch_size=BATCH, seed=task.seed)
    train(
        method,
        looking(batches, looks, twin, method, view),
        lr=task.case.rate * method.lr,
        every_n_steps=EVERY,
        alerts=None,
        journal=task.journal,
    )
    task.looks.write_text(json.dumps([asdict(one) for one in looks]))


def read(task: Task) -> Run:
    """Return what was kept of a run.

    Raises:
        FileNotFoundError: it was not recorded.
    """
    looks = [Look(**one) for one in json.loads(task.looks.read_text())]
    return Run(task.case, task.seed, read_journal(task.journal).readings, looks)


def looking(
    batches: Iterator[Batch] | torch.utils.data.DataLoader[Batch],
    looks: list[Look],
    twin: Network,
    method: Method,
    images: Tensor,
) -> Iterator[Batch]:
    """Yield the batches, and look at the whole training set before each step that is read."""
    for step, batch in enumerate(batches):
        if step % EVERY == 0:
            looks.append(look(step, twin, method, images))
        yield batch


def spoil(method: Method, at: int | None) -> None:
    """Have the loss of a step be NaN, which makes all weights NaN in that step."""
    whole, calls = method.loss, 0

    def loss(z0: Tensor, z1: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        value = whole(z0, z1, x0, x1)
        return value * torch.nan if calls - 1 == at else value

    method.loss = loss  # type: ignore[method-assign]


@cache
def _digits() -> Digits:
    return data.load()
