"""Validation epochs: read as a whole, under keys of their own, at the steps of Lightning's own curves."""

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from test_tensorboard import read
from trainers import Twin, Validated, fit, journal, loader, new

from uniformity_callbacks import CollapseAlert, functional
from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = pytest.mark.usefixtures("own_place")


class Outputs(Validated):
    """Keeps what its projector puts out in each validation epoch."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_validation_epoch_start(self):
        self.epochs.append([])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        z = self.projector(self.encoder(batch[0]))
        self.log("val/norm", z.norm())
        self.epochs[-1].append(z.detach())


def test_validation_neither_disturbs_training_nor_is_disturbed():
    plain, watched = new(Validated), new(Validated)
    callback = UniformityCallback(every_n_steps=3)
    fit(plain, max_steps=20, val_check_interval=2)
    fit(watched, [callback], max_steps=20, val_check_interval=2)
    assert journal(callback).series("samples") == ([0, 3, 6, 9, 12, 15, 18], [32.0] * 7)
    for (name, a), b in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(("options", "steps"), [({"val_check_interval": 3}, 6), ({"accumulate_grad_batches": 2}, 3)])
def test_the_whole_set_is_read_at_the_steps_of_lightnings_own_curves(tmp_path, options, steps):
    model, callback = new(Outputs), UniformityCallback(every_n_steps=5)
    logger = TensorBoardLogger(tmp_path, name="", version="")
    trainer = fit(model, [callback], logger=logger, max_epochs=3, max_steps=-1, **options)
    events = read(tmp_path)
    own = [step for step, _ in events["val/norm"]]
    assert [step for step, _ in events["uniformity/val/w2"]] == own
    assert len(own) == steps
    epochs = model.epochs[1:]  # without the sanity check's
    expected = [functional.wasserstein_uniformity(torch.cat(epoch).double()).item() for epoch in epochs]
    assert journal(callback).series("w2", stage="val") == (own, pytest.approx(expected, rel=1e-6))
    assert journal(callback).series("samples", stage="val")[1] == [32.0] * steps
    assert trainer.callback_metrics["uniformity/val/w2"].item() == pytest.approx(expected[-1], rel=1e-6)


def test_validation_between_the_micro_batches_of_a_step_leaves_its_reading_whole():
    callback = UniformityCallback(every_n_steps=1)
    fit(new(Validated), [callback], accumulate_grad_batches=4, val_check_interval=3, max_steps=4)
    assert journal(callback).series("samples") == ([0, 1, 2, 3], [128.0] * 4)
    assert len(journal(callback).series("samples", stage="val")[0]) > 2


def test_checkpoints_and_early_stopping_on_a_validation_key_see_the_epochs_own_value(tmp_path):
    model, callback = new(Outputs), UniformityCallback(every_n_steps=1000)
    best = ModelCheckpoint(tmp_path, monitor="uniformity/val/w2", save_top_k=-1, filename="{uniformity/val/w2:.6f}")
    early = EarlyStopping("uniformity/val/w2", mode="min", patience=2, min_delta=10.0)
    trainer = fit(model, [early, best, callback], max_epochs=9, max_steps=-1, enable_checkpointing=True)
    assert trainer.current_epoch == 3
    expected = [functional.wasserstein_uniformity(torch.cat(epoch).double()).item() for epoch in model.epochs[1:]]
    saved = sorted(value.item() for value in best.best_k_models.values())
    assert saved == pytest.approx(sorted(expected), rel=1e-6)


def test_validation_feeds_no_alert():
    class Flat(Validated):
        def validation_step(self, batch, batch_idx):
            self.projector(self.encoder(torch.ones_like(batch[0])))

    rules = [CollapseAlert("constant", patience=1, warmup_steps=0, action="stop")]
    callback = UniformityCallback(every_n_steps=1, alerts=rules)
    trainer = fit(new(Flat), [callback], max_steps=16)
    assert trainer.global_step == 16
    assert journal(callback).series("mean_resultant", stage="val")[1] == pytest.approx([1.0, 1.0])
    assert journal(callback).alerts == []


def test_neither_the_sanity_check_nor_another_loop_is_read():
    callback = UniformityCallback(every_n_steps=4)
    trainer = fit(new(Validated), [callback], max_steps=4, num_sanity_val_steps=2, limit_val_batches=1)
    before = len(journal(callback).readings)
    trainer.validate(new(Validated), verbose=False)
    assert len(journal(callback).readings) == before
    assert journal(callback).series("samples", stage="val") == ([], [])
    assert callback.monitor.faults.count == 0


def test_of_several_validation_sets_the_first_is_read():
    class Two(Outputs):
        def val_dataloader(self):
            return [loader(48), loader(16)]

    callback = UniformityCallback()
    fit(new(Two), [callback], max_epochs=1, max_steps=-1)
    assert journal(callback).series("samples", stage="val")[1] == [48.0]


def test_a_run_without_validation_has_no_such_keys():
    callback = UniformityCallback()
    trainer = fit(new(Twin), [callback])
    assert not any("/val/" in key for key in trainer.callback_metrics)
