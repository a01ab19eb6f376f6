"""How many threads compute: a process of its own each, since what there are is not to be undone."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy
import torch

from loops import Model, step, views
from spread import spread
from uniformity_callbacks import UniformityMonitor
from uniformity_callbacks.threads import compute_alone

TASKS = Path("/proc/self/task")
counted = pytest.mark.skipif(not TASKS.exists(), reason="only Linux lists threads by itself")


def parallel():
    """Operations that torch, MKL and NumPy's and SciPy's own library spread over threads."""
    a = np.ones((512, 512))
    scipy.linalg.blas.dgemm(1.0, a, a @ a)
    z = torch.randn(2048, 256, dtype=torch.float64)
    torch.linalg.eigvalsh((z * 2.0).T @ z)


def aside(*works):
    """Run them on another thread; how many threads there are more then, with it."""
    counts, done = [], threading.Event()

    def run():
        for work in works:
            work()
        counts.append(len(os.listdir(TASKS)))
        done.wait(10)

    before = len(os.listdir(TASKS))
    thread = threading.Thread(target=run)
    thread.start()
    while not counts:
        thread.join(0.01)
    done.set()
    thread.join()
    return counts[0] - before


def more(rank, *works):
    torch.set_num_threads(2)
    parallel()
    return aside(*works), torch.get_num_threads()


def readings(rank, folder):
    torch.set_num_threads(2)
    parallel()
    model, monitor = Model(), UniformityMonitor("projector", every_n_steps=1)
    monitor.attach(model, directory=folder)
    before = len(os.listdir(TASKS))
    for k in range(3):
        step(monitor, model, k, views(4096))
    monitor.collect(30.0)
    more = len(os.listdir(TASKS)) - before
    monitor.close()
    return more, torch.get_num_threads()


@counted
def test_a_thread_that_computes_alone_has_no_workers_and_takes_none_from_others():
    assert spread(1, more, parallel)[0] == (2, 2)
    assert spread(1, more, compute_alone, parallel)[0] == (1, 2)


def later(rank):
    """A thread that starts after one has begun to compute alone."""
    torch.set_num_threads(2)
    parallel()
    held, begun = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (compute_alone(), begun.set(), held.wait(10)))
    thread.start()
    begun.wait(10)
    counts = aside(parallel)
    held.set()
    return counts


@counted
def test_other_threads_are_as_they_were():
    assert spread(1, later)[0] == 2


@counted
def test_readings_add_one_thread(tmp_path):
    assert spread(1, readings, tmp_path)[0] == (1, 2)


def test_without_its_libraries_it_does_nothing(monkeypatch):
    monkeypatch.setattr("uniformity_callbacks.threads._SETTERS", (("no such library", "f"), (None, "no_such_function")))
    compute_alone()
