"""What ranks must agree on before they exchange rows: how many, of which kind, and which exchange is the cheaper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor

NO_ROWS = torch.empty(0, dtype=torch.uint8)
"""What `pack` makes of nothing."""


class Shape(NamedTuple):
    """What a rank has of a layer, as it tells the others: how many rows, of which dimension and type."""

    n: int
    d: int
    kind: str

    @classmethod
    def of(cls, rows: Tensor) -> Shape:
        """Return that of rows (n, d)."""
        n, d = rows.shape
        return cls(n, d, str(rows.dtype).removeprefix("torch."))

    @property
    def dtype(self) -> torch.dtype:
        """The type itself."""
        dtype: torch.dtype = getattr(torch, self.kind)
        return dtype

    @property
    def size(self) -> int:
        """How many bytes the rows take, in whole numbers of float64."""
        return -(-self.n * self.d * self.dtype.itemsize // 8) * 8

    def has_room_for(self, rows: Tensor) -> bool:
        """Whether rows (n, d) fit where so many are expected."""
        other = Shape.of(rows)
        return other.n <= self.n and other[1:] == self[1:]


def agree(told: Sequence[Sequence[Shape | None]]) -> list[Shape | None]:
    """Return for each layer the shape that holds every rank's, None where no rank has any.

    Raises:
        ValueError: a layer has outputs of different dimension or type on different ranks.
    """
    shapes: list[Shape | None] = []
    for layer in zip(*told, strict=True):
        seen = [shape for shape in layer if shape is not None]
        if len({shape[1:] for shape in seen}) > 1:
            raise ValueError(f"a layer's outputs must be of one dimension and type on all ranks, got {seen}")
        shapes.append(max(seen, default=None))
    return shapes


def grown(shapes: Sequence[Shape | None], before: Sequence[Shape | None]) -> list[Shape | None]:
    """Return at each place the shape that holds both; of another dimension or type than before, that of now."""
    pairs = zip_longest(shapes, before)
    return [max(a, b) if a and b and a[1:] == b[1:] else a or b for a, b in pairs]


def by_moments(shapes: Sequence[Shape | None], size: int) -> bool:
    """Whether sums of outer products are the cheaper exchange.

    A rank receives ``size * n * d`` numbers of the rows' own type; or, as sums travel once to be added up and once
    back, twice ``d^2`` in float64. For float32 rows sums are cheaper from ``size * n = 4 d`` on.

    Args:
        shapes: of each set of rows that is summed the most that a rank has.
        size: number of ranks.
    """
    seen = [shape for shape in shapes if shape is not None]
    return sum(16 * s.d**2 for s in seen) < sum(size * s.n * s.d * s.dtype.itemsize for s in seen)


def may_not_wait(device: torch.device) -> bool:
    """Whether a copy to a device need not wait for it, as torch has it do: what comes of it is used there.

    A copy to the CPU must be complete before it is used.
    """
    return device.type != "cpu"


def pack(parts: Sequence[tuple[Shape, Tensor | None]], device: torch.device) -> Tensor:
    """Return rows as bytes, one after another, each with the room of its shape; what is not filled is zero."""
    blocks = []
    for shape, rows in parts:
        block = torch.zeros(shape.size, dtype=torch.uint8, device=device)
        if rows is not None:
            block.view(shape.dtype)[: rows.numel()].copy_(rows.flatten(), non_blocking=may_not_wait(device))
        blocks.append(block)
    return torch.cat(blocks) if blocks else NO_ROWS.to(device)


def unpack(packed: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """Return the rows (n, d) that `pack` put together, or those of several ranks (ranks, n, d)."""
    blocks = torch.split(packed, [shape.size for shape in shapes], dim=-1)
    flat = [block.contiguous().view(shape.dtype) for block, shape in zip(blocks, shapes, strict=True)]
    return [rows[..., : s.n * s.d].reshape(*rows.shape[:-1], s.n, s.d) for rows, s in zip(flat, shapes, strict=True)]
