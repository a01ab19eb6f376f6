"""``python -m benchmarks.paper [part ...]``: measure, print, and write figures, numbers and text into docs/paper."""

from __future__ import annotations

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
    parts, tiny = page.asked_for(PARTS, "benchmarks.paper", __doc__, arguments)
    for name in parts:
        say(f"== {name}")
        begun = time.perf_counter()
        found = PARTS[name](tiny=tiny)
        generated = f"{found.text}\n\n{page.machine()} It took {time.perf_counter() - begun:.0f} s."
        print(f"{generated}\n", flush=True)
        if not tiny:
            found.write(outcome.FOLDER)
            file = outcome.FOLDER / found.page
            file.write_text(page.replaced(file.read_text(), name, generated))
        found.close()


if __name__ == "__main__":
    main()
