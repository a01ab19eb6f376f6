"""What the taps catch, pass by pass, put together into the samples of a due step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from uniformity_callbacks.loss import WassersteinLoss
from uniformity_callbacks.sample import Sample
from uniformity_callbacks.tap import Mode, Tap


@dataclass
class _Layer:
    """One layer's passes since the window opened, and the auxiliary loss of each."""

    tap: Tap
    term: Tensor | None = None
    passes: list[list[Tensor]] = field(default_factory=list)
    terms: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Gathered:
    """A due step of one layer.

    Attributes:
        layer: dotted path.
        sample: the rows; None if nothing was caught.
        extras: what else the reading says, by name.
        why: why nothing was caught, in words.
    """

    layer: str
    sample: Sample | None
    extras: dict[str, Tensor | float]
    why: str


class Collector:
    """Opens and closes the taps around each pass and keeps what the next due step needs.

    Args:
        taps: one for each layer.
        every_n_steps: every how many optimizer steps one is due; step 0 is.
        window: steps up to a due one that are kept.
        auxiliary: the loss that `add_auxiliary` adds, or None.
    """

    def __init__(
        self, taps: Sequence[Tap], *, every_n_steps: int, window: int, auxiliary: WassersteinLoss | None
    ) -> None:
        self._layers = [_Layer(tap) for tap in taps]
        self._every, self._window, self._auxiliary = every_n_steps, window, auxiliary
        self._step, self._due = -1, 0

    @property
    def step(self) -> int:
        """The optimizer step of the last `begin`."""
        return self._step

    @property
    def is_due(self) -> bool:
        """Whether that step is to be read."""
        return self._step == self._due

    @property
    def names(self) -> list[str]:
        """The layers' dotted paths."""
        return [layer.tap.name for layer in self._layers]

    def attach(self) -> None:
        """Put the hooks on."""
        for layer in self._layers:
            layer.tap.attach()

    def detach(self) -> None:
        """Take the hooks off."""
        for layer in self._layers:
            layer.tap.detach()

    def begin(self, step: int) -> None:
        """Open the taps for a pass of ``step``, if it is needed for a reading or the loss."""
        due = -(-step // self._every) * self._every
        if due != self._due:
            self._forget()
        self._step, self._due = step, due
        mode: Mode = "train" if self._auxiliary is not None else "watch" if self._kept else "off"
        for layer in self._layers:
            layer.term = None
            layer.tap.start(mode)

    def add_auxiliary(self, loss: Tensor) -> Tensor:
        """Return ``loss`` plus the auxiliary loss of what this pass has caught so far.

        Raises:
            ValueError: nothing was caught.
        """
        assert self._auxiliary is not None, "called where there is an auxiliary loss"
        total = loss
        for layer in self._layers:
            views = layer.tap.views()
            if not views:
                why = layer.tap.why_blind
                raise ValueError(f"the auxiliary loss needs the outputs of {layer.tap.name!r}, but {why}")
            term = self._auxiliary(*views)
            layer.term = term.detach()
            total = total + term.to(device=loss.device, dtype=loss.dtype)
        return total

    def pause(self) -> None:
        """Close the taps before backward, where checkpointed layers run again.

        Raises:
            ValueError: a layer ran, but its output could not be taken.
        """
        caught = [layer.tap for layer in self._layers if layer.tap.stop()]
        for tap in caught:
            if not tap.views() and tap.problem:
                raise ValueError(f"layer {tap.problem}")

    def end_pass(self) -> None:
        """Take over what the pass caught, without its graph."""
        for layer in self._layers:
            views = [view.detach() for view in layer.tap.views()]
            layer.tap.start("off")
            if views and self._kept:
                layer.passes.append(views)
                if layer.term is not None:
                    layer.terms.append(layer.term)

    def take(self) -> list[Gathered]:
        """Return what a due step and its window caught, layer by layer, and begin the next window."""
        gathered = []
        for layer in self._layers:
            extras: dict[str, Tensor | float] = {}
            if self._auxiliary is not None and layer.terms:
                extras = {"aux_loss": torch.stack(layer.terms).mean(), "aux_weight": self._auxiliary.weight}
            sample = Sample.of(layer.passes) if layer.passes else None
            gathered.append(Gathered(layer.tap.name, sample, extras, layer.tap.why_blind))
        self._forget()
        return gathered

    @property
    def _kept(self) -> bool:
        return self._due - self._step < self._window

    def _forget(self) -> None:
        for layer in self._layers:
            layer.passes, layer.terms = [], []
