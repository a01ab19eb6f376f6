"""The forward hook by which a tap hears of its layer's calls, in eager mode and in compiled code."""

from __future__ import annotations

from typing import Any, no_type_check

import torch
from torch import nn
from torch.compiler import is_dynamo_compiling

from uniformity_callbacks.compiled import Memory, remember


@no_type_check  # torch.compile traces it, and cannot trace a run-time checker
class Hook:
    """The forward hook. A copied or pickled model gets `Inert` in its place, so that only the original is tapped.

    In code that torch.compile traces it writes to its memory, and whether that is wanted is asked outside: a hook that
    broke the graph, or asked for the mode inside, would end ``fullgraph=True`` or compile anew with every change of it.
    """

    def __init__(self, tap: Any, name: str) -> None:
        self._tap, self._collect, self._name = tap, tap.collect, name
        self.memory = Memory()

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Hand over a call of the layer, or have compiled code keep it."""
        if is_dynamo_compiling():
            remember(self.memory, output)
        # A trace, as TensorBoard's add_graph makes one, is no pass of the training.
        elif self._tap.mode != "off" and not torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            self._collect(self._name, module, output)

    def stay_eager(self) -> None:
        """Have nothing of what collects compiled, where compiled code calls the layer outside of a graph."""
        self._collect = torch.compiler.disable(self._collect)  # type: ignore[no-untyped-call]

    def __reduce__(self) -> tuple[type[Inert], tuple[()]]:
        return Inert, ()


@no_type_check
class Inert:
    """The hook in a copy of a module."""

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Do nothing."""
