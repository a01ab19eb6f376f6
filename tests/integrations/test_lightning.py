"""What a run reads and hands out, and what alerts do to it."""

import random

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from trainers import fit, journal, new

from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = pytest.mark.usefixtures("own_place")


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
