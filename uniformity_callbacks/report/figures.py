"""The figures of the report: curves of all runs over the steps, the way through alignment and uniformity, spectra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from uniformity_callbacks.report.drawing import FAINT, GROUND, INK, RUNS, Picture, figure, svg
from uniformity_callbacks.report.series import HeatMap, Line, line
from uniformity_callbacks.report.story import Episode, Story
from uniformity_callbacks.rules import CONSTANT_THRESHOLD

_DARKEST, _BRIGHTEST = 1e-3, 10.0
"""Eigenvalues times d that the heat map's colours tell apart; 1 is the ideal."""

_TICKS = (0.001, 0.01, 0.1, 1.0, 10.0)

_STEP = "optimizer step"


@dataclass(frozen=True)
class Panel:
    """One metric over the steps.

    Attributes:
        metric: its name in the journal.
        title: what stands above it.
        caption: how to read it.
        top: the upper end of the axis; None for what there is.
        marks: values of which a line is drawn across, and what they mean.
        beneath: another metric, drawn thin.
    """

    metric: str
    title: str
    caption: str
    top: float | None = None
    marks: tuple[tuple[float, str], ...] = ()
    beneath: str | None = None


PANELS = (
    Panel(
        "w2_corrected",
        "W2, the Wasserstein distance to the ideal",
        "Thick: corrected for sample size; thin: plain, as the batch reads. Smaller is more uniform.",
        1.5,
        ((math.sqrt(2.0), "one point"),),
        "w2",
    ),
    Panel("effective_dims", "Effective dims", "Dimensions in use, corrected; undefined at one point."),
    Panel(
        "mean_resultant",
        "Mean resultant length",
        "0 where outputs point everywhere, 1 at one point. Blind to dimensional collapse.",
        1.05,
        ((CONSTANT_THRESHOLD, "alert"),),
    ),
    Panel("rankme", "RankMe", "Rank of the batch's outputs; grows with the number of rows, not corrected."),
)


