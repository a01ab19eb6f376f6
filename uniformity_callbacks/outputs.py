"""What is meant of what a layer puts out: which tensor of a call, which calls of a pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Output = str | int | Callable[[Any], Tensor] | None
"""Which tensor of a layer's output: None (it is one), a key, an index, or a function of it."""


def pick(output: Any, how: Output) -> Tensor:
    """Return the tensor (n, d) that ``how`` picks from a layer's output.

    Raises:
        ValueError: there is no such part, it is not a tensor, not floating-point, not (n, d) with d >= 1, or sparse.
    """
    try:
        z = output if how is None else how(output) if callable(how) else output[how]
    except Exception as error:
        raise ValueError(f"output={how!r} failed on {_describe(output)}: {type(error).__name__}: {error}") from error
    if not isinstance(z, Tensor):
        raise ValueError(f"output={how!r} gives {_describe(z)}, not a tensor; pick one by key, index or function")
    if z.ndim != 2 or z.shape[1] == 0 or not z.is_floating_point() or z.layout != torch.strided:
        kind = f"{z.dtype}" if z.layout == torch.strided else f"{z.layout} {z.dtype}"
        raise ValueError(
            f"output={how!r} gives a {kind} tensor {tuple(z.shape)}, expected floats (n, d); pass a function, "
            "e.g. output=lambda z: z.flatten(1)"
        )
    return z


def which_calls(calls: str | None) -> slice:
    """Return which of a pass's calls, in their order, are meant by "all" (or None), "first:N" or "last:N".

    Raises:
        ValueError: it is none of these.
    """
    if calls in (None, "all"):
        return slice(None)
    match = re.fullmatch(r"(first|last):([1-9]\d*)", calls) if isinstance(calls, str) else None
    if match is None:
        raise ValueError(
            f'calls must be None or "all" (every call of the layer in a pass), "first:N" or "last:N", got {calls!r}; '
            'e.g. "first:2" for the large crops of multi-crop'
        )
    n = int(match[2])
    return slice(n) if match[1] == "first" else slice(-n, None)


def _describe(output: Any) -> str:
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with the keys {', '.join(map(repr, output))}"
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"
