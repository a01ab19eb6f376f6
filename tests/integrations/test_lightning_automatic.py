"""What Lightning does around a step, with the loss injected: accumulation, clipping, precision, closures, limits."""

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.layer_sync import LayerSync
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from trainers import Spikes, Twin, Validated, distance, fit, half, journal, loader, new

from uniformity_callbacks.integrations.lightning import UniformityCallback
from uniformity_callbacks.panel import DEFAULT_METRICS

pytestmark = pytest.mark.usefixtures("own_place")


class Bfgs(Twin):
    """Evaluates each batch up to four times."""

    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.05, max_iter=4)


def trio(kind, **options):
    """Fit without the loss, with it by hand, and with it injected; return what it does, how far off it is, and ours."""
    plain, by_hand, injected = new(kind), new(kind, weight=0.7), new(kind)
    callback = UniformityCallback(every_n_steps=1, auxiliary=0.7)
    for model, callbacks in ((plain, []), (by_hand, []), (injected, [callback])):
        # Plugins keep a state: each fit has its own.
        fit(model, callbacks, **{name: value() if callable(value) else value for name, value in options.items()})
    assert injected.seen == pytest.approx(by_hand.seen, rel=1e-3 if "precision" in options else 1e-6)
    assert callback.monitor.faults.count == 0
    effect = distance(by_hand.parameters(), plain.parameters())
    assert effect > 1e-3
    return distance(by_hand.parameters(), injected.parameters()) / effect, journal(callback), injected


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        (Twin, {"accumulate_grad_batches": 4}, 1e-4),
        (Twin, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}, 1e-4),
        (Twin, {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "norm", "accumulate_grad_batches": 2}, 1e-4),
        (Twin, {"precision": "64-true", "data": lambda: loader(dtype=torch.float64)}, 1e-8),
        (Twin, {"precision": "bf16-mixed"}, 2e-2),
        (Bfgs, {}, 1e-4),
        (Bfgs, {"precision": "64-true", "data": lambda: loader(dtype=torch.float64)}, 1e-8),
    ],
)
def test_the_injected_loss_is_the_one_written_by_hand(kind, options, tolerance):
    off, _, _ = trio(kind, **options)
    assert off <= tolerance


@pytest.mark.parametrize("accumulate", [2, 3, 4])
def test_micro_batches_of_a_step_are_one_reading_in_an_epochs_short_last_group_too(accumulate):
    callback = UniformityCallback(every_n_steps=1, auxiliary=0.7)
    options = {"max_epochs": 2, "max_steps": -1, "accumulate_grad_batches": accumulate}
    fit(new(), [callback], data=loader(112), **options)  # 7 batches of 16 images
    groups = [2 * 16 * min(accumulate, 7 - k) for k in range(0, 7, accumulate)] * 2
    assert journal(callback).series("samples") == (list(range(len(groups))), groups)


@pytest.mark.parametrize("auxiliary", [None, 0.7])
def test_of_a_batch_that_is_evaluated_several_times_the_first_is_read(auxiliary):
    """Before the optimizer moved the weights, as with every other optimizer."""

    class Keeps(Bfgs):
        def embed(self, batch):
            views = super().embed(batch)
            self.first.setdefault(self.global_step, torch.cat(views).detach())
            return views

    model, callback = new(Keeps), UniformityCallback(every_n_steps=1, auxiliary=auxiliary, metrics=["norm_mean"])
    model.first = {}
    fit(model, [callback], max_steps=4)
    assert len(model.seen) > 8
    assert journal(callback).series("samples") == ([0, 1, 2, 3], [32.0] * 4)
    expected = [z.norm(dim=1).mean().item() for z in model.first.values()]
    assert journal(callback).series("norm_mean")[1] == pytest.approx(expected, rel=1e-6)


