"""Disks that are full, read-only or slow, really: a small file system, mounted where that is allowed."""

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from test_tensorboard import read

from loops import Model, step, views
from uniformity_callbacks import UniformityMonitor, read_journal
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter


def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(disk):
    """Fill it up, and make room again."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 256)
        except OSError:
            pass
    yield
    ballast.unlink()


class Run:
    """A training whose weights are compared with those of the same without a monitor."""

    def __init__(self, **arguments):
        torch.manual_seed(0)
        self.model, self.k = Model(), 0
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        self.monitor = UniformityMonitor("projector", every_n_steps=1, **arguments) if arguments else None
        if self.monitor is not None:
            self.monitor.attach(self.model, directory=arguments["journal"].parent)

    def goes(self, steps):
        took = []
        for _ in range(steps):
            began = time.monotonic()
            self.optimizer.zero_grad()
            batch = views()
            if self.monitor is None:
                z0, z1 = map(self.model, batch)
                (z0 - z1).square().mean().backward()
            else:
                step(self.monitor, self.model, self.k, batch)
            self.optimizer.step()
            self.k += 1
            took.append(time.monotonic() - began)
        return took

    def weights(self):
        return [parameter.detach() for parameter in self.model.parameters()]


def unwatched(steps):
    run = Run()
    run.goes(steps)
    return run.weights()


def test_a_full_disk_costs_nothing_once_there_is_room(disk, caplog):
    run = Run(journal=disk / "a.jsonl", writers=[TensorBoardWriter(disk / "events")])
    run.goes(5)
    with full(disk):
        run.goes(60)
        lines = len(read_journal(disk / "a.jsonl").readings)
    run.goes(5)
    run.monitor.close()
    journal = read_journal(disk / "a.jsonl")
    assert [r.step for r in journal.readings] == list(range(70))
    assert lines < 60
    assert journal.unreadable == []
    assert [s for s, _ in read(disk / "events")["uniformity/w2"]] == list(range(70))
    assert caplog.text.count("No space left on device") == 2
    assert "can be written again after" in caplog.text
    assert "nothing is lost" in caplog.text
    assert "writer TensorBoardWriter: takes readings again" in caplog.text
    assert all(map(torch.equal, run.weights(), unwatched(70)))


def test_a_disk_that_is_full_from_the_start(disk, caplog):
    with full(disk):
        run = Run(journal=disk / "a.jsonl", writers=[])
        run.goes(5)
    run.goes(5)
    run.monitor.close()
    journal = read_journal(disk / "a.jsonl")
    assert len(journal.runs) == 1
    assert [r.step for r in journal.readings] == list(range(10))
    assert "cannot be written yet ([Errno 28] No space left on device); readings wait in memory" in caplog.text


def test_with_every_disk_full_what_is_lost_is_counted(disk, caplog):
    got = []
    run = Run(journal=disk / "a.jsonl", writers=[lambda values, step: got.append(step)])
    run.goes(5)
    with full(disk):
        run.goes(300)
        run.monitor.close()
    assert got == list(range(305))
    there = read_journal(disk / "a.jsonl")
    assert [r.step for r in there.readings] == list(range(len(there.readings)))
    assert there.unreadable == []
    assert f"{305 - len(there.readings)} records could not be written to {disk / 'a.jsonl'} and are lost" in caplog.text
    assert run.monitor.faults.count >= 305 - len(there.readings)


def test_a_read_only_disk(disk, tmp_path, caplog):
    mount("-o", "remount,ro", disk)
    run = Run(journal=tmp_path / "a.jsonl", writers=[TensorBoardWriter(disk / "events")])
    run.goes(10)
    mount("-o", "remount,rw", disk)
    run.monitor.close()
    assert [s for s, _ in read(disk / "events")["uniformity/w2"]] == list(range(10))
    assert caplog.text.count("Read-only file system") == 1


def test_a_journal_on_a_read_only_disk_is_an_error_at_the_start(disk):
    mount("-o", "remount,ro", disk)
    with pytest.raises(ValueError, match=r"journal .* cannot be written .*Read-only file system.*; give another path"):
        Run(journal=disk / "a.jsonl", writers=[])


class Slow:
    """A file on a disk that takes 200 ms for each write."""

    def __init__(self, file):
        self._file = file

    def write(self, line):
        time.sleep(0.2)
        return self._file.write(line)

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_a_slow_disk_does_not_slow_training(tmp_path, caplog):
    run = Run(journal=tmp_path / "a.jsonl", writers=[])
    journal = run.monitor._desk.reader._journal
    journal._file = Slow(journal._file)
    took = run.goes(300)
    run.monitor.close()
    assert sorted(took)[150] < 0.02
    assert sum(took) < 6.0  # of 60 s that the disk would take for all
    assert re.search("due steps (are passed over until|is read now).*choose a larger every_n_steps", caplog.text)
    steps = [r.step for r in read_journal(run.monitor.journal).readings]
    assert steps == sorted(set(steps))
    assert len(steps) > 2
    assert all(map(torch.equal, run.weights(), unwatched(300)))


LIMITED = """
import logging, resource, sys
from pathlib import Path
from test_disks import Run
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter
logging.basicConfig(stream=sys.stdout, format="%(message)s")
folder = Path(sys.argv[1])
run = Run(journal=folder / "a.jsonl", writers=[TensorBoardWriter(folder / "events")])
run.goes(5)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / "a.jsonl").stat().st_size + 100, hard))
run.goes(30)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
run.goes(5)
run.monitor.close()
"""


def test_files_that_may_not_grow_for_a_while(tmp_path):
    """The same where nothing can be mounted: a limit on the size of files."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    journal = read_journal(tmp_path / "a.jsonl")
    assert [r.step for r in journal.readings] == list(range(40))
    assert journal.unreadable == []
    assert [s for s, _ in read(tmp_path / "events")["uniformity/w2"]] == list(range(40))
    assert out.count("File too large") == 2
    assert "nothing is lost" in out
