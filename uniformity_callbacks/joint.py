"""The Wasserstein loss of the batch of all ranks together, with its exact gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from uniformity_callbacks import measures, spectrum
from uniformity_callbacks.loss import WassersteinLoss
from uniformity_callbacks.ranks import Channel, Ranks
from uniformity_callbacks.shapes import Shape, agree, by_moments, pack, unpack
from uniformity_callbacks.statistics import unit_rows


class JointLoss:
    """The terms to add to each rank's loss, so that the average of the ranks' gradients is that of the global batch's.

    Gradients are those of data parallel training, which averages over ranks: that of the global W2 with respect to a
    rank's own rows is multiplied by the number of ranks, the value is not.

    Args:
        loss: the weight.
        ranks: who they are; None for this process alone.
    """

    def __init__(self, loss: WassersteinLoss, ranks: Ranks | None = None) -> None:
        self._loss = loss
        self._channel = None if ranks is None else Channel(ranks)
        self._shapes: list[Shape | None] | None = None  # agreed on with the first rows of any rank
        self._misfit: Tensor | None = None
        self._about: dict[int, Tensor] = {}  # the mean of each layer's rows

    def terms(self, rows: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return each layer's term; one without a gradient if only other ranks have rows, None if no rank has.

        Args:
            rows: for each layer this rank's rows (n, d), None if it has none. Every rank must name as many layers.
        """
        if self._channel is None:
            return [None if z is None else self._loss.weigh(measures.w2(unit_rows(z)), z) for z in rows]
        with torch.no_grad():
            wholes = self._wholes(self._channel, rows)
        return [None if w is None else self._term(w, z) for w, z in zip(wholes, rows, strict=True)]

    def _term(self, whole: _Whole, own: Tensor | None) -> Tensor:
        like = torch.empty(0, *whole.shape[1:2], dtype=whole.shape.dtype) if own is None else own
        trace_root = whole.trace_root.to(like.device)
        if own is not None:
            gradient = torch.zeros(own.shape, dtype=torch.float64, device=own.device)
            gradient[: len(whole.polar)] = whole.polar
            trace_root = _Known.apply(unit_rows(own).rows, trace_root, gradient)  # type: ignore[no-untyped-call]
        return self._loss.weigh(measures.distance(torch.ones_like(trace_root), trace_root, like.shape[1]), like)

    def _wholes(self, channel: Channel, rows: Sequence[Tensor | None]) -> list[_Whole | None]:
        """Return what each layer's rows are part of; one collective but where the ranks must agree on shapes anew.

        An accelerator is not waited for: there a rank sends what has room, and all make more at the next call.
        """
        at_once = channel.ranks.answers_at_once
        late = not at_once and self._misfit is not None and bool(self._misfit)
        shapes = self._agree(channel, rows) if late or self._shapes is None else self._shapes
        while any(shapes):
            sums = by_moments(shapes, channel.ranks.size)
            sent = [z[:0] if sums and z is not None else z for z in rows]  # sums take as much room of any rows
            fit = all(z is None or (s is not None and s.has_room_for(z)) for s, z in zip(shapes, sent, strict=True))
            head = torch.tensor([[not fit, *(0 if z is None else len(z) for z in rows)]], dtype=torch.float64)
            exchange = self._exchange_moments if sums else self._exchange_rows
            told, wholes = exchange(channel.ranks, shapes, head, rows)
            self._misfit = told[0]
            if not (at_once and bool(self._misfit)):
                # A rank that has rows knows, without waiting for the device, that they were seen.
                seen = [z is not None or bool(told[1 + k]) for k, z in enumerate(rows)]
                return [whole if see else None for whole, see in zip(wholes, seen, strict=True)]
            shapes = self._agree(channel, rows)
        return [None] * len(rows)

    def _agree(self, channel: Channel, rows: Sequence[Tensor | None]) -> list[Shape | None]:
        messages, _ = channel.gather({"layers": [None if z is None else Shape.of(z) for z in rows]})
        told = [[None if shape is None else Shape(*shape) for shape in message["layers"]] for message in messages]
        shapes = agree(told if self._shapes is None else [*told, self._shapes])
        self._shapes = shapes if any(shapes) else None
        return shapes

    def _exchange_rows(
        self, ranks: Ranks, shapes: Sequence[Shape | None], head: Tensor, rows: Sequence[Tensor | None]
    ) -> tuple[Tensor, list[_Whole | None]]:
        parts: list[tuple[Shape, Tensor | None]] = [(Shape.of(head), head)]
        for shape, z in zip(shapes, rows, strict=True):
            if shape is not None:
                parts.append((shape, z[: shape.n] if z is not None and shape.has_room_for(z[:0]) else None))
        got = torch.stack(ranks.gather(pack(parts, ranks.device)))
        told, *layers = unpack(got, [shape for shape, _ in parts])
        wholes: list[_Whole | None] = [None] * len(rows)
        seen = [k for k, shape in enumerate(shapes) if shape is not None]
        for k, padded, (shape, sent) in zip(seen, layers, parts[1:], strict=True):
            u = unit_rows(padded.reshape(-1, shape.d))  # rows of nothing but zeros are none
            norm, inverse = spectrum.norm_and_root(spectrum.gram(u.centred))
            own = spectrum.polar_factor(u.centred, inverse)[ranks.rank * shape.n :][: 0 if sent is None else len(sent)]
            wholes[k] = _Whole.of(norm, own, u.count, ranks.size, shape)
        return told.sum(0)[0], wholes

    def _exchange_moments(
        self, ranks: Ranks, shapes: Sequence[Shape | None], head: Tensor, rows: Sequence[Tensor | None]
    ) -> tuple[Tensor, list[_Whole | None]]:
        parts, own = [head[0]], []
        for k, (shape, z) in enumerate(zip(shapes, rows, strict=True)):
            d = 0 if shape is None else shape.d
            u = unit_rows(z if z is not None and z.shape[1] == d else torch.zeros(0, d))
            # About the mean of the step before, which all ranks know: near collapse the sums would lose their digits.
            about = self._about.get(k, torch.zeros(d, dtype=torch.float64)).to(u.rows.device)
            c = torch.where(u.valid[:, None], u.rows - about, 0.0)
            parts += [u.count[None], c.sum(0), (c.T @ c).flatten()]
            own.append((u.valid[:, None], c, about))
        got = ranks.total(torch.cat([part.to(ranks.device) for part in parts]))
        told, *sums = torch.split(got, [len(part) for part in parts])
        wholes: list[_Whole | None] = []
        for k, (shape, (valid, c, about)) in enumerate(zip(shapes, own, strict=True)):
            if shape is None:
                wholes.append(None)
                continue
            count, total, products = (part.to(c.device) for part in sums[3 * k : 3 * k + 3])
            mean = total / count.clamp(min=1.0)
            scatter = products.view(shape.d, shape.d) - count * torch.outer(mean, mean)
            norm, inverse = spectrum.norm_and_root(scatter, scale=(count * mean.square().sum()).squeeze())
            self._about[k] = about + mean
            wholes.append(_Whole.of(norm, torch.where(valid, c - mean, 0.0) @ inverse, count[0], ranks.size, shape))
        return told, wholes


@dataclass(frozen=True)
class _Whole:
    """``tr S^(1/2)`` of all ranks' rows, and its gradient with respect to this rank's, times the number of ranks."""

    trace_root: Tensor
    polar: Tensor
    shape: Shape

    @classmethod
    def of(cls, norm: Tensor, polar: Tensor, count: Tensor, size: int, shape: Shape) -> _Whole:
        root = count.clamp(min=1.0).sqrt()
        return cls(norm / root, polar * (size / root), shape)


class _Known(torch.autograd.Function):
    """A value whose gradient with respect to x is known."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad * gradient, None, None
