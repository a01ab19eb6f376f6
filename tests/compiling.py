"""A backend that counts, and a torch.compile without a past."""

import contextlib

import torch
import torch._dynamo
from torch._dynamo.backends.registry import lookup_backend


class Counting:
    """A backend that runs what it is given as eager mode does, forward and backward, and counts the graphs."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, example_inputs):
        self.graphs += 1
        return lookup_backend("aot_eager")(graph, example_inputs)


@contextlib.contextmanager
def fresh():
    """Nothing was compiled yet, and after it nothing was."""
    try:
        forget()
        yield
    finally:
        forget()


def forget():
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
