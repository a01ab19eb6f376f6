"""A small model of two views and loops that train it, with a Wasserstein term by hand or by a monitor."""

import contextlib

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from uniformity_callbacks import WassersteinLoss, read_journal
from uniformity_callbacks.integrations.pytorch import watch

ROWS = 24


class Net(nn.Module):
    def __init__(self, dropout=0.2):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout))
        self.projector = nn.Sequential(nn.Linear(16, 8))

    def forward(self, x):
        return self.projector(self.encoder(x))


class Checkpointed(Net):
    """Encoder and projector run again in backward."""

    reentrant = False

    def forward(self, x):
        # Something in it must need a gradient for a reentrant checkpoint to have one.
        h = checkpoint(self.encoder, x.requires_grad_(), use_reentrant=self.reentrant)
        return checkpoint(self.projector, h, use_reentrant=self.reentrant)


class Reentrant(Checkpointed):
    reentrant = True


def made(kind=Net, dtype=torch.float32, **arguments):
    torch.manual_seed(0)
    return kind(**arguments).to(dtype)


def batches(steps, *, parts=1, dtype=torch.float32, seed=1):
    """For each step the pairs of views of each micro-batch."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(2, ROWS, 6, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    return [[draw() for _ in range(parts)] for _ in range(steps)]


def distance(z0, z1):
    return (z0 - z1).square().mean()


def train(model, add, steps=6, *, parts=1, dtype=torch.float32, amp=None, scaler=None, clip=None, optimizer=None):
    """Train as loops do; return the gradients that each step used, or would have if it had not been skipped."""
    optimizer = optimizer or sgd(model)
    context = contextlib.nullcontext() if amp is None else torch.autocast("cpu", dtype=amp)
    used = []
    for micro in batches(steps, parts=parts, dtype=dtype):
        for x0, x1 in micro:
            with context:
                z0, z1 = model(x0), model(x1)
                loss = add(distance(z0, z1), z0, z1) / parts
            (loss if scaler is None else scaler.scale(loss)).backward()
        if scaler is not None:
            scaler.unscale_(optimizer)
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        used.append([p.grad.clone() for p in model.parameters()])
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()
    return used


def one_step(model, optimizer, monitor=None):
    ((x0, x1),) = batches(1)[0]
    loss = (model(x0) - model(x1)).square().mean()
    (loss if monitor is None else monitor.add_auxiliary(loss)).backward()
    optimizer.step()
    optimizer.zero_grad()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def by_hand(weight):
    loss = WassersteinLoss(weight)
    return lambda total, z0, z1: total + loss(z0, z1)


def as_it_is(total, z0, z1):
    return total


def readings(monitor):
    """Step and number of rows of each reading."""
    return [(r.step, int(r.values["samples"])) for r in read_journal(monitor.journal).readings]


def watched(model, optimizer, **arguments):
    return watch(model, optimizer=optimizer, **{"alerts": None, "every_n_steps": 2} | arguments)
