"""What a writer is, and what it remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from uniformity_callbacks.faults import Faults

Entry = tuple[Mapping[str, float], int, float]
"""A reading as a writer that takes many of them gets it: its values, its step, and when its rows were captured, in
seconds since the epoch."""


@runtime_checkable
class Writer(Protocol):
    """Anything callable with a reading's values: ``writer({"uniformity/w2": 0.71, ...}, step=50)``.

    Called on a thread of its own, one reading at a time, in order. It may also have ``open()``, called without
    arguments on the caller's thread before the first step; ``alert(alert, key)``, called on its own thread with each
    `Alert` after the reading that made it certain, and what the layer's metric keys begin with, ``uniformity/``; and
    ``close()``, called on its own thread after the last. What it raises is reported once, counted, and never reaches
    training.

    A writer to which a call is dear may have ``many(readings)`` instead of being called: with a list of one `Entry` or
    more, in order; and ``flush_secs``, from one call to the next in which readings gather. Alerts and the end of
    training do not wait for it. What it raises tells of a time in which it takes nothing: it is called again with the
    same readings until it takes them, and must bear to get one twice; what it will never take it tells by `Refused`.
    An alert that it raises on is tried three times, and readings do not wait for it. Its ``target`` is what
    ``uniformity sync --to`` calls the place, and ``store`` what the journal is to know of it, as plain values.

    A writer that is to go on where a resumed run left it may have ``state_dict()``, called on the caller's thread when
    a checkpoint is saved and not to take long, which returns dicts, lists, numbers and strings; and
    ``load_state_dict(state)``, called with it before ``open()``.
    """

    def __call__(self, values: Mapping[str, float], step: int, /) -> None:
        """Take one reading."""
        ...


def writer_states(writers: Sequence[Writer], faults: Faults) -> list[Any]:
    """Return the writers' states in their order, None for one that has none."""
    states: list[Any] = []
    for writer in writers:
        state = None
        try:
            if hasattr(writer, "state_dict"):
                state = writer.state_dict()
        except Exception as error:  # a checkpoint is worth more than what a writer wants to remember
            faults.add(f"state of the writer {name_of(writer)}", error)
        states.append(state)
    return states


def load_writer_states(writers: Sequence[Writer], states: Sequence[Any], faults: Faults) -> None:
    """Have the writers take up what `writer_states` returned, of as many as there are in both."""
    for writer, state in zip(writers, states, strict=False):
        try:
            if state is not None and hasattr(writer, "load_state_dict"):
                writer.load_state_dict(state)
        except Exception as error:  # a run must resume all the same
            faults.add(f"state of the writer {name_of(writer)}", error)


def name_of(writer: Writer) -> str:
    """Return what messages call a writer."""
    return getattr(writer, "__name__", type(writer).__name__)


class Refused(Exception):
    """Raised by a writer that takes many: some of it is never taken, all else is written.

    Args:
        message: what and why.
        count: how many values that is.
    """

    def __init__(self, message: str, count: int = 1) -> None:
        super().__init__(message)
        self.count = count
