"""A real training in a process of its own, told by lines what to do: `python -m tests.integrations.training FOLDER`.

Each line is JSON, the arguments of `train`. It says "half" halfway and waits for a line, so that something can happen
meanwhile, "over" behind the last step, and in the end what became of it.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from examples.digits import data, networks
from uniformity_callbacks import feeds, read_journal
from uniformity_callbacks.integrations.mlflow import MLflowWriter
from uniformity_callbacks.integrations.pytorch import watch

ROOT = Path(__file__).parents[2]
BATCH = 64


class Trainer:
    """The process, as seen from the test's.

    Attributes:
        process: with all it said besides in the file `said`.
    """

    def __init__(self, folder, **variables):
        folder.mkdir()
        self.folder, self._count = folder, 0
        command = [sys.executable, "-W", "error", "-m", "tests.integrations.training", str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", **variables}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with open(folder / "said", "wb") as said:
            self.process = subprocess.Popen(command, stderr=said, text=True, cwd=ROOT, env=environment, **pipes)

    @property
    def said(self):
        return (self.folder / "said").read_text()

    @property
    def journal(self):
        """Of the last training."""
        return self.folder / str(self._count - 1) / "run.jsonl"

    def begin(self, **arguments):
        self._tell(json.dumps(arguments))
        self._count += 1

    def go_on(self):
        self._tell("")

    def wait(self, begins):
        """Return the next line that begins so, or all that was said where the process ended."""
        for line in self.process.stdout:
            if line.startswith(begins):
                return line
        raise AssertionError(self.said)

    def run(self, fault=contextlib.nullcontext, **arguments):
        """Train, with a fault from halfway to the end, and return what became of it."""
        self.begin(**arguments)
        self.wait("half")
        with fault():
            self.go_on()
            return json.loads(self.wait("{"))

    def kill(self):
        """End it as a crash would; twice is once."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def _tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


def others():
    """Return for how many seconds the kernel has let others run while this thread could; 0 where it does not count."""
    try:
        return 1e-9 * int(Path("/proc/thread-self/schedstat").read_text().split()[1])
    except OSError:
        return 0.0


def train(folder, images, *, uri, steps, every=3, rest=0.0, exit=None, close=10.0, room=10_000, flush=0.2):
    """Train for some steps and return what became of it; by how much due steps are longer than those before them.

    What the kernel gives to others is no part of a step: a machine's other work would decide how long steps are.

    Args:
        folder: of the journal.
        images: of digits.
        uri: of the MLflow server.
        steps: of the optimizer.
        every: so many steps a reading.
        rest: seconds from a step to the next, as for data.
        exit: the code to leave the process with, from within the training.
        close: seconds in which the monitor is to close.
        room: for so many readings in the writer's queue.
        flush: the writer's flush_secs.
    """
    feeds._CAPACITY = room
    torch.manual_seed(0)
    model = networks.Network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    writer = MLflowWriter(uri, flush_secs=flush)
    path, took, queued = folder / "run.jsonl", [], 0
    watched = watch(
        model,
        "projector",
        optimizer=optimizer,
        every_n_steps=every,
        writers=[writer],
        journal=path,
        close_timeout=close,
    )
    with watched:
        for step in range(steps):
            if step == steps // 2:
                print("half", flush=True)
                sys.stdin.readline()
            chosen = images[torch.randint(len(images), (BATCH,))]
            began = time.perf_counter() - others()
            z0, z1 = (model(chosen + 0.1 * torch.randn_like(chosen)) for _ in range(2))
            optimizer.zero_grad()
            networks.distance(z0, z1).backward()
            optimizer.step()
            took.append(time.perf_counter() - others() - began)
            (feed,) = watched.monitor._desk.reader._feeds
            queued = max(queued, len(feed._worker._items))
            time.sleep(rest)
        print("over", flush=True)
        if exit is not None:
            raise SystemExit(exit)
    due = range(steps // 2 // every * every + every, steps, every)
    longer = [took[k] - took[k - 1] for k in due]
    return {"step": step, "readings": len(read_journal(path).readings), "longer": longer, "queued": queued}


def main():
    torch.set_num_threads(1)
    logging.basicConfig(format="%(message)s")
    images = data.load().train_images
    for k, line in enumerate(sys.stdin):
        folder = Path(sys.argv[1]) / str(k)
        folder.mkdir()
        print(json.dumps(train(folder, images, **json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
