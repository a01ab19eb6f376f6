"""Trainings that go on until a signal ends them; run as a process: how, folder, watched or not."""

import os
import signal
import sys

import torch
from killable import Siamese, digits


def tell(values, step):
    """A writer that says which readings it got."""
    print(step, flush=True)


def batches():
    x = digits()
    while True:
        yield x[torch.randint(len(x), (64,))]


def loop(how, folder, watched):
    from uniformity_callbacks.integrations.pytorch import watch

    def handler(*_):
        sys.exit(7)

    if how == "handler":
        signal.signal(signal.SIGTERM, handler)
    model = Siamese()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if watched:
        watch(model, optimizer=optimizer, every_n_steps=2, journal=f"{folder}/a.jsonl", writers=[tell])
    for k, batch in enumerate(batches()):
        optimizer.zero_grad()
        z0, z1 = (model(batch + 0.1 * torch.randn_like(batch)) for _ in range(2))
        (z0 - z1).square().mean().backward()
        optimizer.step()
        if not watched and k % 2 == 0:
            tell({}, k)
        if how == "handler" and signal.getsignal(signal.SIGTERM) is not handler:
            sys.exit(99)
        if how == "exit" and k == 40:
            os._exit(5)


def fit(how, folder, watched):
    import lightning.pytorch as pl

    from uniformity_callbacks.integrations.lightning import UniformityCallback

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = Siamese()

        def training_step(self, batch, batch_idx):
            z0, z1 = (self.network(batch + 0.1 * torch.randn_like(batch)) for _ in range(2))
            if not watched:
                tell({}, self.global_step)
            return (z0 - z1).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    ours = [UniformityCallback(every_n_steps=2, journal=f"{folder}/a.jsonl", writers=[tell])] if watched else []
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    pl.Trainer(max_steps=1_000_000, max_epochs=-1, callbacks=ours, default_root_dir=folder, **quiet).fit(
        Module(), torch.utils.data.DataLoader(digits(), batch_size=64)
    )


if __name__ == "__main__":
    how, folder, watched = sys.argv[1:]
    torch.set_num_threads(1)
    (fit if how == "fit" else loop)(how, folder, watched == "watched")
