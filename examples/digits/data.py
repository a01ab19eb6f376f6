"""Handwritten digits: 1,797 grey images of 8 x 8 pixels that ship with scikit-learn, and two views of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

Batch = tuple[tuple[Tensor, Tensor], Tensor]
"""`((x0, x1), y)`: two views `(n, 1, 8, 8)` of the same n images, and their labels `(n,)`."""

B = TypeVar("B")

TEST_SIZE = 500
SPLIT_SEED = 0  # the split is the same in every run, whatever the run's own seed
PIXEL_MAX = 16.0


@dataclass(frozen=True)
class Digits:
    """Images `(n, 1, 8, 8)` in [0, 1] and labels `(n,)`; 1,297 to train on and 500 to test on."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load() -> Digits:
    """Return the digits, split once and for all with each class in proportion."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().div(PIXEL_MAX).view(-1, 1, 8, 8)
    targets = torch.from_numpy(labels).long()
    train, test = train_test_split(range(len(targets)), test_size=TEST_SIZE, stratify=labels, random_state=SPLIT_SEED)
    return Digits(images[train], targets[train], images[test], targets[test])


@dataclass(frozen=True)
class Augment:
    """A random view of each image: turned, scaled, shifted, its contrast changed, noise added.

    Every draw is uniform between minus and plus the limit, except the noise, which is normal. The limits are
    small because a digit must stay the digit that it was: no mirror images, no 6 turned into a 9.
    """

    degrees: float = 20.0
    scale: float = 0.2
    shift: float = 0.2  # of half the image's width: 0.25 is a pixel of eight
    contrast: float = 0.3
    noise: float = 0.05

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return one view `(n, 1, 8, 8)` of images `(n, 1, 8, 8)`; only `generator` is drawn from."""
        n = len(images)

        def draw(limit: float) -> Tensor:
            return limit * (2 * torch.rand(n, generator=generator) - 1)

        angle, zoom = draw(math.radians(self.degrees)), 1 + draw(self.scale)
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        rows = [torch.stack([cos, -sin, draw(self.shift)], 1), torch.stack([sin, cos, draw(self.shift)], 1)]
        grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
        views = F.grid_sample(images, grid, align_corners=False)
        views = views * (1 + draw(self.contrast)).view(n, 1, 1, 1)
        return views + self.noise * torch.randn(views.shape, generator=generator)


def train_loader(
    digits: Digits, *, steps: int = 400, batch_size: int = 256, seed: int = 0, augment: Augment | None = None
) -> DataLoader[Batch]:
    """Return a loader of `steps` batches `((x0, x1), y)`, the training images in one new order after another.

    All `steps` are one epoch of the loader, so that a progress bar counts steps; the images pass about
    `steps * batch_size / 1297` times. Order and views come from generators of the loader's own: a loader made
    again with the same seed gives the same batches, whatever else draws random numbers.
    """
    view = augment or Augment()

    def two_views(rows: Tensor, noise: torch.Generator) -> Batch:
        images = digits.train_images[rows]
        return (view(images, noise), view(images, noise)), digits.train_labels[rows]

    return loader(digits, two_views, steps=steps, batch_size=batch_size, seed=seed)


def loader(
    digits: Digits, batch: Callable[[Tensor, torch.Generator], B], *, steps: int, batch_size: int, seed: int
) -> DataLoader[B]:
    """Return a loader of `steps` batches as `batch` makes them of the training images' rows `(n,)` and a generator."""
    order, noise = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)
    rows = range(len(digits.train_images))
    made: DataLoader[B] = DataLoader(
        rows,  # type: ignore[arg-type]  # collate_fn makes batches of another kind than its items
        batch_size=batch_size,
        sampler=RandomSampler(rows, num_samples=steps * batch_size, generator=order),
        drop_last=True,
        collate_fn=lambda items: batch(torch.tensor(items), noise),
        generator=order,  # or the loader would draw its workers' seed from the global generator
    )
    return made
