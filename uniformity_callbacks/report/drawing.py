"""matplotlib's figures as SVG inside a page: in the page's colours, light or dark, and without a name twice."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 4.4, 2.9
"""Inches. 317 points: as wide as a telephone, so that the text can be read on one; wider pages have several beside one
another."""

INK, FAINT, GROUND = "#010203", "#010204", "#010205"
RUNS = tuple(f"#0102{16 + k:02x}" for k in range(8))
"""Stand-ins for colours, each replaced by a variable of the page's style sheet: no figure has one by chance."""

_VARIABLES = {INK: "--ink", FAINT: "--faint", GROUND: "--ground"}
_VARIABLES |= {colour: f"--run-{k}" for k, colour in enumerate(RUNS, start=1)}


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes:
        title: what it shows.
        svg: the drawing.
        alternative: the same in words, for who cannot see it.
        caption: how to read it.
    """

    title: str
    svg: str
    alternative: str
    caption: str


@contextmanager
def figure(height: float = HEIGHT) -> Iterator[tuple[Any, Any]]:
    """Give a figure and its axes, in the page's style; nothing of matplotlib's state is changed for others.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the report needs matplotlib; pip install 'uniformity-callbacks[report]'") from error
    style: dict[Any, Any] = {
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.family": "sans-serif",
        "font.size": 10,
        "grid.color": FAINT,
        "grid.alpha": 0.35,
        "grid.linewidth": 0.6,
        "svg.fonttype": "none",  # text stays text: it can be read out, and found
        "svg.hashsalt": "uniformity",
        "text.color": INK,
        "text.parse_math": False,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with mpl.rc_context(style):
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        drawn.patch.set_alpha(0.0)
        axes = drawn.subplots()
        axes.patch.set_alpha(0.0)
        yield drawn, axes


def svg(drawn: Any, name: str) -> str:
    """Return a figure as SVG to stand in a page.

    Args:
        drawn: the figure.
        name: what its inner names begin with; each figure of a page has its own.
    """
    file = io.StringIO()
    drawn.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)  # it is for all the page
    text = re.sub(r'^<svg[^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text
