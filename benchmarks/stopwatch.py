"""A profiler of hooks: the time that is spent in those that are put on modules, tensors and optimizers meanwhile."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

_REGISTER: tuple[tuple[type, str], ...] = (
    (nn.Module, "register_forward_hook"),
    (torch.Tensor, "register_hook"),
    (torch.optim.Optimizer, "register_step_pre_hook"),
    (torch.optim.Optimizer, "register_step_post_hook"),
)
"""How a hook of ours gets onto a training."""


class Stopwatch:
    """Adds up the seconds in hooks.

    Attributes:
        seconds: so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Put the stopwatch into each hook that is registered meanwhile."""
        with ExitStack() as stack:
            for owner, name in _REGISTER:
                stack.enter_context(patch.object(owner, name, self._registering(getattr(owner, name))))
            yield

    def during(self, work: Callable[[], object]) -> float:
        """Return the seconds in hooks during a call."""
        before = self.seconds
        work()
        return self.seconds - before

    def _registering(self, register: Callable[..., Any]) -> Callable[..., Any]:
        def registering(owner: Any, hook: Callable[..., Any], *args: Any, **options: Any) -> Any:
            return register(owner, self._timed(hook), *args, **options)

        return registering

    def _timed(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(hook)
        def timed(*args: Any, **options: Any) -> Any:
            began = perf_counter()
            try:
                return hook(*args, **options)
            finally:
                self.seconds += perf_counter() - began

        return timed
