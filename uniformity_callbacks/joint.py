"""The Wasserstein loss of the batch of all ranks together, with its exact gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from uniformity_callbacks import closed_form
from uniformity_callbacks.exchanges import ByRows, BySums, Exchange, Rows, Whole
from uniformity_callbacks.loss import WassersteinLoss
from uniformity_callbacks.ranks import Channel, Ranks
from uniformity_callbacks.shapes import Shape, agree, by_moments, grown


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
        self._shapes: Sequence[Shape | None] | None = None  # agreed on with the first rows of any rank
        self._misfit: Tensor | None = None
        self._means: dict[int, Tensor] = {}

    def terms(self, rows: Rows) -> list[Tensor | None]:
        """Return each layer's term; one without a gradient if only other ranks have rows, None if no rank has.

        Args:
            rows: for each layer this rank's rows (n, d), None if it has none. Every rank must name as many layers.
        """
        if self._channel is None:
            return [None if z is None else self._loss.weigh(closed_form.uniformity(z), z) for z in rows]
        with torch.no_grad():
            wholes = self._wholes(self._channel, rows)
        return [None if w is None else self._term(w, z) for w, z in zip(wholes, rows, strict=True)]

    def _term(self, whole: Whole, own: Tensor | None) -> Tensor:
        trace_root, shape = whole.trace_root, whole.shape
        like = torch.empty(0, shape.d, dtype=shape.dtype, device=trace_root.device) if own is None else own
        trace_root = trace_root.to(like.device)
        if own is not None:
            gradient = torch.zeros_like(own)
            if sent := len(whole.gradient):  # of another dimension than agreed none were
                gradient[:sent] = whole.gradient
            trace_root = _Known.apply(own, trace_root, gradient)  # type: ignore[no-untyped-call]
        return self._loss.weigh(closed_form.distance(torch.ones_like(trace_root), trace_root, like.shape[1]), like)

    def _wholes(self, channel: Channel, rows: Rows) -> list[Whole | None]:
        """Return what each layer's rows are part of; one collective but where the ranks must agree on shapes anew.

        An accelerator is not waited for: there a rank sends what has room, and all make more at the next call.

        Raises:
            Exception: what kept this rank from sending or from using what it got; the other ranks go on without it.
        """
        ranks = channel.ranks
        late = not ranks.answers_at_once and self._misfit is not None and bool(self._misfit)
        shapes = self._agree(channel, rows) if late or self._shapes is None else self._shapes
        while any(shapes):
            sums = by_moments(shapes, ranks.size)
            exchange = BySums(ranks, shapes, self._means) if sums else ByRows(ranks, shapes)
            head, packed, failure = self._packed(exchange, rows)
            got = exchange.send(packed)
            told = exchange.head(got, len(head))
            self._misfit = told[0].clone()  # a view would keep all that was got
            if ranks.answers_at_once and bool(self._misfit):
                shapes = self._agree(channel, rows)
                continue
            exchange.remember(got, len(head))
            if failure is not None:
                raise failure
            # A rank that has rows knows, without waiting for the device, that they were seen.
            seen = [z is not None or bool(told[1 + k]) for k, z in enumerate(rows)]
            wholes = exchange.wholes(got, len(head), rows)
            return [whole if see else None for whole, see in zip(wholes, seen, strict=True)]
        return [None] * len(rows)

    @staticmethod
    def _packed(exchange: Exchange, rows: Rows) -> tuple[Tensor, Tensor, Exception | None]:
        """Return the head (whether rows do not fit, and how many there are of each layer) and what is sent."""
        try:
            pairs = [(shape, z) for shape, z in zip(exchange.shapes, rows, strict=True) if z is not None]
            fit = all(shape is not None and exchange.fits(shape, z) for shape, z in pairs)
            head = torch.tensor([float(not fit), *(0.0 if z is None else len(z) for z in rows)], dtype=torch.float64)
            return head, exchange.pack(head, rows), None
        except Exception as error:  # out of memory, say; the others wait for this rank
            head = torch.zeros(1 + len(rows), dtype=torch.float64)
            return head, exchange.pack(head, [None] * len(rows)), error

    def _agree(self, channel: Channel, rows: Rows) -> Sequence[Shape | None]:
        messages, _ = channel.gather({"layers": [None if z is None else Shape.of(z) for z in rows]})
        told = [[None if shape is None else Shape(*shape) for shape in message["layers"]] for message in messages]
        shapes = agree(told) if self._shapes is None else grown(agree(told), self._shapes)
        self._shapes = shapes if any(shapes) else None
        return shapes


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
