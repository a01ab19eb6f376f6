"""Two ranks in a plain loop; run it by ``torchrun --standalone --nproc-per-node 2 -m examples.ddp_torchrun``.

The same as `examples.ddp_trainer` without a Trainer: the loop calls the monitor at each place of a step. Every rank
calls it alike; what goes wrong on one of them is told on all, and none waits for another.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from examples.digits import data, models, show
from uniformity_callbacks import UniformityMonitor, WassersteinLoss

STEPS = 300


def main() -> None:
    """Train, and print what was read."""
    logging.basicConfig(format="%(message)s")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-results/ddp-torchrun")
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = models.Siamese()
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loader = data.train_loader(data.load(), steps=STEPS, batch_size=128, seed=rank)

    loss = WassersteinLoss(weight=1.0, when="alert")
    monitor = UniformityMonitor("projector", views=2, every_n_steps=20, auxiliary=loss)
    monitor.attach(model, directory=folder)
    for step, ((x0, x1), _) in enumerate(loader):
        monitor.begin(step)
        z0, z1 = parallel(torch.cat([x0, x1])).chunk(2)
        total = monitor.add_auxiliary(model.compare(z0, z1))
        monitor.pause()
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        monitor.end_pass()
        optimizer.step()
        monitor.finish()
    monitor.close(together=True)
    if rank == 0:
        show.readings(monitor.journal)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
