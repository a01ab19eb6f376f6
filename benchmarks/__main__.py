"""``python -m benchmarks [part ...]``: measure, print, and write the parts into docs/speed.md."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks import accelerator, growth, page, ratios, runs, thread
from benchmarks.pairs import say

PARTS: dict[str, Callable[..., str]] = {
    "thread": thread.run,
    "runs": runs.run,
    "ratios": ratios.run,
    "growth": growth.run,
    "accelerator": accelerator.run,
}
"""Name of a part, as the page's comments have it -> what measures it and returns Markdown."""


def main(arguments: list[str] | None = None) -> None:
    """Measure the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--tiny", action="store_true", help="see that it runs: small sizes, nothing is written")
    told = parser.parse_args(arguments)
    if unknown := set(told.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for name in told.parts or PARTS:
        say(f"== {name}")
        generated = f"{PARTS[name](tiny=told.tiny)}\n\n{page.machine()}"
        print(f"{generated}\n", flush=True)
        if not told.tiny:  # part by part: an hour's figures are not lost by an error in the next
            page.PAGE.write_text(page.replaced(page.PAGE.read_text(), name, generated))


if __name__ == "__main__":
    main()
