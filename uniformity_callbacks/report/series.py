"""Numbers of a journal as they are drawn: no more points than a page needs, and none that matters left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from uniformity_callbacks.panel import Reading, spectrum_ranks
from uniformity_callbacks.report.story import Story, is_one_point

POINTS = 600
"""Most points of a line: more than a figure has pixels to show."""

COLUMNS = 240
"""Most columns of a heat map."""


@dataclass(frozen=True)
class Line:
    """One metric of one run.

    Attributes:
        steps: where it was read.
        values: what was read; NaN where it is undefined.
    """

    steps: list[int]
    values: list[float]

    def __bool__(self) -> bool:
        return any(math.isfinite(value) for value in self.values)

    @property
    def finite(self) -> list[tuple[int, float]]:
        """The points that are numbers."""
        return [(step, value) for step, value in zip(self.steps, self.values, strict=True) if math.isfinite(value)]

    @property
    def alone(self) -> list[tuple[int, float]]:
        """The points that are numbers between two that are not: no line leads to them."""
        around = [math.nan, *self.values, math.nan]
        return [
            (step, now)
            for step, before, now, after in zip(self.steps, around, self.values, around[2:], strict=False)
            if math.isfinite(now) and not (math.isfinite(before) or math.isfinite(after))
        ]

    def thinned(self, most: int = POINTS) -> Line:
        """Return fewer points: of each stretch its lowest and its highest, so that no spike is lost."""
        if len(self.steps) <= most:
            return self
        size, kept = math.ceil(2 * len(self.steps) / most), set[int]()
        for begin in range(0, len(self.steps), size):
            stretch = range(begin, min(begin + size, len(self.steps)))
            finite = [k for k in stretch if math.isfinite(self.values[k])]
            # Where nothing is a number the gap stays a gap.
            kept |= {min(finite, key=self._value), max(finite, key=self._value)} if finite else {begin}
        kept |= {0, len(self.steps) - 1}
        return Line([self.steps[k] for k in sorted(kept)], [self.values[k] for k in sorted(kept)])

    def _value(self, k: int) -> float:
        return self.values[k]


def line(story: Story, metric: str, layer: str, stage: str = "train") -> Line:
    """Return a metric of a run; where its steps go back, as in a second fit in one journal, the line is broken."""
    steps, values = list[int](), list[float]()
    for reading in story.journal.readings:
        if (reading.layer, reading.stage) != (layer, stage) or metric not in reading.values:
            continue
        if steps and reading.step < steps[-1]:
            steps.append(steps[-1])
            values.append(math.nan)
        steps.append(reading.step)
        values.append(value(reading, metric))
    return Line(steps, values)


def value(reading: Reading, metric: str) -> float:
    """Return a metric of a reading as it is shown; NaN where it is missing, or undefined at one point."""
    undefined = metric == "effective_dims" and is_one_point(reading)
    return math.nan if undefined else reading.values.get(metric, math.nan)


@dataclass(frozen=True)
class HeatMap:
    """The spectrum of one run over its steps.

    Attributes:
        steps: of the columns.
        ranks: of the rows.
        columns: the eigenvalues times d, a list for each step.
        dims: d.
    """

    steps: list[int]
    ranks: list[int]
    columns: list[tuple[float, ...]]
    dims: int


def heat_map(story: Story, layer: str) -> HeatMap | None:
    """Return the spectrum of a layer over the run; None if its readings have none."""
    readings = [r for r in story.trained if r.layer == layer and r.spectrum]
    # The last of several fits, and of one width.
    begun = max((k for k, (a, b) in enumerate(pairwise(readings), start=1) if b.step <= a.step), default=0)
    readings = [r for r in readings[begun:] if r.dims == readings[-1].dims]
    if len(readings) < 2:
        return None
    some = spread(readings, COLUMNS)
    dims = some[0].dims
    return HeatMap([r.step for r in some], spectrum_ranks(dims), [r.spectrum for r in some], dims)


def spread(readings: Sequence[Reading], most: int) -> list[Reading]:
    """Return at most so many of the readings, evenly spread, the first and the last among them."""
    last = len(readings) - 1
    if last < most:
        return list(readings)
    return [readings[round(k * last / (most - 1))] for k in range(most)]
