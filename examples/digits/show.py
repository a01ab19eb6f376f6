"""The demo's table and figure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from rich import box
from rich.console import Console
from rich.table import Table

from uniformity_callbacks.journal import Journal, read_journal
from uniformity_callbacks.report.series import value

from .evaluate import Accuracies


@dataclass(frozen=True)
class Result:
    """What one run came to.

    Attributes:
        name: the run's name.
        steps: optimizer steps done.
        path: of the journal.
        journal: all readings and alerts, of train mode.
        eval_w2: W2 of the projector's outputs on all training images, in eval mode.
        accuracies: of the encoder's features, in eval mode.
    """

    name: str
    steps: int
    path: Path
    journal: Journal
    eval_w2: float
    accuracies: Accuracies

    @property
    def events(self) -> list[str]:
        """What became of the run, in words, one event each."""
        if not self.journal.alerts:
            return ["no collapse"]
        alerts = sorted([*self.journal.alerts, *self.journal.recoveries], key=lambda alert: alert.step)
        kinds = list(dict.fromkeys(alert.kind for alert in alerts))
        said = [f"{'over' if alert.recovered else 'told'} at {alert.step}" for alert in alerts]
        return kinds + said + ["stopped"] * any(alert.action == "stop" for alert in alerts)


def readings(path: Path | None) -> None:
    """Print a run's readings, one row each, as its journal has them."""
    assert path is not None, "the rank that prints is the one that records"
    journal = read_journal(path)
    grid = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for head in ("step", "samples", "W2", "dims", "mean resultant", "loss added"):
        grid.add_column(head, justify="right")
    names = ("w2_corrected", "effective_dims", "mean_resultant", "aux_loss")
    for reading in journal.readings:
        numbers = [f"{reading.values[name]:.2f}" if name in reading.values else "-" for name in names]
        grid.add_row(f"{reading.step}", f"{reading.values['samples']:.0f}", *numbers)
    console = Console()
    console.print(grid)
    console.print(f"Journal: {path}", soft_wrap=True)


def table(results: list[Result], pixels: Accuracies) -> None:
    """Print one row a run, and the accuracies of raw pixels for comparison; it fits 80 columns."""
    grid = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    grid.add_column("\nrun", no_wrap=True)
    heads = (
        "\nsteps",
        "W2\ntrain",
        "dims\ntrain",
        "std\ntrain",
        "L_U\ntrain",
        "W2\neval",
        "1-NN\nu",
        "probe\nu",
        "probe\nz",
    )
    for head in heads:
        grid.add_column(head, justify="right", no_wrap=True)
    grid.add_column("\nverdict", no_wrap=True)
    for r in results:
        last = r.journal.readings[-1]
        train = (
            "-" if math.isnan(number := value(last, name)) else f"{round(number, digits) + 0.0:.{digits}f}"
            for name, digits in (("w2", 2), ("effective_dims", 0), ("std_ratio", 2), ("lu", 2))
        )
        accuracies = (f"{accuracy:.3f}" for accuracy in r.accuracies)
        style = "red" if r.journal.alerts else "green"
        verdict = f"[{style}]{chr(10).join(r.events)}[/]"
        grid.add_row(r.name, str(r.steps), *train, f"{r.eval_w2:.2f}", *accuracies, verdict)
    grid.add_row("raw pixels", *[""] * 6, *(f"{accuracy:.3f}" for accuracy in pixels), "")
    console = Console()
    console.print("\n", grid, sep="")
    console.print(NOTE, style="dim")


NOTE = """* without the off-diagonal term of its loss
train: the run's last reading, in train mode, of the projector's outputs
eval: W2 after the run, in eval mode, of the projector's outputs on all images
1-NN, probe: accuracy on 500 test images of the encoder's features in eval mode;
nearest neighbour and linear probe, at unit length (u) and standardised (z). The
runs were tuned looking at these images: an illustration, not a benchmark.
W2 is 0 at the ideal and 1.41 at one point; dims is of 128, - where outputs are
close to one point; std is std_ratio, the usual check, which calls 0.65 and more
healthy. verdict: the kind of collapse, the steps at which it was told and over."""

PANELS = {
    "w2": ("W2 (0 ideal, 1.41 one point)", (0.0, 1.5)),
    "effective_dims": ("Effective dims of 128 (undefined at one point)", (0.0, 128.0)),
    "mean_resultant": ("Mean resultant length (1 is one point)", (0.0, 1.05)),
    "std_ratio": ("std ratio (above 0.65 is called healthy)", (0.0, 1.05)),
}
COLOURS = ("#c1272d", "#e08214", "#1b7837", "#00868b", "#762a83", "#2166ac")


def figure(results: list[Result], path: Path) -> None:
    """Draw each metric over the steps, one line a run, alerts marked, into a PNG."""
    fig, axes = plt.subplots(2, 2, figsize=(11, 7.5), sharex=True, layout="constrained")
    for ax, (metric, (title, limits)) in zip(axes.flat, PANELS.items(), strict=True):
        for result, colour in zip(results, COLOURS, strict=True):
            steps, values = result.journal.series(metric)
            stopped = any(alert.action == "stop" for alert in result.journal.alerts)
            recovers = bool(result.journal.recoveries)
            ax.plot(
                steps,
                values,
                color=colour,
                lw=3.5 if stopped else 1.6,
                alpha=0.6 if stopped else 1.0,
                label=result.name,
            )
            for alert in [*result.journal.alerts, *result.journal.recoveries]:
                at = values[steps.index(alert.step)]
                fill = "white" if alert.recovered else colour
                # Three runs are told at the same step: their marks are of three sizes.
                mark, size = ("X", 7) if stopped else ("o", 8 if alert.recovered else 11 if recovers else 16)
                edge = colour if alert.recovered else "black"
                ax.plot(alert.step, at, mark, color=fill, ms=size, mec=edge, zorder=25 - size)
            for on, off in _loss_on_alert(result.journal):
                ax.axvspan(on, off, color=colour, alpha=0.12, lw=0)
        if metric == "std_ratio":
            ax.axhline(0.65, color="grey", lw=0.8, ls=":")
        ax.set_title(title, loc="left", fontsize=10)
        ax.set_ylim(*limits)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[1]:
        ax.set_xlabel("optimizer step")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    marks = [Line2D([], [], ls="", marker=m, color=c, mec="black", ms=9) for m, c in (("o", "grey"), ("X", "grey"))]
    marks.append(Line2D([], [], ls="", marker="o", color="white", mec="grey", ms=8))
    bands = [Patch(color=COLOURS[3], alpha=0.2, lw=0)]
    names = ["alert", "alert, run stopped", "recovery", "loss on, while the alert stands"]
    fig.legend([*handles, *marks, *bands], [*labels, *names], loc="outside lower center", ncols=4, frameon=False)
    fig.suptitle(
        "Self-supervised runs on digits, as the callback read them in train mode\n"
        "* Barlow Twins without the off-diagonal term of its loss",
        fontsize=11,
    )
    fig.savefig(path, dpi=120)
    plt.close(fig)


def _loss_on_alert(journal: Journal) -> list[tuple[int, int]]:
    """Return the spans of steps in which a loss that is not always on was on; none for one that always is."""
    steps, weights = journal.series("aux_weight")
    if not any(weights) or all(weights):
        return []
    spans: list[tuple[int, int]] = []
    for before, step, weight in zip(steps, steps[1:], weights[1:], strict=False):
        if weight:
            begun = spans.pop()[0] if spans and spans[-1][1] == before else before
            spans.append((begun, step))
    return spans
