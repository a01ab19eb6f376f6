"""A training that is killed and resumed at random steps: it must be the one that was not."""

import logging

from killable import STEPS, compare, killed, train
from killable import run as process
from mlflow.tracking import MlflowClient


def run(folder, rounds):
    """Return what was measured, by what it is.

    Raises:
        AssertionError: weights, readings, alerts or the loss's weight are not those of a training that was not killed,
            or there is a second MLflow run, or a journal.
    """
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    whole, broken = folder / "whole", folder / "killed"
    for place in (whole, broken):
        place.mkdir()
        MlflowClient(f"sqlite:///{place}/mlflow.db").search_experiments()  # a kill meanwhile would leave half of it
    assert process(train, whole) == 0
    killed(broken, rounds)
    abandoned = compare(whole, broken, rounds)
    return {
        f"kills in {STEPS} steps, each followed by a resumption": rounds,
        "readings of dead branches, apart": abandoned,
        "readings, alerts or weights that differ from those without kills": 0,
        "MLflow runs": 1,
    }
