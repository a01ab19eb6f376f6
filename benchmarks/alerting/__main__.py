"""``python -m benchmarks.alerting``: train the runs, replay them through the rules, write docs/alert_benchmark.md.

With ``--replay`` the runs of the time before are taken, in build/alerting; nothing is trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import page
from benchmarks.alerting import curves, record, report
from benchmarks.alerting.cases import SEEDS, cases
from benchmarks.alerting.record import Task
from benchmarks.pairs import say

PAGE = Path(__file__).parents[2] / "docs" / "alert_benchmark.md"

TINY_STEPS = 130
TINY = ("barlow_twins-1", "barlow-no-off", "byol-nan")


def main(arguments: list[str] | None = None) -> None:
    """Train, replay, and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alerting", description=__doc__)
    parser.add_argument("--replay", action="store_true", help="take the runs that are there; train nothing")
    parser.add_argument("--tiny", action="store_true", help="see that it runs: a few short runs, nothing is written")
    parser.add_argument(
        "--seeds", type=int, nargs=2, help="judge others, first to last, in the terminal; nothing is written"
    )
    told = parser.parse_args(arguments)
    if told.tiny:
        with TemporaryDirectory() as folder:
            chosen = [case for case in cases() if case.name in TINY]
            tasks = [Task(case, seed, Path(folder), TINY_STEPS) for case in chosen for seed in SEEDS[:2]]
            record.record_all(tasks, processes=0)
            print(report.text(report.known(tasks)))
            curves.draw(report.known(tasks), Path(folder) / "alerts.png")
        return
    seeds = range(told.seeds[0], told.seeds[1] + 1) if told.seeds else SEEDS
    tasks = [Task(case, seed, record.FOLDER, case.steps) for case in cases() for seed in seeds]
    if not told.replay:
        record.record_all(tasks)
    runs = report.known(tasks)
    generated = f"{report.text(runs)}\n\n{page.machine()}"
    print(generated, flush=True)
    if told.seeds:
        return
    curves.draw(runs, PAGE.with_suffix(".png"))
    PAGE.write_text(page.replaced(PAGE.read_text(), "alerts", generated))
    say(f"written: {PAGE}")


if __name__ == "__main__":
    main()
