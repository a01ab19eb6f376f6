"""Our torchmetrics in Lightning's hands: logged over validation epochs and training steps."""

import re
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from trainers import Twin, fit, loader

from uniformity_callbacks import functional
from uniformity_callbacks.integrations import torchmetrics as ours


class Measured(Twin):
    """Logs what torchmetrics say of its views: of each validation epoch, of each training step and epoch."""

    def __init__(self):
        super().__init__()
        self.whole = MetricCollection(
            {
                "w2": ours.WassersteinUniformity(8, views=2),
                "dims": ours.EffectiveDims(8, views=2),
                "lu": ours.WangIsolaUniformity(8, views=2),
                "alignment": ours.Alignment(),
            },
            prefix="val/",
        )
        self.steps = ours.WassersteinUniformity(8, views=2)
        self.epochs = {"train": [], "val": []}

    def on_train_epoch_start(self):
        self.epochs["train"].append([])

    def on_validation_epoch_start(self):
        self.epochs["val"].append([])

    def term(self, z0, z1):
        self.epochs["train"][-1].append((z0.detach(), z1.detach()))
        self.steps(z0, z1)
        self.log("w2", self.steps, on_step=True, on_epoch=True)
        return super().term(z0, z1)

    def validation_step(self, batch, batch_idx):
        views = self.embed(batch)
        self.epochs["val"][-1].append(views)
        self.whole.update(*views)
        self.log_dict(self.whole)

    def val_dataloader(self):
        return loader(72, 20)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed"])
@pytest.mark.usefixtures("own_place")
def test_logged_by_lightning(precision):
    model = Measured()
    trainer = fit(model, data=loader(64), max_epochs=2, max_steps=-1, precision=precision)
    told = {name: value.item() for name, value in trainer.callback_metrics.items()}
    z0, z1 = (torch.cat(view).double() for view in zip(*model.epochs["val"][-1], strict=True))
    assert len(z0) == 72
    assert told["val/w2"] == pytest.approx(functional.wasserstein_uniformity(torch.cat([z0, z1])).item())
    assert told["val/lu"] == pytest.approx(functional.wang_isola_uniformity(torch.cat([z0, z1])).item())
    assert told["val/alignment"] == pytest.approx(functional.alignment(z0, z1).item())
    each = [functional.effective_dims(z).item() for z in (z0, z1)]
    assert told["val/dims"] == pytest.approx(sum(each) / 2)
    steps = [torch.cat(views).double() for views in model.epochs["train"][-1]]
    assert told["w2_step"] == pytest.approx(functional.wasserstein_uniformity(steps[-1]).item())
    assert told["w2_epoch"] == pytest.approx(functional.wasserstein_uniformity(torch.cat(steps)).item())
    assert {part.dtype for part in model.whole["w2"].metric_state.values()} == {torch.float64}


@pytest.mark.usefixtures("own_place")
def test_the_page_runs_as_it_is_printed(capsys):
    page = (Path(__file__).parents[2] / "docs" / "torchmetrics.md").read_text()
    space = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.S):
        exec(compile(block, "torchmetrics.md", "exec"), space)
    assert "'Alignment': tensor(" in capsys.readouterr().out
    assert list(map(len, space["metrics"].compute_groups.values())) == [3, 1]
    model = space["Model"](torch.nn.Linear(6, 128))
    data = torch.randn(24, 6)
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    (told,) = trainer.validate(model, DataLoader(data, batch_size=9), verbose=False)
    expected = functional.wasserstein_uniformity(model.encoder(data)).item()
    assert told["val/w2"] == pytest.approx(expected, rel=1e-4)
