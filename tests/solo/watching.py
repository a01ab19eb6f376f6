"""Fits of solo-learn's methods as its users have them: the callback comes by the entry point, its arguments by keys."""

import os
from unittest import mock

from learners import pl
from which import NEWEST

from uniformity_callbacks import read_journal
from uniformity_callbacks.integrations.lightning import UniformityCallback

VARIABLE = "UNIFORMITY_CALLBACKS"


def fit(learner, callbacks=(), *, keys=None, **options):
    """Train; ``keys`` go into the configuration, and where there is none, in 1.0.2, into the variable."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "devices": 1, "max_epochs": learner.model.max_epochs}
    if keys and NEWEST:
        learner.model.cfg.uniformity = keys
    given = {} if NEWEST or not keys else {VARIABLE: ",".join(f"{key}={value}" for key, value in keys.items())}
    with mock.patch.dict(os.environ, given):
        trainer = pl.Trainer(callbacks=list(callbacks), **quiet | options)
        trainer.fit(learner.model, learner.train, learner.validation)
    return trainer


def added(trainer):
    """Return the callback that the entry point added."""
    (callback,) = [each for each in trainer.callbacks if isinstance(each, UniformityCallback)]
    assert callback.added
    return callback


def journal(trainer):
    return read_journal(added(trainer).monitor.journal)