def curves(panel: Panel, stories: Sequence[Story], layers: Sequence[str | None], name: str) -> Picture | None:
    """Return one metric of all runs over the steps; None if no run has it.

    Args:
        panel: the metric.
        stories: the runs.
        layers: of which layer each is drawn; None where it has none of them.
        name: what the figure's inner names begin with.
    """
    said = []
    with figure() as (drawn, axes):
        for story, layer, colour in zip(stories, layers, RUNS, strict=False):
            main = line(story, panel.metric, layer) if layer else Line([], [])
            under = line(story, panel.beneath, layer) if layer and panel.beneath else Line([], [])
            if not (main or under):
                continue
            if under:
                _draw(axes, under, color=colour, lw=0.9, alpha=0.65)
            if main:
                _draw(axes, main, color=colour, lw=1.9)
            seen = main or under
            _validated(axes, story, panel, layer, colour)
            _alerts(axes, [e for e in story.episodes if e.layer == layer], seen, colour)
            said.append(_in_words(story, seen, under if main else None))
        if not said:
            return None
        for value, meaning in panel.marks:
            axes.axhline(value, color=FAINT, lw=0.9, ls=":")
            # On the right, where there is room: curves begin on the left.
            axes.annotate(meaning, (1.0, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", size=8)
        _frame(axes, panel.top)
        return Picture(panel.title, svg(drawn, name), f"{panel.title} over {_STEP}. {' '.join(said)}", panel.caption)


def trajectory(stories: Sequence[Story], layers: Sequence[str | None], name: str) -> Picture | None:
    """Return alignment against W2, one way for each run; None if no run has both."""
    said = []
    with figure() as (drawn, axes):
        for story, layer, colour in zip(stories, layers, RUNS, strict=False):
            way = [
                (reading.values["alignment"], reading.values["w2"])
                for reading in story.trained
                if reading.layer == layer and {"alignment", "w2"} <= reading.values.keys()
            ]
            way = [point for point in way if all(map(math.isfinite, point))]
            if len(way) < 2:
                continue
            way = [way[round(k * (len(way) - 1) / 199)] for k in range(200)] if len(way) > 200 else way
            axes.plot(*zip(*way, strict=True), color=colour, lw=1.2, alpha=0.75, marker=".", ms=3)
            axes.plot(*way[0], "o", mfc=GROUND, mec=colour, ms=6, mew=1.5)
            axes.plot(*way[-1], "o", color=colour, ms=7)
            (first, begin), (last, end) = way[0], way[-1]
            said.append(f"{story.name}: alignment from {first:.2f} to {last:.2f}, W2 from {begin:.2f} to {end:.2f}.")
        if not said:
            return None
        axes.set(xlabel="alignment (0: views agree)", ylabel="W2 (0: uniform)", ylim=(0.0, 1.5))
        axes.set_xlim(left=0.0)
        axes.grid()
        caption = "From the first reading (ring) to the last (disc). Both small is good; top left is collapse."
        words = f"Alignment against W2, from the first reading to the last. {' '.join(said)}"
        return Picture("Alignment against uniformity", svg(drawn, name), words, caption)


def timeline(stories: Sequence[Story], layers: Sequence[str | None], name: str) -> Picture | None:
    """Return when alerts stood and what the loss weighed, on one axis of steps; None if there was neither."""
    rows, weights = list[tuple[str, Episode, Story, str]](), list[tuple[Line, Story, str]]()
    for story, layer, colour in zip(stories, layers, RUNS, strict=False):
        rows += [(e.kind, e, story, colour) for e in story.episodes if e.layer == layer]
        weight = line(story, "aux_weight", layer) if layer else Line([], [])
        if any(value > 0 for value in weight.values):
            weights.append((weight, story, colour))
    if not (rows or weights):
        return None
    kinds = list(dict.fromkeys(kind for kind, *_ in rows))
    ends = [story.trained[-1].step for story in stories if story.trained]
    with figure() as (drawn, axes):
        thick = min(0.3, 0.8 / len(stories))
        top = 0.5 - thick * len(stories) / 2
        for kind, episode, story, colour in rows:
            over = episode.over if episode.over is not None else story.trained[-1].step
            y = kinds.index(kind) + top + thick * stories.index(story)
            axes.broken_barh(
                [(episode.since, max(over - episode.since, 1))], (y, 0.85 * thick), color=colour, alpha=0.8
            )
            axes.plot(episode.told, y + 0.42 * thick, "|", color=INK, ms=3 + 40 * thick / len(kinds), mew=1.3)
        axes.set_yticks([k + 0.5 for k in range(len(kinds))], kinds)
        axes.set(xlabel=_STEP, ylim=(len(kinds) + 0.05, -0.05) if kinds else (1.0, 0.0))
        axes.set_xlim(0, max(ends) * 1.02 or 1)
        axes.grid(axis="x")
        if weights:
            beside = axes.twinx() if kinds else axes
            beside.patch.set_alpha(0.0)
            for weight, _, colour in weights:
                some = weight.thinned()
                beside.plot(some.steps, some.values, color=colour, lw=1.6, ls="--", drawstyle="steps-post")
            beside.set(ylabel="loss's weight", ylim=(0.0, 1.15 * max(v for w, *_ in weights for _, v in w.finite)))
            beside.spines["right"].set_visible(bool(kinds))
        words = [f"{story.name}: {_lasted(episode)}." for _, episode, story, _ in rows]
        words += [f"{story.name}: the loss's weight {_range(weight)}." for weight, story, _ in weights]
        caption = "Bars: collapse from where it was first seen to its end; the tick is when it was told. "
        caption += "Dashed: the weight of the injected loss." if weights else ""
        title = "Alerts and the loss's weight" if rows and weights else "Alerts" if rows else "The loss's weight"
        return Picture(title, svg(drawn, name), f"{title} over {_STEP}. {' '.join(words)}", caption.strip())


def spectrum(heat: HeatMap, run: str, name: str) -> Picture:
    """Return a run's spectrum over the steps as a heat map."""
    import numpy as np
    from matplotlib.colors import LogNorm

    values = np.clip(np.array(heat.columns).T, _DARKEST, None)
    with figure(2.7) as (drawn, axes):
        norm = LogNorm(_DARKEST, _BRIGHTEST)
        mesh = axes.pcolormesh(
            _edges(heat.steps), _rank_edges(heat.ranks), values, norm=norm, cmap="viridis", rasterized=True
        )
        axes.set(xlabel=_STEP, ylabel="rank of the eigenvalue", yscale="log")
        axes.invert_yaxis()
        some = [rank for rank in (1, 3, 10, 30, 100, 300, 1000, 3000, 10000) if rank <= heat.dims]
        axes.set_yticks(some, [f"{rank:,}" for rank in some])
        axes.minorticks_off()
        bar = drawn.colorbar(mesh, ax=axes, extend="both", pad=0.02)
        bar.set_label("d times the eigenvalue")
        bar.set_ticks(_TICKS, labels=[f"{tick:g}" for tick in _TICKS])
        bar.minorticks_off()
        bar.outline.set_visible(False)
        last = dict(zip(heat.ranks, heat.columns[-1], strict=True))
        clear = max((rank for rank, value in last.items() if value >= 0.1), default=0)
        words = f"Spectrum of {run} over {_STEP}: at the end, eigenvalues up to rank {clear:,} of {heat.dims:,} are at "
        words += "least a tenth of the ideal."
        caption = "1 throughout is the ideal (a sample's spread about it); dark: dimensions that are lost."
        return Picture(f"Spectrum of {run}", svg(drawn, name), words, caption)


def _draw(axes: Any, what: Line, **style: Any) -> None:
    some = what.thinned()
    axes.plot(some.steps, some.values, solid_joinstyle="round", **style)
    if alone := some.alone:
        axes.plot(*zip(*alone, strict=True), ".", color=style["color"], ms=4)


def _validated(axes: Any, story: Story, panel: Panel, layer: str | None, colour: str) -> None:
    some = line(story, panel.metric, layer or "", "val").thinned()
    if some:
        axes.plot(some.steps, some.values, color=colour, lw=0.9, ls=":", marker="s", ms=3.5, mfc=GROUND)


def _alerts(axes: Any, episodes: Sequence[Episode], curve: Line, colour: str) -> None:
    values = dict(curve.finite)
    for episode in episodes:
        if episode.told in values:
            axes.plot(episode.told, values[episode.told], "o", color=colour, mec=INK, ms=6.5, zorder=5)
        if episode.over in values:
            style = {"mfc": GROUND, "mec": colour, "mew": 1.6, "ms": 6.5, "zorder": 5}
            axes.plot(episode.over, values[episode.over], "o", **style)


def _frame(axes: Any, top: float | None) -> None:
    axes.set(xlabel=_STEP)
    axes.set_ylim(0.0, top)
    axes.margins(x=0.02)
    axes.grid()


def _in_words(story: Story, curve: Line, beneath: Line | None) -> str:
    (_, first), (last_step, last) = curve.finite[0], curve.finite[-1]
    low, high = min(curve.finite, key=lambda p: p[1]), max(curve.finite, key=lambda p: p[1])
    said = f"{story.name}: from {first:.3g} to {last:.3g} at step {last_step:,}, "
    said += f"lowest {low[1]:.3g} at step {low[0]:,}, highest {high[1]:.3g} at step {high[0]:,}"
    return said + (f"; plain {beneath.finite[-1][1]:.3g} at the end." if beneath else ".")


def _lasted(episode: Episode) -> str:
    until = f"over at step {episode.over:,}" if episode.over is not None else "not over"
    return f"{episode.kind} since step {episode.since:,}, told at step {episode.told:,}, {until}"


def _range(weight: Line) -> str:
    values = [value for _, value in weight.finite]
    if min(values) == max(values):
        return f"is {values[0]:.3g} throughout"
    return f"goes from {values[0]:.3g} to {values[-1]:.3g}, at most {max(values):.3g}"


def _edges(steps: Sequence[int]) -> list[float]:
    middles = [(a + b) / 2 for a, b in pairwise(steps)]
    return [steps[0] - (middles[0] - steps[0]), *middles, steps[-1] + (steps[-1] - middles[-1])]


def _rank_edges(ranks: Sequence[int]) -> list[float]:
    middles = [math.sqrt(a * b) for a, b in pairwise(ranks)]
    return [ranks[0] / math.sqrt(2.0), *middles, float(ranks[-1])] if middles else [0.5, 1.5]
