"""Trainings that end at an awkward moment; run as a process: what, and for ranks the folder of their store and rank."""

import os
import sys
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from loops import Model, step, views
from uniformity_callbacks import UniformityMonitor

CODE = 3


def ranks(folder, rank):
    """Two ranks whose last exchange is the last that they do, while gloo's threads get what others leave them."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=int(rank), world_size=2)
    model = DistributedDataParallel(Model())  # it keeps the group, and its threads, until the interpreter ends
    monitor = UniformityMonitor("module.projector", every_n_steps=1)
    monitor.attach(model)
    for k in range(3):
        step(monitor, model, k, views())
    time.sleep(0.2)  # what DistributedDataParallel exchanged is let go of
    tasks = [task for task in Path("/proc/self/task").iterdir() if "gloo_runloop" in (task / "comm").read_text()]
    assert tasks
    for task in tasks:
        os.sched_setscheduler(int(task.name), os.SCHED_IDLE, os.sched_param(0))
    monitor.close(together=True)
    dist.destroy_process_group()


def reading():
    """A reading that is never finished: many small operations, as those of a metric are."""
    import uniformity_callbacks.reader as reader

    make = reader.Reader._make

    def never(self, capture):
        if capture.step == 0:  # that of the first step is waited for
            return make(self, capture)
        z = torch.randn(64, 64)
        while True:
            z = z @ z / z.norm()

    reader.Reader._make = never
    model, monitor = Model(), UniformityMonitor("projector", every_n_steps=1, close_timeout=0.2)
    monitor.attach(model)
    for k in range(2):
        step(monitor, model, k, views())
    monitor.close()
    assert "uniformity-reader" not in {thread.name for thread in threading.enumerate()}  # a process may go on


def writing():
    """A writer that is never finished, nor is the monitor closed by its user."""

    def never(values, step):
        z = torch.randn(64, 64)
        while True:
            z = z @ z / z.norm()

    model, monitor = Model(), UniformityMonitor("projector", every_n_steps=1, close_timeout=0.2, writers=[never])
    monitor.attach(model)
    step(monitor, model, 0, views())
    time.sleep(1.0)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    {"ranks": ranks, "reading": reading, "writing": writing}[what](*rest)
    sys.exit(CODE)
