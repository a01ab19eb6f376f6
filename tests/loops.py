"""A small model and plain loops that drive a monitor."""

import torch
from torch import nn

from uniformity_callbacks import UniformityMonitor


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 16)
        self.projector = nn.Linear(16, 8)

    def forward(self, x):
        return self.projector(self.encoder(x))


def step(monitor, model, k, *batches, loss=None):
    """One optimizer step of a plain loop, with one pass for each pair of views."""
    for x0, x1 in batches:
        monitor.begin(k)
        total = (model(x0) - model(x1)).square().mean()
        total = monitor.add_auxiliary(total)
        monitor.pause()
        total.backward()
        monitor.end_pass()
    return monitor.finish()


def views(n=32):
    return torch.randn(n, 4), torch.randn(n, 4)


def run(tmp_path, steps, batches=1, **arguments):
    model = Model()
    monitor = UniformityMonitor(**arguments)
    monitor.attach(model, directory=tmp_path)
    outcomes = [o for k in range(steps) for o in step(monitor, model, k, *[views() for _ in range(batches)])]
    outcomes += monitor.close()
    return monitor, outcomes
