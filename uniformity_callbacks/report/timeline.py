"""When alerts stood and what the injected loss weighed, on one axis of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from uniformity_callbacks.report.drawing import INK, RUNS, STEP, Picture, along_steps, figure, svg
from uniformity_callbacks.report.series import Line, line
from uniformity_callbacks.report.story import Episode, Story

_BAR = 0.3
"""Most of a kind's row that a run's bar takes, of 1."""


@dataclass(frozen=True)
class _Run:
    """What is drawn of a run.

    Attributes:
        name: of the run.
        colour: of the run.
        place: its number among the runs.
        episodes: its collapses.
        weight: of its loss; nothing if there was none, or it was always 0.
        last: its last step.
    """

    name: str
    colour: str
    place: int
    episodes: list[Episode]
    weight: Line
    last: int


def timeline(stories: Sequence[Story], layers: Sequence[str | None], name: str) -> Picture | None:
    """Return when alerts stood and what the loss weighed; None if there was neither.

    Args:
        stories: the runs.
        layers: of which layer each is drawn; None where it has none of them.
        name: what the figure's inner names begin with.
    """
    runs = [_run(k, *each) for k, each in enumerate(zip(stories, layers, strict=True))]
    kinds = list(dict.fromkeys(episode.kind for run in runs for episode in run.episodes))
    weighted = [run for run in runs if run.weight]
    if not (kinds or weighted):
        return None
    with figure() as (drawn, axes):
        along_steps(axes)
        axes.grid(axis="x")
        if kinds:
            _bars(axes, runs, kinds)
        if weighted:
            _weights(axes.twinx() if kinds else axes, weighted, beside=bool(kinds))
        axes.set_xlim(0, max(run.last for run in runs) * 1.02 or 1)
        title = "Alerts and the loss's weight" if kinds and weighted else "Alerts" if kinds else "The loss's weight"
        captions = {
            "Bars: collapse from where it was first seen to its end; the tick is when it was told.": kinds,
            "Dashed: the weight of the injected loss.": weighted,
        }
        words = [f"{run.name}: {_lasted(episode)}." for run in runs for episode in run.episodes]
        words += [f"{run.name}: the loss's weight {_range(run.weight)}." for run in weighted]
        caption = " ".join(said for said, there in captions.items() if there)
        return Picture(title, svg(drawn, name), f"{title} over {STEP}. {' '.join(words)}", caption)


def _run(place: int, story: Story, layer: str | None) -> _Run:
    weight = line(story, "aux_weight", layer) if layer else Line([], [])
    weight = weight if any(value > 0 for value in weight.values) else Line([], [])
    episodes = [episode for episode in story.episodes if episode.layer == layer]
    last = max([*(reading.step for reading in story.trained), *(episode.told for episode in episodes)], default=0)
    return _Run(story.name, RUNS[place], place, episodes, weight, last)


def _bars(axes: Any, runs: Sequence[_Run], kinds: Sequence[str]) -> None:
    thick = min(_BAR, 0.8 / len(runs))
    top = 0.5 - thick * len(runs) / 2
    for run in runs:
        for episode in run.episodes:
            over = run.last if episode.over is None else episode.over
            y = kinds.index(episode.kind) + top + thick * run.place
            span = episode.since, max(over - episode.since, 1)
            axes.broken_barh([span], (y, 0.85 * thick), color=run.colour, alpha=0.5)
            axes.plot(episode.told, y + 0.42 * thick, "|", color=INK, ms=3 + 40 * thick / len(kinds), mew=1.3)
    axes.set_yticks([k + 0.5 for k in range(len(kinds))], [_drawn(kind) for kind in kinds])
    axes.set_ylim(len(kinds) + 0.05, -0.05)


def _drawn(kind: str) -> str:
    """Return what any font can draw: in a damaged journal a kind is any text."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in kind)


def _weights(axes: Any, runs: Sequence[_Run], *, beside: bool) -> None:
    axes.patch.set_alpha(0.0)
    for run in runs:
        some = run.weight.thinned()
        axes.plot(some.steps, some.values, color=run.colour, lw=1.6, ls="--", drawstyle="steps-post")
    axes.set(ylabel="loss's weight", ylim=(0.0, 1.15 * max(value for run in runs for _, value in run.weight.finite)))
    axes.spines["right"].set_visible(beside)


def _lasted(episode: Episode) -> str:
    until = f"over at step {episode.over:,}" if episode.over is not None else "not over"
    return f"{episode.kind} since step {episode.since:,}, told at step {episode.told:,}, {until}"


def _range(weight: Line) -> str:
    values = [value for _, value in weight.finite]
    if min(values) == max(values):
        return f"is {values[0]:.3g} throughout"
    return f"goes from {values[0]:.3g} to {values[-1]:.3g}, at most {max(values):.3g}"
