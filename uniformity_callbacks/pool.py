"""What all ranks gathered at a due step put together, and what the first of them has read told to all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from uniformity_callbacks import pairwise
from uniformity_callbacks.gathered import Gathered
from uniformity_callbacks.moments import Moments
from uniformity_callbacks.ranks import LONGEST_REASON, Channel, Message, Ranks, in_words
from uniformity_callbacks.reader import Outcome
from uniformity_callbacks.sample import StepSample, Sums
from uniformity_callbacks.shapes import NO_ROWS, Shape, agree, by_moments, grown, pack, unpack
from uniformity_callbacks.unit_rows import UnitRows, unit_rows

NEEDS_ROWS = frozenset({"lu"})
"""Metrics of pairs of rows of different ranks, which no sums tell."""


@dataclass(frozen=True)
class Pooled:
    """What every rank knows after a due step's exchange.

    Attributes:
        gathered: layer by layer, of all ranks; the samples only on the first rank, which reads them.
        outcomes: readings that the first rank has finished.
        waits: whether the reading is to be told at once.
        fatal: what is to end the run on all ranks, in words, or None.
        error: what kept this rank from sending its rows, or from taking what all sent, or None.
    """

    gathered: list[Gathered]
    outcomes: list[Outcome]
    waits: bool
    fatal: str | None
    error: Exception | None = None


class Pool:
    """Exchanges a due step between ranks: one collective, but where they must agree on shapes anew.

    Rows are exchanged as the layer gave them; or the moments of each view, where these are the cheaper exchange and no
    metric needs rows.

    Args:
        ranks: who they are.
        metrics: names of the metrics that are computed.
        scope: "global", or "rank", where the first rank reads its own rows and only tells of the readings.
    """

    def __init__(self, ranks: Ranks, *, metrics: Sequence[str], scope: str) -> None:
        self.ranks, self.shares = ranks, scope == "global"
        self._rows_only = not NEEDS_ROWS.isdisjoint(metrics)
        self._steps, self._words = Channel(ranks), Channel(ranks)
        self._shapes: list[list[Shape]] | None = None  # of each layer its views, agreed on with the first rows

    def step(self, gathered: Sequence[Gathered], outcomes: Sequence[Outcome], state: Message) -> Pooled:
        """Return what all ranks bring to a due step.

        Args:
            gathered: this rank's, layer by layer.
            outcomes: readings that this rank has finished: the first rank's are told to all.
            state: ``trouble``, what went wrong on this rank, in words, or None; ``fatal``, whether that is to end the
                run; ``waits``, whether the reading is to be told at once.
        """
        own = [g.sample.raw if self.shares and isinstance(g.sample, StepSample) else () for g in gathered]
        layers = [_tell(g, views) for g, views in zip(gathered, own, strict=True)]
        message = {**state, "layers": layers, "outcomes": [outcome.to_plain() for outcome in outcomes]}
        messages, join, error = self._exchange(message, own)
        samples: list[StepSample | Sums | None] = []
        failed = None
        try:
            _most(messages)  # raises, if at all, on all ranks
            samples = join() if self.ranks.is_first else []
        except Exception as caught:
            failed = caught
        merged = [self._merged(k, g, messages, samples, failed) for k, g in enumerate(gathered)]
        # From here on ranks do the same only by what all of them have heard, whatever became of it on one.
        heard = [layer["seen"] for told in (messages if self.shares else messages[:1]) for layer in told["layers"]]
        waits = messages[0]["waits"] or not any(heard)
        return Pooled(merged, _outcomes(messages), waits, _fatal(messages), error or failed)

    def begin(self, state: Message) -> tuple[str | None, Message]:
        """Return what is to end the run, in words, and the first rank's ``memory``; else ``state`` is as for `step`."""
        messages, _ = self._words.gather(state)
        return _fatal(messages), messages[0]["memory"]

    def outcomes(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Return the readings that the first rank has finished, on all ranks."""
        messages, _ = self._words.gather({"outcomes": [outcome.to_plain() for outcome in outcomes]})
        return _outcomes(messages)

    def presence(self, gathered: Sequence[Gathered]) -> list[Gathered]:
        """Return what the first rank gathered, of the layers that it has seen; on the others without its samples."""
        messages, _ = self._words.gather({"layers": [_tell(g, ()) for g in gathered]})
        merged = [self._merged(k, g, messages, []) for k, g in enumerate(gathered)]
        return [g for g in merged if g.seen]

    def _agree(self, messages: Sequence[Message]) -> None:
        """Take the shapes that hold those of all ranks, and those agreed on before; none if the ranks differ."""
        try:
            shapes = _most(messages, self._shapes)
        except ValueError:  # said by `step`
            shapes = []
        self._shapes = shapes if any(shapes) else None

    def _exchange(
        self, message: Message, own: Sequence[tuple[Tensor, ...]]
    ) -> tuple[list[Message], Callable[[], list[StepSample | Sums | None]], Exception | None]:
        """Return the messages, what makes the sample of all ranks of each layer, and why this rank sent nothing."""
        error = None
        if self.shares and self._shapes is None:
            self._agree(self._steps.gather(message)[0])
        while (shapes := self._shapes) is not None and self._by_sums(shapes):
            nothing = torch.zeros(sum(sum(_lengths(views)) for views in shapes), dtype=torch.float64)
            message, vector, failed = prepared(message, partial(_add_up, own, shapes, self.ranks.device), nothing)
            if failed:  # nothing in a second try, either: that is what the message says
                own, error = [()] * len(own), failed
            messages, total = self._steps.total(message, vector)
            told = [pair for message in messages for pair in zip(message["layers"], shapes, strict=True)]
            if all(_within(_shapes(layer), agreed) for layer, agreed in told):
                return messages, partial(_split, total, shapes, messages), error
            self._agree(messages)
        parts = [(Shape.of(view), view) for views in own for view in views]
        message, body, failed = prepared(message, partial(pack, parts, self.ranks.device), NO_ROWS)
        messages, bodies = self._steps.gather(message, body)
        return messages, partial(_join, messages, bodies), error or failed

    def _by_sums(self, shapes: Sequence[Sequence[Shape]]) -> bool:
        return not self._rows_only and by_moments([shape for views in shapes for shape in views], self.ranks.size)

    def _merged(
        self,
        k: int,
        own: Gathered,
        messages: Sequence[Message],
        samples: Sequence[StepSample | Sums | None],
        failed: Exception | None = None,
    ) -> Gathered:
        told = [message["layers"][k] for message in (messages if self.shares else messages[:1])]
        seen = [layer["seen"] for layer in told]
        name = next((layer["name"] for layer in told if layer["seen"]), told[0]["name"])
        reasons = [message.get("trouble") or layer["why"] for message, layer in zip(messages, told, strict=False)]
        if failed is not None:
            return Gathered(name, None, own.extras, in_words(failed))
        if not any(seen):
            return Gathered(name, None, own.extras, reasons[0])
        why = "; ".join(f"rank {rank} brought nothing: {reasons[rank]}" for rank in range(len(told)) if not seen[rank])
        if not self.ranks.is_first:
            return Gathered(name, None, own.extras, why, elsewhere=True)
        return Gathered(name, samples[k] if self.shares else own.sample, own.extras, why)


def _fatal(messages: Sequence[Message]) -> str | None:
    return "; ".join(f"rank {rank}: {told['trouble']}" for rank, told in enumerate(messages) if told["fatal"]) or None


def _outcomes(messages: Sequence[Message]) -> list[Outcome]:
    return [Outcome.from_plain(plain) for plain in messages[0]["outcomes"]]


def _tell(gathered: Gathered, views: Sequence[Tensor]) -> dict[str, Any]:
    """Return what others must know of a layer before its rows can be read."""
    paired = isinstance(gathered.sample, StepSample) and gathered.sample.paired
    shapes = [Shape.of(view) for view in views]
    seen, why = gathered.sample is not None, gathered.why[:LONGEST_REASON]
    return {"name": gathered.layer, "why": why, "seen": seen, "paired": paired, "shapes": shapes}


def _shapes(layer: dict[str, Any]) -> list[Shape]:
    return [Shape(*shape) for shape in layer["shapes"]]


def _most(messages: Sequence[Message], before: Sequence[Sequence[Shape]] | None = None) -> list[list[Shape]]:
    """Return for each layer and view the shape that holds that of all ranks, and those before of the same kind.

    Raises:
        ValueError: a layer has outputs of different dimension or type on different ranks.
    """
    told = [[_shapes(layer) for layer in message["layers"]] for message in messages]
    most = []
    for layer in zip(*told, strict=True):
        count = max(map(len, layer))
        most.append(agree([[*views, *[None] * (count - len(views))] for views in layer]))
    if before is not None:
        most = [grown(*layer) for layer in zip(most, before, strict=True)]
    return [[view for view in views if view is not None] for views in most]


def _within(views: Sequence[Shape], agreed: Sequence[Shape]) -> bool:
    """Whether sums of the views have the agreed shapes."""
    return len(views) <= len(agreed) and all(a[1:] == b[1:] for a, b in zip(views, agreed, strict=False))


def _paired(told: Sequence[dict[str, Any]]) -> bool:
    """Whether row i of each view is of the same image once the ranks' rows are joined."""
    return all(layer["paired"] for layer in told) and len({len(layer["shapes"]) for layer in told}) == 1


def _layers(messages: Sequence[Message]) -> list[list[dict[str, Any]]]:
    """Return what the ranks that have rows told of each layer."""
    by_layer = zip(*(message["layers"] for message in messages), strict=True)
    return [[layer for layer in layers if layer["shapes"]] for layers in by_layer]


def _join(messages: Sequence[Message], bodies: Sequence[Tensor]) -> list[StepSample | Sums | None]:
    """Return each layer's rows of all ranks, view by view."""
    views: list[list[list[Tensor]]] = [[] for _ in messages[0]["layers"]]
    for message, body in zip(messages, bodies, strict=True):
        rows = iter(unpack(body, [shape for layer in message["layers"] for shape in _shapes(layer)]))
        for k, layer in enumerate(message["layers"]):
            views[k].append([next(rows) for _ in layer["shapes"]])
    samples: list[StepSample | Sums | None] = []
    for ranks, told in zip(views, _layers(messages), strict=True):
        joined = StepSample.of([rank for rank in ranks if rank])
        samples.append(StepSample(joined.raw, _paired(told)) if joined.raw else None)
    return samples


def prepared(
    message: Message, prepare: Callable[[], Tensor], nothing: Tensor
) -> tuple[Message, Tensor, Exception | None]:
    """Return a message and what goes with it; if that fails, a message that says so, for the others wait for one."""
    try:
        return message, prepare(), None
    except Exception as error:
        layers = [{**layer, "shapes": [], "seen": False} for layer in message["layers"]]
        return {**message, "layers": layers, "trouble": in_words(error)}, nothing, error


def _add_up(own: Sequence[tuple[Tensor, ...]], shapes: Sequence[Sequence[Shape]], device: torch.device) -> Tensor:
    """Return this rank's sums over the rows of each view and over the distances of each pair of views."""
    parts = []
    for views, agreed in zip(own, shapes, strict=True):
        fit = _within([Shape.of(view) for view in views], agreed)
        units = [unit_rows(view) for view in views] if fit else []
        units += [unit_rows(torch.zeros(0, shape.d)) for shape in agreed[len(units) :]]
        parts += [Moments.of(u).flat for u in units]
        parts += [_distances(a, b) for a, b in combinations(units, 2)]
    return torch.cat([part.to(device) for part in parts])


def _distances(a: UnitRows, b: UnitRows) -> Tensor:
    even = len(a.rows) == len(b.rows)
    return torch.stack(pairwise.total_distance(a, b)) if even else torch.zeros(2, dtype=torch.float64)


def _lengths(views: Sequence[Shape]) -> list[int]:
    """Return how many sums there are of each view, and of their pairs."""
    return [*(Moments.length(shape.d) for shape in views), len(views) * (len(views) - 1)]


def _split(
    total: Tensor, shapes: Sequence[Sequence[Shape]], messages: Sequence[Message]
) -> list[StepSample | Sums | None]:
    """Return each layer's sums over all ranks."""
    samples: list[StepSample | Sums | None] = []
    parts = iter(torch.split(total, [length for views in shapes for length in _lengths(views)]))
    for views, told in zip(shapes, _layers(messages), strict=True):
        most = max((len(layer["shapes"]) for layer in told), default=0)  # there may have been more views before
        each = tuple(Moments.unflatten(next(parts), shape.d) for shape in views)[:most]
        pairs = [k for k, (_, b) in enumerate(combinations(range(len(views)), 2)) if b < most]
        aligned = next(parts).view(-1, 2)[pairs]
        samples.append(Sums(each, aligned=aligned if len(aligned) and _paired(told) else None) if told else None)
    return samples
