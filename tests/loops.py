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
        z0, z1 = model(x0), model(x1)
        total = (z0 - z1).square().mean() if loss is None else loss(z0, z1)
        total = monitor.add_auxiliary(total)
        monitor.pause()
        total.backward()
        monitor.end_pass()
    return monitor.finish()


def idle(monitor, k):
    """A step in which the layer is not called."""
    monitor.begin(k)
    monitor.pause()
    monitor.end_pass()
    return monitor.finish()


def validate(monitor, model, batches):
    """A validation epoch, each batch the inputs of its views."""
    monitor.begin_validation()
    with torch.no_grad():
        for batch in batches:
            monitor.begin_validation_batch()
            for x in batch:
                model(x)
            monitor.end_validation_batch()
    return monitor.finish_validation()


def views(n=32):
    return torch.randn(n, 4), torch.randn(n, 4)


def run(tmp_path, steps, batches=1, **arguments):
    model = Model()
    monitor = UniformityMonitor(**arguments)
    monitor.attach(model, directory=tmp_path)
    outcomes = [o for k in range(steps) for o in step(monitor, model, k, *[views() for _ in range(batches)])]
    outcomes += monitor.close()
    return monitor, outcomes


QUICK = {"patience": 2, "warmup_steps": 0}


class Scripted(nn.Module):
    """A projector whose outputs are one point in the steps that are told."""

    def __init__(self, collapsed):
        super().__init__()
        self.projector = nn.Linear(4, 8)
        self.collapsed, self.k = collapsed, 0
        self.projector.register_forward_hook(self._squeeze)

    def _squeeze(self, module, args, output):
        return 1.0 + 1e-3 * output if self.k in self.collapsed else output - output.mean(0)

    def forward(self, x):
        return self.projector(x)


def play(monitor, model, steps, tmp_path=None):
    """Steps of a run; returns what was handed out, with the step at which it was."""
    out = []
    for k in steps:
        model.k = k
        out += [(k, o) for o in step(monitor, model, k, views())]
    return out


def scripted(tmp_path, collapsed, steps, **arguments):
    model, monitor = Scripted(collapsed), UniformityMonitor("projector", every_n_steps=1, **arguments)
    monitor.attach(model, directory=tmp_path)
    out = play(monitor, model, steps)
    return monitor, model, out
