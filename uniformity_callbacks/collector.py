"""What the taps catch, pass by pass, put together into the samples of a due step."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from uniformity_callbacks.backward import Backwards
from uniformity_callbacks.gathered import Gathered
from uniformity_callbacks.joint import JointLoss
from uniformity_callbacks.loss import WassersteinLoss
from uniformity_callbacks.passes import Passes
from uniformity_callbacks.ranks import Ranks
from uniformity_callbacks.sample import StepSample
from uniformity_callbacks.tap import Mode, Tap
from uniformity_callbacks.validating import Validating


@dataclass
class _Layer:
    """One layer's passes since the window opened, and the auxiliary loss of each."""

    tap: Tap
    alerted: bool = False
    entered: bool = False
    term: Tensor | None = None
    passes: Passes = field(default_factory=Passes)


class Collector:
    """Opens and closes the taps around each pass and keeps what the next due step needs.

    Args:
        taps: one for each layer.
        every_n_steps: every how many optimizer steps one is due; step 0 is.
        window: steps up to a due one that are kept.
        auxiliary: the loss that `add_auxiliary` adds, or None.
        total_steps: optimizer steps of the whole training, for a weight that depends on it.
        ranks: those whose batches the loss takes together, or None.
        seed: of the random sample of a validation epoch.
        on_backward: called when a backward pass goes through a layer, perhaps several times, with whether it has come
            to the layer's parameters, after which the layer does not run again in it.

    Attributes:
        validating: collects in validation epochs.
    """

    def __init__(
        self,
        taps: Sequence[Tap],
        *,
        every_n_steps: int,
        window: int,
        auxiliary: WassersteinLoss | None = None,
        total_steps: float = math.inf,
        ranks: Ranks | None = None,
        seed: int = 0,
        on_backward: Callable[[bool], None] | None = None,
    ) -> None:
        self._layers = [_Layer(tap) for tap in taps]
        self._every, self._window, self._auxiliary, self._total = every_n_steps, window, auxiliary, total_steps
        self._joint = None if auxiliary is None else JointLoss(auxiliary, ranks)
        self.validating = Validating(taps, seed=seed)
        self._on_backward = on_backward
        self._step, self._due = -1, 0
        self._wanted = -1
        self._open = self._paused = self._repeated = False

    @property
    def step(self) -> int:
        """The optimizer step of the last `begin`, or of `start`."""
        return self._step

    @property
    def is_due(self) -> bool:
        """Whether that step is to be read."""
        return self._step == self._due

    @property
    def wants_auxiliary(self) -> bool:
        """Whether a pass is open whose auxiliary loss has not been added yet."""
        return self._open and any(map(self._lacks, self._layers))

    @property
    def listens(self) -> bool:
        """Whether a pass is open of which anything is collected."""
        return self._open and (self._kept or self.wants_auxiliary)

    @property
    def names(self) -> list[str]:
        """The layers' dotted paths."""
        return [layer.tap.name for layer in self._layers]

    def settle(self, names: Sequence[str]) -> None:
        """Take the names of the layers that run, as other ranks have seen them."""
        for layer, name in zip(self._layers, names, strict=True):
            layer.tap.keep(name)

    def attach(self) -> None:
        """Put the hooks on."""
        for layer in self._layers:
            if self._on_backward is not None:
                layer.tap.listen(Backwards(partial(self._backward, self._on_backward, layer)))
            layer.tap.attach()

    def detach(self) -> None:
        """Take the hooks off."""
        for layer in self._layers:
            layer.tap.detach()

    def start(self, step: int) -> None:
        """Take the step that the run begins at."""
        self._step = step

    def begin(self, step: int, *, accumulating: bool = False, repeated: bool = False) -> None:
        """Open the taps for a pass of ``step``, if it is needed for a reading or the loss.

        Args:
            step: the step that the pass is part of.
            accumulating: the auxiliary loss is in gradients that no optimizer has used yet: it is not added again.
            repeated: it is for the loss only, not for the reading.
        """
        due, stepped = -(-step // self._every) * self._every, step != self._step
        self._step, before, self._due = step, self._due, due
        if due != before:
            self._forget()
        if self._auxiliary is not None:
            self._auxiliary.progress = min(step / self._total, 1.0)
        # All that ranks decide by comes before what may fail on one of them.
        self._open, self._paused, self._repeated = True, False, repeated
        for layer in self._layers:
            layer.term, layer.entered = None, accumulating and layer.entered
            if stepped:
                layer.passes.step()
        self._start("watch" if self._kept and not repeated else "off", goes_on=not stepped)
        idle = self._auxiliary is None and not self._kept
        self._wanted = self._due - self._window + 1 if idle else -1
        for layer in self._layers:
            layer.tap.doze(idle)

    def pass_over(self, step: int) -> bool:
        """Begin a step of which nothing is wanted, as nothing is of the one before; False if that is not so.

        This is all that most steps of a run ask for, in a microsecond.
        """
        if step >= self._wanted:
            return False
        for layer in self._layers:
            if not layer.tap.doze():
                return False
        self._step = step
        return True

    def repeat(self) -> None:
        """End the pass and begin a repeated one if it was paused."""
        if self._open and self._paused:
            try:
                self.end_pass()
            finally:
                self.begin(self._step, repeated=True)

    def _start(self, otherwise: Mode, *, goes_on: bool) -> None:
        """Open the taps of layers that the loss lacks for it, the others as told."""
        for layer in self._layers:
            layer.tap.start("train" if self._lacks(layer) else otherwise, goes_on=goes_on)

    def alert(self, layers: Collection[str]) -> None:
        """Take the names of the layers that are collapsing: a loss that waits for an alert is on for these."""
        for layer in self._layers:
            layer.alerted = any(name in layers for name in layer.tap.names)

    def add_auxiliary(self, loss: Tensor, *, required: bool = True) -> tuple[Tensor, Exception | None]:
        """Return ``loss`` plus the auxiliary loss of what this pass has caught so far, and what was in the way of it.

        On several ranks the terms are one exchange between them, which every rank joins whatever it has caught.

        Args:
            loss: the training loss.
            required: False says nothing of layers that have caught nothing, and lets the term enter only once.
        """
        assert self._joint is not None, "called where there is an auxiliary loss"
        adding = [self._adds(layer) if required else self._lacks(layer) for layer in self._layers]
        if not any(adding):  # on every rank: all have heard of the same alerts
            return loss, None
        rows: list[Tensor | None] = []
        problems: list[Exception] = []
        for layer, adds in zip(self._layers, adding, strict=True):
            rows.append(None)
            try:
                rows[-1] = self._rows(layer, loss) if adds else None
            except Exception as error:  # others wait for this rank
                problems.append(error)
        try:
            terms = self._joint.terms(rows)
        except Exception as error:
            for layer, adds in zip(self._layers, adding, strict=True):
                layer.entered |= adds  # as on the other ranks: none may ask for the term again
            return loss, error
        total = loss
        for layer, adds, own, term in zip(self._layers, adding, rows, terms, strict=True):
            if adds and term is not None:
                layer.term, layer.entered = term.detach(), True
                total = total if own is None else total + term.to(device=loss.device, dtype=loss.dtype)
            elif adds and required:
                problems.append(self._missing(layer))
        return total, problems[0] if problems else None

    def _rows(self, layer: _Layer, loss: Tensor) -> Tensor | None:
        assert self._auxiliary is not None, "called where there is an auxiliary loss"
        if self._on_backward is not None:  # nobody tells either when a batch is given up
            layer.tap.give_up(loss)
        views = [view for view in layer.tap.views() if len(view)]
        return self._auxiliary.rows(*views) if views else None

    def require_auxiliary(self) -> None:
        """Check that the auxiliary loss was added.

        Raises:
            ValueError: it was not.
        """
        for layer in filter(self._lacks, self._layers):
            raise self._missing(layer)

    def pause(self) -> None:
        """Close the taps before backward, where checkpointed layers run again.

        Raises:
            ValueError: a layer ran, but its output could not be taken.
        """
        self._paused = True
        caught = [layer.tap for layer in self._layers if layer.tap.stop()]
        for tap in caught:
            if not tap.views() and tap.problem:
                raise ValueError(f"layer {tap.problem}")

    def resume(self) -> None:
        """Open the taps again of the layers that had no part in the backward."""
        for layer in self._layers:
            layer.tap.resume()

    def end_pass(self) -> None:
        """Take over what the pass caught, without its graph."""
        self._open = False
        for layer in self._layers:
            views = [view.detach() for view in layer.tap.views()]
            layer.tap.start("off")
            if self._kept:
                layer.passes.add([] if self._repeated else views, layer.term)

    def nothing(self, why: str) -> list[Gathered]:
        """Return that nothing was caught, layer by layer."""
        return [Gathered(name, None, {}, why) for name in self.names]

    def take(self) -> list[Gathered]:
        """Return what a due step and its window caught, layer by layer, and begin the next window."""
        gathered = []
        for layer in self._layers:
            extras: dict[str, Tensor | float] = {}
            views, terms = layer.passes.views, layer.passes.terms
            if self._auxiliary is not None and (views or terms):
                added = torch.stack(terms).mean() if terms else 0.0
                extras = {"aux_loss": added, "aux_weight": self._auxiliary.weight if self._adds(layer) else 0.0}
            sample = StepSample.of(views) if views else None
            why = layer.tap.why_blind if sample is None else ""
            gathered.append(Gathered(layer.tap.name, sample, extras, why))
        self._forget()
        return gathered

    def _backward(self, tell: Callable[[bool], None], layer: _Layer, fresh: bool | None) -> None:
        tell(fresh is not None)
        if fresh is not None and not self._repeated:
            with layer.tap.kept_from_training(layer.tap.name):
                layer.passes.spend(fresh=fresh)

    def _adds(self, layer: _Layer) -> bool:
        return self._auxiliary is not None and (self._auxiliary.when == "always" or layer.alerted)

    def _lacks(self, layer: _Layer) -> bool:
        return self._adds(layer) and not layer.entered

    @staticmethod
    def _missing(layer: _Layer) -> ValueError:
        name, why = layer.tap.name, layer.tap.why_blind
        if layer.tap.views():
            return ValueError(f"the auxiliary loss was not added: no backward that it could enter came after {name!r}")
        return ValueError(f"the auxiliary loss needs the outputs of {name!r}, but {why}")

    @property
    def _kept(self) -> bool:
        return self._due - self._step < self._window

    def _forget(self) -> None:
        for layer in self._layers:
            layer.passes.forget()
