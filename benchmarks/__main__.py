"""``python -m benchmarks [part ...]``: measure, print, and write the parts into docs/speed.md."""

from __future__ import annotations

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
    parts, tiny = page.asked_for(PARTS, "benchmarks", __doc__, arguments)
    for name in parts:
        say(f"== {name}")
        generated = f"{PARTS[name](tiny=tiny)}\n\n{page.machine()}"
        print(f"{generated}\n", flush=True)
        if not tiny:  # part by part: an hour's figures are not lost by an error in the next
            page.PAGE.write_text(page.replaced(page.PAGE.read_text(), name, generated))


if __name__ == "__main__":
    main()
