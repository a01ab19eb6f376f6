"""What ranks exchange, message by message: of any length, from any rank, and never one rank alone."""

import torch
from torch import nn

from spread import spread
from uniformity_callbacks.ranks import Channel, Ranks
from uniformity_callbacks.shapes import Shape, pack, unpack


def told(rank):
    """Messages that outgrow the room, now of one rank and now of the other, by one byte more each time."""
    out = []
    for k in range(4):
        rows_of, sums_of = (Channel(Ranks.of(nn.Linear(2, 2))) for _ in range(2))
        for longest in (0, 1):
            message = {"text": "x" * (3000 * (1 + longest) + k if rank == longest else k)}
            rows = torch.full((3 + rank, 5), 0.5 + rank, dtype=torch.float64)
            shapes = [Shape(3 + rank, 5, "float64") for rank in range(2)]
            messages, bodies = rows_of.gather(message, pack([(Shape.of(rows), rows)], torch.device("cpu")))
            got = [unpack(body, [shape])[0] for body, shape in zip(bodies, shapes, strict=True)]
            others, total = sums_of.total(message, rows[0])
            assert others == messages
            lengths = [len(told["text"]) for told in messages]
            out.append((lengths, [(z.shape, z.unique().tolist()) for z in got], total.tolist()))
    return out


def test_messages_of_any_length_from_any_rank_with_rows_behind_them():
    rows = [((3, 5), [0.5]), ((4, 5), [1.5])]
    expected = [(lengths, rows, [2.0] * 5) for k in range(4) for lengths in ([3000 + k, k], [k, 6000 + k])]
    assert spread(2, told) == [expected] * 2
