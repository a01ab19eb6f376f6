"""Train one method on handwritten digits; run it by ``python -m examples.methods simclr --auxiliary 0.5``.

It prints what was read on the way, and how well the encoder's features tell digits apart in the end.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from examples.digits import data, evaluate, show

from . import METHODS
from .loop import train


def main(arguments: list[str] | None = None) -> None:
    """Train, and print."""
    parser = argparse.ArgumentParser(prog="python -m examples.methods", description=__doc__)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--auxiliary", type=float, help="weight of the Wasserstein loss; none is added by default")
    parser.add_argument("--wang-isola", type=float, default=0.0, help="weight of Wang and Isola's loss")
    parser.add_argument("--lr", type=float, help="learning rate, if not the method's own")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("demo-results/methods"))
    told = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")

    digits = data.load()
    torch.manual_seed(told.seed)
    method = METHODS[told.method]()
    journal = train(
        method,
        data.train_loader(digits, steps=told.steps, seed=told.seed),
        auxiliary=told.auxiliary,
        wang_isola=told.wang_isola,
        lr=told.lr,
        journal=told.folder / f"{told.method}.jsonl",
    )
    show.readings(journal)
    found = evaluate.accuracies(method, digits)
    print(f"On {len(digits.test_labels)} test images: nearest neighbour {found.nearest_neighbour:.3f}, ", end="")
    print(f"linear probe {found.linear_probe:.3f}, of standardised features {found.standardised_probe:.3f}")


if __name__ == "__main__":
    main()
