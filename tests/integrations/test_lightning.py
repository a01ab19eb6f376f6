"""Real Trainers on small networks; `models` knows nothing of the callback."""

import copy
import math
import random
import threading

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from uniformity_callbacks import CollapseAlert, WassersteinLoss, read_journal
from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = [
    # The Trainer's own advice, which small runs on a CPU do not follow.
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*resuming from a checkpoint that ended before the epoch ended"),
]


class Twin(pl.LightningModule):
    """Two views, one projector, dropout and BatchNorm; the loss is their distance."""

    def __init__(self, weight=None, as_dict=False):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1))
        self.projector = nn.Linear(16, 8)
        self.by_hand = None if weight is None else WassersteinLoss(weight)
        self.as_dict = as_dict
        self.seen = []

    def training_step(self, batch, batch_idx):
        (x,) = batch
        z0, z1 = (self.projector(self.encoder(x + 0.1 * torch.randn_like(x))) for _ in range(2))
        loss = (z0 - z1).square().mean()
        self.log("train/loss", loss)
        self.seen.append(loss.item())
        if self.by_hand is not None:
            loss = loss + self.by_hand(z0, z1)
        return {"loss": loss, "z": z0.detach()} if self.as_dict else loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class WithoutIndex(Twin):
    def training_step(self, batch):
        return super().training_step(batch, 0)


class Validated(Twin):
    def validation_step(self, batch, batch_idx):
        self.log("val/norm", self.projector(self.encoder(batch[0])).norm())

    def val_dataloader(self):
        return loader(32)


