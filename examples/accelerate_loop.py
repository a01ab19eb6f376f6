"""A loop of Hugging Face Accelerate, two micro-batches a step; run it by ``python -m examples.accelerate_loop``.

The task is that of `examples.plain_loop`, and so is what the monitor adds to the loop.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from examples.digits import data, networks, show
from uniformity_callbacks import WassersteinLoss
from uniformity_callbacks.integrations.pytorch import watch
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter

STEPS = 300


def main() -> None:
    """Train, and print what was read."""
    logging.basicConfig(format="%(message)s")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-results/accelerate-loop")
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    set_seed(0)
    bare = networks.Network()
    model, optimizer, loader = accelerator.prepare(
        bare,
        torch.optim.Adam(bare.parameters(), lr=2e-3),
        data.train_loader(data.load(), steps=2 * STEPS, batch_size=128),
    )

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
            with accelerator.accumulate(model):
                loss = networks.distance(model(x0), model(x1))
                loss = monitor.add_auxiliary(loss)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            if monitor.should_stop:
                break
    if accelerator.is_main_process:
        show.readings(monitor.journal)


if __name__ == "__main__":
    main()
