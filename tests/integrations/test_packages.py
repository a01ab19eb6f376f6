"""Lightning's two packages in one process: the callback is of the one that was there first, and works in both."""

import subprocess
import sys

import pytest

CODE = """
import importlib, sys, torch

first, second = sys.argv[1:]
importlib.import_module(first)
from uniformity_callbacks.integrations.lightning import UniformityCallback
assert second not in sys.modules
importlib.import_module(second)
for package in (sys.modules[first], sys.modules[second]):

    class Model(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.projector = torch.nn.Linear(6, 8)

        def training_step(self, batch, batch_idx):
            return self.projector(batch).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    callback = UniformityCallback()
    assert isinstance(callback, package.Callback)
    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer = package.Trainer(callbacks=[callback], max_steps=2, accelerator="cpu", **quiet)
    trainer.fit(Model(), torch.utils.data.DataLoader(torch.randn(64, 6), batch_size=16))
    print(package.__name__, trainer.callback_metrics["uniformity/samples"].item())
"""
PACKAGES = ["lightning.pytorch", "pytorch_lightning"]


@pytest.mark.parametrize("order", [PACKAGES, PACKAGES[::-1]])
def test_both_in_one_process(order, tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", CODE, *order]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{package} 16.0" for package in order]
