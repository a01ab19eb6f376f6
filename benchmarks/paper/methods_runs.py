"""One run of one method with or without a uniformity loss, and how good what it learnt is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from torch import Tensor

from benchmarks.workers import PROCESSES, channels_last, in_processes
from examples.digits import data, evaluate
from examples.digits.data import Digits
from examples.methods import METHODS
from examples.methods.loop import train
from examples.methods.method import Method
from uniformity_callbacks import functional

BATCH = 128
LABELS = 10
"""Labels of each class that the probe gets."""

DRAWS = 5
"""Draws of those labels in each run, of which the mean is taken; the same ones in every run."""

VALIDATION = 297
"""Training images, with each class in proportion, on which weights are chosen; the other 1,000 train then."""

VIEW_SEED = 1000


@dataclass(frozen=True)
class Task:
    """A run.

    Attributes:
        method: its name in `METHODS`.
        loss: "none", "wang_isola" or "w2".
        weight: of that loss.
        seed: of initial weights, batches and views; the same one gives all losses the same.
        steps: optimizer steps.
        choosing: trained without the validation images and judged on them, rather than on the test images.
        lr: learning rate, if not the method's own.
    """

    method: str
    loss: str
    weight: float
    seed: int
    steps: int
    choosing: bool = False
    lr: float | None = None


@dataclass(frozen=True)
class Scores:
    """What a run came to, on images that it did not train on, all in eval mode.

    Attributes:
        probe: share of labels right of a linear probe of the encoder's standardised features with 10 labels a class.
        neighbour: share of labels right by the nearest of all training images, features at unit length.
        w2: W2 of the projector's outputs.
        alignment: mean squared distance of the projector's normalised outputs for two views.
    """

    probe: float
    neighbour: float
    w2: float
    alignment: float


MEASURES = ("probe", "neighbour", "w2", "alignment")


def run_all(tasks: Sequence[Task], *, of: str, processes: int = PROCESSES) -> list[Scores]:
    """Return what all tasks come to, in their order."""
    return in_processes(work, tasks, of=of, processes=processes)


def work(task: Task) -> Scores:
    """Train and judge."""
    digits = chosen_on(_digits()) if task.choosing else _digits()
    torch.manual_seed(task.seed)
    method = channels_last(METHODS[task.method]())
    batches = data.train_loader(digits, steps=task.steps, batch_size=BATCH, seed=task.seed)
    with TemporaryDirectory() as folder:
        train(
            method,
            batches,
            auxiliary=task.weight if task.loss == "w2" else None,
            wang_isola=task.weight if task.loss == "wang_isola" else 0.0,
            lr=task.lr,
            every_n_steps=task.steps,
            alerts=None,
            journal=Path(folder) / "uniformity.jsonl",
        )
    return judged(method, digits)


@cache
def _digits() -> Digits:
    return data.load()


def chosen_on(digits: Digits) -> Digits:
    """Return the training images alone, of which some are set apart in place of the test images."""
    rows = range(len(digits.train_labels))
    train_rows, test_rows = train_test_split(rows, test_size=VALIDATION, stratify=digits.train_labels, random_state=0)
    images, labels = digits.train_images, digits.train_labels
    return Digits(images[train_rows], labels[train_rows], images[test_rows], labels[test_rows])


def judged(method: Method, digits: Digits) -> Scores:
    """Return how good a trained method is."""
    features = partial(evaluate.encoder_features, method)
    known = Digits(features(digits.train_images), digits.train_labels, features(digits.test_images), digits.test_labels)
    probes = [evaluate.accuracies_of(_as_they_are, few_labels(known, draw)) for draw in range(DRAWS)]
    outputs = evaluate.projector_outputs(method, digits.test_images)
    noise = torch.Generator().manual_seed(VIEW_SEED)
    views = (evaluate.projector_outputs(method, data.Augment()(digits.test_images, noise)) for _ in range(2))
    return Scores(
        probe=statistics.mean(found.standardised_probe for found in probes),
        neighbour=nearest_neighbour(known),
        w2=functional.wasserstein_uniformity(outputs).item(),
        alignment=functional.alignment(*views).item(),
    )


def few_labels(known: Digits, draw: int) -> Digits:
    """Return the same with 10 labelled training examples of each class, drawn by `draw`."""
    generator = torch.Generator().manual_seed(draw)
    order = torch.randperm(len(known.train_labels), generator=generator)
    drawn = known.train_labels[order]
    rows = torch.cat([order[drawn == label][:LABELS] for label in sorted(set(known.train_labels.tolist()))])
    return Digits(known.train_images[rows], known.train_labels[rows], known.test_images, known.test_labels)


def nearest_neighbour(known: Digits) -> float:
    """Return the share of test labels right by the nearest training example at unit length, as `evaluate` has it."""
    model = make_pipeline(Normalizer(), KNeighborsClassifier(n_neighbors=1))
    model.fit(known.train_images.numpy(), known.train_labels.numpy())
    return float(model.score(known.test_images.numpy(), known.test_labels.numpy()))


def _as_they_are(features: Tensor) -> Tensor:
    return features
