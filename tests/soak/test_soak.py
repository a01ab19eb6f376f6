"""What takes long: make soak, or a short one by ROUNDS=3 DUE=10000."""

import os
import random
import threading
import time
from statistics import median

import psutil
import torch

from killable import compare, killed, run, train
from loops import Model
from restarts import restarted
from servers import Server
from uniformity_callbacks import CollapseAlert, read_journal, reader
from uniformity_callbacks.integrations.pytorch import watch

ROUNDS = int(os.environ.get("ROUNDS", 20))
DUE = int(os.environ.get("DUE", 100_000))
FLAT_MB = 4.0


def test_kills_of_the_training(tmp_path, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    broken.mkdir()
    assert run(train, whole) == 0
    killed(broken, ROUNDS)
    abandoned = compare(whole, broken, ROUNDS)
    with capsys.disabled():
        print(f"\n{ROUNDS} kills of the training: all as without, {abandoned} readings of dead branches apart")


def test_kills_of_the_server(tmp_path, capsys):
    server = Server(tmp_path)
    server.start()
    try:
        readings, before, points = restarted(server, tmp_path / "runs", ROUNDS)
    finally:
        server.kill()
    with capsys.disabled():
        print(f"\n{ROUNDS} kills of the server: {readings} readings, {points} points, {before} there before the sync")


class Chance:
    """Raises now and then."""

    def __init__(self, seed, rate):
        self._random, self._rate, self.count = random.Random(seed), rate, 0

    def __call__(self):
        if self._random.random() < self._rate:
            self.count += 1
            raise OSError(f"fault {self.count}")


class Away:
    """A store that is away for 2 of each 200 calls."""

    flush_secs = 0.02

    def __init__(self):
        self.calls, self.steps = 0, set()

    def __call__(self, values, step):
        raise NotImplementedError

    def many(self, readings):
        self.calls += 1
        if self.calls % 200 > 197:
            raise ConnectionError("away")
        self.steps.update(step for _, step, _ in readings)

    def alert(self, alert, key):
        if self.calls % 200 > 197:
            raise ConnectionError("away")


class Disk:
    """A file whose disk is full for a while, now and then."""

    def __init__(self, file):
        self._file, self._random, self.full, self.count = file, random.Random(2), 0, 0

    def write(self, data):
        if self.full == 0 and self._random.random() < 0.001:
            self.full = 50
        if self.full:
            self.full -= 1
            self.count += 1
            self._file.write(data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)


def resources():
    process = psutil.Process()
    return process.memory_info().rss / 2**20, threading.active_count(), process.num_fds()


def test_due_steps_with_faults(tmp_path, capsys, monkeypatch, caplog):
    metric, plain, away = Chance(0, 0.01), Chance(1, 0.01), Away()
    measure = reader.measure
    monkeypatch.setattr(reader, "measure", lambda *each: metric() or measure(*each))
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    rules = [CollapseAlert("constant", threshold=0.3, patience=1, warmup_steps=0), CollapseAlert("blind")]
    monitor = watch(
        model,
        optimizer=optimizer,
        every_n_steps=1,
        alerts=rules,
        writers=[away, lambda values, step: plain()],
        journal=tmp_path / "a.jsonl",
    )
    seen, took = [], []
    for k in range(DUE):
        began = time.perf_counter()
        z0, z1 = (model(x) for x in torch.randn(2, 32, 4))
        (z0 - z1).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        took.append(time.perf_counter() - began)
        if k == 0:
            journal = monitor.monitor._desk.reader._journal
            disk = journal._file = Disk(journal._file)
        if k % (DUE // 10) == DUE // 10 - 1:
            caplog.clear()  # pytest keeps what is logged
            seen.append((k + 1, *resources(), 1e3 * median(took)))
            took.clear()
    monkeypatch.setattr(Disk, "write", lambda self, data: self._file.write(data))
    monitor.close()
    with capsys.disabled():
        print(f"\n{metric.count} metrics, {plain.count} calls of a writer, {disk.count} writes of the journal raised")
        print("due steps     MB  threads  files  ms a step")
        for row in seen:
            print("{:9,} {:6.1f} {:8} {:6} {:10.2f}".format(*row))
    whole = read_journal(tmp_path / "a.jsonl")
    assert whole.unreadable == []
    steps = [r.step for r in whole.readings]
    assert steps == sorted(set(steps))
    assert set(steps) == away.steps
    assert min(metric.count, plain.count, disk.count) > DUE / 2000
    assert seen[-1][1] - seen[1][1] < FLAT_MB
    assert {row[2:4] for row in seen[1:]} == {seen[1][2:4]}
