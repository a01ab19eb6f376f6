"""How good the representations are: labels predicted from them, with the model in eval mode, images as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from torch import Tensor, nn

from .data import Digits
from .models import TwoViewModule
from .networks import Network


class Accuracies(NamedTuple):
    """Shares of the test images, 0 to 1, whose label is predicted right; 0.1 is chance.

    What a probe finds depends on how it is given the features: at unit length, as W2 sees outputs, it feels a collapse;
    standardised, which blows up whatever little variation is left, it feels less of it. Both are shown. The settings of
    these runs were chosen looking at the same test images, so all of it illustrates and none of it is a benchmark.

    Attributes:
        nearest_neighbour: by the nearest training image, features at unit length.
        linear_probe: by logistic regression, features at unit length.
        standardised_probe: by logistic regression, each feature at mean 0 and variance 1.
    """

    nearest_neighbour: float
    linear_probe: float
    standardised_probe: float


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


def projector_outputs(model: Network | TwoViewModule, images: Tensor) -> Tensor:
    """Return the projector's outputs `(n, 128)`, on the CPU, for images `(n, 1, 8, 8)`, in eval mode."""
    with eval_mode(model):
        outputs: Tensor = model(images.to(next(model.parameters()).device))
    return outputs.cpu()


def encoder_features(model: Network | TwoViewModule, images: Tensor) -> Tensor:
    """Return the encoder's features `(n, 64)`, on the CPU, for images `(n, 1, 8, 8)`, in eval mode."""
    with eval_mode(model):
        features: Tensor = model.encoder(images.to(next(model.parameters()).device))
    return features.cpu()


def accuracies(model: Network | TwoViewModule, digits: Digits) -> Accuracies:
    """Return how well the encoder's features tell the digits apart."""
    return accuracies_of(lambda images: encoder_features(model, images), digits)


def pixel_accuracies(digits: Digits) -> Accuracies:
    """Return how well the raw pixels tell the digits apart: what a representation should beat."""
    return accuracies_of(lambda images: images.flatten(1), digits)


def accuracies_of(represent: Callable[[Tensor], Tensor], digits: Digits) -> Accuracies:
    """Return how well what `represent` makes of images tells the digits apart.

    Fitted on the training images, scored on the test images; `represent` turns `(n, 1, 8, 8)` into `(n, features)`, on
    the CPU and without gradients.
    """
    train, test = represent(digits.train_images).numpy(), represent(digits.test_images).numpy()
    train_labels, test_labels = digits.train_labels.numpy(), digits.test_labels.numpy()
    models = (
        make_pipeline(Normalizer(), KNeighborsClassifier(n_neighbors=1)),
        make_pipeline(Normalizer(), LogisticRegression(max_iter=2000)),
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
    )
    return Accuracies(*(float(model.fit(train, train_labels).score(test, test_labels)) for model in models))
