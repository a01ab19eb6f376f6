"""Does the loss help? Eight methods, without, with Wang and Isola's loss, and with W2, from the same seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scipy import stats

from benchmarks import page
from benchmarks.paper import methods_figure
from benchmarks.paper.methods_runs import BATCH, DRAWS, LABELS, MEASURES, VALIDATION, Scores, Task, run_all
from benchmarks.paper.outcome import Outcome
from benchmarks.workers import PROCESSES
from examples.methods import TITLES

KEPT = Path(__file__).parents[2] / "build" / "paper" / "methods.json"
"""What each run came to, for a closer look."""

METHODS = ("simclr", "moco_v2", "swav", "byol", "simsiam", "barlow_twins", "zero_cl", "siamese")
STEPS = 200
SEEDS = (0, 1, 2, 3, 4)
CHOOSING = (100, 101)
"""Seeds on which weights are chosen; none of them is reported."""

GRID: dict[str, tuple[float, ...]] = {"wang_isola": (0.05, 0.25, 1.0), "w2": (0.2, 1.0, 4.0)}
LOSSES = {"wang_isola": "Wang-Isola", "w2": "W2"}
LEVEL = 0.95

NAMED = {
    "probe": ("Linear probe, 10 labels a class, %", 100.0, 1),
    "neighbour": ("Nearest neighbour, %", 100.0, 1),
    "w2": ("W2 in eval mode", 1.0, 3),
    "alignment": ("Alignment in eval mode", 1.0, 3),
}
"""Measure -> its name, unit and digits."""

Results = Mapping[tuple[str, str], Sequence[Scores]]
"""Method and loss -> what it came to by seed."""


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences and the 95 % interval of it, by Student's t."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, after: Sequence[float], before: Sequence[float]) -> Difference:
        """Return that of pairs."""
        pairs = [a - b for a, b in zip(after, before, strict=True)]
        mean = statistics.mean(pairs)
        half = stats.t.ppf((1 + LEVEL) / 2, len(pairs) - 1) * statistics.stdev(pairs) / math.sqrt(len(pairs))
        return cls(mean, mean - half, mean + half)


def run(*, tiny: bool = False) -> Outcome:
    """Choose weights, train all, and return tables and figure."""
    methods, seeds, choosing = (("byol", "siamese"), SEEDS[:2], CHOOSING[:1]) if tiny else (METHODS, SEEDS, CHOOSING)
    grid = {name: weights[:1] for name, weights in GRID.items()} if tiny else GRID
    steps, processes = (3, 0) if tiny else (STEPS, PROCESSES)
    tried = [
        Task(method, loss, weight, seed, steps, choosing=True)
        for method in methods
        for loss, weights in grid.items()
        for weight in weights
        for seed in choosing
    ]
    scores = _scores(tried, run_all(tried, of="weights", processes=processes))
    weights = {(method, loss): _best(scores, method, loss) for method in methods for loss in grid}
    tasks = [
        Task(method, loss, weights.get((method, loss), 0.0), seed, steps)
        for method in methods
        for loss in ("none", *grid)
        for seed in seeds
    ]
    outcomes = run_all(tasks, of="methods", processes=processes)
    results: dict[tuple[str, str], list[Scores]] = {}
    for task, outcome in zip(tasks, outcomes, strict=True):
        results.setdefault((task.method, task.loss), []).append(outcome)
    if not tiny:
        keep(tasks, outcomes, scores)
    figure = methods_figure.draw(panels(results))
    return Outcome(text(results, scores, steps), figures={"methods": figure}, page="methods.md")


def keep(tasks: Sequence[Task], outcomes: Sequence[Scores], scores: Mapping[tuple[str, str, float], float]) -> None:
    """Write what each run came to, and how weights did, into build/."""
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    runs = [asdict(task) | asdict(outcome) for task, outcome in zip(tasks, outcomes, strict=True)]
    KEPT.write_text(json.dumps({"runs": runs, "weights": [[*key, score] for key, score in scores.items()]}))


def _scores(tasks: Sequence[Task], outcomes: Sequence[Scores]) -> dict[tuple[str, str, float], float]:
    """Return the mean validation probe of each method, loss and weight."""
    found: dict[tuple[str, str, float], list[float]] = {}
    for task, outcome in zip(tasks, outcomes, strict=True):
        found.setdefault((task.method, task.loss, task.weight), []).append(outcome.probe)
    return {key: statistics.mean(probes) for key, probes in found.items()}


def _best(scores: Mapping[tuple[str, str, float], float], method: str, loss: str) -> float:
    mine = {weight: score for (m, kind, weight), score in scores.items() if (m, kind) == (method, loss)}
    return max(mine, key=lambda weight: mine[weight])


def differences(results: Results, measure: str) -> dict[tuple[str, str], Difference]:
    """Return by method and loss the paired differences to the run without, in the measure's unit."""
    _, unit, _ = NAMED[measure]
    return {
        (method, loss): Difference.of(
            [unit * getattr(one, measure) for one in some],
            [unit * getattr(one, measure) for one in results[method, "none"]],
        )
        for (method, loss), some in results.items()
        if loss != "none"
    }


