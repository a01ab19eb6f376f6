"""What all ranks streamed over a validation epoch put together on the first of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from uniformity_callbacks.gathered import Gathered
from uniformity_callbacks.moments import Moments
from uniformity_callbacks.pool import prepared
from uniformity_callbacks.ranks import Channel, Message, Ranks
from uniformity_callbacks.sample import ROWS_SAMPLED, Sample, StepSample, Stream, Sums, too_many
from uniformity_callbacks.shapes import NO_ROWS, Shape, pack, unpack

_SPREAD = 6.0
"""Standard deviations by which a rank's part of a random sample may exceed its share of all rows."""


@dataclass(frozen=True)
class _Layer:
    """What each rank has of one layer, as it told the others; the same on all ranks.

    Attributes:
        told: by rank: ``views`` (rows of each), ``d``, ``kind``, ``whole`` (all rows are kept), ``kept`` (rows of the
            random sample, None if pairs cannot be told), ``paired``.
    """

    told: tuple[dict[str, Any], ...]

    @property
    def having(self) -> list[dict[str, Any]]:
        """Those that have rows."""
        return [told for told in self.told if told["views"]]

    @property
    def whole(self) -> bool:
        """Whether all rows are exchanged: no rank has begun to add them up, nor would one rank with all of them."""
        most = max((sum(views) for views in zip_longest(*(t["views"] for t in self.having), fillvalue=0)), default=0)
        return all(told["whole"] and not too_many(most, told["d"]) for told in self.having)

    @property
    def paired(self) -> bool:
        """Whether row i of each view is of the same image on every rank."""
        return all(told["paired"] for told in self.having) and len({len(told["views"]) for told in self.having}) == 1

    @property
    def sums(self) -> list[int]:
        """The dimension of each view that is added up, none if all rows are exchanged."""
        return [] if self.whole else [self.having[0]["d"]] * max(len(told["views"]) for told in self.having)

    def shapes(self, rank: int) -> list[Shape]:
        """Return those of what a rank sends: rows view by view, or keys and rows of its part of the random sample."""
        told = self.told[rank]
        if self.whole:
            return [Shape(n, told["d"], told["kind"]) for n in told["views"]]
        if not (self.paired and told["views"]):
            return []
        everything = sum(other["views"][0] for other in self.having)
        share = ROWS_SAMPLED * told["views"][0] / everything
        part = math.ceil(share + _SPREAD * math.sqrt(share)) if everything > ROWS_SAMPLED else told["kept"]
        kept = min(part, told["kept"])
        return [Shape(kept, 1, "float64"), Shape(kept, len(told["views"]) * told["d"], told["kind"])]


