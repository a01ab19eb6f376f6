"""Many independent runs in a few processes of one thread each."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import torch
from torch import nn

from benchmarks.pairs import say

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)
R = TypeVar("R")

PROCESSES = 2


def in_processes(work: Callable[[T], R], tasks: Sequence[T], *, of: str, processes: int = PROCESSES) -> list[R]:
    """Return what `work` makes of each task, in the tasks' order; `of` is what progress is said of.

    With no process it is done here, one after another. `work` is a module's function: processes are started afresh,
    since a fork would copy torch's threads half.
    """
    began, done = time.monotonic(), 0

    def finished() -> None:
        nonlocal done
        done += 1
        if done % 10 == 0 or done == len(tasks):
            say(f"{of}: {done} of {len(tasks)}, {time.monotonic() - began:.0f} s")

    results: dict[int, R] = {}
    if not processes:
        for k, task in enumerate(tasks):
            results[k] = work(task)
            finished()
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _one_thread) as pool:
            futures = {pool.submit(work, task): k for k, task in enumerate(tasks)}
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                finished()
    return [results[k] for k in range(len(tasks))]


def channels_last(module: M) -> M:
    """Return a module with its convolutions' weights in the order in which a CPU is a quarter faster with them."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types leave it out
    return module


def _one_thread() -> None:
    torch.set_num_threads(1)
