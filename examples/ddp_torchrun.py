"""Two ranks in a plain loop; run it by ``torchrun --standalone --nproc-per-node 2 -m examples.ddp_torchrun``.

The same as `examples.ddp_trainer` without a Trainer. Every rank calls the monitor alike; what goes wrong on one of them
is told on all, and none waits for another.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from examples.digits import data, networks, show
from uniformity_callbacks import WassersteinLoss
from uniformity_callbacks.integrations.pytorch import watch

STEPS = 300


def main() -> None:
    """Train, and print what was read."""
    logging.basicConfig(format="%(message)s")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-results/ddp-torchrun")
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = DistributedDataParallel(networks.Network())
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loader = data.train_loader(data.load(), steps=STEPS, batch_size=128, seed=rank)

    loss = WassersteinLoss(weight=1.0, when="alert")
    monitor = watch(
        model, views=2, optimizer=optimizer, every_n_steps=20, auxiliary=loss, journal=folder / "uniformity.jsonl"
    )
    for (x0, x1), _ in loader:
        z0, z1 = model(torch.cat([x0, x1])).chunk(2)
        total = monitor.add_auxiliary(networks.distance(z0, z1))
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
    monitor.close(together=True)
    if rank == 0:
        show.readings(monitor.journal)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
