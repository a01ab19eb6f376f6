"""What two ranks exchange for the loss: bytes that a rank sends, and time, with gloo on one machine."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

from benchmarks.curves import Cell
from benchmarks.rows import isotropic
from uniformity_callbacks.exchanges import ByRows, BySums, Exchange
from uniformity_callbacks.ranks import Ranks
from uniformity_callbacks.shapes import Shape, by_moments

_RANKS = 2

_ROUNDS, _ROUNDS_LARGE, _LARGE = 20, 5, 1 << 24
"""How often it is timed, and from so many bytes on."""

_ENTRIES = 1 << 28
"""Of all rows together; with more the two ranks' own work would need some 10 GB on this one machine."""

Place = tuple[int, int]
"""Rows of both ranks together, and dimensions."""


def measure(places: Sequence[Place]) -> tuple[list[Cell], list[Cell]]:
    """Return seconds and bytes at each place."""
    with TemporaryDirectory() as folder:
        spawn(_rank, args=(folder, places), nprocs=_RANKS)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        measured = json.loads((Path(folder) / "measured.json").read_text())
    times, sizes = [], []
    for (n, d), (seconds, bytes_) in zip(places, measured, strict=True):
        predicted = predicted_bytes(n // _RANKS, d)
        times.append(Cell(n, d, seconds, predicted))
        sizes.append(Cell(n, d, bytes_, predicted))
    return times, sizes


def predicted_bytes(n: int, d: int) -> float:
    """Return what a rank sends for its n float32 rows: these, or count, sum and products in float64."""
    return 8 * (1 + d + d**2) if _by_sums(n, d) else 4 * n * d


def _by_sums(n: int, d: int) -> bool:
    return by_moments([Shape(n, d, "float32")], _RANKS)


def _rank(rank: int, folder: str, places: Sequence[Place]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=_RANKS)
    ranks = Ranks(nn.Linear(1, 1))
    measured = [_exchange(ranks, n // _RANKS, d) for n, d in places]
    if ranks.is_first:
        (Path(folder) / "measured.json").write_text(json.dumps(measured))
    dist.destroy_process_group()


def _exchange(ranks: Ranks, n: int, d: int) -> tuple[float, float]:
    if _RANKS * n * d > _ENTRIES:
        return math.nan, math.nan
    own = isotropic(n, d)
    shapes = [Shape.of(own)]
    exchange: Exchange = BySums(ranks, shapes, {}) if _by_sums(n, d) else ByRows(ranks, shapes)
    packed = exchange.pack(torch.zeros(2, dtype=torch.float64), [own])
    times = []
    for _ in range(_ROUNDS if packed.nbytes < _LARGE else _ROUNDS_LARGE):
        dist.barrier()
        began = time.perf_counter()
        exchange.send(packed)
        times.append(time.perf_counter() - began)
    return statistics.median(times), packed.nbytes
