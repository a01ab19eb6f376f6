"""Peak memory of a work beyond its input, each in a fresh process: ``python -m benchmarks.memory loss 512 256``."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil
import torch

from benchmarks.rows import isotropic
from benchmarks.works import WORKS

_LIMIT_S = 600.0

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")

_NO_SLACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
"""What is freed goes back at once: glibc would keep it, and what is measured next would fit in unseen."""


def peak(work: str, n: int, d: int) -> float:
    """Return the bytes that a work of `WORKS` needs beyond its input, float32 (n, d), at its peak."""
    command = [sys.executable, "-m", "benchmarks.memory", work, str(n), str(d)]
    env = {**os.environ, **_NO_SLACK, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=_LIMIT_S)
    return float(json.loads(done.stdout))


def _measure(work: str, n: int, d: int) -> int:
    WORKS[work](isotropic(64, 32))  # libraries and threads are there
    z = isotropic(n, d)
    before: int = psutil.Process().memory_info().rss
    try:
        _RESET.write_text("5")  # the peak counts from now on
    except OSError:  # not Linux: the peak so far may hide ours, where that is small
        before = max(before, _highest())
    WORKS[work](z)
    return _highest() - before


def _highest() -> int:
    if _STATUS.exists():
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest


if __name__ == "__main__":
    torch.manual_seed(0)
    print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
