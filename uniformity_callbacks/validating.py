"""What the taps catch in a validation epoch, apart from the training's."""

from __future__ import annotations

from collections.abc import Sequence

from uniformity_callbacks.gathered import Gathered
from uniformity_callbacks.sample import Stream
from uniformity_callbacks.tap import Tap


class Validating:
    """Adds up the batches of a validation epoch, layer by layer.

    Args:
        taps: one for each layer.
        seed: of the random sample of rows that is kept.
    """

    def __init__(self, taps: Sequence[Tap], *, seed: int = 0) -> None:
        self._taps, self._seed = taps, seed
        self._streams: dict[str, Stream] = {}

    def begin(self) -> None:
        """Begin an epoch."""
        self._streams = {}

    def begin_batch(self) -> None:
        """Open the taps for a batch of it."""
        for tap in self._taps:
            tap.start("validate")

    def end_batch(self) -> None:
        """Close them and take over what they caught."""
        for tap in self._taps:
            views = tap.views()
            tap.start("off")
            if views:
                self._streams.setdefault(tap.name, Stream(seed=self._seed)).add(views)

    def take(self) -> list[Gathered]:
        """Return what the epoch caught, layer by layer."""
        streams, self._streams = self._streams, {}
        return [Gathered(tap.name, streams.get(tap.name)) for tap in self._taps]