def test_a_step_that_the_scaler_skips_loses_no_reading():
    scalers = []
    off, read, model = trio(Spikes, plugins=lambda: [half(scalers)], max_steps=12)
    assert [scaler.get_scale() for scaler in scalers] == [2.0**9] * 3
    assert read.series("samples") == (list(range(12)), [32.0] * 12)
    assert off <= 2e-2
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_training_step_that_validation_calls_has_no_term():
    class Shares(Validated):
        def validation_step(self, batch, batch_idx):
            self.values.append(self.training_step(batch, batch_idx).item())
            assert self.values[-1] == self.seen[-1]

    model, callback = new(Shares), UniformityCallback(every_n_steps=2, auxiliary=0.7)
    model.values = []
    fit(model, [callback], val_check_interval=2)
    assert len(model.values) == 2 + 2 * 4
    assert callback.monitor.faults.count == 0


@pytest.mark.parametrize(
    ("options", "samples"),
    [
        ({"fast_dev_run": 3}, None),
        ({"overfit_batches": 2}, [32.0] * 4),
        ({"limit_train_batches": 3}, [32.0] * 6),
        ({"num_sanity_val_steps": 2, "limit_train_batches": 1}, [32.0] * 2),
    ],
)
@pytest.mark.filterwarnings("ignore:.*overfit_batches")
def test_a_limited_run_reads_the_batches_that_it_has(options, samples):
    callback = UniformityCallback(every_n_steps=1, auxiliary=0.7)
    fit(new(Validated), [callback], **{"max_epochs": 2, "max_steps": -1, **options})
    assert callback.monitor.faults.count == 0
    if samples is None:
        assert callback.monitor.last["uniformity/samples"] == 32
        assert callback.monitor.journal is None
    else:
        assert journal(callback).series("samples") == (list(range(len(samples))), samples)


def test_several_fits_with_the_loss_are_those_by_hand():
    by_hand, injected, callback = new(weight=0.7), new(), UniformityCallback(every_n_steps=2, auxiliary=0.7)
    for _ in range(2):
        fit(by_hand, max_steps=4)
        fit(injected, [callback], max_steps=4)
    assert distance(by_hand.parameters(), injected.parameters()) < 1e-6
    assert [run["every_n_steps"] for run in journal(callback).runs] == [2, 2]
    assert journal(callback).series("samples") == ([0, 2, 0, 2], [32.0] * 4)


KEYS = [f"uniformity/{name}" for name in (*DEFAULT_METRICS, "samples", "nonfinite", "aux_loss", "aux_weight")]


def test_early_stopping_and_checkpoints_find_every_default_key(tmp_path):
    """With epochs shorter than the cadence; either raises where its key is not there."""
    early = [EarlyStopping(key, patience=9, mode="min") for key in KEYS]
    best = [ModelCheckpoint(tmp_path / str(k), monitor=key) for k, key in enumerate(KEYS)]
    callback = UniformityCallback(every_n_steps=50, auxiliary=0.7)
    options = {"max_epochs": 2, "max_steps": -1, "enable_checkpointing": True}
    trainer = fit(new(), [*early, *best, callback], data=loader(48), **options)
    assert trainer.global_step == 6
    values = {key: trainer.callback_metrics[key].item() for key in KEYS}
    assert {each.monitor: each.best_score.item() for each in early} == pytest.approx(values)
    assert {each.monitor: each.best_model_score.item() for each in best} == pytest.approx(values)


class Replaces(LayerSync):
    """Puts a new layer in the place of BatchNorm, as SyncBatchNorm does, which runs on a GPU alone."""

    def apply(self, model):
        model.encoder[1] = nn.BatchNorm1d(16)
        return model

    def revert(self, model):
        return model


def test_layers_that_are_replaced_after_setup_are_tapped(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "")  # so that what the strategy sets is put back
        monkeypatch.delenv(name)
    callback = UniformityCallback("encoder.1", every_n_steps=2, auxiliary=0.7)
    strategy = DDPStrategy(process_group_backend="gloo")
    model = new()
    before = model.encoder[1]
    try:
        fit(model, [callback], strategy=strategy, plugins=[Replaces()])
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    assert model.encoder[1] is not before
    assert journal(callback).series("samples") == ([0, 2, 4, 6], [32.0] * 4)
    assert callback.monitor.faults.count == 0
