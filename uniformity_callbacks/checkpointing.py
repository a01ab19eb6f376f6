"""Layers inside reentrant activation checkpointing, which runs them without gradients before it runs them with."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction

from uniformity_callbacks.outputs import Output, pick

MEND = "use checkpoint(..., use_reentrant=False)"


class Unfinished:
    """An output from inside a reentrant checkpoint, which gets its gradient when the checkpoint returns it.

    Args:
        output: what the layer put out.
        how: which tensor of it is meant.

    Raises:
        ValueError: as `pick`.
    """

    def __init__(self, output: Any, how: Output) -> None:
        self._output, self._how = output, how
        self._version = pick(output, how)._version

    def finish(self) -> Tensor:
        """Return the tensor with its graph.

        Raises:
            ValueError: it is not what the checkpoint returned, or was changed since.
        """
        z = pick(self._output, self._how)
        if z.grad_fn is None:
            raise ValueError(
                f"it lies in a reentrant checkpoint and is not what that returns: a loss cannot reach it; {MEND}"
            )
        if z._version != self._version:
            raise ValueError(f"its output was changed in place after it left a reentrant checkpoint; {MEND}")
        return z


def in_reentrant_checkpoint(module: nn.Module) -> bool:
    """Whether a module runs without gradients only because a reentrant checkpoint runs it again in backward.

    A momentum network inside the same checkpoint looks alike, but nothing of it is trained.
    """
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        return False
    frame = sys._getframe(1)
    while frame is not None:
        # Its edges back are there only if gradients were on when it was called; needs_input_grad does not tell that.
        if frame.f_code is CheckpointFunction.forward.__code__ and frame.f_locals["ctx"].next_functions:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
