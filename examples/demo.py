"""Six real Lightning runs on handwritten digits: see them collapse, be told why, stop them, mend them.

Run it by ``make demo``. The models in `examples.digits.models` know nothing of uniformity_callbacks; all that each run
adds is the one callback below.
"""

from __future__ import annotations

import logging
import re
import shutil
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from mlflow.tracking import MlflowClient

from examples.digits import data, evaluate, models, show
from uniformity_callbacks import WassersteinLoss, functional, read_journal
from uniformity_callbacks.integrations.lightning import UniformityCallback
from uniformity_callbacks.integrations.mlflow import MLflowWriter
from uniformity_callbacks.report import write_report

STEPS = 400
EVERY = 10
SEED = 0
EXPERIMENT = "collapse-on-digits"


@dataclass(frozen=True)
class Run:
    """One row of the demo: a name, a model made anew, and what the callback is told."""

    name: str
    model: type[models.TwoViewModule]
    arguments: dict[str, Any]
    watch: dict[str, Any] = field(default_factory=dict)


RUNS = [
    Run("Siamese", models.Siamese, {}),
    Run("Siamese, stop", models.Siamese, {}, {"alerts": "stop"}),
    Run("Siamese + W2", models.Siamese, {}, {"auxiliary": WassersteinLoss(weight=1.0)}),
    Run("Siamese, alert", models.Siamese, {}, {"auxiliary": WassersteinLoss(weight=1.0, when="alert")}),
    Run("Barlow*", models.BarlowTwins, {"off_diagonal": 0.0}),
    Run("Barlow* + W2", models.BarlowTwins, {"off_diagonal": 0.0}, {"auxiliary": 1.0}),
]
EXPLAINED = {
    "Siamese": "a plain Siamese network, watched",
    "Siamese, stop": 'the same with alerts="stop"',
    "Siamese + W2": "the same with the Wasserstein loss injected, weight 1.0",
    "Siamese, alert": "the same with that loss on only while an alert stands",
    "Barlow*": "Barlow Twins without the off-diagonal term of its loss, watched",
    "Barlow* + W2": "the same with the Wasserstein loss injected, weight 1.0",
}


def train(run: Run, digits: data.Digits, folder: Path) -> show.Result:
    """Train one run from the same seed as all others and return what it shows."""
    seed_everything(SEED, verbose=False)
    model = run.model(**run.arguments)
    slug = "-".join(re.findall(r"\w+", run.name.lower()))
    callback = UniformityCallback(
        every_n_steps=EVERY,
        writers=[MLflowWriter(store(folder), experiment=EXPERIMENT, run_name=run.name)],
        **run.watch,
    )
    trainer = Trainer(
        max_steps=STEPS,
        callbacks=[callback, TQDMProgressBar(refresh_rate=10)],
        logger=TensorBoardLogger(folder / "tensorboard", name="", version=slug),
        accelerator="cpu",
        log_every_n_steps=EVERY,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data.train_loader(digits, steps=STEPS, seed=SEED))

    assert callback.monitor.journal is not None
    outputs = evaluate.projector_outputs(model, digits.train_images)
    return show.Result(
        name=run.name,
        steps=trainer.global_step,
        path=callback.monitor.journal,
        journal=read_journal(callback.monitor.journal),
        eval_w2=functional.wasserstein_uniformity(outputs).item(),
        accuracies=evaluate.accuracies(model, digits),
    )


def store(folder: Path) -> str:
    """Return the URI of the demo's MLflow store, a sqlite file."""
    return f"sqlite:///{folder / 'mlflow.db'}"


def make_store(folder: Path) -> None:
    """Make the store and its experiment, with artifacts beside it, and not where MLflow would put them by default."""
    MlflowClient(store(folder)).create_experiment(
        EXPERIMENT, artifact_location=(folder / "artifacts").resolve().as_uri()
    )


def main() -> None:
    """Train all runs, print the table, write the figure, and say how to look at the rest."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-results")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("lightning.pytorch", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)  # what they say at every start is not what this shows
    # The images are in memory; worker processes would only slow the loader.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")  # Lightning's own, with this torch

    started = time.monotonic()
    digits = data.load()
    make_store(folder)
    results = []
    for k, run in enumerate(RUNS, start=1):
        print(f"\n[{k}/{len(RUNS)}] {run.name}: {EXPLAINED[run.name]}", flush=True)
        results.append(train(run, digits, folder))
    show.table(results, evaluate.pixel_accuracies(digits))
    figure = folder / "collapse.png"
    show.figure(results, figure)
    report = folder / "report.html"
    write_report([result.path for result in results], report)
    print(f"\n{time.monotonic() - started:.0f} s with {torch.get_num_threads()} threads. Figure: {figure}")
    print(f"The same as a page, with spectra and what was told: {report}")
    print("Look at the curves of all runs:")
    print(f"  .venv/bin/tensorboard --logdir {folder / 'tensorboard'}")
    print(f"  .venv/bin/mlflow ui --backend-store-uri {store(folder)}")
    print("    and there http://127.0.0.1:5000/#/experiments/1/runs?compareRunsMode=CHART")


if __name__ == "__main__":
    main()
