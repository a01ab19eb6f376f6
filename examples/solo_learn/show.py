"""The tables of `examples.solo_learn.digits`: mean and spread over seeds, in the terminal and as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from examples.digits.evaluate import Accuracies
from examples.solo_learn.configs import METHODS, OUTPUTS, UNTRAINED

Run = dict[str, Any]
"""A line of the store: what was run, and what it came to."""


class Column(NamedTuple):
    """A measure in the tables: its key, its heading in two lines, what it is multiplied by, and the digits shown."""

    key: str
    above: str
    below: str
    scale: float
    digits: int


COLUMNS = (
    Column("w2", "", "W2", 1, 2),
    Column("w2_corrected", "W2", "corr.", 1, 2),
    Column("effective_dims", "", "dims", 1, 0),
    Column("nearest_neighbour", "1-NN", "u", 100, 1),
    Column("linear_probe", "probe", "u", 100, 1),
    Column("standardised_probe", "probe", "z", 100, 1),
)

NOTE = f"""Mean{{spread}}; of weights, * is the paper's.
W2 (0 ideal, 1.41 one point), the same corrected for sample size, effective
dims (of {OUTPUTS}): of the projector's outputs on the training images in eval mode.
1-NN, probe: accuracy in percent on 500 test images of the backbone's features
in eval mode; nearest neighbour and linear probe, at unit length (u) and
standardised (z). told: runs of which an alert told that they collapse."""


def line(run: Run) -> str:
    """Return what one run came to, in a line."""
    loss = "no loss added" if run["weight"] is None else f"W2 loss {run['weight']}"
    return (
        f"{run['method']}, {loss}, seed {run['seed']}: W2 {run['w2']:.2f}, dims {run['effective_dims']:.0f}, "
        f"1-NN {run['nearest_neighbour']:.1%}, {'alert, ' * bool(run['alerts'])}{run['seconds']:.0f} s"
    )


def table(runs: Sequence[Run], pixels: Accuracies) -> None:
    """Print a row for each method without and with the loss; it fits 80 columns."""
    grid = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, collapse_padding=True)
    grid.add_column("\nmethod", no_wrap=True)
    grid.add_column("\nloss", no_wrap=True)
    for column in COLUMNS:
        grid.add_column(f"{column.above}\n{column.below}", justify="right", no_wrap=True)
    grid.add_column("\ntold", justify="right", no_wrap=True)
    for name, weight, cells in _rows(runs, pixels):
        grid.add_row(name if weight in ("-", "") else "", weight, *cells)
    console = Console()
    console.print("\n", grid, sep="")
    console.print(_note(runs), style="dim")


def markdown(runs: Sequence[Run], pixels: Accuracies) -> str:
    """Return the same table in Markdown."""
    heads = ["method", "loss", *(f"{column.above} {column.below}".strip() for column in COLUMNS), "told"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "---:|" * (len(COLUMNS) + 1)]
    lines += ["| " + " | ".join([name, weight, *cells]) + " |" for name, weight, cells in _rows(runs, pixels)]
    return "\n".join([*lines, "", _note(runs), ""]).replace("*", "\\*")


def _rows(runs: Sequence[Run], pixels: Accuracies) -> Iterator[tuple[str, str, list[str]]]:
    """Yield name, weight and cells of each row."""
    for key in dict.fromkeys((run["method"], run["weight"]) for run in runs):
        of = [run for run in runs if (run["method"], run["weight"]) == key]
        cells = [_cell([run[column.key] for run in of], column) for column in COLUMNS]
        told = "" if key[0] == UNTRAINED else f"{sum(bool(run['alerts']) for run in of)}/{len(of)}"
        yield key[0], _weight(*key), [*cells, told]
    yield "raw pixels", "", ["", "", "", *(f"{100 * accuracy:.1f}" for accuracy in pixels), ""]


def _weight(method: str, weight: float | str | None) -> str:
    if weight is None:
        return "" if method == UNTRAINED else "-"
    return str(weight).removeprefix("linear:").replace(":", "→") + "*" * METHODS[method].published


def _cell(values: Sequence[float], column: Column) -> str:
    scaled = [column.scale * value for value in values]
    mean = f"{statistics.mean(scaled):.{column.digits}f}"
    return mean if len(scaled) < 2 else f"{mean}±{statistics.stdev(scaled):.{column.digits}f}"


def _note(runs: Sequence[Run]) -> str:
    seeds = len({run["seed"] for run in runs})
    return NOTE.format(spread=f" ± standard deviation over {seeds} seeds" if seeds > 1 else " of one seed")
