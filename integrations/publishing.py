"""Readings in what a Trainer has of its own: its loggers and the metrics that other callbacks look at."""

from __future__ import annotations

import logging
import sys
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from uniformity_callbacks.faults import Faults
from uniformity_callbacks.integrations.events import to_experiment
from uniformity_callbacks.reader import Outcome

log = logging.getLogger("uniformity_callbacks")


_AT_ONCE_S = 0.1
"""What a logger raises sooner is a fault of the reading."""

_REST = 10
"""A logger that raised is left alone for so many times as long as that took: one in ten seconds is its to waste."""

_HELD = 10_000
"""Readings that wait for a logger; then the oldest are given up, and counted."""


class Publisher:
    """Hands readings to a Trainer's loggers, on the training thread: they are not thread-safe.

    A logger whose server is away may raise only after minutes. It is given what waited when it is asked again; a
    reading on which it raises at once is given up.
    """

    def __init__(self) -> None:
        self._waiting: defaultdict[int, deque[Outcome]] = defaultdict(deque)
        self._until: dict[int, float] = {}

    def publish(self, trainer: Any, outcomes: list[Outcome], faults: Faults) -> None:
        """Hand out readings and alerts, after those that waited; ``faults`` takes what the loggers raise."""
        for outcome in outcomes:
            show(trainer, outcome.values)
        for logger in trainer.loggers if trainer.is_global_zero else ():
            self._hand(logger, outcomes, faults)

    def finish(self, trainer: Any, journal: Path | None) -> None:
        """Say what still waits, and wait no longer: the end of training is not to be held up."""
        for logger in trainer.loggers:
            if self._waiting[id(logger)]:
                left, name = len(self._waiting[id(logger)]), type(logger).__name__
                sync = f"; see uniformity sync {journal}" if journal is not None else ""
                log.warning("uniformity: %d readings were still waiting for %s, which raises%s", left, name, sync)
        self._waiting.clear()
        self._until.clear()

    def _hand(self, logger: Any, outcomes: list[Outcome], faults: Faults) -> None:
        waiting, name = self._waiting[id(logger)], type(logger).__name__
        waiting.extend(outcomes)
        while len(waiting) > _HELD:
            faults.add(name, "readings have waited too long", step=waiting.popleft().reading.step)
        while waiting and time.monotonic() >= self._until.get(id(logger), 0.0):
            began = time.monotonic()
            try:
                _log(logger, waiting[0])
            except Exception as error:  # our point must not end the run through the user's logger
                faults.add(name, error, step=waiting[0].reading.step)
                took = time.monotonic() - began
                if took > _AT_ONCE_S:
                    self._until[id(logger)] = time.monotonic() + _REST * took
                    return
            waiting.popleft()


def show(trainer: Any, values: Mapping[str, float]) -> None:
    """Put values where ``EarlyStopping`` and ``ModelCheckpoint`` look for them."""
    trainer.callback_metrics.update({key: torch.tensor(value) for key, value in values.items()})


def _log(logger: Any, outcome: Outcome) -> None:
    logger.log_metrics(dict(outcome.values), step=outcome.reading.step)
    for alert in outcome.alerts:
        to_experiment(getattr(logger, "experiment", None), getattr(logger, "run_id", None), alert, outcome.key)


def be_heard() -> None:
    """Have warnings of ours shown where logging was configured with nothing of ours in mind.

    solo-learn's scripts, through Hydra, put the root at ERROR and disable all loggers that are there already: alerts
    would be told to nobody. A level that our logger was given stays.
    """
    log.disabled = False
    if log.level == logging.NOTSET and not log.isEnabledFor(logging.WARNING):
        log.setLevel(logging.WARNING)


def above_the_bar(message: str) -> None:
    """Log a warning without breaking the line of a progress bar that is being drawn."""
    tqdm = sys.modules.get("tqdm")  # where no bar of it can be drawn, it is not imported for this
    with nullcontext() if tqdm is None else tqdm.tqdm.external_write_mode():
        log.warning(message)
