"""Calls of a layer in a batch that a loop has given up before backward: its loss was not finite, say."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from torch import Tensor
from torch.autograd.graph import Node


class GivenUp:
    """Tells them from the calls of the batch that is trained on.

    A plain loop that leaves a batch without a backward does not say so, and what the layer put out is there with the
    next batch's when that one's loss comes. Then there are more calls than usual, and the loss was not computed from
    all of them. As many as usual stay in any case: a loss need not use every view.
    """

    def __init__(self) -> None:
        self._usual: int | None = None  # the least calls of a pass so far

    def without(self, calls: list[list[Tensor]], loss: Tensor) -> list[list[Tensor]]:
        """Return the calls but the earliest of those that are more than usual and have no part in the loss.

        Before the first pass nobody knows what is usual: all go that have no part in the loss if any of them is not
        finite. Where the loss reaches none of the calls, or they have no graph, nothing is known and all stay.

        Args:
            calls: copies (n, d) of what the layer put out, with their graph, those of one call in a list.
            loss: the loss of the batch that is trained on.
        """
        if not calls:
            return calls
        if self._usual is None:
            lost = _apart(calls, loss)
            if all(bool(part.isfinite().all()) for k in lost for part in calls[k]):
                lost, self._usual = [], len(calls)
        else:
            more = len(calls) - self._usual
            lost = _apart(calls, loss)[:more] if more > 0 else []
            self._usual = min(self._usual, len(calls) - len(lost))
        return [call for k, call in enumerate(calls) if k not in lost]


def _apart(calls: list[list[Tensor]], loss: Tensor) -> list[int]:
    """Return which calls have no part in the loss; none if that cannot be known."""
    sources = [_source(call) for call in calls]
    found = reached(loss, [source for source in sources if source is not None])
    known = found and None not in sources
    return [k for k, source in enumerate(sources) if source not in found] if known else []


def _source(call: list[Tensor]) -> Node | None:
    """Return what computed an output of which the call holds a copy, or the parts of one."""
    node = call[0].grad_fn
    while node is not None and node.name() != "CloneBackward0":
        node = node.next_functions[0][0] if node.next_functions else None
    return None if node is None else node.next_functions[0][0]


def reached(loss: Tensor, nodes: Sequence[Node]) -> set[Node]:
    """Return those of the nodes of the autograd graph that a loss was computed from."""
    wanted, found = set(nodes), set[Node]()
    seen: set[Node] = set()  # the nodes themselves: the number of one that is let go of may become another's
    # Nearest first: outputs of a layer are closer to the loss than all that is before them.
    queue = deque([] if loss.grad_fn is None else [loss.grad_fn])
    while queue and found != wanted:
        node = queue.popleft()
        if node in seen:
            continue
        seen.add(node)
        if node in wanted:
            found.add(node)
        queue.extend(after for after, _ in node.next_functions if after is not None)
    return found
