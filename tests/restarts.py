"""A training whose MLflow server is killed and started again, and which is killed itself in the end."""

import contextlib
import random
import time

from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from training import Trainer
from uniformity_callbacks import read_journal
from uniformity_callbacks.integrations.command import main

WITHIN_S = 90.0
"""In which readings that waited arrive: MLflow may be in the middle of a request, and waits ever longer by itself."""


def restarted(server, folder, rounds, seed=0):
    """See that all of the journal is in the store after kills of the server, one of the training, and a sync.

    Returns:
        Readings in the journal, points that were there before the sync, and all.
    """
    trainer, draw = Trainer(folder), random.Random(seed)
    try:
        trainer.begin(uri=server.uri, steps=10**6, every=1, rest=0.05, room=30, flush=1.0)
        arrived(server, trainer, 20)
        for number in range(rounds):
            server.kill()
            time.sleep(draw.uniform(0.2, 4.0))
            if number == rounds - 1:
                trainer.kill()
            server.start()
            if number == 0:  # by itself, what was away comes
                arrived(server, trainer, len(read_journal(trainer.journal).readings))
            time.sleep(draw.uniform(0.0, 4.0))
    finally:
        trainer.kill()
    journal = read_journal(trainer.journal)
    before = len(stored(server, journal))
    assert before < len(points(journal))
    for said in ("wrote ", "nothing to write"):
        result = CliRunner().invoke(main, ["sync", str(trainer.journal), "--to", f"mlflow:{server.uri}"])
        assert (result.exit_code, result.output.startswith(said)) == (0, True), result.output
        found = stored(server, journal)
        assert {(key, step): value for key, step, value in found} == points(journal)
        assert len(found) == len(points(journal))
    return len(journal.readings), before, len(points(journal))


def arrived(server, trainer, least):
    """Wait until so many readings are in the store."""
    client, deadline = MlflowClient(server.store), time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            for store in read_journal(trainer.journal).stores:
                history = client.get_metric_history(store["run_id"], "uniformity/w2")
                if {m.step for m in history} >= set(range(least)):
                    return
        time.sleep(0.3)
    raise AssertionError(f"not all of {least} steps arrived; {trainer.said}")


def points(journal):
    """All points of a journal, by key and step."""
    return {(key, r.step): value for r in journal.readings for key, value in journal.keyed(r).items()}


def stored(server, journal):
    """Points in the store's runs that the journal names, each as often as it is there."""
    client = MlflowClient(server.store)
    (run_id,) = {store["run_id"] for store in journal.stores}
    keys = client.get_run(run_id).data.metrics
    return [(key, m.step, m.value) for key in keys for m in client.get_metric_history(run_id, key)]
