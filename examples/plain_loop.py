"""A plain PyTorch loop; run it by ``python -m examples.plain_loop``.

A Siamese network on handwritten digits becomes one point: the monitor tells, and adds its loss until that is over. What
it adds to the loop are the call of `watch` and the line with `add_auxiliary`.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch

from examples.digits import data, networks, show
from uniformity_callbacks import WassersteinLoss
from uniformity_callbacks.integrations.pytorch import watch
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter

STEPS = 300


def main() -> None:
    """Train, and print what was read."""
    logging.basicConfig(format="%(message)s")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-results/plain-loop")
    torch.manual_seed(0)
    model = networks.Network()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loader = data.train_loader(data.load(), steps=STEPS)

    monitor = watch(
        model,
        "projector",
        optimizer=optimizer,
        every_n_steps=20,
        auxiliary=WassersteinLoss(weight=1.0, when="alert"),
        writers=[TensorBoardWriter(folder)],
        journal=folder / "uniformity.jsonl",
    )
    with monitor:
        for (x0, x1), _ in loader:
            loss = networks.distance(model(x0), model(x1))
            loss = monitor.add_auxiliary(loss)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            if monitor.should_stop:
                break
    show.readings(monitor.journal)


if __name__ == "__main__":
    main()
