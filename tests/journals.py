"""Journals as a monitor writes them."""

import tempfile
from functools import cache
from pathlib import Path

from uniformity_callbacks import Alert, Reading, read_journal
from uniformity_callbacks.recording import JournalWriter

BEGAN = 1_700_000_000.0
FOUND = Alert("constant", 20, 10, (0.99, 0.98), 0.95, "warn", "projector", "all is one point\n  seen: 0.99")
OVER = Alert("constant", 40, 10, (0.2, 0.1), 0.95, "warn", "projector", "over again", recovered=True)
AGAIN = Alert("constant", 60, 50, (0.99, 0.98), 0.95, "warn", "projector", "once more")
ALERTS = (FOUND, OVER, AGAIN)


def write(path, steps=range(0, 100, 10), *, layers=("projector",), alerts=(), stores=(), resume=False, **values):
    """Write a journal of readings at some steps, and return its path."""
    writer = JournalWriter(path, resume=resume, run={"prefix": "uniformity", "layers": list(layers), "resumed": resume})
    for store in stores:
        writer.store(store)
    for step in steps:
        for layer in layers:
            writer.reading(Reading(step, layer, 8, {"w2": step / 7, "lu": -1.0, **values}, BEGAN + step))
    for alert in alerts:
        writer.alert(alert)
    writer.close()
    return writer.path


def written(path, *steps, **more):
    """Write a journal and return it as it is read."""
    return read_journal(write(path, *steps, **more))


@cache
def real():
    """Lines of a journal of a run that was resumed, as a monitor writes them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        stores = [{"kind": "mlflow", "run_id": "0" * 32}]
        write(path, range(0, 70, 10), layers=("projector", "encoder"), alerts=ALERTS, stores=stores)
        write(path, range(30, 50, 10), alerts=[AGAIN], resume=True, odd=float("nan"))
        return tuple(path.read_bytes().splitlines(keepends=True))
