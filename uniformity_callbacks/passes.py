"""What the passes of a layer have brought since its window opened."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass.

    Attributes:
        views: rows (n, d) of each view, detached; empty if nothing was caught.
        term: the auxiliary loss that was added, or None.
    """

    views: list[Tensor]
    term: Tensor | None


class Passes:
    """The passes of one step, or of several that are read together."""

    def __init__(self) -> None:
        self._all: list[Pass] = []
        self._stepped = 0  # passes of steps that were taken
        self._spent = 0  # passes whose gradients are in the parameters'

    def add(self, views: list[Tensor], term: Tensor | None) -> None:
        """Take in a pass, if there is anything of it."""
        if views or term is not None:
            self._all.append(Pass(views, term))

    def spend(self, *, fresh: bool) -> None:
        """Take it that all passes up to now are in the gradients.

        Args:
            fresh: no gradients were there: of this step, those of the passes before the last were thrown away, and
                with them goes what these passes brought. So it is after a step that a GradScaler has skipped.
        """
        if fresh and self._spent < len(self._all):
            del self._all[self._stepped : self._spent]
        self._spent = len(self._all)

    def step(self) -> None:
        """Take it that the optimizer has stepped."""
        self._stepped = self._spent = len(self._all)

    def forget(self) -> None:
        """Begin anew."""
        self._all, self._stepped, self._spent = [], 0, 0

    @property
    def views(self) -> list[list[Tensor]]:
        """The views of each pass that brought any."""
        return [each.views for each in self._all if each.views]

    @property
    def terms(self) -> list[Tensor]:
        """The terms that were added."""
        return [each.term for each in self._all if each.term is not None]
