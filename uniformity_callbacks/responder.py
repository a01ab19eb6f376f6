"""What is done about finished readings, on the training thread: the newest values, and what alerts ask for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from uniformity_callbacks.alerts import Alert, AlertBook, CollapseError
from uniformity_callbacks.faults import Faults
from uniformity_callbacks.reader import Outcome
from uniformity_callbacks.rules import COLLAPSE

log = logging.getLogger("uniformity_callbacks")


class Responder:
    """Acts on outcomes in the order of their readings.

    Args:
        book: the rules, whose actions these are.
        faults: takes what a user's own action raises.

    Attributes:
        last: the newest values, by full key.
        should_stop: an alert asks to end training.
        announce: called with the text of each alert; logs a warning by default.
        speaks: whether alerts are announced; of several ranks one does.
        waiting: outcomes of the run that is resumed which it had not acted on yet.
    """

    def __init__(self, book: AlertBook, faults: Faults) -> None:
        self.last: dict[str, float] = {}
        self.should_stop = False
        self.announce: Callable[[str], None] = log.warning
        self.speaks = True
        self.waiting: list[Outcome] = []
        self._book, self._faults = book, faults
        self._standing: set[tuple[str, str]] = set()
        self._error: CollapseError | None = None

    @property
    def collapsed(self) -> Collection[str]:
        """Layers with a standing alert of a collapse that the Wasserstein loss mends."""
        return {layer for layer, kind in self._standing if kind in COLLAPSE and self._book.rule(kind)}

    @property
    def tells_of_blindness(self) -> bool:
        """Whether an alert will say that there is nothing to read."""
        return self._book.rule("blind") is not None

    def act(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Do what the outcomes ask for, those still waiting first, and return them all."""
        outcomes, self.waiting = self.waiting + outcomes, []
        for outcome in outcomes:
            self.last |= outcome.values
            for alert in outcome.alerts:
                self._act(alert)
        return outcomes

    def follow(self, outcomes: list[Outcome]) -> None:
        """Have the rules see readings that another rank has judged, so that they remember the same."""
        for outcome in outcomes:
            if outcome.reading.stage == "train":
                self._book.update(outcome.reading)

    def enforce(self) -> None:
        """Raise the error of an alert whose action is "raise", once.

        Raises:
            CollapseError: such an alert was acted on since the last call.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error

    def reset(self) -> None:
        """Forget all that was read and told."""
        self.last, self.waiting, self._standing, self._error = {}, [], set(), None
        self._book.load_state_dict([])

    def state_dict(self, waiting: list[Outcome]) -> dict[str, Any]:
        """Return the state as plain values, with outcomes that are not collected yet."""
        return {
            "alerts": self._book.state_dict(),
            "last": dict(self.last),
            "standing": [list(pair) for pair in sorted(self._standing)],
            "waiting": [outcome.to_plain() for outcome in self.waiting + waiting],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned: all of it or, with an error, nothing.

        Raises:
            Exception: whichever, the state is not as it was returned.
        """
        try:
            self._book.load_state_dict(state["alerts"])
            last, waiting = dict(state["last"]), [Outcome.from_plain(plain) for plain in state["waiting"]]
            # Of alerts that the rules of this run do not watch nobody would say that they are over.
            watched = {(a.layer, a.kind) for outcome in waiting for a in outcome.alerts} | self._book.standing
            standing = {(layer, kind) for layer, kind in state["standing"]} & watched
        except Exception:
            self.reset()  # or half of it would have been taken up
            raise
        self.last, self._standing, self.waiting = last, standing, waiting

    def resume(self, step: int, layers: Collection[str], *, loaded: bool) -> None:
        """Say what of a training that goes on is not known, or has no use any more.

        Args:
            step: the first to come.
            layers: that are watched.
            loaded: whether there was a state to load.
        """
        if not loaded:
            if step > 0 and not self.last:
                log.warning("uniformity: training goes on without a state of the monitor: alerts begin anew")
            return
        unused = self._book.unused(layers)
        if unused:
            log.warning("uniformity: resumed with other arguments; what was known has no use: %s", ", ".join(unused))

    def _act(self, alert: Alert) -> None:
        if self.speaks:
            try:
                self.announce(f"uniformity: {alert.message}")
            except Exception as error:  # or the alert would stop all ranks but this one
                self._faults.add("announcing an alert", error, step=alert.step)
        if alert.recovered:
            self._standing.discard((alert.layer, alert.kind))
            return
        self._standing.add((alert.layer, alert.kind))
        rule = self._book.rule(alert.kind)
        if rule is None:  # resumed with other rules than those that raised it
            return
        self.should_stop |= rule.action == "stop"
        if rule.action == "raise":
            self._error = self._error or CollapseError(alert)
        if callable(rule.action):
            try:
                rule.action(alert)
            except Exception as error:  # what is called because a run goes wrong must not be what ends it
                self._faults.add(f"action {rule.action_name}", error, step=alert.step)
