"""How good the representations are: labels predicted from them, with the model in eval mode, images as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize
from torch import Tensor, nn

from .data import Digits
from .models import TwoViewModule


class Accuracies(NamedTuple):
    """Shares of the test images, 0 to 1, whose label is predicted right; 0.1 is chance."""

    nearest_neighbour: float
    linear_probe: float


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode, without gradients, and give each of its modules its own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def projector_outputs(model: TwoViewModule, images: Tensor) -> Tensor:
    """Return the projector's outputs `(n, 128)`, on the CPU, for images `(n, 1, 8, 8)`, in eval mode."""
    with eval_mode(model):
        outputs: Tensor = model(images.to(model.device))
    return outputs.cpu()


def encoder_features(model: TwoViewModule, images: Tensor) -> Tensor:
    """Return the encoder's features `(n, 64)`, on the CPU, for images `(n, 1, 8, 8)`, in eval mode."""
    with eval_mode(model):
        features: Tensor = model.encoder(images.to(model.device))
    return features.cpu()


def accuracies(model: TwoViewModule, digits: Digits) -> Accuracies:
    """Return how well the encoder's features tell the digits apart."""
    return _accuracies(lambda images: encoder_features(model, images), digits)


def pixel_accuracies(digits: Digits) -> Accuracies:
    """Return how well the raw pixels tell the digits apart: what a representation should beat."""
    return _accuracies(lambda images: images.flatten(1), digits)


def _accuracies(represent: Callable[[Tensor], Tensor], digits: Digits) -> Accuracies:
    """Return both accuracies, fitted on the training images and scored on the test images."""
    train, test = represent(digits.train_images).numpy(), represent(digits.test_images).numpy()
    train_labels, test_labels = digits.train_labels.numpy(), digits.test_labels.numpy()
    # At unit length, as W2 sees the outputs. Standardising would hide a collapse from the probe: it blows whatever
    # little variation is left up again.
    train, test = normalize(train), normalize(test)
    nearest, probe = KNeighborsClassifier(n_neighbors=1), LogisticRegression(max_iter=2000)
    scores = [float(model.fit(train, train_labels).score(test, test_labels)) for model in (nearest, probe)]
    return Accuracies(*scores)
