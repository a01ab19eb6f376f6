"""A loop of Lightning Fabric; run it by ``python -m examples.fabric_loop``.

The task is that of `examples.plain_loop`, and so is what the monitor adds to the loop.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch
from lightning.fabric import Fabric

from examples.digits import data, networks, show
from uniformity_callbacks import WassersteinLoss
from uniformity_callbacks.integrations.pytorch import watch
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter

STEPS = 300


def main() -> None:
    """Train, and print what was read."""
    logging.basicConfig(format="%(message)s")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-results/fabric-loop")
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    fabric.seed_everything(0, verbose=False)
    bare = networks.Network()
    model, optimizer = fabric.setup(bare, torch.optim.Adam(bare.parameters(), lr=2e-3))
    loader = fabric.setup_dataloaders(data.train_loader(data.load(), steps=STEPS))

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
            fabric.backward(loss)
            optimizer.step()
            if monitor.should_stop:
                break
    if fabric.is_global_zero:
        show.readings(monitor.journal)


if __name__ == "__main__":
    main()
