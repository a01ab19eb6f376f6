"""Processes that end by signals: their journals are whole, their handlers and exit codes their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from uniformity_callbacks import read_journal

HERE = Path(__file__).parent
ENOUGH = 40


def ended(how, number, folder, watched):
    """Send a signal to a training that is under way; return its exit code and the steps that its writer got."""
    path = os.pathsep.join([str(HERE), *sys.path])
    process = subprocess.Popen(
        [sys.executable, str(HERE / "signalled.py"), how, str(folder), "watched" if watched else "not"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    steps = []
    try:
        for line in process.stdout:
            if line.strip().isdigit():
                steps.append(int(line))
            if number is not None and steps and steps[-1] >= ENOUGH:
                process.send_signal(number)
                number = None
        code = process.wait(60)
    finally:
        process.kill()
        process.stdout.close()
    assert steps
    return code, steps


@pytest.mark.parametrize(
    ("how", "number", "code"),
    [
        ("loop", signal.SIGTERM, -signal.SIGTERM),
        ("loop", signal.SIGINT, -signal.SIGINT),
        ("loop", signal.SIGHUP, -signal.SIGHUP),
        ("loop", signal.SIGKILL, -signal.SIGKILL),
        ("handler", signal.SIGTERM, 7),
        ("exit", None, 5),
    ],
)
def test_a_loop(how, number, code, tmp_path):
    got, steps = ended(how, number, tmp_path, watched=True)
    assert got == code
    journal = read_journal(tmp_path / "a.jsonl")
    assert [r.step for r in journal.readings][: len(steps)] == steps
    assert len(journal.readings) - len(steps) <= (20 if how == "handler" or number == signal.SIGINT else 1)
    assert journal.unreadable in ([], [len(journal.readings) + 2])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_fit(number, tmp_path):
    """Lightning has handlers of its own: the exit code is the one without us."""
    code, steps = ended("fit", number, tmp_path, watched=True)
    journal = read_journal(tmp_path / "a.jsonl")
    assert [r.step for r in journal.readings][: len(steps)] == steps
    assert journal.unreadable == []
    assert ended("fit", number, tmp_path, watched=False)[0] == code
