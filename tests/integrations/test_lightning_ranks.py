"""Through real Trainers on two ranks: what one Trainer reads and trains with all the rows."""

import csv
import time

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from mlflow.tracking import MlflowClient
from test_tensorboard import read
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler
from trainers import fit, goes_on_exactly, loader, new

from spread import spread
from uniformity_callbacks import CollapseAlert, LinearDecay, WassersteinLoss, read_journal, reader
from uniformity_callbacks.integrations.lightning import UniformityCallback
from uniformity_callbacks.integrations.mlflow import MLflowWriter
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter

ROWS = 16


def shared(n, batch_size):
    """Rows dealt out to the ranks in turn and in order: Lightning's own sampler would shuffle those of training."""
    data = loader(n, dtype=torch.float64).dataset
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    sampler = DistributedSampler(data, shuffle=False) if ranks > 1 else None
    return DataLoader(data, batch_size=batch_size // ranks, sampler=sampler)


class Plain(pl.LightningModule):
    """No randomness and no BatchNorm, so that ranks can be compared with one process; two views by a flip."""

    def __init__(self, manual=False):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 16), nn.Tanh())
        self.projector = nn.Linear(16, 8)
        self.automatic_optimization = not manual

    def loss(self, batch):
        z0, z1 = (self.projector(self.encoder(x)) for x in (batch[0], batch[0].flip(1)))
        return (z0 - z1).square().mean()

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("train/loss", loss)
        if self.automatic_optimization:
            return loss
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return None

    def validation_step(self, batch, batch_idx):
        self.loss(batch)

    def val_dataloader(self):
        return shared(100, 20)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.2)


def trained(rank, ranks, folder, case, module=Plain):
    """Fit on some ranks; returns weights, what callbacks see, the journal and the callback's faults."""
    case = dict(case)
    callback = UniformityCallback(**{"every_n_steps": 3, **case.pop("callback", {})})
    options = {"max_epochs": 2, "max_steps": -1, "log_every_n_steps": 1, "default_root_dir": folder, **case}
    manual = options.pop("manual", False)
    if ranks > 1:
        options |= {"devices": ranks, "use_distributed_sampler": False, "strategy": options.pop("strategy", "ddp")}
    options["logger"] = CSVLogger(folder, name="csv", version="")
    model = new(module, manual=manual).double()
    trainer = fit(model, [callback, *options.pop("callbacks", ())], data=shared(256, ROWS), **options)
    ours = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("uniformity")}
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return weights, ours, callback.monitor.journal, callback.monitor.faults.count, trainer.global_step


CASES = {
    "loss": {"callback": {"auxiliary": 0.7}},
    "accumulated": {"callback": {"auxiliary": 0.7}, "accumulate_grad_batches": 2},
    "manual": {"callback": {"auxiliary": 0.7}, "manual": True},
    "decaying": {"callback": {"auxiliary": WassersteinLoss(LinearDecay(2.0))}, "gradient_clip_val": 0.1},
    "unused": {"callback": {"auxiliary": 0.7}, "strategy": "ddp_find_unused_parameters_true"},
    "moments": {"callback": {"metrics": ["w2", "alignment", "rankme"]}},
}


def fit_data(journal):
    return [(r.step, r.stage, r.values) for r in read_journal(journal).readings]


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_are_one_process_with_all_rows(tmp_path, case):
    alone = trained(0, 1, tmp_path / "alone", CASES[case] | {"strategy": "auto"})
    expected = fit_data(alone[2])
    got = spread(2, trained, 2, tmp_path / "ranks", CASES[case])
    (journal,) = {journal for _, _, journal, _, _ in got} - {None}
    readings = fit_data(journal)
    assert [reading[:2] for reading in readings] == [reading[:2] for reading in expected]
    assert len(readings) == (8 if "accumulate_grad_batches" in CASES[case] else 13)
    for (*at, values), (_, _, theirs) in zip(readings, expected, strict=True):
        assert values == pytest.approx(theirs, rel=1e-8, abs=1e-8), at
    for weights, ours, _, faults, steps in got:
        assert faults == 0
        assert steps == alone[4]
        assert (weights - alone[0]).norm() <= 1e-10 * alone[0].norm()
        assert ours == pytest.approx(alone[1], rel=1e-8, abs=1e-8)
    with (tmp_path / "ranks" / "csv" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["uniformity/w2"]]
    assert [int(row["step"]) for row in rows] == [step for step, stage, _ in readings if stage == "train"]


