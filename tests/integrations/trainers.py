"""Small LightningModules that know nothing of the callback, and real Trainers to fit them."""

import math

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from packaging.version import Version
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from uniformity_callbacks import WassersteinLoss, read_journal

BEFORE_2_5 = Version(pl.__version__) < Version("2.5")
goes_on_exactly = pytest.mark.skipif(BEFORE_2_5, reason="Lightning before 2.5 resumes one step back in its curves")


def resumed(step):
    """The step that follows ``step`` steps where a run was resumed since: before 2.5, Lightning has the last again."""
    return step - BEFORE_2_5


class Twin(pl.LightningModule):
    """Two views, one projector, dropout and BatchNorm; the loss is their distance."""

    def __init__(self, weight=None, as_dict=False):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1))
        self.projector = nn.Linear(16, 8)
        self.by_hand = None if weight is None else WassersteinLoss(weight)
        self.as_dict = as_dict
        self.seen = []

    def training_step(self, batch, batch_idx):
        z0, z1 = self.embed(batch)
        loss = self.distance(z0, z1) + self.term(z0, z1)
        return {"loss": loss, "z": z0.detach()} if self.as_dict else loss

    def embed(self, batch):
        (x,) = batch
        return tuple(self.projector(self.encoder(x + 0.1 * torch.randn_like(x))) for _ in range(2))

    def distance(self, z0, z1):
        loss = (z0 - z1).square().mean()
        self.log("train/loss", loss)
        self.seen.append(loss.item())
        return loss

    def term(self, z0, z1):
        return 0.0 if self.by_hand is None else self.by_hand(z0, z1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class WithoutIndex(Twin):
    def training_step(self, batch):
        return super().training_step(batch, 0)


class Embeds(Twin):
    """Subclasses say how a view is embedded. It logs nothing: torch.compile fails on Lightning's log."""

    def training_step(self, batch, batch_idx):
        (x,) = batch
        z0, z1 = (self.embed(x + 0.1 * torch.randn_like(x)) for _ in range(2))
        loss = (z0 - z1).square().mean()
        return loss if self.by_hand is None else loss + self.by_hand(z0, z1)


class Validated(Twin):
    def validation_step(self, batch, batch_idx):
        self.log("val/norm", self.projector(self.encoder(batch[0])).norm())

    def val_dataloader(self):
        return loader(32)


class Constant(Twin):
    """Its projector puts out one point from the start."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.projector.weight)
        self.projector.weight.requires_grad_(False)


class Spikes(Twin):
    """Takes its loss in float32, as criteria do under autocast; in the fifth batch its gradients are infinite."""

    def distance(self, z0, z1):
        loss = super().distance(z0.float(), z1.float())
        return loss * 1e38 if len(self.seen) == 5 else loss


def half(scalers):
    """Lightning's 16-mixed, on a CPU; its scaler is kept in a list."""
    scalers.append(torch.amp.GradScaler("cpu", init_scale=2.0**10))
    return MixedPrecision("16-mixed", "cpu", scaler=scalers[-1])


def loader(n=128, batch_size=16, dtype=torch.float32):
    data = torch.randn(n, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    return DataLoader(TensorDataset(data), batch_size=batch_size)


def fit(model, callbacks=(), *, data=None, ckpt_path=None, trainer=pl.Trainer, **options):
    torch.manual_seed(3)
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "devices": 1}
    options = {**quiet, "logger": False, "enable_checkpointing": False, "max_steps": 8, **options}
    runner = trainer(callbacks=list(callbacks), **options)
    runner.fit(model, data or loader(), ckpt_path=ckpt_path)
    return runner


def new(kind=Twin, **arguments):
    torch.manual_seed(0)
    return kind(**arguments)


def distance(a, b):
    return math.sqrt(sum((p.double() - q.double()).square().sum().item() for p, q in zip(a, b, strict=True)))


def journal(callback):
    return read_journal(callback.monitor.journal)
