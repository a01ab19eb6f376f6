"""Readings in what a Trainer has of its own: its loggers and the metrics that other callbacks look at."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch

from uniformity_callbacks.faults import Faults
from uniformity_callbacks.integrations.events import to_experiment
from uniformity_callbacks.reader import Outcome

log = logging.getLogger("uniformity_callbacks")


def publish(trainer: Any, outcomes: list[Outcome], faults: Faults) -> None:
    """Hand readings and alerts to the loggers, which are not thread-safe: on the training thread, that is."""
    for outcome in outcomes:
        show(trainer, outcome.values)
        for logger in trainer.loggers if trainer.is_global_zero else ():
            try:
                _log(logger, outcome)
            except Exception as error:  # our point must not end the run through the user's logger
                faults.add(type(logger).__name__, error, step=outcome.reading.step)


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
