"""LightningModules that propagate back and step their optimizers themselves."""

import torch
from torch import nn
from trainers import Spikes, Twin


class Manual(Twin):
    """One optimizer, steps after ``accumulate`` micro-batches; the loss by hand is added whole to the first of them."""

    raw = False
    clip = None

    def __init__(self, weight=None, accumulate=1):
        super().__init__(weight)
        self.automatic_optimization = False
        self.accumulate = accumulate

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers(use_pl_optimizer=not self.raw)
        z0, z1 = self.embed(batch)
        loss = self.distance(z0, z1) / self.accumulate
        if batch_idx % self.accumulate == 0:
            optimizer.zero_grad()
            loss = loss + self.term(z0, z1)
        self.manual_backward(loss)
        if (batch_idx + 1) % self.accumulate == 0:
            if self.clip:
                self.clip_gradients(optimizer, gradient_clip_val=0.05, gradient_clip_algorithm=self.clip)
            optimizer.step()


class Raw(Manual):
    """Steps an optimizer that Lightning does not count."""

    raw = True


class ClippedByNorm(Manual):
    clip = "norm"


class ClippedByValue(Manual):
    clip = "value"


class ManualSpikes(Spikes, Manual):
    """A GradScaler skips its fifth step."""


class TwoOptimizers(Manual):
    """One for the encoder with the projector, one for another part."""

    def __init__(self, weight=None):
        super().__init__(weight)
        self.other = nn.Linear(8, 8)

    def configure_optimizers(self):
        trunk = [*self.encoder.parameters(), *self.projector.parameters()]
        return [torch.optim.SGD(parameters, lr=0.05) for parameters in (self.other.parameters(), trunk)]

    def advance(self, optimizer, loss):
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


class Adversarial(TwoOptimizers):
    """The other part is a critic with a step of its own before, for which the projector runs without gradients."""

    def training_step(self, batch, batch_idx):
        critic, trunk = self.optimizers()
        with torch.no_grad():
            z0, z1 = self.embed(batch)
        self.advance(critic, (self.other(z0) - z1).square().mean())
        z0, z1 = self.embed(batch)
        self.advance(trunk, self.distance(z0, z1) - 0.1 * self.other(z0).square().mean() + self.term(z0, z1))


class Toggled(TwoOptimizers):
    """The critic, its parameters frozen before, comes last; the projector runs again for it, with gradients."""

    def training_step(self, batch, batch_idx):
        critic, trunk = self.optimizers()
        self.toggle_optimizer(trunk)
        z0, z1 = self.embed(batch)
        self.advance(trunk, self.distance(z0, z1) - 0.1 * self.other(z0).square().mean() + self.term(z0, z1))
        self.untoggle_optimizer(trunk)
        z0, z1 = self.embed(batch)
        self.advance(critic, (self.other(z0) - z1).square().mean())


class Predicts(TwoOptimizers):
    """The other part is a predictor as BYOL has it: one backward, after which both step."""

    def training_step(self, batch, batch_idx):
        optimizers = self.optimizers()
        z0, z1 = self.embed(batch)
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(self.distance(self.other(z0), z1.detach()) + self.term(z0, z1))
        for optimizer in optimizers:
            optimizer.step()
