"""Six of solo-learn's methods on handwritten digits, each with and without the Wasserstein loss, three seeds.

    SOLO_LEARN=path/to/solo-learn python -m examples.solo_learn.digits

trains 36 small runs of solo-learn's own classes, and prints W2 and accuracies of each pair. The loss and the watching
come by the config keys `uniformity.*` alone: nothing of this package is passed to the Trainer. Results are kept in
`solo-digits/runs.jsonl`; what is in there is not run again, so it may be stopped and started at any time.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import logging
import os
import time
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader

from examples.digits import data, evaluate
from examples.solo_learn import configs, show
from uniformity_callbacks import functional, read_journal
from uniformity_callbacks.integrations.lightning import UniformityCallback

WIDTH = 16
SoloBatch = list[Any]
"""`[indexes, [x0, x1], targets]`, solo-learn's: `(n,)`, `(n, 3, 16, 16)` twice, `(n,)`."""


def enlarge(images: Tensor) -> Tensor:
    """Return images `(n, 1, 8, 8)` as `(n, 3, 16, 16)`: a ResNet leaves nothing of less."""
    return F.interpolate(images, size=WIDTH, mode="bilinear").expand(-1, 3, -1, -1)


def solo_loader(digits: data.Digits, *, steps: int, batch_size: int, seed: int) -> DataLoader[SoloBatch]:
    """Return a loader of `steps` batches as solo-learn has them."""
    view = data.Augment()

    def batch(rows: Tensor, noise: torch.Generator) -> SoloBatch:
        images = digits.train_images[rows]
        return [rows, [enlarge(view(images, noise)) for _ in range(2)], digits.train_labels[rows]]

    return data.loader(digits, batch, steps=steps, batch_size=batch_size, seed=seed)


def train(cfg: Any, digits: data.Digits, *, steps: int, folder: Path) -> tuple[Any, Path | None]:
    """Train one run, as solo-learn's `main_pretrain.py` does; return the model, and its journal if it took a step."""
    from solo.methods import METHODS

    seed_everything(cfg.seed, verbose=False)
    model = METHODS[cfg.method](cfg)
    trainer: Any = Trainer(  # whose types leave its callbacks out
        max_epochs=cfg.max_epochs,
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    ours = [callback for callback in trainer.callbacks if isinstance(callback, UniformityCallback)]
    if not ours:
        raise SystemExit("uniformity_callbacks is not installed, so Lightning does not find it; pip install -e .")
    if steps:
        # One line a run is enough here: where its files are comes at the end.
        with redirect_stdout(io.StringIO()):
            trainer.fit(model, solo_loader(digits, steps=steps, batch_size=cfg.optimizer.batch_size, seed=cfg.seed))
    return model, ours[0].monitor.journal


def measure(model: Any, digits: data.Digits) -> dict[str, float]:
    """Return what a trained model came to, in eval mode: of the projector on training images, of the backbone."""

    def output(images: Tensor, key: str) -> Tensor:
        with evaluate.eval_mode(model):
            found: Tensor = model(enlarge(images))[key]
        return found

    z = output(digits.train_images, "z")
    accuracies = evaluate.accuracies_of(lambda images: output(images, "feats"), digits)
    return {
        "w2": functional.wasserstein_uniformity(z).item(),
        "w2_corrected": functional.corrected_wasserstein_uniformity(z).item(),
        "effective_dims": functional.effective_dims(z).item(),
    } | accuracies._asdict()


def result(run: show.Run, root: Path, digits: data.Digits, folder: Path) -> show.Run:
    """Return a run with what it came to."""
    started = time.monotonic()
    cfg = configs.config(root, run["method"], weight=run["weight"], seed=run["seed"], batch=run["batch"])
    kind = "plain" if run["weight"] is None else "w2"
    name = f"{run['method']}-{kind}-{run['seed']}-{run['steps']}-{run['batch']}"
    model, journal = train(cfg, digits, steps=run["steps"], folder=folder / name)
    alerts = [(alert.kind, alert.step) for alert in read_journal(journal).alerts] if journal else []
    return run | measure(model, digits) | {"alerts": alerts, "seconds": round(time.monotonic() - started, 1)}


def main() -> None:
    """Run what is not there yet, one line a run, and print the table."""
    args = arguments()
    os.environ.pop("UNIFORMITY_CALLBACKS", None)  # its keys would win over those of every run
    root = configs.solo_learn()
    quiet()
    shape = {"steps": args.steps, "batch": args.batch_size}
    wanted: list[show.Run] = [
        {"method": method, "weight": weight, "seed": seed}
        | (shape if method in configs.METHODS else shape | {"steps": 0})
        for seed in args.seeds
        for method in [configs.UNTRAINED, *args.methods]
        for weight in configs.weights(method)
    ]
    args.folder.mkdir(parents=True, exist_ok=True)
    store = args.folder / "runs.jsonl"
    done = [json.loads(line) for line in store.read_text().splitlines()] if store.exists() else []
    digits, found = data.load(), []
    for k, run in enumerate(wanted, start=1):
        kept = next((each for each in done if run.items() <= each.items()), None)
        found.append(kept or result(run, root, digits, args.folder))
        if kept is None:
            with store.open("a") as file:
                file.write(json.dumps(found[-1]) + "\n")
        print(f"[{k}/{len(wanted)}] {show.line(found[-1])}", flush=True)
        gc.collect()  # a model and its Trainer refer to each other, and Python counts objects, not their gigabytes

    pixels = evaluate.pixel_accuracies(digits)
    show.table(found, pixels)
    markdown = args.folder / "table.md"
    markdown.write_text(show.markdown(found, pixels))
    minutes = sum(run["seconds"] for run in found) / 60
    print(f"\n{minutes:.0f} min in all, {torch.get_num_threads()} threads. As Markdown: {markdown}")
    print(f"Curves of all runs: tensorboard --logdir {args.folder}")


def quiet() -> None:
    """Leave out what solo-learn and Lightning say at every start."""
    logging.basicConfig(level=logging.ERROR)  # solo-learn logs to the root
    for name in ("lightning.pytorch", "lightning.fabric", "uniformity_callbacks"):  # alerts are in the table
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # the images are in memory
    warnings.filterwarnings("ignore", message=".*but have no `val_dataloader`.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")  # Lightning's own, with this torch


def arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="solo-learn's methods on digits, with and without the loss")
    names = list(configs.METHODS)
    parser.add_argument("--methods", nargs="+", choices=names, default=names, metavar="METHOD", help=", ".join(names))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    parser.add_argument("--steps", type=int, default=configs.STEPS, metavar="N", help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=configs.BATCH, metavar="N", help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=Path("solo-digits"), help="results; default: %(default)s")
    args = parser.parse_args()
    if configs.QUEUE % args.batch_size:
        parser.error(f"--batch-size must divide {configs.QUEUE}, the length of MoCo's queue, got {args.batch_size}")
    return args


if __name__ == "__main__":
    main()
