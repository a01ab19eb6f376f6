"""What is in a store of what a journal has, where a server was killed and started again."""

import contextlib
import time

from mlflow.tracking import MlflowClient

from uniformity_callbacks import read_journal


def points(journal):
    """The values of a journal by key and step."""
    return {(key, r.step): value for r in journal.readings for key, value in journal.keyed(r).items()}


def stored(server, journal):
    """Points in the run that the journal names, each as often as it is there."""
    client = MlflowClient(server.store)
    (run_id,) = {store["run_id"] for store in journal.stores}
    keys = client.get_run(run_id).data.metrics
    return [(key, m.step, m.value) for key in keys for m in client.get_metric_history(run_id, key)]


def wait_for(server, path, steps, within):
    """Wait until a journal's first steps are in the server's store.

    Returns:
        Seconds that it took.
    """
    began, client = time.monotonic(), MlflowClient(server.store)
    while time.monotonic() - began < within:
        with contextlib.suppress(FileNotFoundError):
            for store in read_journal(path).stores:
                history = client.get_metric_history(store["run_id"], "uniformity/w2")
                if {metric.step for metric in history} >= set(range(steps)):
                    return time.monotonic() - began
        time.sleep(0.3)
    raise AssertionError(f"not all of {steps} steps arrived within {within} s")
