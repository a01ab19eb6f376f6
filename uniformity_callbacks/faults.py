"""Errors of ours that are kept from training: the first is reported, all are counted."""

from __future__ import annotations

import logging

log = logging.getLogger("uniformity_callbacks")


class Faults:
    """A counter that speaks once.

    Args:
        subject: what the reports begin with.

    Attributes:
        count: errors so far.
    """

    def __init__(self, subject: str) -> None:
        self.count = 0
        self._subject = subject

    def add(self, what: str, error: BaseException | str) -> None:
        """Count an error, and log a warning if it is the first."""
        self.count += 1
        if self.count == 1:
            why = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
            log.warning("%s: %s: %s; training goes on, further errors are only counted", self._subject, what, why)
