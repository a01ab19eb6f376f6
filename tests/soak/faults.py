"""Many due steps with random faults: what memory, threads and file handles do meanwhile."""

import json
import os
import random
import subprocess
import sys
import threading
from statistics import median

from servers import Server
from training import ROOT

from uniformity_callbacks import read_journal

MIB = 2**20
FLAT_MIB = 4.0
"""That the memory's median of the last third may be above that of the second."""

HANDLES = 2
"""Of a request that is under way."""


def run(folder, steps, seed=0):
    """Return what was measured, by what it is."""
    server, over, kills = Server(folder), threading.Event(), []
    server.start()
    log = open(folder / "errors", "wb")  # noqa: SIM115 - held while the process runs
    command = [sys.executable, "-m", "tests.soak.loop", str(folder), server.uri, str(steps)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, env=environment)
    killer = threading.Thread(target=_kill, args=(server, over, kills, random.Random(seed)))
    killer.start()
    try:
        said = [json.loads(line) for line in process.stdout if line.startswith("{")]
        code = process.wait()
    finally:
        process.kill()
        over.set()
        killer.join()
        server.kill()
        log.close()
    assert code == 0, (folder / "errors").read_text()[-2000:]
    return _told(said, kills, read_journal(folder / "run.jsonl"), steps)


def _kill(server, over, kills, draw):
    """Take the server away now and then, a third of the time."""
    while not over.wait(draw.uniform(5.0, 40.0)):
        server.kill()
        kills.append(1)
        over.wait(draw.uniform(0.0, 15.0))
        server.start()


def _told(said, kills, journal, steps):
    *samples, last = said
    warm = samples[len(samples) // 4 :]
    parts = [[s["memory"] / MIB for s in warm[k * len(warm) // 3 : (k + 1) * len(warm) // 3]] for k in range(3)]
    count, kept = last["count"], last["kept"]
    read = len(journal.readings)
    assert read + count.get("readings whose metric raised", 0) == steps
    assert journal.unreadable == []
    assert median(parts[2]) - median(parts[1]) < FLAT_MIB
    for name, most in (("threads", 0), ("handles", HANDLES)):
        assert max(s[name] for s in warm) - min(s[name] for s in warm) <= most, name
    return {
        "due steps": f"{steps:,} in {last['seconds']:.0f} s",
        "kills of the server": len(kills),
        **{f"times that the {name} failed for a while": number for name, number in last["times"].items()},
        "readings in the journal": f"{read:,}",
        "torn lines": len(journal.unreadable),
        "readings whose metric raised": f"{count.get('readings whose metric raised', 0):,}",
        "faults counted by the monitor, refused lines among them": f"{kept:,}",
        "readings to the writer that raises, and of these it raised on": (
            f"{count['readings to a writer that raises']:,}, {count.get('of these it raised on', 0):,}"
        ),
        "readings to the writer that takes many": f"{count['readings to a writer that takes many']:,}",
        "memory in MiB, median of each third after the first quarter": ", ".join(f"{median(p):.1f}" for p in parts),
        "the most in each third": ", ".join(f"{max(p):.1f}" for p in parts),
        "threads": f"{min(s['threads'] for s in warm)} to {max(s['threads'] for s in warm)}",
        "file handles": f"{min(s['handles'] for s in warm)} to {max(s['handles'] for s in warm)}",
        "seconds that closing took": f"{last['closing']:.1f}",
    }