class EpochPool:
    """Exchanges a validation epoch between ranks in at most three collectives: sizes, rows, sums.

    Args:
        ranks: who they are.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._sizes, self._rows, self._sums = Channel(ranks), Channel(ranks), Channel(ranks)

    def pool(self, gathered: Sequence[Gathered]) -> list[Gathered]:
        """Return what all ranks streamed of each layer that any has called; samples only on the first rank.

        Args:
            gathered: this rank's, each with a `Stream` or without a sample.

        Raises:
            ValueError: a layer's outputs are of different dimension or type on different ranks.
            RuntimeError: what this rank has could not be sent; the others go on without it.
        """
        streams = [g.sample if isinstance(g.sample, Stream) else None for g in gathered]
        messages, _ = self._sizes.gather({"layers": [_tell(stream) for stream in streams]})
        layers = [_Layer(tuple(message["layers"][k] for message in messages)) for k in range(len(streams))]
        for layer, g in zip(layers, gathered, strict=True):
            if len(kinds := {(told["d"], told["kind"]) for told in layer.having}) > 1:
                raise ValueError(f"{g.layer} must have outputs of one dimension and type on all ranks, got {kinds}")
        rank, device = self._ranks.rank, self._ranks.device
        message: Message = {"layers": [], "trouble": ""}
        message, body, failed = prepared(message, partial(_send, layers, streams, rank, device), NO_ROWS)
        if failed:  # all or nothing: what was said to be missing is not added up
            streams = [None] * len(streams)
        messages, bodies = self._rows.gather(message, body)
        total = None
        if lengths := [Moments.length(d) for layer in layers for d in layer.sums]:
            nothing = torch.zeros(sum(lengths), dtype=torch.float64)
            message, vector, _ = prepared(message, partial(_add_up, layers, streams, device), nothing)
            messages, total = self._sums.total(message, vector)
        if message["trouble"]:
            raise RuntimeError(message["trouble"])
        troubles = [message["trouble"] for message in messages]
        if self._ranks.is_first:
            return self._merged(gathered, layers, bodies, total, troubles)
        return [
            Gathered(g.layer, None, elsewhere=True) for g, layer in zip(gathered, layers, strict=True) if layer.having
        ]

    def _merged(
        self,
        gathered: Sequence[Gathered],
        layers: Sequence[_Layer],
        bodies: Sequence[Tensor],
        total: Tensor | None,
        troubles: Sequence[str],
    ) -> list[Gathered]:
        sums = iter([] if total is None else torch.split(total, [Moments.length(d) for la in layers for d in la.sums]))
        bodies = [body[:0] if trouble else body for body, trouble in zip(bodies, troubles, strict=True)]
        sent = [self._received(body, layers, rank) for rank, body in enumerate(bodies)]
        merged = []
        for k, (g, layer) in enumerate(zip(gathered, layers, strict=True)):
            rows = [parts[k] for parts in sent if parts[k]]
            each = tuple(Moments.unflatten(next(sums), d) for d in layer.sums)
            sample: Sample | None = None
            came = any(told["views"] and not trouble for told, trouble in zip(layer.told, troubles, strict=True))
            if came and layer.whole:
                sample = StepSample(StepSample.of(rows).raw, layer.paired)
            elif came:
                sample = Sums(each, _draw(rows, len(each)))
            reasons = [
                trouble or ("" if told["views"] else "no rows")
                for trouble, told in zip(troubles, layer.told, strict=True)
            ]
            why = "; ".join(f"rank {rank} brought nothing: {reason}" for rank, reason in enumerate(reasons) if reason)
            merged.append(Gathered(g.layer, sample, {}, why))
        return merged

    @staticmethod
    def _received(body: Tensor, layers: Sequence[_Layer], rank: int) -> list[list[Tensor]]:
        """Return what a rank sent of each layer; nothing of any if it failed."""
        shapes = [layer.shapes(rank) for layer in layers]
        parts = iter(unpack(body, [shape for layer in shapes for shape in layer]) if len(body) else ())
        return [[next(parts) for _ in layer] if len(body) else [] for layer in shapes]


def _tell(stream: Stream | None) -> dict[str, Any]:
    if stream is None:
        return {"views": [], "d": 0, "kind": "", "whole": True, "kept": 0, "paired": True}
    shape, sample = Shape.of(stream.like), stream.sample
    told = {"views": stream.counts, "d": shape.d, "kind": shape.kind, "whole": stream.is_whole}
    return {**told, "kept": 0 if sample is None else len(sample[0]), "paired": sample is not None}


def _send(layers: Sequence[_Layer], streams: Sequence[Stream | None], rank: int, device: torch.device) -> Tensor:
    """Return this rank's rows of each layer, as `_Layer.shapes` has them."""
    parts: list[tuple[Shape, Tensor | None]] = []
    for layer, stream in zip(layers, streams, strict=True):
        if stream is not None and (shapes := layer.shapes(rank)):
            rows = stream.whole.raw if layer.whole else _part(stream, shapes[0].n)
            parts += zip(shapes, rows, strict=True)
    return pack(parts, device)


def _part(stream: Stream, n: int) -> tuple[Tensor, Tensor]:
    assert stream.sample is not None, "there is one where the views are paired"
    keys, rows = stream.sample
    keys, chosen = keys.topk(n)
    return keys[:, None], rows[chosen.to(rows.device)].flatten(1)


def _draw(parts: Sequence[Sequence[Tensor]], views: int) -> tuple[Tensor, ...]:
    """Return the random sample of the rows of all ranks, view by view: those with the largest keys."""
    if not parts:
        return ()
    keys, rows = (torch.cat(part) for part in zip(*parts, strict=True))
    chosen = keys[:, 0].topk(min(len(keys), ROWS_SAMPLED)).indices
    return rows[chosen].view(len(chosen), views, -1).unbind(1)


def _add_up(layers: Sequence[_Layer], streams: Sequence[Stream | None], device: torch.device) -> Tensor:
    """Return this rank's sums of each view of the layers that are not exchanged whole."""
    sums: list[Moments] = []
    for layer, stream in zip(layers, streams, strict=True):
        if dims := layer.sums:
            own = [] if stream is None else stream.sums
            sums += own + [Moments.zeros(d) for d in dims[len(own) :]]
    return torch.cat([moments.flat.to(device) for moments in sums])
