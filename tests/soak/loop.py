"""The training of a soak: many due steps while writers, metrics and the journal's disk fail at random.

`python -m tests.soak.loop FOLDER URI STEPS`; each line it prints is JSON, how much the process has of what now.
"""

import json
import logging
import random
import resource
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import torch
from torch import nn

from examples.digits import data, networks
from uniformity_callbacks import reader
from uniformity_callbacks.integrations.mlflow import MLflowWriter
from uniformity_callbacks.integrations.pytorch import watch

BATCH = 32
SAMPLES = 200
"""Lines that are printed."""

LEAST_S = 0.003
"""A step takes no less, so that nearly each has its reading."""


class Sometimes:
    """Faults that come and go: each for a stretch of steps, about a fifth of the time."""

    def __init__(self, seed, most):
        self._draw, self._most = random.Random(seed), most
        self.on, self._left, self.times = False, most, 0

    def step(self):
        """Count a step; return whether something changed."""
        self._left -= 1
        if self._left > 0:
            return False
        self.on = not self.on
        self.times += self.on
        self._left = int(self._draw.uniform(0.1, 1.0) * self._most * (1 if self.on else 4))
        return True


def one(fault, count):
    """A writer that takes readings one by one, and raises meanwhile."""

    def write(values, step):
        count["readings to a writer that raises"] += 1
        if fault.on:
            count["of these it raised on"] += 1
            raise OSError("no")

    return write


class Many:
    """A writer that takes many, and raises meanwhile."""

    def __init__(self, fault):
        self._fault, self.steps = fault, set()

    def __call__(self, values, step):
        self.many([(values, step, time.time())])

    def many(self, readings):
        if self._fault.on:
            raise OSError("nobody there")
        self.steps.update(step for _, step, _ in readings)


def refuse(path, on):
    """Have the disk take no more of a file than it has, or all again."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size if on else hard, hard))


def main(folder, uri, steps):
    torch.set_num_threads(1)
    logging.basicConfig(filename=folder / "said", format="%(message)s")
    process, count, began = psutil.Process(), Counter(), time.monotonic()
    images = data.load().train_images.flatten(1)
    faults = {name: Sometimes(k, steps // 40) for k, name in enumerate(["writer", "many", "metric", "disk"])}
    measure = reader.measure

    def measured(*arguments):
        if faults["metric"].on and random.random() < 0.5:
            count["readings whose metric raised"] += 1
            raise ArithmeticError("no such number")
        return measure(*arguments)

    reader.measure = measured
    model = nn.Sequential()
    model.add_module("encoder", nn.Sequential(nn.Linear(64, 32), nn.ReLU()))
    model.add_module("projector", nn.Linear(32, 16))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    many = Many(faults["many"])
    writers = [MLflowWriter(uri, flush_secs=1.0), one(faults["writer"], count), many]
    path = folder / "run.jsonl"
    watched = watch(model, "projector", optimizer=optimizer, every_n_steps=1, writers=writers, journal=path)
    with watched:
        for step in range(steps):
            due = time.monotonic() + LEAST_S
            chosen = images[torch.randint(len(images), (BATCH,))]
            loss = networks.distance(*(model(chosen + 0.1 * torch.randn_like(chosen)) for _ in range(2)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step > 0:
                changed = {name for name, fault in faults.items() if fault.step()}
                if "disk" in changed:
                    refuse(path, faults["disk"].on)
            if step % (steps // SAMPLES) == 0:
                now = {"step": step, "memory": process.memory_info().rss, "handles": process.num_fds()}
                print(json.dumps({**now, "threads": threading.active_count()}), flush=True)
            time.sleep(max(0.0, due - time.monotonic()))
        for fault in faults.values():
            fault.on = False
        refuse(path, on=False)
        ended = time.monotonic()
    count["readings to a writer that takes many"] = len(many.steps)
    times = {name: fault.times for name, fault in faults.items()}
    monitor = {"kept": watched.monitor.faults.count, "seconds": ended - began, "closing": time.monotonic() - ended}
    print(json.dumps({"count": count, "times": times, **monitor}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
