"""The two exact ways to the polar factor of all ranks' rows together: exchange the rows, or their sums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniformity_callbacks import spectrum
from uniformity_callbacks.closed_form import by_lengths, rooted
from uniformity_callbacks.ranks import Ranks
from uniformity_callbacks.shapes import Shape, may_not_wait, pack, unpack
from uniformity_callbacks.unit_rows import UnitRows, unit_rows

Rows = Sequence[Tensor | None]
"""Of each layer this rank's rows (n, d), or None."""


@dataclass(frozen=True)
class Whole:
    """What this rank needs of all ranks' rows of a layer.

    Attributes:
        trace_root: ``tr S^(1/2)``, S the covariance of all valid unit rows.
        gradient: its gradient with respect to this rank's rows, times the number of ranks; (n, d), of those that were
            sent.
        shape: of the layer's rows.
    """

    trace_root: Tensor
    gradient: Tensor
    shape: Shape


class Exchange(ABC):
    """One collective of a fixed shape, in parts: what may fail on one rank alone comes before it, or after it.

    Args:
        ranks: who they are.
        shapes: of each layer what the ranks agreed on, None for those that none has seen.
    """

    def __init__(self, ranks: Ranks, shapes: Sequence[Shape | None]) -> None:
        self.ranks, self.shapes = ranks, shapes

    @abstractmethod
    def fits(self, shape: Shape, rows: Tensor) -> bool:
        """Whether a rank's rows can be sent as agreed."""

    @abstractmethod
    def pack(self, head: Tensor, rows: Rows) -> Tensor:
        """Return what this rank sends: some numbers, float64 (k,), and what it has of each layer."""

    @abstractmethod
    def send(self, packed: Tensor) -> Tensor:
        """Return what all ranks sent: the collective."""

    @abstractmethod
    def head(self, got: Tensor, k: int) -> Tensor:
        """Return the sums over all ranks of the k numbers at the head."""

    def remember(self, got: Tensor, k: int) -> None:  # noqa: B027  # not all have something to
        """Take up what every rank must know at the next exchange, whatever it makes of this one."""

    @abstractmethod
    def wholes(self, got: Tensor, k: int, rows: Rows) -> list[Whole | None]:
        """Return what each layer's rows are part of; None for those that no rank has ever seen."""


class ByRows(Exchange):
    """Each rank's rows, padded with zeros, which are no rows."""

    def fits(self, shape: Shape, rows: Tensor) -> bool:
        """Whether there is room for as many rows."""
        return shape.has_room_for(rows)

    def pack(self, head: Tensor, rows: Rows) -> Tensor:
        """Return the rows that there is room for."""
        parts: list[tuple[Shape, Tensor | None]] = [(Shape(1, len(head), "float64"), head)]
        parts += [(shape, self._sent(shape, z)) for shape, z in zip(self.shapes, rows, strict=True) if shape]
        return pack(parts, self.ranks.device)

    def send(self, packed: Tensor) -> Tensor:
        """Return (ranks, bytes)."""
        return torch.stack(self.ranks.gather(packed))

    def head(self, got: Tensor, k: int) -> Tensor:
        """Add the ranks' up."""
        return unpack(got[:, : 8 * k], [Shape(1, k, "float64")])[0].sum(0)[0]

    def wholes(self, got: Tensor, k: int, rows: Rows) -> list[Whole | None]:
        """Decompose all rows."""
        layers = iter(unpack(got[:, 8 * k :], [shape for shape in self.shapes if shape]))
        return [shape and self._whole(shape, next(layers), z) for shape, z in zip(self.shapes, rows, strict=True)]

    def _whole(self, shape: Shape, padded: Tensor, own: Tensor | None) -> Whole:
        found = rooted(padded.reshape(-1, shape.d))
        sent = self._sent(shape, own)
        first = self.ranks.rank * shape.n
        part = slice(first, first + (0 if sent is None else len(sent)))
        return Whole(found.value, found.gradient(self.ranks.size, part), shape)

    @staticmethod
    def _sent(shape: Shape, own: Tensor | None) -> Tensor | None:
        return own[: shape.n] if own is not None and shape.has_room_for(own[:0]) else None