def ddp(model, callbacks, **options):
    """Fit in one of two ranks."""
    options = {"data": shared(256, ROWS), "devices": 2, "strategy": "ddp", "use_distributed_sampler": False, **options}
    return fit(model.double(), callbacks, **options)


class Collapses(Plain):
    """Its outputs are one point from step 4 on, on both ranks the same."""

    def on_train_batch_start(self, batch, batch_idx):
        if batch_idx == 4:
            torch.nn.init.zeros_(self.projector.weight)


class Looks(pl.Callback):
    """What a callback after ours sees at each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *args):
        self.seen.append((trainer.global_step, trainer.callback_metrics["uniformity/w2"].item(), trainer.should_stop))


def stopped(rank, folder):
    rules = [CollapseAlert("constant", patience=2, warmup_steps=0, action="stop")]
    written = []
    writers = [TensorBoardWriter(folder / "own"), MLflowWriter(f"sqlite:///{folder}/mlflow.db", "ranks")]
    writers.append(lambda values, step: written.append(step) if "uniformity/w2" in values else None)
    callback, looks = UniformityCallback(every_n_steps=1, alerts=rules, writers=writers), Looks()
    early, best = EarlyStopping("uniformity/val/w2", patience=50), ModelCheckpoint(folder, monitor="uniformity/w2")
    loggers = [CSVLogger(folder, name="csv", version=""), TensorBoardLogger(folder, name="tb", version="")]
    options = {"max_epochs": 3, "max_steps": -1, "log_every_n_steps": 1, "enable_checkpointing": True}
    trainer = ddp(new(Collapses), [callback, looks, early, best], logger=loggers, **options)
    return trainer.global_step, written, looks.seen, best.best_model_score.item(), callback.monitor.journal


def test_stop_and_every_value_come_at_one_step_and_rank_zero_alone_writes(tmp_path):
    first, second = spread(2, stopped, tmp_path)
    assert first[0] == second[0] < 16
    assert first[2] == second[2]
    assert first[3] == second[3]
    assert first[1] == list(range(first[0]))
    assert second[1] == []
    assert second[4] is None
    assert [a.kind for a in read_journal(first[4]).alerts] == ["constant"]
    assert [step for step, _ in read(tmp_path / "tb")["uniformity/w2"]] == first[1]
    assert [step for step, _ in read(tmp_path / "own")["uniformity/w2"]] == first[1]
    assert len(list((tmp_path / "own").glob("events*"))) == 1
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("ranks").experiment_id])
    assert sorted(m.step for m in client.get_metric_history(run.info.run_id, "uniformity/w2")) == first[1]


def resumed(rank, folder):
    """Twelve steps in one Trainer, and in two."""
    out = []
    for name, parts in (("whole", [12]), ("parts", [6, 12])):
        checkpoint = None
        for steps in parts:
            loss = WassersteinLoss(LinearDecay(2.0))
            callback, model = UniformityCallback(every_n_steps=2, auxiliary=loss, total_steps=12), new(Plain)
            saver = ModelCheckpoint(folder / name, every_n_train_steps=6, save_top_k=-1, filename="{step}")
            options = {"max_steps": steps, "default_root_dir": folder / name, "enable_checkpointing": True}
            ddp(model, [callback, saver], data=shared(6 * ROWS, ROWS), ckpt_path=checkpoint, **options)
            checkpoint = folder / name / "step=6.ckpt"
        out.append((torch.cat([p.detach().flatten() for p in model.parameters()]), callback.monitor.journal))
    return out


@goes_on_exactly
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    first, second = spread(2, resumed, tmp_path)
    for (whole, _), (parts, _) in (first, second):
        # The sums of a step are about the mean of the step before, which the second Trainer does not know.
        assert (whole - parts).norm() <= 1e-12 * whole.norm()
    whole, parts = (fit_data(journal) for _, journal in first)
    assert [step for step, stage, _ in whole if stage == "train"] == list(range(0, 12, 2))
    for (*at, values), (*other, others) in zip(whole, parts, strict=True):
        assert at == other
        assert values == pytest.approx(others, rel=1e-10)


class Fails(Plain):
    """On the second rank the projector is not called in step 5."""

    def training_step(self, batch, batch_idx):
        if self.global_rank == 1 and batch_idx == 5:
            return self.encoder(batch[0]).mean() + 0.0 * sum(p.sum() for p in self.projector.parameters())
        return super().training_step(batch, batch_idx)


def blind_once(rank, folder):
    callback = UniformityCallback(every_n_steps=5, auxiliary=0.5)
    trainer = ddp(new(Fails), [callback], max_steps=12, default_root_dir=folder)
    return trainer.global_step, callback.monitor.faults.count, callback.monitor.journal


def test_a_rank_that_does_not_call_the_layer_is_named_and_training_goes_on(tmp_path):
    first, second = spread(2, blind_once, tmp_path)
    assert first[:2] == second[:2] == (12, 0)
    readings = read_journal(first[2]).readings
    assert [(r.step, r.values["samples"]) for r in readings if r.stage == "train"] == [(0, 32), (5, 16), (10, 32)]
    assert "rank 1 brought nothing: projector was not called" in readings[1].why


def slow_at_the_end(rank, folder):
    """The last reading takes longer than the end of an epoch waits."""
    measure, callback = reader.measure, UniformityCallback(every_n_steps=2)

    def measured(views, metrics):
        time.sleep(1.5 * (len(read_journal(callback.monitor.journal).readings) == 2))
        return measure(views, metrics)

    reader.measure = measured
    ddp(new(Plain), [callback], max_steps=5, default_root_dir=folder, limit_val_batches=0)
    return callback.monitor.last, callback.monitor.journal


def test_all_ranks_know_the_last_reading_when_training_ends(tmp_path):
    (first, journal), (second, _) = spread(2, slow_at_the_end, tmp_path)
    assert first == second
    assert first["uniformity/w2"] == read_journal(journal).readings[2].values["w2"]


def test_several_devices_without_torch_distributed_are_refused(monkeypatch):
    monkeypatch.setattr(pl.Trainer, "world_size", 2)
    callback = UniformityCallback()
    with pytest.raises(ValueError, match=r"needs torch\.distributed on 2 devices, which SingleDeviceStrategy has not"):
        fit(new(Plain), [callback], data=shared(32, ROWS))


def sweep(rank, folder):
    """A Trainer of one device on each rank, of different length."""
    callback = UniformityCallback(every_n_steps=1, auxiliary=0.5)
    data = loader(64, 16, torch.float64)
    fit(new(Plain).double(), [callback], data=data, max_steps=2 + rank, default_root_dir=folder / str(rank))
    return [r.values["samples"] for r in read_journal(callback.monitor.journal).readings]


def test_trainers_of_one_device_are_left_alone(tmp_path):
    assert spread(2, sweep, tmp_path) == [[32] * 2, [32] * 3]


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_ddp_spawn(tmp_path):
    """A real launch by the Trainer: the callback is pickled."""
    callback = UniformityCallback(every_n_steps=2, auxiliary=0.5, journal=tmp_path / "run.jsonl")
    data = loader(128, 8, torch.float64)
    trainer = fit(new(Plain).double(), [callback], data=data, devices=2, strategy="ddp_spawn", max_steps=5)
    readings = read_journal(tmp_path / "run.jsonl").readings
    assert [(r.step, r.values["samples"]) for r in readings if r.stage == "train"] == [(0, 32), (2, 32), (4, 32)]
    assert trainer.callback_metrics["uniformity/w2"].item() == pytest.approx(readings[-1].values["w2"])
