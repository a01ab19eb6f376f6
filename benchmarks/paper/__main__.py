"""``python -m benchmarks.paper [part ...]``: measure, print, and write figures, numbers and text into docs/paper."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from benchmarks import page
from benchmarks.pairs import say
from benchmarks.paper import desiderata, gaussian, methods, outcome, sample_size, sensitivity
from benchmarks.paper.outcome import Outcome

PARTS: dict[str, Callable[..., Outcome]] = {
    "desiderata": desiderata.run,
    "sensitivity": sensitivity.run,
    "gaussian": gaussian.run,
    "sample_size": sample_size.run,
    "methods": methods.run,
}
"""Name of a part, as the page's comments have it -> what measures it."""


def main(arguments: list[str] | None = None) -> None:
    """Measure the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--tiny", action="store_true", help="see that it runs: small sizes, nothing is written")
    told = parser.parse_args(arguments)
    if unknown := set(told.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for name in told.parts or PARTS:
        say(f"== {name}")
        begun = time.perf_counter()
        found = PARTS[name](tiny=told.tiny)
        generated = f"{found.text}\n\n{page.machine()} It took {time.perf_counter() - begun:.0f} s."
        print(f"{generated}\n", flush=True)
        if not told.tiny:
            found.write(outcome.FOLDER)
            file = outcome.FOLDER / found.page
            file.write_text(page.replaced(file.read_text(), name, generated))
        found.close()


if __name__ == "__main__":
    main()
