"""What the training thread pays for watching: a watched loop against one that is not, whatever our hooks are.

The difference of two loops has all of it, also what torch itself does because there are hooks; a stopwatch within them
has what is ours.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from timeit import Timer
from typing import Any

import torch
from torch.utils.benchmark import timer

from benchmarks import page
from benchmarks.loops import Loop
from benchmarks.pairs import ROUNDS, Call, Spread, difference, in_turns, ratio, say
from benchmarks.rows import isotropic
from benchmarks.stopwatch import Stopwatch
from uniformity_callbacks.integrations.pytorch import LoopMonitor, watch

N, D = 512, 256
"""Rows of a due step, of both views together, and their dimensions."""

_NEVER = 10**9

_BLOCK = 200
"""Steps of a sample, where a step takes some microseconds."""

_CYCLE, _CYCLES = 4, 30
"""Every so many steps is due where due steps are timed, and how many of them are."""

_PAUSE_S = 0.3
"""After a due step, so that its reading is done before the next is timed; whole runs have what it costs them."""

OFF_STEP_US, DUE_MS, LOSS_MS = 10.0, 3.0, 8.0
"""At most, on two cores."""


def run(*, tiny: bool = False) -> str:
    """Measure all, and return a table in Markdown."""
    n, d, rounds = (16, 8, 2) if tiny else (N, D, 2 * ROUNDS)
    z = isotropic(n, d)
    gram = Spread.of(in_turns({"gram": partial(torch.matmul, z.T, z)}, rounds=rounds)["gram"])
    rows = []
    for calls in (2, 4):
        whole, hooks = _off_step(calls, rounds=rounds, block=4 if tiny else _BLOCK)
        step = f"a step that is not due, {calls} calls of the layer"
        rows.append([f"{step}: in our hooks", f"{page.spread(hooks.scaled(1e6))} µs", "", f"{OFF_STEP_US:g} µs"])
        rows.append([f"{step}: with torch's calls of them", f"{page.spread(whole.scaled(1e6))} µs", "", ""])
    due, grams = _due_step(n, d, cycles=2 if tiny else _CYCLES)
    rows.append([f"a due step, 2 x {n // 2} x {d}", f"{page.spread(due.scaled(1e3))} ms", grams, f"{DUE_MS:g} ms"])
    loss, grams = _loss(n, d, rounds=rounds)
    rows.append([f"the loss, 2 x {n // 2} x {d}", f"{page.spread(loss.scaled(1e3))} ms", grams, f"{LOSS_MS:g} ms"])
    unit = f"One Gram product, float32 `z.T @ z` of {n} x {d}: {page.spread(gram.scaled(1e3))} ms."
    head = ["on the training thread", "adds (quartiles)", "in Gram products", "at most"]
    return f"{page.table(head, rows)}\n\n{unit}"


def _off_step(calls: int, *, rounds: int, block: int) -> tuple[Spread, Spread]:
    """Return the seconds that watching adds to a step that is not due, and those of them in our hooks."""
    say(f"off-step, {calls} calls of the layer")
    bare, watched, profiled = (Loop.of(32, 8, calls=calls) for _ in range(3))
    with _watching(watched, every_n_steps=_NEVER):
        watched()  # the first step is due
        works = {"watched": partial(watched.steps, block), "bare": partial(bare.steps, block)}
        times = in_turns(works, rounds=rounds)
    stopwatch = Stopwatch()
    with ExitStack() as stack:
        with stopwatch.listening():
            stack.enter_context(_watching(profiled, every_n_steps=_NEVER))
        profiled.steps(block)
        hooks = [stopwatch.during(partial(profiled.steps, block)) for _ in range(rounds)]
    return difference(times["watched"], times["bare"]).scaled(1 / block), Spread.of(hooks).scaled(1 / block)


def _due_step(n: int, d: int, *, cycles: int) -> tuple[Spread, str]:
    """Return the seconds that a due step takes more than the step before it, and that in Gram products."""
    say(f"due step, {n} x {d}")
    loop, z = Loop.of(n // 2, d), isotropic(n, d)
    due, off, gram = [], [], []
    with _watching(loop, every_n_steps=_CYCLE) as monitor:
        loop()
        for _ in range(cycles):
            time.sleep(_PAUSE_S)
            loop.steps(_CYCLE - 2)  # caches are warm again
            off.append(Timer(loop, timer=timer).timeit(1))
            gram.append(Timer(lambda: z.T @ z, timer=timer).timeit(5) / 5)
            assert monitor.step % _CYCLE == 0, "the next step is due"
            due.append(Timer(loop, timer=timer).timeit(1))
    return difference(due, off), _in_grams(due, off, gram)


def _loss(n: int, d: int, *, rounds: int) -> tuple[Spread, str]:
    """Return the seconds that the loss adds to a step, forward and backward, and that in Gram products."""
    say(f"loss, {n} x {d}")
    bare, added, z = Loop.of(n // 2, d), Loop.of(n // 2, d), isotropic(n, d)
    with _watching(added, every_n_steps=_NEVER, auxiliary=0.1):
        added()
        works: dict[str, Call] = {"added": added, "bare": bare, "gram": partial(torch.matmul, z.T, z)}
        times = in_turns(works, rounds=rounds)
    return difference(times["added"], times["bare"]), _in_grams(times["added"], times["bare"], times["gram"])


def _in_grams(more: list[float], less: list[float], gram: list[float]) -> str:
    return page.spread(ratio([a - b for a, b in zip(more, less, strict=True)], gram), digits=2)


@contextmanager
def _watching(loop: Loop, **options: Any) -> Iterator[LoopMonitor]:
    """Watch it, with the journal."""
    with TemporaryDirectory() as folder:
        journal = Path(folder) / "uniformity.jsonl"
        loop.monitor = monitor = watch(loop.model, optimizer=loop.optimizer, journal=journal, alerts=None, **options)
        try:
            yield monitor
        finally:
            monitor.close()
