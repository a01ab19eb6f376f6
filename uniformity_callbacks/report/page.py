"""Journals turned into one self-contained page: no script, nothing fetched, readable in ten years."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from uniformity_callbacks.glossary import GLOSSARY
from uniformity_callbacks.journal import read_journal
from uniformity_callbacks.report.drawing import RUNS, Picture
from uniformity_callbacks.report.figures import PANELS, curves, spectrum, trajectory
from uniformity_callbacks.report.series import heat_map, spread, value
from uniformity_callbacks.report.story import Story, stories_of
from uniformity_callbacks.report.timeline import timeline

MOST = len(RUNS)
"""Runs on one page: as many as there are colours that can be told apart."""

_ROWS = 12
"""Readings of the table of each run."""

_EPISODES = 50
"""Alerts of a run that are shown whole."""

_COLUMNS = {
    "w2": "W2",
    "w2_corrected": "W2 corrected",
    "effective_dims": "effective dims",
    "mean_resultant": "mean resultant",
    "std_ratio": "std ratio",
    "lu": "L_U",
    "alignment": "alignment",
    "rankme": "RankMe",
    "aux_weight": "loss's weight",
}


@dataclass(frozen=True)
class Group:
    """Figures of one layer, or of the only layer of each run.

    Attributes:
        title: what the layer is called; empty if there is one only.
        runs: numbers, from 0, of the runs that have it.
        pictures: the curves.
        spectra: the heat maps, one for each run.
    """

    title: str
    runs: list[int]
    pictures: list[Picture]
    spectra: list[Picture]


@dataclass(frozen=True)
class Rows:
    """The table of one layer of one run: cells as they are shown, empty where a metric is missing."""

    title: str
    heads: list[str]
    cells: list[list[str]]


def write_report(journals: Sequence[str | Path], path: str | Path) -> list[Story]:
    """Write one HTML page on the runs of some journals, and return what it says of each.

    The page is one file without scripts or anything fetched: verdict in words, curves of all runs over the optimizer
    step, alignment against uniformity, alerts and the loss's weight, the spectrum over time, and tables. It follows the
    reader's choice of light or dark.

    Args:
        journals: 1 to 8 ``.jsonl`` files that monitors wrote.
        path: where to write; what is there is replaced once the page is whole.

    Raises:
        FileNotFoundError: a journal, or the folder of ``path``, is not there.
        ValueError: a file is no journal, or there are none or more than 8.
        ImportError: matplotlib is not installed.
    """
    if not 1 <= len(journals) <= MOST:
        raise ValueError(
            f"journals must be 1 to {MOST} files, as many as can be told apart in a figure, got {len(journals)}"
        )
    stories = stories_of([(Path(journal), read_journal(journal)) for journal in journals])
    page, target = render(stories), Path(path)
    # With the mode of any other new file of the user's, and never half a page in the place of a whole one.
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_bytes(page.encode("utf-8", "replace"))  # a damaged journal may hold half a character
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return stories


def render(stories: Sequence[Story]) -> str:
    """Return the page."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    # Names and texts come from models, tags and journals: all of them are escaped but for our own drawings.
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(files("uniformity_callbacks.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        stories=stories,
        groups=groups_of(stories),
        tables=[list(tables_of(story)) for story in stories],
        most=_EPISODES,
        common=[note for note in stories[0].notes if len(stories) > 1 and all(note in s.notes for s in stories)],
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("uniformity-callbacks"),
        drawing=Markup,
        started=started,
        glossary={title: GLOSSARY[name] for name, title in _COLUMNS.items() if GLOSSARY[name].ideal},
    )


def groups_of(stories: Sequence[Story]) -> list[Group]:
    """Return the figures, layer by layer; runs of one layer each are drawn together whatever it is called."""
    if all(len(story.layers) <= 1 for story in stories):
        alone: list[str | None] = [story.layers[0] if story.layers else None for story in stories]
        return [_group("", stories, alone, 1)]
    names = dict.fromkeys(layer for story in stories for layer in story.layers)
    return [
        _group(name, stories, [name if name in story.layers else None for story in stories], k)
        for k, name in enumerate(names, start=1)
    ]


def _group(title: str, stories: Sequence[Story], layers: Sequence[str | None], number: int) -> Group:
    drawn = [curves(panel, stories, layers, f"g{number}-{panel.metric}") for panel in PANELS]
    drawn.append(trajectory(stories, layers, f"g{number}-way"))
    drawn.append(timeline(stories, layers, f"g{number}-alerts"))
    spectra = [
        spectrum(heat, story.name, f"g{number}-spectrum-{k}")
        for k, (story, layer) in enumerate(zip(stories, layers, strict=True), start=1)
        if layer and (heat := heat_map(story, layer))
    ]
    runs = [k for k, layer in enumerate(layers) if layer]
    return Group(title, runs, [picture for picture in drawn if picture], spectra)


def tables_of(story: Story) -> Iterator[Rows]:
    """Return some readings of each layer, evenly spread, with the first and the last."""
    for layer in story.layers:
        for stage, called in (("train", ""), ("val", "validation")):
            readings = [r for r in story.journal.readings if (r.layer, r.stage) == (layer, stage) and r.dims]
            if not readings:
                continue
            names = [name for name in _COLUMNS if any(name in r.values for r in readings)]
            cells = [
                [f"{r.step:,}", *(_number(value(r, name) if name in r.values else None) for name in names)]
                for r in spread(readings, _ROWS)
            ]
            title = ", ".join(part for part in (layer if len(story.layers) > 1 else "", called) if part)
            yield Rows(title, ["step", *(_COLUMNS[name] for name in names)], cells)


def started(story: Story) -> str:
    """Return when a run began; empty if its journal does not say."""
    times: list[Any] = [run["time"] for run in story.journal.runs if "time" in run]
    with suppress(ValueError, OverflowError, OSError):  # a year that no calendar has
        return datetime.fromtimestamp(times[0], UTC).strftime("%Y-%m-%d %H:%M UTC") if times else ""
    return ""


def _number(number: float | None) -> str:
    if number is None:
        return ""
    return "-" if math.isnan(number) else f"{number + 0.0:.3g}" if abs(number) < 1000 else f"{number:,.0f}"
