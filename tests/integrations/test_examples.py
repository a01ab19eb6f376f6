"""The examples as their first lines say they are run, as real processes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_tensorboard import read

from uniformity_callbacks import read_journal

ROOT = Path(__file__).parents[2]


def run(tmp_path, name):
    """Run an example by the command in its first line; return what it printed and its journal."""
    first = (ROOT / "examples" / f"{name}.py").read_text().splitlines()[0]
    command = re.search(r"``(.*)``", first)[1]
    program, *arguments = command.split()
    program = Path(sys.executable).parent / program
    done = subprocess.run(
        [program, *arguments, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done, read_journal(tmp_path / "uniformity.jsonl")


@pytest.mark.parametrize("name", ["plain_loop", "fabric_loop", "accelerate_loop"])
def test_loops(tmp_path, name):
    assert f"`python -m examples.{name}`" in (ROOT / "README.md").read_text()
    done, journal = run(tmp_path, name)
    assert [(r.step, r.values["samples"]) for r in journal.readings] == [(k, 512) for k in range(0, 300, 20)]
    (alert,), (over,) = journal.alerts, journal.recoveries
    assert alert.kind == over.kind == "constant"
    assert done.stderr.count(f"constant collapse at step {alert.step}") == 1
    assert done.stdout.count(" 512 ") == 15
    w2 = dict(zip(*journal.series("w2"), strict=True))
    assert max(w2.values()) > 1.38 > 1.2 > w2[280]
    assert [step for step, _ in read(tmp_path)["uniformity/w2"]] == list(w2)


@pytest.mark.parametrize("name", ["ddp_trainer", "ddp_torchrun"])
def test_two_ranks(tmp_path, name):
    done, journal = run(tmp_path, name)
    assert [(r.step, r.values["samples"]) for r in journal.readings] == [(k, 512) for k in range(0, 300, 20)]
    (alert,) = journal.alerts
    assert alert.kind == "constant"
    assert done.stderr.count(f"constant collapse at step {alert.step}") == 1  # one rank speaks
    assert done.stdout.count(" 512 ") == 15
    w2 = dict(zip(*journal.series("w2"), strict=True))
    assert max(w2.values()) > 1.38 > 1.3 > w2[280]  # mended, as both ranks switch the loss on
