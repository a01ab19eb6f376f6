"""Measured over rows and dimensions, against a formula: the cells, the formula's factor, and the figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt


@dataclass(frozen=True)
class Cell:
    """A place of the table.

    Attributes:
        n: rows.
        d: dimensions.
        measured: seconds or bytes; NaN where it was left out.
        formula: operations or bytes, which it is to be in proportion to.
    """

    n: int
    d: int
    measured: float
    formula: float

    @property
    def known(self) -> bool:
        """Whether it was measured."""
        return not math.isnan(self.measured)


@dataclass(frozen=True)
class Panel:
    """One of the figure's panels: title, unit, and what it shows."""

    title: str
    unit: str
    cells: Sequence[Cell]


def factor(cells: Sequence[Cell]) -> float:
    """Return that of the formula: the median of measured over formula in the half of the cells where it is larger.

    In the other half what a call costs whatever its size outweighs what grows.
    """
    known = sorted((cell for cell in cells if cell.known), key=lambda cell: cell.formula)
    return statistics.median(cell.measured / cell.formula for cell in known[len(known) // 2 :])


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Draw each panel over n, a line for each d: measured with markers, the formula dashed."""
    figure, axes = plt.subplots(2, -(-len(panels) // 2), figsize=(12, 7), layout="constrained")
    for axis, panel in zip(axes.T.flat, panels, strict=False):
        scale = factor(panel.cells)
        for k, d in enumerate(sorted({cell.d for cell in panel.cells})):
            line = sorted((cell for cell in panel.cells if cell.d == d and cell.known), key=lambda cell: cell.n)
            n = [cell.n for cell in line]
            axis.plot(n, [cell.measured for cell in line], "o-", color=f"C{k}", label=f"d = {d}")
            axis.plot(n, [scale * cell.formula for cell in line], "--", color=f"C{k}")
        axis.set(title=panel.title, xlabel="rows n", ylabel=panel.unit, xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    axes.flat[0].plot([], [], "--", color="grey", label="formula")
    axes.flat[0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
