"""How time and memory grow with rows and dimensions, next to what formulas predict."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks import curves, exchange, memory, page
from benchmarks.pairs import alone, say
from benchmarks.rows import isotropic
from benchmarks.works import WORKS

ROWS = (128, 1024, 8192, 65_536)
DIMS = (64, 256, 2048, 8192)

LIMIT_S, LIMIT_BYTES = 60.0, 8e9
"""A call that is predicted to need more is left out."""

Formula = Callable[[int, int], float]
"""Rows n and dimensions d -> a number of operations or bytes, up to a constant factor."""


@dataclass(frozen=True)
class Kind:
    """What is measured over n and d.

    Attributes:
        title: in words.
        work: its name in `WORKS`.
        operations: floating-point operations.
        space: bytes beyond the input.
    """

    title: str
    work: str
    operations: Formula
    space: Formula


@dataclass(frozen=True)
class Cell:
    """A measured place of the table; NaN where it was left out."""

    n: int
    d: int
    measured: float
    formula: float


def _panel_operations(n: int, d: int) -> float:
    k = min(n, d)
    return 4 * n * d * k + 20 * k**3 + n**2 * (d + 50)


def _loss_operations(n: int, d: int) -> float:
    k = min(n, d)
    return 4 * n * d * k + 10 * k**3


def _space(n: int, d: int) -> float:
    return 8 * (n * d + min(n, d) ** 2)


KINDS = (
    Kind("default panel", "panel", _panel_operations, _space),
    Kind("loss, value and gradient", "loss", _loss_operations, _space),
)


def run(*, tiny: bool = False) -> str:
    """Measure all, draw the figure, and return tables in Markdown."""
    rows, dims = ((64, 128), (16, 32)) if tiny else (ROWS, DIMS)
    texts, panels = [], []
    for kind in KINDS:
        times, spaces = _kind(kind, rows, dims)
        panels += [curves.Panel(f"{kind.title}: time", "s", times), curves.Panel(f"{kind.title}: memory", "B", spaces)]
        texts.append(f"**{kind.title.capitalize()}**\n\n{_table(times, spaces)}")
    times, sizes = exchange.measure([(n, d) for n in rows for d in dims])
    panels += [curves.Panel("exchange of two ranks: time", "s", times), curves.Panel("a rank sends", "B", sizes)]
    texts.append(f"**Exchange of the loss between two ranks, n rows of both together**\n\n{_table(times, sizes)}")
    curves.draw(panels, None if tiny else page.PAGE.with_suffix(".png"))
    return "\n\n".join(texts)


def constant(cells: list[Cell]) -> float:
    """Return the factor of the formula: the median of measured over formula in the larger half of the cells."""
    known = sorted((cell for cell in cells if cell.measured == cell.measured), key=lambda cell: cell.formula)
    return statistics.median(cell.measured / cell.formula for cell in known[len(known) // 2 :])


def _kind(kind: Kind, rows: tuple[int, ...], dims: tuple[int, ...]) -> tuple[list[Cell], list[Cell]]:
    """Return times and peaks of memory, from the smallest place on, up to the limits."""
    nan = float("nan")
    times: list[Cell] = []
    spaces: list[Cell] = []
    for n, d in sorted(((n, d) for n in rows for d in dims), key=lambda place: kind.operations(*place)):
        operations, space = kind.operations(n, d), kind.space(n, d)
        known = [cell for cell in times if cell.measured == cell.measured]
        if known:
            most = max(spaces, key=lambda cell: cell.measured)
            seconds = operations * known[-1].measured / known[-1].formula
            bytes_ = 4 * n * d + space * max(1.0, most.measured / most.formula)
            if seconds > LIMIT_S or bytes_ > LIMIT_BYTES:
                say(f"{kind.title}, {n} x {d}: left out, predicted {seconds:.0f} s, {bytes_ / 1e9:.1f} GB")
                times.append(Cell(n, d, nan, operations))
                spaces.append(Cell(n, d, nan, space))
                continue
        times.append(Cell(n, d, alone(partial(WORKS[kind.work], isotropic(n, d))), operations))
        spaces.append(Cell(n, d, memory.peak(kind.work, n, d), space))
        say(f"{kind.title}, {n} x {d}: {times[-1].measured:.3g} s, {spaces[-1].measured / 1e6:.0f} MB")
    return times, spaces


def _table(times: list[Cell], spaces: list[Cell]) -> str:
    pairs = sorted(zip(times, spaces, strict=True), key=lambda pair: (pair[0].n, pair[0].d))
    seconds, bytes_ = constant(times), constant(spaces)
    head = ["n", "d", "time, ms", "of predicted", "MB", "of predicted"]
    return page.table(head, list(_lines(pairs, seconds, bytes_)))


def _lines(pairs: list[tuple[Cell, Cell]], seconds: float, bytes_: float) -> Iterator[list[str]]:
    for time, space in pairs:
        if time.measured != time.measured:
            yield [f"{time.n}", f"{time.d}", "left out", "", "", ""]
            continue
        shares = [f"{cell.measured / cell.formula / factor:.2g}" for cell, factor in ((time, seconds), (space, bytes_))]
        yield [
            f"{time.n}",
            f"{time.d}",
            page.number(1e3 * time.measured),
            shares[0],
            page.number(space.measured / 1e6),
            shares[1],
        ]