class BySums(Exchange):
    """Each rank's count, sum and sum of outer products of unit rows.

    Args:
        ranks: who they are.
        shapes: of each layer what the ranks agreed on.
        means: of each layer's rows in the step before, which all ranks know; brought up to date. Sums are taken about
            them: near collapse, sums about zero would lose the digits of weak directions.
    """

    def __init__(self, ranks: Ranks, shapes: Sequence[Shape | None], means: dict[int, Tensor]) -> None:
        super().__init__(ranks, shapes)
        self._means = means
        for k in [k for k, mean in means.items() if (shape := shapes[k]) is not None and shape.d != len(mean)]:
            del means[k]
        self._own: dict[int, tuple[UnitRows, Tensor]] = {}  # unit rows; the same about the mean

    def fits(self, shape: Shape, rows: Tensor) -> bool:
        """Whether they are of the agreed kind, however many there are."""
        return shape.has_room_for(rows[:0])

    def pack(self, head: Tensor, rows: Rows) -> Tensor:
        """Return the sums."""
        parts = [head]
        for k, shape in enumerate(self.shapes):
            if shape is not None:
                u, c = self._own[k] = self._about(k, shape, rows[k])
                parts += [u.count[None], c.sum(0), (c.T @ c).flatten()]
        device = self.ranks.device
        return torch.cat([part.to(device, torch.float64, non_blocking=may_not_wait(device)) for part in parts])

    def send(self, packed: Tensor) -> Tensor:
        """Return the sums over all ranks."""
        return self.ranks.total(packed)

    def head(self, got: Tensor, k: int) -> Tensor:
        """It is a sum like the others."""
        return got[:k]

    def remember(self, got: Tensor, k: int) -> None:
        """Take up the new means."""
        for j, _, count, total, _ in self._sums(got, k):
            self._means[j] = self._means.get(j, 0.0) + total / count.clamp(min=1.0)

    def wholes(self, got: Tensor, k: int, rows: Rows) -> list[Whole | None]:
        """Decompose the covariances."""
        wholes: list[Whole | None] = [None] * len(self.shapes)
        for j, shape, count, total, products in self._sums(got, k):
            u, c = self._own[j]
            shift = total / count.clamp(min=1.0)
            scatter = products.view(shape.d, shape.d) - count * torch.outer(shift, shift)
            norm, inverse = spectrum.norm_and_root(scatter, scale=count[0] * shift.square().sum())
            polar = torch.where(u.valid[:, None], c - shift.to(c.device), 0.0) @ inverse.to(c.device)
            many = count[0].to(c.device).clamp(min=1.0).sqrt()
            wholes[j] = Whole(norm.to(c.device) / many, by_lengths(polar * (self.ranks.size / many), u), shape)
        return wholes

    def _sums(self, got: Tensor, k: int) -> Iterator[tuple[int, Shape, Tensor, Tensor, Tensor]]:
        """Return of each layer its number and shape and all ranks' count (1,), sum and sum of products (d * d,)."""
        seen = [(j, shape) for j, shape in enumerate(self.shapes) if shape is not None]
        parts = iter(torch.split(got[k:], [length for _, shape in seen for length in (1, shape.d, shape.d**2)]))
        return ((j, shape, next(parts), next(parts), next(parts)) for j, shape in seen)

    def _about(self, k: int, shape: Shape, own: Tensor | None) -> tuple[UnitRows, Tensor]:
        if own is None or not self.fits(shape, own):
            own = torch.zeros(0, shape.d, device=self.ranks.device)
        u = unit_rows(own)
        mean = self._means.get(k)
        c = u.rows if mean is None else torch.where(u.valid[:, None], u.rows - mean.to(u.rows.device), 0.0)
        return u, c
