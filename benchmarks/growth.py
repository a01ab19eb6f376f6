"""How time and memory grow with rows and dimensions, next to what formulas predict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import curves, exchange, memory, page
from benchmarks.curves import Cell, Panel
from benchmarks.pairs import alone, say
from benchmarks.rows import isotropic
from benchmarks.works import WORKS

ROWS = (128, 1024, 8192, 65_536)
DIMS = (64, 256, 2048, 8192)

LIMIT_S, LIMIT_BYTES = 60.0, 8e9
"""A call that is predicted to need more is left out."""

_PAIRS_AT_ONCE = 1 << 22
"""Distances between rows are taken in blocks of so many."""

Formula = Callable[[int, int], float]
"""Rows n and dimensions d -> a number of operations or bytes, up to a constant factor."""


@dataclass(frozen=True)
class Kind:
    """What is measured.

    Attributes:
        title: in words.
        work: its name in `WORKS`.
        operations: floating-point operations; those of an eigendecomposition, which are the slower ones, weighted.
        space: bytes beyond the input.
    """

    title: str
    work: str
    operations: Formula
    space: Formula


def _panel_operations(n: int, d: int) -> float:
    k = min(n, d)
    return 4 * n * d * k + 20 * k**3 + n**2 * (d + 50)


def _loss_operations(n: int, d: int) -> float:
    k = min(n, d)
    return 4 * n * d * k + 10 * k**3


def _panel_space(n: int, d: int) -> float:
    return _loss_space(n, d) + 4 * min(n**2, _PAIRS_AT_ONCE)


def _loss_space(n: int, d: int) -> float:
    return 8 * (n * d + min(n, d) ** 2)


KINDS = (
    Kind("Default panel", "panel", _panel_operations, _panel_space),
    Kind("Loss, value and gradient", "loss", _loss_operations, _loss_space),
)


def run(*, tiny: bool = False) -> str:
    """Measure all, draw the figure, and return tables in Markdown."""
    rows, dims = ((256, 512), (64, 128)) if tiny else (ROWS, DIMS)
    places = [(n, d) for n in rows for d in dims]
    texts, panels = ["![Time and memory over rows, a line for each dimension](speed.png)"], []
    for kind in KINDS:
        times, spaces = _measured(kind, places)
        panels += [Panel(f"{kind.title}: time", "s", times), Panel(f"{kind.title}: memory", "bytes", spaces)]
        texts.append(f"**{kind.title}**\n\n{_table(times, spaces, 'needs, MB')}")
    say("exchange between two ranks")
    times, sizes = exchange.measure(places)
    panels += [Panel("Exchange of two ranks: time", "s", times), Panel("Exchange: a rank sends", "bytes", sizes)]
    texts.append(
        f"**Exchange for the loss, two ranks, n rows of both together**\n\n{_table(times, sizes, 'a rank sends, MB')}"
    )
    with TemporaryDirectory() as folder:
        curves.draw(panels, Path(folder) / "speed.png" if tiny else page.PAGE.with_suffix(".png"))
    return "\n\n".join(texts)


def _measured(kind: Kind, places: Sequence[tuple[int, int]]) -> tuple[list[Cell], list[Cell]]:
    """Return times and peaks of memory, from the cheapest place on, up to what is predicted to pass the limits."""
    times: list[Cell] = []
    spaces: list[Cell] = []
    for n, d in sorted(places, key=lambda place: kind.operations(*place)):
        seconds, bytes_ = math.nan, math.nan
        if _affordable(kind, n, d, times, spaces):
            seconds, bytes_ = alone(partial(WORKS[kind.work], isotropic(n, d))), memory.peak(kind.work, n, d)
        times.append(Cell(n, d, seconds, kind.operations(n, d)))
        spaces.append(Cell(n, d, bytes_, kind.space(n, d)))
        say(f"{kind.title}, {n} x {d}: {seconds:.3g} s, {bytes_ / 1e6:.0f} MB")
    return times, spaces


def _affordable(kind: Kind, n: int, d: int, times: Sequence[Cell], spaces: Sequence[Cell]) -> bool:
    """Whether a call is predicted to stay within the limits, by those before it that needed most."""
    if not times:
        return True
    longest = max(filter(_known, times), key=lambda cell: cell.measured)
    largest = max(filter(_known, spaces), key=lambda cell: cell.measured)
    seconds = kind.operations(n, d) * longest.measured / longest.formula
    bytes_ = 4 * n * d + kind.space(n, d) * largest.measured / largest.formula
    return seconds <= LIMIT_S and bytes_ <= LIMIT_BYTES


def _known(cell: Cell) -> bool:
    return cell.known


def _table(times: Sequence[Cell], spaces: Sequence[Cell], needs: str) -> str:
    lines = _lines(times, spaces, curves.factor(times), curves.factor(spaces))
    return page.table(["n", "d", "time, ms", "of predicted", needs, "of predicted"], list(lines))


def _lines(times: Sequence[Cell], spaces: Sequence[Cell], seconds: float, bytes_: float) -> Iterator[list[str]]:
    pairs = zip(times, spaces, strict=True)
    for time, space in sorted(pairs, key=lambda pair: (pair[0].n, pair[0].d)):
        place = [f"{time.n:,}", f"{time.d:,}"]
        if time.known:
            yield [*place, *_beside(time, 1e3, seconds), *_beside(space, 1e-6, bytes_)]
        else:
            yield [*place, "left out", "", "left out", ""]


def _beside(cell: Cell, unit: float, factor: float) -> list[str]:
    """Return the measured and its share of the predicted."""
    return [page.number(unit * cell.measured), f"{cell.measured / (factor * cell.formula):.2g}"]
