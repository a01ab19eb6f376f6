"""LightningCLI: a callback with nested rules, loss and writers from a YAML file."""

import subprocess
import sys

import pytest
from lightning.pytorch.cli import LightningCLI
from test_tensorboard import read
from trainers import Constant, journal, loader

from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = [
    pytest.mark.usefixtures("own_place"),
    # A warning for the user, which as an error jsonargparse would take for a reason to try another way.
    pytest.mark.filterwarnings("ignore:(?s).*Unable to serialize instance"),
]

CONFIG = """
seed_everything: 3
trainer:
  accelerator: cpu
  devices: 1
  max_steps: 12
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: uniformity_callbacks.integrations.lightning.UniformityCallback
      init_args:
        layer: projector
        every_n_steps: 1
        alerts:
          - class_path: uniformity_callbacks.CollapseAlert
            init_args: {kind: nonfinite}
          - class_path: uniformity_callbacks.CollapseAlert
            init_args: {kind: constant, patience: 3, warmup_steps: 1, action: stop}
        auxiliary:
          class_path: uniformity_callbacks.WassersteinLoss
          init_args:
            weight:
              class_path: uniformity_callbacks.LinearDecay
              init_args: {start: 1.0}
        writers:
          - class_path: uniformity_callbacks.integrations.tensorboard.TensorBoardWriter
            init_args: {target: runs/a}
"""


class Fed(Constant):
    def train_dataloader(self):
        return loader()


def test_a_run_from_a_file_and_from_what_it_saves(tmp_path, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's own use of it
    (tmp_path / "first.yaml").write_text(CONFIG)
    for config in ("first.yaml", "config.yaml"):  # the second is what Lightning saves of the first
        monkeypatch.setattr(sys, "argv", ["train", "fit", "--config", config])
        cli = LightningCLI(Fed, save_config_kwargs={"overwrite": True})
        (callback,) = (each for each in cli.trainer.callbacks if isinstance(each, UniformityCallback))
        assert [(a.kind, a.step) for a in journal(callback).alerts] == [("constant", 3)]
        weights = [1 - k / 12 for k in range(5)]  # stopped by the alert
        assert journal(callback).series("aux_weight") == ([0, 1, 2, 3, 4], pytest.approx(weights))
        assert [step for step, _ in read(tmp_path / "runs" / "a")["uniformity/w2"]][-5:] == [0, 1, 2, 3, 4]


OTHER = """
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LightningCLI


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.projector = torch.nn.Linear(6, 8)

    def training_step(self, batch, batch_idx):
        return self.projector(batch).square().mean()

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.randn(64, 6), batch_size=16)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


LightningCLI(Model)
"""


def test_the_other_packages_cli_takes_it(tmp_path):
    """In a process of its own, where ours is imported after that package, as a CLI imports it."""
    (tmp_path / "run.yaml").write_text(CONFIG)
    (tmp_path / "other.py").write_text(OTHER)
    command = [sys.executable, "other.py", "fit", "--config", "run.yaml"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert (tmp_path / "uniformity.jsonl").exists()
