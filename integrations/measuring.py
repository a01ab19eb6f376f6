"""A reading of embeddings on disk, in one pass and in memory that does not grow with the number of rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from uniformity_callbacks import pairwise, panel
from uniformity_callbacks.integrations import row_sample
from uniformity_callbacks.integrations.arrays import Array, ArrayError
from uniformity_callbacks.rules import COLLAPSE, NEEDS
from uniformity_callbacks.sample import ROWS_SAMPLED, Stream
from uniformity_callbacks.unit_rows import unit_rows
from uniformity_callbacks.verdict import Verdict, verdict

_NUMBERS = 1 << 20
"""Numbers read at a time: 8 MB in float64, in which they are added up."""

_COUNTED = 1 << 16
"""Different rows of which the copies are counted: of those with the largest hashes, where there are more."""


@dataclass(frozen=True)
class Measured:
    """What was found of one array, or of several that are views of the same images.

    Attributes:
        arrays: a view each.
        reading: its metrics, those that the verdict reads among them.
        repeated: rows that repeat another of their view to the last bit; exact up to 65,536 different rows of a view,
            else estimated from as many.
        sampled: rows of each view that L_U is of, where that is not all of them.
        verdict: on collapse.
    """

    arrays: tuple[Array, ...]
    reading: panel.Reading
    repeated: int
    sampled: int | None
    verdict: Verdict

    @property
    def rows(self) -> int:
        """Rows of each view."""
        return self.arrays[0].shape[0]

    @property
    def zero(self) -> int:
        """Rows of all views that were left out since they have no direction."""
        values = self.reading.values
        return self.rows * len(self.arrays) - int(values["samples"] + values["nonfinite"])


def measure(
    arrays: Sequence[Array],
    metrics: Sequence[str] = tuple(panel.METRICS),
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Measured:
    """Return the metrics of all rows of an array, or of several that are views of the same images, row for row.

    First and second moments, and the distances between views, are exact over all rows; L_U is of a random sample of
    `ROWS_SAMPLED` rows of each view where there are more. Arrays of fewer rows than features, or than 1024, are kept
    whole.

    Args:
        arrays: each (n, d).
        metrics: of `panel.METRICS`; those that the verdict needs are computed besides.
        progress: told now and then how many rows of how many are read.

    Raises:
        ArrayError: a file cannot be read, or the views differ in shape.
    """
    if len({array.shape for array in arrays}) > 1:
        shapes = " and ".join(f"{array.shape} of {array}" for array in arrays)
        raise ArrayError(f"views must have one shape, got {shapes}; row i of each is of one image")
    (rows, d), stream, done = arrays[0].shape, Stream(), 0
    copies = [_Copies(d) for _ in arrays]
    distances = torch.zeros(2, dtype=torch.float64)
    size = min(max(1, _NUMBERS // d), _COUNTED)
    for blocks in zip(*(array.blocks(size) for array in arrays), strict=True):
        stream.add(blocks)
        for counted, block in zip(copies, blocks, strict=True):
            counted.add(block)
        if len(blocks) == 2:
            distances += torch.stack(pairwise.total_distance(*map(unit_rows, blocks)))
        progress(done := done + len(blocks[0]), rows)
    views = stream.views()
    if len(arrays) == 2:
        views = replace(views, aligned=distances[None])
    needed = (name for kind in COLLAPSE for name in NEEDS[kind])
    values = panel.measure(views, tuple(dict.fromkeys([*metrics, *needed])))
    reading = panel.Reading(0, " and ".join(map(str, arrays)), d, values, time.time(), stage="val")
    share = sum(counted.share for counted in copies) / len(copies)
    sampled = None if rows <= ROWS_SAMPLED or stream.is_whole else ROWS_SAMPLED
    return Measured(tuple(arrays), reading, round(share * values["samples"]), sampled, verdict(reading, repeated=share))


class _Copies:
    """Counts how often rows repeat, by their hashes."""

    def __init__(self, d: int) -> None:
        self._sample = row_sample.empty(_COUNTED, 0)
        draw = torch.Generator().manual_seed(0)
        self._factors = torch.randint(-(1 << 62), 1 << 62, (d,), generator=draw) * 2 + 1

    def add(self, block: Tensor) -> None:
        peak = block.abs().amax(1)
        valid = peak.isfinite() & (peak >= torch.finfo(block.dtype).tiny)
        rows = block if bool(valid.all()) else block[valid]
        bits = (rows.to(torch.float64) + 0.0).view(torch.int64)  # 0.0 makes one zero of both
        # Two sums stand for a row: hashing each of its numbers would take as long as their moments do.
        sums = torch.stack([bits.sum(1), (bits * self._factors).sum(1)], dim=1)
        keys = row_sample.keys(sums.view(torch.float64))
        self._sample = row_sample.keep(
            torch.cat([self._sample, torch.stack([keys, torch.ones_like(keys)], dim=1)]), _COUNTED
        )

    @property
    def share(self) -> float:
        """Of the rows, how many repeat another."""
        counts = self._sample[:, 1]
        rows = float(counts.sum())
        return 1.0 - float((counts > 0).sum()) / rows if rows else 0.0
