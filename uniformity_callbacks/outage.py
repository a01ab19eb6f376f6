"""A time in which a writer takes nothing, and when it is tried again."""

from __future__ import annotations

import time

_FIRST_REST_S, _LONGEST_REST_S = 1.0, 30.0
"""Between two tries of a writer that takes nothing: the first rest, and the longest."""


class Outage:
    """A time in which a writer takes nothing.

    Attributes:
        why: its last error in words.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        self._since, self._rest = time.monotonic(), _FIRST_REST_S

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self._since

    def rest(self, *, brief: bool = False) -> float:
        """Return how long to wait before the next try: each time longer, unless it is to be brief."""
        rest, self._rest = self._rest, min(2 * self._rest, _LONGEST_REST_S)
        return _FIRST_REST_S if brief else rest
