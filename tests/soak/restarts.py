"""A server that is killed and restarted at random under a training, which then is killed; then `uniformity sync`."""

import random
import subprocess
import sys
import time

from restarts import points, stored, wait_for
from servers import Server
from training import ROOT, Trainer

from uniformity_callbacks import read_journal

ARRIVES_S = 400.0
"""In which what waited is there: MLflow's own retries of a request that was cut off alone may take 250 s."""


def sync(path, target):
    """Run the command as a user does; return what it said."""
    command = [sys.executable, "-m", "uniformity_callbacks", "sync", str(path), "--to", target]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def run(folder, rounds, seed=0):
    """Return what was measured, by what it is.

    Raises:
        AssertionError: a point of the journal is not in a store, or is there twice, or with another value.
    """
    draw, server = random.Random(seed), Server(folder)
    server.start()
    trainer = Trainer(folder / "runs")
    down = 0.0
    try:
        trainer.begin(uri=server.uri, steps=10**9, every=1, rest=0.03)
        wait_for(server, trainer.journal, 10, 120.0)
        for _ in range(rounds):
            time.sleep(draw.uniform(0.5, 12.0))
            server.kill()
            began = time.monotonic()
            time.sleep(draw.uniform(0.0, 6.0))
            server.start()
            down += time.monotonic() - began
        before = len(read_journal(trainer.journal).readings)
        took = wait_for(server, trainer.journal, before, ARRIVES_S)
        time.sleep(draw.uniform(0.0, 6.0))
        trainer.kill()
        path, journal = trainer.journal, read_journal(trainer.journal)
        wanted, there = points(journal), stored(server, journal)
        said = [sync(path, f"mlflow:{server.uri}") for _ in range(2)]
        found = stored(server, journal)
        assert {(key, step): value for key, step, value in found} == wanted
        assert len(found) == len(wanted)
        assert said[1].startswith("nothing to write")
        boards = [sync(path, f"tensorboard:{folder / 'board'}") for _ in range(2)]
        assert boards[1].startswith("nothing to write")
    finally:
        trainer.kill()
        server.kill()
    return {
        "kills and restarts of the server": rounds,
        "seconds it was down": f"{down:.0f}",
        "seconds from the last restart until all was there": f"{took:.0f}",
        "readings in the journal": f"{len(journal.readings):,}",
        "lines of it that are torn": len(journal.unreadable),
        "points": f"{len(wanted):,}",
        "points in MLflow before the sync": f"{len(there):,}",
        "after it, by key and step, with the same values": f"{len(found):,}",
        "added by a second sync": 0,
        "into event files": boards[0].partition(" to ")[0],
    }