class Constant(Twin):
    """Its projector puts out one point from the start."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.projector.weight)
        self.projector.weight.requires_grad_(False)


def loader(n=128, batch_size=16, dtype=torch.float32):
    data = torch.randn(n, 6, generator=torch.Generator().manual_seed(1)).to(dtype)
    return DataLoader(TensorDataset(data), batch_size=batch_size)


def fit(model, callbacks=(), *, data=None, ckpt_path=None, trainer=pl.Trainer, **options):
    torch.manual_seed(3)
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "devices": 1}
    options = {**quiet, "logger": False, "enable_checkpointing": False, "max_steps": 8, **options}
    runner = trainer(callbacks=list(callbacks), **options)
    runner.fit(model, data or loader(), ckpt_path=ckpt_path)
    return runner


def new(kind=Twin, **arguments):
    torch.manual_seed(0)
    return kind(**arguments)


def distance(a, b):
    return math.sqrt(sum((p.double() - q.double()).square().sum().item() for p, q in zip(a, b, strict=True)))


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def journal(callback):
    return read_journal(callback.monitor.journal)


def test_readings_at_due_steps_everywhere_alike(tmp_path):
    from test_tensorboard import read

    got = []
    callback = UniformityCallback(every_n_steps=5, writers=[lambda values, step: got.append((step, values))])
    loggers = [TensorBoardLogger(tmp_path, name="tb", version=""), CSVLogger(tmp_path, name="csv", version="")]
    trainer = fit(new(), [callback], logger=loggers, max_steps=23, log_every_n_steps=5)
    recorded = [(r.step, r.values["w2"]) for r in journal(callback).readings]
    assert [step for step, _ in recorded] == [0, 5, 10, 15, 20]
    assert [(step, values["uniformity/w2"]) for step, values in got] == recorded
    assert callback.monitor.journal == tmp_path / "tb" / "uniformity.jsonl"

    events = read(tmp_path / "tb")
    assert events["uniformity/w2"] == [(step, pytest.approx(value, rel=1e-6)) for step, value in recorded]
    rows = (tmp_path / "csv" / "metrics.csv").read_text().splitlines()
    columns = rows[0].split(",")
    table = [dict(zip(columns, row.split(","), strict=True)) for row in rows[1:]]
    in_csv = [(int(row["step"]), float(row["uniformity/w2"])) for row in table if row["uniformity/w2"]]
    assert in_csv == [(step, pytest.approx(value, rel=1e-6)) for step, value in recorded]
    assert trainer.callback_metrics["uniformity/w2"].item() == pytest.approx(recorded[-1][1])
    assert all(r.values["samples"] == 32 for r in journal(callback).readings)


def test_the_step_is_that_of_lightnings_own_curves(tmp_path):
    """The rows of a step come from the batch whose loss Lightning logs under that step."""
    from test_tensorboard import read

    model, callback = new(), UniformityCallback(every_n_steps=1, metrics=["w2"])
    fit(model, [callback], logger=TensorBoardLogger(tmp_path, name="", version=""), max_steps=6, log_every_n_steps=1)
    events = read(tmp_path)
    assert [step for step, _ in events["train/loss"]] == [step for step, _ in events["uniformity/w2"]] == list(range(6))
    assert [value for _, value in events["train/loss"]] == pytest.approx(model.seen, rel=1e-6)


@pytest.mark.usefixtures("unchecked")  # beartype draws the list items that it checks
def test_watching_changes_neither_weights_nor_random_state():
    def random_states():
        return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())

    plain, watched = new(), new()
    np.random.seed(0)
    random.seed(0)
    fit(plain, max_steps=12)
    states = random_states()
    np.random.seed(0)
    random.seed(0)
    fit(watched, [UniformityCallback(every_n_steps=2)], max_steps=12)
    assert random_states() == states
    for (name, a), b in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert plain.seen == watched.seen


def test_what_else_training_step_returns_is_passed_on():
    class Looks(Twin):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            self.outputs = outputs

    model = new(Looks, as_dict=True)
    fit(model, [UniformityCallback(auxiliary=0.7)], max_steps=1)
    assert model.outputs.keys() == {"loss", "z"}
    assert model.outputs["loss"] > model.seen[0]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("arguments", [{}, {"as_dict": True}, {"kind": WithoutIndex}])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-8)])
def test_the_injected_loss_is_the_one_written_by_hand(dtype, tolerance, arguments, accumulate):
    options = {"data": loader(dtype=dtype), "max_steps": 8, "accumulate_grad_batches": accumulate}
    plain, by_hand, injected = (new(**arguments, **extra).to(dtype) for extra in ({}, {"weight": 0.7}, {}))
    fit(plain, **options)
    fit(by_hand, **options)
    fit(injected, [UniformityCallback(every_n_steps=3, auxiliary=0.7)], **options)
    effect = distance(by_hand.parameters(), plain.parameters())
    assert effect > 1e-3
    assert distance(by_hand.parameters(), injected.parameters()) <= tolerance * effect
    assert injected.seen == pytest.approx(by_hand.seen, rel=1e-6)  # its own loss, as it logs it, has no term of ours
    assert vars(injected).keys() == vars(plain).keys()


def test_a_training_step_set_on_the_instance_is_put_back():
    model = new()
    own = model.training_step
    model.training_step = own
    fit(model, [UniformityCallback(auxiliary=0.1)], max_steps=2)
    assert vars(model)["training_step"] is own


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_skipped_batch_is_left_alone():
    class Skips(Twin):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 2 else super().training_step(batch, batch_idx)

    callback = UniformityCallback(every_n_steps=1, auxiliary=0.1)
    fit(new(Skips), [callback], max_steps=5)
    assert callback.monitor.faults.count == 0
    assert [r.step for r in journal(callback).readings] == [0, 1, 3, 4]


def test_the_loss_is_reported_as_added():
    callback = UniformityCallback(every_n_steps=2, auxiliary=WassersteinLoss(0.7))
    trainer = fit(new(), [callback], max_steps=5)
    for reading in journal(callback).readings:
        assert reading.values["aux_weight"] == 0.7
        assert reading.values["aux_loss"] == pytest.approx(0.7 * reading.values["w2"], rel=1e-6)
    assert trainer.callback_metrics["uniformity/aux_weight"] == pytest.approx(0.7)


def test_accumulated_batches_are_one_reading():
    callback = UniformityCallback(every_n_steps=2)
    fit(new(), [callback], max_steps=6, accumulate_grad_batches=4)
    assert [(r.step, r.values["samples"]) for r in journal(callback).readings] == [(s, 128) for s in (0, 2, 4)]


def test_early_stopping_and_checkpoints_on_our_key_with_epochs_shorter_than_the_cadence(tmp_path):
    early = EarlyStopping("uniformity/w2", patience=2, mode="min", min_delta=10.0)
    best = ModelCheckpoint(tmp_path, monitor="uniformity/w2", filename="{uniformity/w2:.4f}", every_n_train_steps=3)
    callbacks = [early, best, UniformityCallback(every_n_steps=50)]  # ours last, and due only once
    trainer = fit(new(), callbacks, max_epochs=9, max_steps=-1, enable_checkpointing=True)
    assert trainer.current_epoch == 3  # the first epoch and two more without an improvement of 10
    assert best.best_model_score.item() == pytest.approx(trainer.callback_metrics["uniformity/w2"].item())


def test_validation_neither_disturbs_nor_is_read():
    callback = UniformityCallback(every_n_steps=3)
    fit(new(Validated), [callback], max_steps=20, val_check_interval=2)
    assert [r.step for r in journal(callback).readings] == [0, 3, 6, 9, 12, 15, 18]
    assert all(r.values["samples"] == 32 for r in journal(callback).readings)


@pytest.mark.parametrize(("action", "steps"), [("warn", 12), ("stop", 5)])
def test_an_alert_warns_or_stops(action, steps, caplog):
    rules = [CollapseAlert("constant", patience=3, warmup_steps=1, action=action)]
    callback = UniformityCallback(every_n_steps=1, alerts=rules)
    trainer = fit(new(Constant), [callback], max_steps=12)
    # True of the readings of steps 1, 2 and 3, which is known at the next due step: the fifth.
    assert trainer.global_step == steps
    assert "constant collapse at step 3, since step 1" in caplog.text
    assert [(a.kind, a.step, a.since) for a in journal(callback).alerts] == [("constant", 3, 1)]


def test_a_failing_writer_or_logger_never_reaches_training(caplog):
    class Bad(CSVLogger):
        def log_metrics(self, metrics, step=None):
            if "uniformity/w2" in metrics:
                raise OSError("no space left")
            super().log_metrics(metrics, step)

    def bad(values, step):
        raise RuntimeError("bad writer")

    callback = UniformityCallback(every_n_steps=2, writers=[bad])
    trainer = fit(new(), [callback], logger=Bad("csv"), max_steps=8, log_every_n_steps=2)
    assert trainer.global_step == 8
    assert len(journal(callback).readings) == 4
    assert "writer bad: step 0: RuntimeError: bad writer" in caplog.text
    assert "no space left" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_training_leaves_no_trace_and_no_reading_behind(error):
    class Breaks(Twin):
        def on_train_batch_end(self, *args):
            if self.trainer.global_step == 4:
                raise error("user's own")

    model, got, before = new(Breaks), [], set(threading.enumerate())
    callback = UniformityCallback(every_n_steps=1, auxiliary=0.1, writers=[lambda values, step: got.append(step)])
    with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
        fit(model, [callback])
    assert [r.step for r in journal(callback).readings] == got == [0, 1, 2, 3]
    assert "training_step" not in vars(model)
    assert not any(module._forward_hooks for module in model.modules())
    assert set(threading.enumerate()) == before


def test_several_fits_go_on_in_one_journal():
    model, callback = new(), UniformityCallback(every_n_steps=4)
    fit(model, [callback], max_steps=8)
    fit(model, [callback], max_steps=8)
    assert [r.step for r in journal(callback).readings] == [0, 4, 0, 4]
    assert len(journal(callback).runs) == 2


def test_a_checkpoint_holds_plain_values_and_resumes(tmp_path):
    rules = [CollapseAlert("constant", patience=3, warmup_steps=0)]
    options = {"enable_checkpointing": True, "max_steps": 2}
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=2, filename="two")
    first = UniformityCallback(every_n_steps=1, alerts=rules)
    fit(new(Constant), [first, saver], **options)
    assert journal(first).alerts == []
    state = torch.load(tmp_path / "two.ckpt", weights_only=True)["callbacks"]["UniformityCallback[uniformity]"]
    assert state.keys() == {"version", "alerts", "journal", "last"}
    assert state["journal"] == str(first.monitor.journal)
    assert state["last"]["uniformity/samples"] == 32
    second = UniformityCallback(every_n_steps=1, alerts=rules)
    fit(new(Constant), [second, copy.deepcopy(saver)], **{**options, "max_steps": 4}, ckpt_path=tmp_path / "two.ckpt")
    assert second.monitor.journal == first.monitor.journal
    assert [r.step for r in journal(second).readings] == [0, 1, 2, 3]
    assert [(a.step, a.since) for a in journal(second).alerts] == [(2, 0)]


def test_keys_are_there_from_the_start_of_a_resumed_run(tmp_path):
    """Its first due step may come after the epoch's end, where EarlyStopping raises on a key that is not there."""
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=8, filename="eight")
    fit(new(), [UniformityCallback(every_n_steps=50), saver], max_steps=8, enable_checkpointing=True)
    early = EarlyStopping("uniformity/w2", mode="min", patience=50)
    callbacks = [early, UniformityCallback(every_n_steps=50), copy.deepcopy(saver)]
    options = {"max_steps": -1, "max_epochs": 3, "enable_checkpointing": True, "ckpt_path": tmp_path / "eight.ckpt"}
    trainer = fit(new(), callbacks, **options)
    assert trainer.global_step == 24
    assert early.best_score.item() == pytest.approx(journal(callbacks[1]).readings[0].values["w2"])


