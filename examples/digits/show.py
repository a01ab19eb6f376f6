"""The demo's table and figure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from rich import box
from rich.console import Console
from rich.table import Table

from uniformity_callbacks.journal import Journal

from .evaluate import Accuracies


@dataclass(frozen=True)
class Result:
    """What one run came to.

    Attributes:
        name: the run's name.
        steps: optimizer steps done.
        journal: all readings and alerts, of train mode.
        eval_w2: W2 of the projector's outputs on all training images, in eval mode.
        accuracies: of the encoder's features, in eval mode.
    """

    name: str
    steps: int
    journal: Journal
    eval_w2: float
    accuracies: Accuracies

    @property
    def verdict(self) -> str:
        """The run in words."""
        stopped = any(alert.action == "stop" for alert in self.journal.alerts)
        said = [f"{a.kind} collapse since step {a.since}, told at {a.step}" for a in self.journal.alerts]
        return "; ".join(said) + (", stopped" if stopped else "") if said else "no collapse"


def table(results: list[Result], pixels: Accuracies) -> None:
    """Print one row a run, and the accuracies of raw pixels for comparison."""
    grid = Table(
        box=box.SIMPLE_HEAD, title="Train mode: the last reading of the run. Eval mode: after it.", title_justify="left"
    )
    grid.add_column("run")
    for name in (
        "steps",
        "W2\ntrain",
        "dims\nof 128",
        "std\nratio",
        "L_U\ntrain",
        "W2\neval",
        "1-NN\neval",
        "linear\neval",
    ):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("verdict")
    for r in results:
        last = r.journal.readings[-1].values
        numbers = [
            f"{last['w2']:.2f}",
            f"{last['effective_dims']:.0f}",
            f"{last['std_ratio']:.2f}",
            f"{last['lu']:.2f}",
        ]
        accuracies = [f"{accuracy:.3f}" for accuracy in r.accuracies]
        style = "red" if r.journal.alerts else "green"
        grid.add_row(r.name, str(r.steps), *numbers, f"{r.eval_w2:.2f}", *accuracies, f"[{style}]{r.verdict}[/]")
    grid.add_row("raw pixels", *[""] * 6, *(f"{accuracy:.3f}" for accuracy in pixels), "")
    Console().print("\n", grid, sep="")


PANELS = {
    "w2": ("W2 (0 ideal, 1.41 one point)", (0.0, 1.5)),
    "effective_dims": ("Effective dims, of 128", (0.0, 128.0)),
    "mean_resultant": ("Mean resultant length (1 is one point)", (0.0, 1.05)),
    "std_ratio": ("std ratio (above 0.65 is called healthy)", (0.0, 1.05)),
}
COLOURS = ("#c1272d", "#e08214", "#1b7837", "#762a83", "#2166ac")


def figure(results: list[Result], path: Path) -> None:
    """Draw each metric over the steps, one line a run, alerts marked, into a PNG."""
    fig, axes = plt.subplots(2, 2, figsize=(11, 7.5), sharex=True, layout="constrained")
    for ax, (metric, (title, limits)) in zip(axes.flat, PANELS.items(), strict=True):
        for result, colour in zip(results, COLOURS, strict=True):
            steps, values = result.journal.series(metric)
            stopped = any(alert.action == "stop" for alert in result.journal.alerts)
            ax.plot(
                steps,
                values,
                color=colour,
                lw=3.5 if stopped else 1.6,
                alpha=0.6 if stopped else 1.0,
                label=result.name,
            )
            for alert in result.journal.alerts:
                at = values[steps.index(alert.step)]
                ax.plot(alert.step, at, "X" if stopped else "o", color=colour, ms=10, mec="black", mew=1.0, zorder=5)
        if metric == "std_ratio":
            ax.axhline(0.65, color="grey", lw=0.8, ls=":")
        ax.set_title(title, loc="left", fontsize=10)
        ax.set_ylim(*limits)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[1]:
        ax.set_xlabel("optimizer step")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    marks = [Line2D([], [], ls="", marker=m, color="white", mec="black", ms=9) for m in "oX"]
    fig.legend(
        [*handles, *marks], [*labels, "alert", "alert, run stopped"], loc="outside lower center", ncols=3, frameon=False
    )
    fig.suptitle("Self-supervised runs on digits, as the callback read them in train mode", fontsize=12)
    fig.savefig(path, dpi=120)
    plt.close(fig)
