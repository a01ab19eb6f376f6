"""What a run has gathered of a layer when it is to be read."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from uniformity_callbacks.sample import Sample


@dataclass(frozen=True)
class Gathered:
    """A due step, or a validation epoch, of one layer.

    Attributes:
        layer: dotted path.
        sample: the rows; None if nothing was caught.
        extras: what else the reading says, by name.
        why: why nothing was caught, or not everything, in words.
        elsewhere: another rank has the rows.
    """

    layer: str
    sample: Sample | None
    extras: dict[str, Tensor | float] = field(default_factory=dict)
    why: str = ""
    elsewhere: bool = False

    @property
    def seen(self) -> bool:
        """Whether anything was caught."""
        return self.sample is not None or self.elsewhere
