"""Where what a run gathers is handed in and what was read of it is handed out; on several ranks, alike on all."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from uniformity_callbacks.company import Company
from uniformity_callbacks.faults import Faults
from uniformity_callbacks.gathered import Gathered
from uniformity_callbacks.names import key_of
from uniformity_callbacks.pool import Pooled
from uniformity_callbacks.reader import Capture, Outcome, Reader
from uniformity_callbacks.responder import Responder

log = logging.getLogger("uniformity_callbacks")


class Desk:
    """A run's reader and the other ranks, from the training thread's side.

    Args:
        reader: what makes readings, on the rank that does.
        responder: acts on them.
        faults: takes errors of the reader and of the exchange between ranks.
        prefix: what the metric keys begin with.
        layered: whether they name the layer, since there are several.
        company: the ranks that train together, or None.
    """

    def __init__(
        self,
        reader: Reader,
        responder: Responder,
        faults: Faults,
        *,
        prefix: str,
        layered: bool = False,
        company: Company | None = None,
    ) -> None:
        self.reader, self.company = reader, company
        self._responder, self._faults, self._prefix, self._layered = responder, faults, prefix, layered
        self._blind: set[str] = set()
        responder.speaks = self.reads
        faults.subject = "uniformity" if company is None else f"uniformity on rank {company.ranks.rank}"

    @property
    def reads(self) -> bool:
        """Whether readings are made on this rank."""
        return self.company is None or self.company.reads

    def exchange(self, gathered: list[Gathered], ready: list[Outcome], *, waits: bool, first: bool) -> Pooled:
        """Return what all ranks gathered at a due step, and the readings that all have.

        Args:
            gathered: this rank's.
            ready: the readings that this rank has.
            waits: whether the reading of this step is to be told at once.
            first: whether it is the first step, where an error is raised, on all ranks.
        """
        if self.company is not None:
            try:
                pooled = self.company.step(gathered, ready, waits=waits)
            except Exception as error:
                if first:
                    raise
                self._faults.add("exchange", error)
                why = f"{type(error).__name__}: {error}"
                # Nothing more is exchanged in this step: other ranks do not know.
                return Pooled([Gathered(layer.layer, None, {}, why) for layer in gathered], ready, False, None)
            if pooled.error is not None:
                self.company.note(pooled.error, fatal=first)
                if not first:
                    self._faults.add("exchange", pooled.error)
            return pooled
        return Pooled(gathered, ready, waits or not any(layer.seen for layer in gathered), None)

    def validation(self, gathered: list[Gathered]) -> list[Gathered]:
        """Return what all ranks gathered in a validation epoch, of the layers that any has called."""
        if self.company is not None:
            gathered = self.company.validation(gathered)
        return [layer for layer in gathered if layer.seen]

    def submit(self, gathered: Sequence[Gathered], *, step: int, stage: str, first: bool = False) -> None:
        """Hand what all ranks gathered to the reader."""
        captures = []
        for layer in gathered if self.reads else ():
            if layer.sample is None and (first or not self._responder.tells_of_blindness):
                self._tell_blind(layer, step)
            key = key_of(self._prefix, stage, layer.layer if self._layered else None)
            captures.append(
                Capture(step, layer.layer, key, time.time(), layer.sample, layer.extras, stage=stage, why=layer.why)
            )
        self.reader.submit(captures)

    def ready(self, timeout: float) -> list[Outcome]:
        """Return the readings that this rank's reader has finished, waiting for those under way; none on an error."""
        try:
            self.reader.settle(timeout)
            return self.reader.collect()
        except Exception as error:  # other ranks wait for this one's word
            self._faults.add("collect", error)
            return []

    def tell(self, ready: list[Outcome]) -> list[Outcome]:
        """Return on all ranks the readings that the first one has."""
        return ready if self.company is None else self.company.tell(ready)

    def close(self, timeout: float) -> None:
        """Close the reader, as it does, and leave nothing behind with the other ranks."""
        try:
            self.reader.close(timeout)
        finally:
            if self.company is not None:
                self.company.ranks.let_go()

    def act(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Do what the outcomes ask for and return them, with those of a resumed run that waited."""
        if not self.reads:
            self._responder.follow(outcomes)
        return self._responder.act(outcomes)

    def _tell_blind(self, layer: Gathered, step: int) -> None:
        """Say once what no alert says, or not yet: a layer that is never called is best known from the start."""
        if layer.layer not in self._blind:
            self._blind.add(layer.layer)
            log.warning("uniformity: nothing to read at step %d: %s", step, layer.why)
