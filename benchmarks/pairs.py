"""Timings in turns: what is compared runs A B A B, so that a machine that slows down slows down both."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from timeit import Timer

from torch.utils.benchmark import timer  # perf_counter, once the GPU is done where there is one

ROUNDS = 10
"""Least number of pairs behind a figure of the page."""

SAMPLE_S = 0.02
"""What takes less is repeated up to this within a sample."""

WARM_S = 0.5
"""Warm-up: one call, and more up to this; the first allocates, starts threads and fills caches."""

Call = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """The median of a sample and its quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return that of two or more values."""
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    def scaled(self, factor: float) -> Spread:
        """Return it in another unit."""
        return Spread(self.low * factor, self.median * factor, self.high * factor)


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Return the spread of the quotients, pair by pair."""
    return Spread.of([a / b for a, b in zip(over, under, strict=True)])


def difference(more: Sequence[float], less: Sequence[float]) -> Spread:
    """Return the spread of the differences, pair by pair."""
    return Spread.of([a - b for a, b in zip(more, less, strict=True)])


def in_turns(works: Mapping[str, Call], *, rounds: int = ROUNDS, title: str = "") -> dict[str, list[float]]:
    """Return the seconds of a call of each work, ``rounds`` samples of each, taken in turns after a warm-up.

    Args:
        works: by name.
        rounds: how many samples.
        title: what a line of progress names them by; empty for none.
    """
    warm = {name: _warm(work) for name, work in works.items()}
    if title:
        took = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in warm.items())
        say(f"{title}: {rounds} times in turns, about {rounds * sum(warm.values()):.0f} s ({took})")
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            many = max(1, round(SAMPLE_S / warm[name]))
            times[name].append(Timer(work, timer=timer).timeit(many) / many)
    return times


def alone(work: Call, *, enough_s: float = 1.0) -> float:
    """Return the median seconds of a call, of as many as ``enough_s`` has room for; of the first if it takes longer."""
    once = Timer(work, timer=timer).timeit(1)
    if once > enough_s:
        return once
    return statistics.median(in_turns({"": work}, rounds=min(ROUNDS, max(3, int(enough_s / once))))[""])


def say(text: str) -> None:
    """Tell of the progress."""
    print(text, file=sys.stderr, flush=True)


def _warm(work: Call) -> float:
    """Return the seconds of the quickest call of the warm-up."""
    quickest = total = Timer(work, timer=timer).timeit(1)
    while total < WARM_S:
        seconds = Timer(work, timer=timer).timeit(1)
        quickest, total = min(quickest, seconds), total + seconds
    return max(quickest, 1e-9)
