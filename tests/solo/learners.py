"""solo-learn's methods as real objects, small, with loaders of digits: the same call for its newest code and 1.0.2."""

import argparse
from typing import NamedTuple

import repairs  # noqa: F401 - first: 1.0.2 does not import without
import torch
from solo.methods import METHODS as _METHODS
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from which import NEWEST

from examples.digits.data import Augment, load

if NEWEST:
    import lightning.pytorch as pl
    from omegaconf import OmegaConf
else:
    import pytorch_lightning as pl

METHODS = sorted(_METHODS.keys() - {"base", "linear"})
MULTICROP = ["byol", "simclr", "supcon", "swav"] if NEWEST else ["byol", "simclr", "wmse"]
"""Those whose projector takes the small crops, too."""

BATCH, STEPS, EPOCHS = 32, 4, 2
VALIDATION_ROWS = 2 * BATCH + 8

# What a method does not know it does not read.
_SIZES = {"proj_output_dim": 16, "proj_hidden_dim": 32, "pred_hidden_dim": 32, "temperature": 0.2, "queue_size": 128}
_OWN = {
    "deepclusterv2": {"num_prototypes": [8, 8]},
    "dino": {"num_prototypes": 32, "warmup_teacher_temperature_epochs": 0},
    "mae": {"decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 4},
    "ressl": {"temperature_q": 0.1, "temperature_k": 0.04},
    "swav": {"num_prototypes": 16},
    "wmse": {"whitening_size": BATCH},
}


class Learner(NamedTuple):
    """A method and what it is trained and validated on."""

    model: pl.LightningModule
    train: DataLoader
    validation: DataLoader


def build(method, *, small_crops=0, steps=STEPS, epochs=EPOCHS, **options):
    """Return the method's own object on a ResNet-18 without the stem for small images, MAE's on a small ViT."""
    torch.manual_seed(0)
    options = {**_SIZES, **_OWN.get(method, {}), **options}
    model = (_newest if NEWEST else _of_2022)(method, options, small_crops=small_crops, epochs=epochs)
    return Learner(model, *_loaders(small_crops, steps))


def told_apart(learner):
    """Have All4One's two passes differ, which project the same features twice and would be equal."""
    if learner.model.__class__.__name__ == "All4One":
        learner.model.projector.append(torch.nn.Dropout(0.1))
    return learner


def _newest(method, options, *, small_crops, epochs):
    vit = method == "mae"  # the only one that insists on it
    cfg = {
        "method": method,
        "backbone": {"name": "vit_tiny", "kwargs": {"img_size": 32, "patch_size": 8}} if vit else {"name": "resnet18"},
        "data": {"dataset": "custom", "num_classes": 10, "num_large_crops": 2, "num_small_crops": small_crops},
        "optimizer": {"name": "sgd", "batch_size": BATCH, "lr": 0.01, "classifier_lr": 0.1, "weight_decay": 1e-4},
        "scheduler": {"name": "warmup_cosine", "warmup_epochs": 0},
        "momentum": {"base_tau": 0.99, "final_tau": 1.0},
        "method_kwargs": options,
        "max_epochs": epochs,
    }
    return _METHODS[method](OmegaConf.create(cfg))


def _of_2022(method, options, *, small_crops, epochs):
    kind = _METHODS[method]
    parser = kind.add_model_specific_args(argparse.ArgumentParser())
    defaults = vars(parser.parse_args(["--encoder", "resnet18", "--optimizer", "sgd"]))
    given = {"batch_size": BATCH, "lr": 0.01, "classifier_lr": 0.1, "scheduler": "warmup_cosine", "warmup_epochs": 0}
    return kind(
        **{**defaults, **given, **options},
        num_classes=10,
        backbone_args={},
        accumulate_grad_batches=1,
        extra_optimizer_args={},
        max_epochs=epochs,
        num_large_crops=2,
        num_small_crops=small_crops,
    )


def _loaders(small_crops, steps):
    """Views are drawn once, so that a learner built again is given the same batches."""
    digits, noise, view = load(), torch.Generator().manual_seed(1), Augment()
    count = BATCH * steps
    chosen = torch.arange(count) % len(digits.train_images)
    images, labels = digits.train_images[chosen], digits.train_labels[chosen]
    views = [_enlarged(view(images, noise), 32) for _ in range(2)]
    views += [_enlarged(view(images, noise), 16) for _ in range(small_crops)]
    train = TensorDataset(torch.arange(count), labels, *views)
    held_out = TensorDataset(_enlarged(digits.test_images, 32), digits.test_labels)
    held_out.tensors = tuple(part[:VALIDATION_ROWS] for part in held_out.tensors)
    return (
        DataLoader(train, batch_size=BATCH, collate_fn=_in_solo_learns_format),
        DataLoader(held_out, batch_size=BATCH),
    )


def _enlarged(images, size):
    return F.interpolate(images, (size, size), mode="bilinear").expand(-1, 3, -1, -1)


def _in_solo_learns_format(items):
    indexes, labels, *views = (torch.stack(column) for column in zip(*items, strict=True))
    return [indexes, views, labels]
