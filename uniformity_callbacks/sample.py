"""What a reading is made of: the rows that a step brought, view by view, or a whole set of them, streamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add

import torch
from torch import Tensor

from uniformity_callbacks.moments import Moments
from uniformity_callbacks.statistics import Statistics, UnitRows, unit_rows

ROWS_SAMPLED = 2048
"""Rows of each view that a stream keeps for the metrics of pairs of rows: a random sample of all, so that what they
estimate is known to about 1 / sqrt(2048) of its spread."""

REPEATS_TOLD = 0.01
"""Share of rows that repeat another above which it is pointed out: the correction for sample size takes rows for
independent. Of 256 isotropic rows in 128 dimensions, which read a corrected W2 of 0.03, 5 cloned read 0.07, 13 read
0.11 and all 0.28 (measured)."""

_FOLD_ROWS = 1024
"""Least number of rows that are added up at a time: one product of many rows instead of many of few."""


@dataclass(frozen=True)
class Views:
    """What the metrics of one reading are computed from, in float64, on the CPU.

    Attributes:
        each: first and second moments of each view.
        rows: the views' rows: all of them, or a random sample of rows, the same ones of each view.
        paired: whether row i of each view is of the same image.
    """

    each: tuple[Statistics, ...]
    rows: tuple[UnitRows, ...]
    paired: bool = True

    @cached_property
    def whole(self) -> Statistics:
        """All views together."""
        if len(self.each) == 1:
            return self.each[0]
        moments = [part for part in self.each if isinstance(part, Moments)]
        return reduce(add, moments) if moments else self.sampled

    @cached_property
    def sampled(self) -> UnitRows:
        """All views' rows in one."""
        return UnitRows.join(self.rows)

    @property
    def repeated(self) -> tuple[int, int]:
        """How many of the (sampled) rows repeat another of their view, and of how many that is."""
        return sum(repeats(view) for view in self.rows), int(self.sampled.count) if self.rows else 0

    @classmethod
    def of(cls, views: Sequence[Tensor], *, paired: bool = True) -> Views:
        """Prepare the raw rows of each view."""
        rows = tuple(unit_rows(view.detach().cpu()) for view in views)
        return cls(rows, rows, paired and len({view.shape for view in views}) == 1)


@dataclass(frozen=True)
class StepSample:
    """The rows of a step, as the layer gave them, detached, on the model's device.

    Attributes:
        raw: for each view its rows (n, d), in any floating-point type; n may differ between views.
        paired: whether row i of each view is of the same image.
    """

    raw: tuple[Tensor, ...]
    paired: bool = True

    @classmethod
    def of(cls, passes: Sequence[Sequence[Tensor]]) -> StepSample:
        """Join the passes (micro-batches, steps of a window), each a list of views: the k-th views are one view."""
        most = max((len(views) for views in passes), default=0)
        even = all(len(views) == most and len({len(view) for view in views}) == 1 for views in passes)
        return cls(tuple(torch.cat([views[k] for views in passes if len(views) > k]) for k in range(most)), even)

    def views(self) -> Views:
        """Prepare all rows."""
        return Views.of(self.raw, paired=self.paired)


class Stream:
    """Adds up a whole set of rows, batch by batch, in memory that does not grow with it.

    First and second moments are exact; for the metrics of pairs of rows a random sample is kept, drawn by a
    generator of its own. A set of at most d rows is kept whole, which is smaller than its (d, d) moments.

    Args:
        sampled: rows of each view to keep.
    """

    def __init__(self, sampled: int = ROWS_SAMPLED) -> None:
        self._sampled = sampled
        self._waiting: list[list[Tensor]] = []  # view by view, raw batches that are not yet added up
        self._moments: list[Moments | None] = []
        self._generator = torch.Generator().manual_seed(0)
        self._keys = torch.empty(0, dtype=torch.float64)
        self._kept: Tensor | None = None  # (rows, views, d), raw
        self._uneven = False

    def add(self, views: Sequence[Tensor]) -> None:
        """Take in a batch: the rows (n, d) of each of its views."""
        for k, view in enumerate(views):
            if k == len(self._waiting):
                self._waiting.append([])
                self._moments.append(None)
            self._waiting[k].append(view.detach())
            if sum(map(len, self._waiting[k])) >= max(_FOLD_ROWS, view.shape[1]):
                self._fold(k)
        self._sample(views)

    def views(self) -> Views:
        """Prepare what was added."""
        if all(moments is None for moments in self._moments):
            return Views.of([torch.cat(waiting) for waiting in self._waiting], paired=not self._uneven)
        for k in range(len(self._waiting)):
            self._fold(k)
        rows = () if self._kept is None else tuple(unit_rows(view.cpu()) for view in self._kept.unbind(1))
        return Views(tuple(moments.cpu() for moments in self._moments if moments is not None), rows)

    def _fold(self, k: int) -> None:
        if self._waiting[k]:
            moments = Moments.of(unit_rows(torch.cat(self._waiting[k])))
            before = self._moments[k]
            self._moments[k] = moments if before is None else before + moments
            self._waiting[k] = []

    def _sample(self, views: Sequence[Tensor]) -> None:
        """Give each row a random key and keep those with the largest: each row of the set is as likely as any other."""
        self._uneven |= len({view.shape for view in views}) > 1
        self._uneven |= self._kept is not None and len(views) != self._kept.shape[1]
        if self._uneven:  # rows of one image cannot be told: pairs are not sampled
            self._kept = None
            return
        batch = torch.stack([view.detach() for view in views], dim=1)
        keys = torch.cat([self._keys, torch.rand(len(batch), generator=self._generator, dtype=torch.float64)])
        rows = batch if self._kept is None else torch.cat([self._kept, batch])
        if len(keys) > self._sampled:
            keys, chosen = keys.topk(self._sampled)
            rows = rows[chosen.to(rows.device)]
        self._keys, self._kept = keys, rows


Sample = StepSample | Stream
"""Rows that wait to be measured: ``views()`` prepares them, where time does not matter."""


def repeats(u: UnitRows) -> int:
    """Return how many valid rows repeat another to the last bit."""
    rows = u.rows[u.valid]
    return len(rows) - len(torch.unique(rows, dim=0))
