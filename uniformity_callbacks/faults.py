"""Errors of ours that are kept from training: the first of each kind is reported, all are counted."""

from __future__ import annotations

import logging

from uniformity_callbacks.masking import masked

log = logging.getLogger("uniformity_callbacks")


class Faults:
    """A counter that speaks once for each kind of fault, so that one kind does not silence another.

    Args:
        subject: what the reports begin with.

    Attributes:
        count: errors so far, of all kinds.
        subject: what the reports begin with.
    """

    def __init__(self, subject: str) -> None:
        self.count = 0
        self.subject = subject
        self._told: set[str] = set()

    def add(self, kind: str, error: BaseException | str, *, step: int | None = None, times: int = 1) -> None:
        """Count an error, of so many values, and log a warning if it is the first of its kind."""
        self.count += times
        if kind not in self._told:
            self._told.add(kind)
            at = "" if step is None else f" at step {step}"
            why = error if isinstance(error, str) else in_words(error)
            log.warning("%s: %s%s: %s; training goes on, more of it is only counted", self.subject, kind, at, why)


def in_words(error: BaseException) -> str:
    """Return an error's kind and message, without what a URI in it has of credentials."""
    return masked(f"{type(error).__name__}: {error}")
