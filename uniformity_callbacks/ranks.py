"""The ranks that train together, and the collectives by which they tell each other what they have.

Every rank makes the same calls in the same order; what a rank could not do travels inside. A call is one collective of
a fixed shape, repeated only where a rank has more to tell than there was room for: then all see it, and make room.
"""

from __future__ import annotations

import json
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_LENGTHS = 16
"""Bytes before a message: its length and that of the body, as int64."""

_FIRST_ROOM = 2048
"""Bytes for a message at first: one of a step with a layer or two."""

LONGEST_REASON = 1000
"""Characters of an error that others are told: some carry kilobytes, and room for a message is kept for good."""

_LET_GO_S = 1.0
"""What gloo's threads have at the end; they need well under a millisecond where there is a processor for them."""

Message = dict[str, Any]
"""Plain values by name."""


class Ranks:
    """The processes of a torch.distributed group.

    Args:
        model: what they train; its device is the group's, unless the backend works on the CPU alone.
        group: the process group, None for the default one.

    Attributes:
        size: how many they are.
        rank: the number of this one.
    """

    def __init__(self, model: nn.Module, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.size, self.rank = dist.get_world_size(group), dist.get_rank(group)
        self._model, self._on_cpu = model, dist.get_backend(group) in ("gloo", "mpi")
        self._lent: list[Tensor] = []  # what gloo's threads may hold

    @classmethod
    def of(cls, model: nn.Module, group: dist.ProcessGroup | None = None) -> Ranks | None:
        """Return the ranks that train a model, or None if this process trains alone."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) < 2:
            return None
        return cls(model, group)

    @property
    def is_first(self) -> bool:
        """Whether this is the one that reads and writes."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where the collectives' tensors must be; asked anew each time, for a model may be moved after `attach`."""
        places = () if self._on_cpu else (parameter.device for parameter in self._model.parameters())
        return next((place for place in places if place.type != "cpu"), torch.device("cpu"))  # parts may be offloaded

    @property
    def answers_at_once(self) -> bool:
        """Whether a result can be looked at without waiting for a device."""
        return self.device.type == "cpu"

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks, which have one shape."""
        slots = [torch.empty_like(tensor) for _ in range(self.size)]
        *others, own = self._lend(*slots, tensor)
        dist.all_gather(others, own, group=self.group)
        return slots

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks, in place."""
        (own,) = self._lend(tensor)
        dist.all_reduce(own, group=self.group)
        return tensor

    def let_go(self) -> None:
        """Wait until no thread of gloo's holds a tensor of ours: at the end of the run, for all but a second at most.

        They drop a collective's tensors a little after it has returned. If they are the last to hold them and the
        interpreter has begun to end, the process is aborted (pytorch issue 190489): with two busy cores, the last
        exchange of a loop that ended right after it did that in one process of dozens.
        """
        deadline = time.monotonic() + _LET_GO_S
        while _held(self._lent) and time.monotonic() < deadline:
            time.sleep(0.001)

    def _lend(self, *tensors: Tensor) -> list[Tensor]:
        """Return the tensors as objects that only the backend and this one hold."""
        lent = [tensor.detach() for tensor in tensors]
        if tensors[0].device.type == "cpu":
            self._lent = _held(self._lent) + lent
        return lent


_uses = getattr(Tensor, "_use_count", None)
"""How many hold a tensor; not documented, so that a torch may be without it: then nothing is waited for."""


def _held(tensors: list[Tensor]) -> list[Tensor]:
    return [] if _uses is None else [tensor for tensor in tensors if _uses(tensor) > 1]


class Channel:
    """Messages between ranks, with rows or sums; remembers how much room they need.

    Args:
        ranks: between whom.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._room, self._body = _FIRST_ROOM, 0

    def gather(self, message: Message, body: Tensor | None = None) -> tuple[list[Message], list[Tensor]]:
        """Return the messages and bodies of all ranks.

        Args:
            message: plain values.
            body: bytes, uint8 (m,); the ranks' may differ in length.
        """
        text = _encode(message)
        body = torch.empty(0, dtype=torch.uint8) if body is None else body
        while True:
            head = torch.zeros(_LENGTHS + self._room, dtype=torch.uint8)
            head[:_LENGTHS] = torch.tensor([len(text), len(body)]).view(torch.uint8)
            fits = text[: self._room]
            head[_LENGTHS : _LENGTHS + len(fits)] = torch.frombuffer(bytearray(fits), dtype=torch.uint8)
            packed = torch.zeros(len(head) + self._body, dtype=torch.uint8, device=self.ranks.device)
            packed[: len(head)] = head
            packed[len(head) :][: len(body)] = body[: self._body]
            slots = self.ranks.gather(packed)
            heads = torch.stack([slot[: len(head)] for slot in slots]).cpu()  # one transfer
            lengths = heads[:, :_LENGTHS].contiguous().view(torch.int64)
            longest, largest = lengths.amax(0).tolist()
            if longest <= self._room and largest <= self._body:
                bodies = [slot[len(head) :][: int(m)] for slot, (_, m) in zip(slots, lengths, strict=True)]
                texts = [head[_LENGTHS:][: int(n)] for head, (n, _) in zip(heads, lengths, strict=True)]
                return [_decode(text.numpy().tobytes()) for text in texts], bodies
            self._make_room(longest, largest)

    def total(self, message: Message, vector: Tensor) -> tuple[list[Message], Tensor]:
        """Return the messages of all ranks and the sum of their vectors.

        Args:
            message: plain values.
            vector: float64 (m,), as long on all ranks.
        """
        text = _encode(message)
        while True:
            # Each rank's message has a place of its own, where the others add nothing: one number for each byte.
            places = torch.zeros(self.ranks.size, 1 + self._room, dtype=torch.float64)
            fits = torch.frombuffer(bytearray(text[: self._room]), dtype=torch.uint8)
            places[self.ranks.rank, 0] = len(text)
            places[self.ranks.rank, 1 : 1 + len(fits)] = fits.to(torch.float64)
            packed = torch.cat([places.flatten().to(self.ranks.device), vector.to(self.ranks.device)])
            packed = self.ranks.total(packed)
            places = packed[: places.numel()].cpu().view(places.shape)
            longest = int(places[:, 0].amax())
            if longest <= self._room:
                texts = [place[1:][: int(place[0])].to(torch.uint8).numpy().tobytes() for place in places]
                return [_decode(text) for text in texts], packed[places.numel() :]
            self._make_room(longest, 0)

    def _make_room(self, message: int, body: int) -> None:
        """Messages vary by a few digits and an alert's text: twice what was needed. Bodies do not."""
        if message > self._room:
            self._room = -(-2 * message // 8) * 8  # bodies come after it, and are viewed as numbers of up to 8 bytes
        self._body = max(self._body, body)


def in_words(error: Exception) -> str:
    """Return what other ranks are told of an error."""
    return f"{type(error).__name__}: {error}"[:LONGEST_REASON]


def _encode(message: Message) -> bytes:
    return json.dumps(message, default=_plain).encode()


def _plain(value: Any) -> Any:
    """Return what JSON has for a value that is none of its own: others wait for the message, whatever is in it."""
    try:
        return value.item()  # a number of NumPy's, as a threshold or step may be
    except Exception:
        return repr(value)


def _decode(text: bytes) -> Message:
    message: Message = json.loads(text)
    return message
