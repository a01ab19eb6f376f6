"""What a part of docs/paper hands over, how its figures look, and how its numbers are written."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent.parent.parent / "docs" / "paper"

BLUE, ORANGE, GREEN, PINK, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#666666"
"""Okabe and Ito's colours, which colour-blind readers tell apart."""

WIDTH, DOTS = 9.0, 110
"""Inches, and dots an inch: about the width of a page on GitHub, so that text stays readable."""


@dataclass(frozen=True)
class Outcome:
    """What a part found.

    Attributes:
        text: the generated text of the page, Markdown.
        figures: by name of the file, without its ending.
        tables: the numbers behind the figures, CSV, by name of the file, without its ending.
        page: file of the page.
    """

    text: str
    figures: Mapping[str, Figure] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    page: str = "README.md"

    def write(self, folder: Path) -> None:
        """Write figures and tables into a folder."""
        for name, figure in self.figures.items():
            figure.savefig(folder / f"{name}.png", dpi=DOTS, facecolor="white")
        for name, text in self.tables.items():
            (folder / f"{name}.csv").write_text(text)

    def close(self) -> None:
        """Free the figures."""
        for figure in self.figures.values():
            plt.close(figure)


def numbers(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return CSV, fractions with five digits: figures are drawn of more than a reader can use."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([f"{x:.5g}" if isinstance(x, float) else x for x in row] for row in rows)
    return text.getvalue()


def plain_axes(axis: Axes) -> None:
    """Leave of an axis' frame what is read."""
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
