"""A small model, the ways to compile it, a backend that counts, and a torch.compile without a past."""

import torch
import torch._dynamo
from torch import nn
from torch._dynamo.backends.registry import lookup_backend


class Counting:
    """A backend that runs what it is given as eager mode does, forward and backward, and counts the graphs."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, example_inputs):
        self.graphs += 1
        return lookup_backend("aot_eager")(graph, example_inputs)


def forget():
    """Have nothing compiled yet; between tests that is so anyway."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()


class Projector(nn.Module):
    """Of a class of its own: torch does not compile one of its own classes in place by itself."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, x):
        return self.linear(x).tanh()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 8)
        self.projector = Projector()

    def forward(self, x):
        return self.projector(self.encoder(x))


class Holder(nn.Module):
    """Its only part is called as a whole."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def wrapped(model, **options):
    model.projector = torch.compile(model.projector, **options)
    model.encoder = torch.compile(model.encoder, **options)
    return model


def in_place(model, **options):
    model.projector.compile(**options)
    return model


def ancestor(model, **options):
    return Holder(torch.compile(model, **options))


def ancestor_in_place(model, **options):
    model.compile(**options)
    return Holder(model)


def held_function(model, **options):
    model.forward = torch.compile(model.forward, **options)
    return Holder(model)


def whole(model, **options):
    return torch.compile(model, **options)


class Decorated(Model):
    """With a compiled method, as `@torch.compile` leaves it in the class."""


def method(model, **options):
    model.__class__ = type("Decorated", (Decorated,), {"forward": torch.compile(Model.forward, **options)})
    return Holder(model)


WAYS = [wrapped, in_place, ancestor, ancestor_in_place, held_function, whole, method]
TRACED = [way for way in WAYS if way not in (wrapped, in_place)]


def passes(model, tap, modes=("train", "off", "watch", "off", "watch", "train", "off")):
    """Two calls in each pass, and one too late; returns what was caught and put out, and backpropagates both."""
    out = []
    for mode in modes:
        tap.start(mode)
        z0, z1 = (model(torch.randn(5, 4)) for _ in range(2))
        views = tap.views()
        tap.stop()
        model(torch.randn(5, 4))
        loss = z0.sum() + z1.sum() + sum(view.square().sum() for view in views if view.requires_grad)
        loss.backward()
        assert [view.requires_grad for view in tap.views()] == [mode == "train"] * (0 if mode == "off" else 2)
        out += zip(tap.views(), (z0, z1), strict=False)
        tap.start("off")
    return out