def test_fast_dev_run_writes_nothing(tmp_path):
    callback = UniformityCallback(writers=[lambda values, step: pytest.fail("written to")])
    fit(new(), [callback], fast_dev_run=3)
    assert callback.monitor.journal is None
    assert list(tmp_path.iterdir()) == []


def test_two_callbacks_of_different_prefix():
    two = [UniformityCallback("encoder", prefix="enc"), UniformityCallback("projector")]
    trainer = fit(new(), two, max_steps=2)
    assert {"enc/w2", "uniformity/w2"} <= trainer.callback_metrics.keys()
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        fit(new(), [UniformityCallback(), UniformityCallback()])


def test_a_deep_copy_taken_during_training_is_neither_tapped_nor_in_the_way():
    class Copies(Twin):
        def on_train_batch_end(self, *args):
            self.__dict__["twin"] = copy.deepcopy(self.projector)
            self.twin(torch.zeros(2, 16))

    callback = UniformityCallback(every_n_steps=1)
    fit(new(Copies), [callback], max_steps=3)
    assert [r.values["samples"] for r in journal(callback).readings] == [32, 32, 32]


@pytest.mark.usefixtures("unchecked")  # its Trainer is not the one that annotations name
def test_the_other_lightning_package():
    import pytorch_lightning

    class Other(pytorch_lightning.LightningModule):
        __init__, training_step = Twin.__init__, Twin.training_step
        configure_optimizers = Twin.configure_optimizers

    Other.__init__ = lambda self: (pytorch_lightning.LightningModule.__init__(self), _build(self))[0]

    def _build(self):
        self.encoder, self.projector = nn.Linear(6, 16), nn.Linear(16, 8)
        self.by_hand, self.as_dict, self.seen = None, False, []

    callback = UniformityCallback(every_n_steps=2, auxiliary=0.1)
    fit(Other(), [callback], trainer=pytorch_lightning.Trainer, max_steps=5)
    assert [r.step for r in journal(callback).readings] == [0, 2, 4]


def test_a_wrong_layer_is_an_error_before_the_first_step():
    model = new()
    with pytest.raises(ValueError, match="layer 'projektor' is not in the model; did you mean projector"):
        fit(model, [UniformityCallback("projektor")])
    assert model.seen == []


def test_manual_optimization_is_an_error_so_far():
    model = new()
    model.automatic_optimization = False
    with pytest.raises(
        ValueError, match="needs automatic optimization so far, got automatic_optimization=False in Twin"
    ):
        fit(model, [UniformityCallback()])


def test_more_than_one_rank_is_an_error_so_far():
    from torch.multiprocessing import ProcessRaisedException

    with pytest.raises(
        ProcessRaisedException, match="UniformityCallback works on one device so far, got 2; use devices=1"
    ):
        fit(new(), [UniformityCallback()], devices=2, strategy="ddp_fork")


def test_bad_arguments_raise_at_once():
    with pytest.raises(ValueError, match="metrics has no 'w3'"):
        UniformityCallback(metrics=["w3"])
