"""What a reading is made of: the rows that a step brought, view by view, or a whole set of them, streamed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add

import torch
from torch import Tensor

from uniformity_callbacks.moments import Moments
from uniformity_callbacks.statistics import Statistics
from uniformity_callbacks.unit_rows import UnitRows, unit_rows

ROWS_SAMPLED = 2048
"""Rows of each view that a stream keeps for the metrics of pairs of rows: a random sample of all, so that what they
estimate is known to about 1 / sqrt(2048) of its spread."""

REPEATS_TOLD = 0.01
"""Share of rows that repeat another above which it is pointed out: the correction for sample size takes rows for
independent. Of 256 isotropic rows in 128 dimensions, which read a corrected W2 of 0.03, 5 cloned read 0.07, 13 read
0.11 and all 0.28 (measured)."""

_FOLD_ROWS = 1024
"""Least number of rows that are added up at a time: one product of many rows instead of many of few."""


def too_many(rows: int, d: int) -> bool:
    """Whether so many rows of a view are added up: rather than kept, or, by ranks, exchanged."""
    return rows >= max(_FOLD_ROWS, d)


@dataclass(frozen=True)
class Views:
    """What the metrics of one reading are computed from, in float64, on the CPU.

    Attributes:
        each: first and second moments of each view.
        rows: the views' rows: all of them, or a random sample of rows, the same ones of each view.
        paired: whether row i of each view is of the same image.
        aligned: (pairs of views, 2): the sum of squared distances between their rows and how many that is; None where
            it is to be taken from the rows.
    """

    each: tuple[Statistics, ...]
    rows: tuple[UnitRows, ...]
    paired: bool = True
    aligned: Tensor | None = None

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
        parts = [view.detach().cpu() for view in views]
        whole = unit_rows(torch.cat(parts) if len(parts) > 1 else parts[0])
        rows = whole.split([len(view) for view in views])
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

    def thinned(self, by: int) -> StepSample:
        """Return one of ``by`` rows of each view, evenly spaced: of views of one length the same rows."""
        chosen = [torch.arange(0, len(view), by, device=view.device) for view in self.raw]
        return StepSample(tuple(view[rows] for view, rows in zip(self.raw, chosen, strict=True)), self.paired)

    def views(self) -> Views:
        """Prepare all rows."""
        return Views.of(self.raw, paired=self.paired)


@dataclass(frozen=True)
class Sums:
    """What ranks exchanged instead of rows.

    Attributes:
        each: moments of each view.
        rows: a random sample of each view's rows, or none.
        aligned: as `Views` has it.
    """

    each: tuple[Moments, ...]
    rows: tuple[Tensor, ...] = ()
    aligned: Tensor | None = None

    def views(self) -> Views:
        """Prepare them."""
        rows = tuple(unit_rows(view.cpu()) for view in self.rows)
        aligned = None if self.aligned is None else self.aligned.cpu()
        return Views(tuple(moments.cpu() for moments in self.each), rows, bool(rows), aligned)


class Stream:
    """Adds up a whole set of rows, batch by batch, in memory that does not grow with it.

    First and second moments are exact; for the metrics of pairs of rows a random sample is kept, drawn by a
    generator of its own. A set of at most d rows is kept whole, which is smaller than its (d, d) moments.

    Args:
        sampled: rows of each view to keep.
        seed: of the generator.

    Attributes:
        counts: rows added of each view.
        like: no rows (0, d), of the type of those added.
    """

    def __init__(self, sampled: int = ROWS_SAMPLED, *, seed: int = 0) -> None:
        self._sampled = sampled
        self.counts: list[int] = []
        self.like = torch.empty(0, 0)
        self._waiting: list[list[Tensor]] = []  # view by view, raw batches that are not yet added up
        self._moments: list[Moments | None] = []
        self._generator = torch.Generator().manual_seed(seed)
        self._keys = torch.empty(0, dtype=torch.float64)
        self._kept: Tensor | None = None  # (rows, views, d), raw
        self._uneven = False

    def add(self, views: Sequence[Tensor]) -> None:
        """Take in a batch: the rows (n, d) of each of its views."""
        for k, view in enumerate(views):
            if k == len(self._waiting):
                self._waiting.append([])
                self._moments.append(None)
                self.counts.append(0)
            self._waiting[k].append(view.detach())
            self.counts[k] += len(view)
            self.like = view[:0].detach()
            if too_many(sum(map(len, self._waiting[k])), view.shape[1]):
                self._fold(k)
        self._sample(views)

    @property
    def is_whole(self) -> bool:
        """Whether all rows are kept, since they were too few to be added up."""
        return all(moments is None for moments in self._moments)

    @property
    def whole(self) -> StepSample:
        """All rows, where they are kept."""
        return StepSample(tuple(torch.cat(waiting) for waiting in self._waiting), not self._uneven)

    @property
    def sums(self) -> list[Moments]:
        """The moments of each view."""
        for k in range(len(self._waiting)):
            self._fold(k)
        return [moments for moments in self._moments if moments is not None]

    @property
    def sample(self) -> tuple[Tensor, Tensor] | None:
        """Keys (m,), descending where not all rows are kept, and rows (m, views, d); None if pairs cannot be told."""
        return None if self._kept is None else (self._keys, self._kept)

    def views(self) -> Views:
        """Prepare what was added."""
        if self.is_whole:
            return self.whole.views()
        return Sums(tuple(self.sums), () if self._kept is None else self._kept.unbind(1)).views()

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


Sample = StepSample | Stream | Sums
"""Rows that wait to be measured: ``views()`` prepares them, where time does not matter."""


def repeats(u: UnitRows) -> int:
    """Return how many valid rows repeat another to the last bit."""
    rows = u.rows[u.valid]
    # Rows are alike only if the sums of their bits are: integers, which no order of adding changes.
    sums = (rows + 0.0).view(torch.int64).sum(1)  # 0.0 makes one zero of both
    _, group, size = torch.unique(sums, return_inverse=True, return_counts=True)
    alike = rows[size[group] > 1]
    return len(alike) - len(torch.unique(alike, dim=0))
