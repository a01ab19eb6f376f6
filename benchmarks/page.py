"""The generated parts of docs/speed.md: each stands between two comments, and what is around them is left alone."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

import torch

from benchmarks.pairs import Spread

PAGE = Path(__file__).parent.parent / "docs" / "speed.md"


def asked_for(
    parts: Iterable[str], program: str, about: str | None, arguments: list[str] | None
) -> tuple[list[str], bool]:
    """Return which of a page's parts a command line names, all if none, and whether only to see that they run."""
    names = list(parts)
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=about)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--tiny", action="store_true", help="see that it runs: small sizes, nothing is written")
    told = parser.parse_args(arguments)
    if unknown := set(told.parts) - set(names):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return told.parts or names, told.tiny


def replaced(text: str, part: str, generated: str) -> str:
    """Return a page with the generated text of a part in place of the one that is there.

    Raises:
        ValueError: the page does not have the part's two comments, or has them twice.
    """
    begin, end = f"<!-- bench:{part} -->", f"<!-- /bench:{part} -->"
    pieces = re.split(f"({re.escape(begin)}).*?({re.escape(end)})", text, flags=re.DOTALL)
    if len(pieces) != 4:
        raise ValueError(f"the page must have {begin} and {end} once, got them {len(pieces) // 3} times")
    before, _, _, after = pieces
    return f"{before}{begin}\n{generated.strip()}\n{end}{after}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(x: float) -> str:
    """Return it with three digits."""
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"


def spread(s: Spread, *, digits: int = 3) -> str:
    """Return the median and, in brackets, the quartiles."""
    return f"{s.median:.{digits}g} ({s.low:.{digits}g} to {s.high:.{digits}g})"


def longer(quotient: Spread) -> str:
    """Return by how much more than 1 it is, in percent."""
    low, median, high = (100 * (x - 1) for x in (quotient.low, quotient.median, quotient.high))
    return f"{median:+.2f} % ({low:+.2f} to {high:+.2f})"


def machine() -> str:
    """Return when, on what and with what it is measured, in a line."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    versions += f", NumPy {importlib.metadata.version('numpy')}, SciPy {importlib.metadata.version('scipy')}"
    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} cores"
    return f"Measured on {date.today()}: {processor()}, {threads}{gpu}; {platform.system()}, {versions}."


def processor() -> str:
    """Return the processor's name."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
