"""`python -m tests.soak ROUNDS STEPS`: long runs with faults, and a table of what was measured."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "integrations"))  # where tests keep what they share
sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.soak import faults, kills, restarts


def show(title, measured):
    print(f"\n| {title} | |\n|---|---|")
    for what, value in measured.items():
        print(f"| {what} | {value} |")
    sys.stdout.flush()


def main():
    rounds, steps = (int(word) for word in sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        for title, part, size in (
            ("kills", kills.run, rounds),
            ("restarts", restarts.run, rounds),
            ("faults", faults.run, steps),
        ):
            if size:
                own = Path(folder) / title
                own.mkdir()
                show(title, part(own, size))


if __name__ == "__main__":
    main()