def panels(results: Results) -> list[methods_figure.Panel]:
    """Return what the figure shows."""
    methods = list(dict.fromkeys(method for method, _ in results))
    shown = []
    for measure in MEASURES:
        found = differences(results, measure)
        series = {
            name: [(d.mean, d.low, d.high) for d in (found[method, loss] for method in methods)]
            for loss, name in LOSSES.items()
        }
        shown.append(methods_figure.Panel(NAMED[measure][0], [TITLES[method] for method in methods], series))
    return shown


def text(results: Results, scores: Mapping[tuple[str, str, float], float], steps: int) -> str:
    """Return the tables."""
    seeds = len(next(iter(results.values())))
    parts = [
        "![Paired differences with 95 % intervals, a row for each method](methods.png)",
        f"{seeds} seeds, {steps} steps of {BATCH} images; the probe is the mean over {DRAWS} draws of {LABELS} labels "
        "a class. Mean and standard deviation over seeds; in brackets, the mean paired difference's 95 % interval.",
        *(summary(results, measure) for measure in ("probe", "neighbour")),
        *(table(results, measure) for measure in MEASURES),
        "**W2 against Wang-Isola**: the paired difference, above 0 where W2 has more, %",
        against(results),
        f"**Weights**, by the mean linear probe on {VALIDATION} training images set apart, %; the best is taken.",
        weights_table(scores),
    ]
    return "\n\n".join(parts)


def summary(results: Results, measure: str) -> str:
    """Return in a sentence for how many methods the interval lies above or below 0."""
    found, name = differences(results, measure), NAMED[measure][0].rstrip(", %")
    said = []
    for loss, title in LOSSES.items():
        mine = [d for (_, kind), d in found.items() if kind == loss]
        above, below = sum(d.low > 0 for d in mine), sum(d.high < 0 for d in mine)
        said.append(f"{title}: above 0 in {above} of {len(mine)}, below in {below}, either way in the others")
    return f"{name}, the difference's interval: {'; '.join(said)}."


def table(results: Results, measure: str) -> str:
    """Return one row a method: without, and with each loss."""
    name, unit, digits = NAMED[measure]
    found = differences(results, measure)
    rows = []
    for method in dict.fromkeys(method for method, _ in results):
        row = [TITLES[method], _spread(results[method, "none"], measure, unit, digits)]
        for loss in LOSSES:
            d = found[method, loss]
            row.append(_spread(results[method, loss], measure, unit, digits))
            row.append(f"{d.mean:+.{digits}f} ({d.low:+.{digits}f} to {d.high:+.{digits}f})")
        rows.append(row)
    head = ["", "without", *(part for title in LOSSES.values() for part in (f"with {title}", "difference"))]
    return f"**{name}**\n\n{page.table(head, rows)}"


def against(results: Results) -> str:
    """Return one row a method: the runs with W2 less those with Wang and Isola's loss."""
    measures = ("probe", "neighbour")
    rows = []
    for method in dict.fromkeys(method for method, _ in results):
        pair = [results[method, loss] for loss in ("w2", "wang_isola")]
        found = (Difference.of(*([100 * getattr(one, m) for one in some] for some in pair)) for m in measures)
        rows.append([TITLES[method], *(f"{d.mean:+.1f} ({d.low:+.1f} to {d.high:+.1f})" for d in found)])
    return page.table(["", "linear probe, 10 labels a class", "nearest neighbour"], rows)


def _spread(outcomes: Sequence[Scores], measure: str, unit: float, digits: int) -> str:
    values = [unit * getattr(one, measure) for one in outcomes]
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def weights_table(scores: Mapping[tuple[str, str, float], float]) -> str:
    """Return how each weight did."""
    pairs = list(dict.fromkeys((loss, weight) for _, loss, weight in scores))
    rows = []
    for method in dict.fromkeys(method for method, _, _ in scores):
        best = {loss: _best(scores, method, loss) for loss in LOSSES}
        cells = [(weight == best[loss], f"{100 * scores[method, loss, weight]:.1f}") for loss, weight in pairs]
        rows.append([TITLES[method], *(f"**{cell}**" if chosen else cell for chosen, cell in cells)])
    return page.table(["", *(f"{LOSSES[loss]} {weight:g}" for loss, weight in pairs)], rows)
