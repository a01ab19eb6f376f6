"""A run that is interrupted and resumed is the run that was not."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from manual import Manual
from mlflow.tracking import MlflowClient
from trainers import Twin, distance, fit, goes_on_exactly, journal, new

from uniformity_callbacks import CollapseAlert, LinearDecay, WassersteinLoss
from uniformity_callbacks.integrations.lightning import UniformityCallback
from uniformity_callbacks.integrations.mlflow import MLflowWriter

pytestmark = pytest.mark.usefixtures("own_place")

STEPS = 12
# Its threshold lies below what is usual here: it stands from the second reading on, and is over for a while later.
RULES = {"kind": "constant", "threshold": 0.2, "patience": 2, "warmup_steps": 0}


class Seeded(Twin):
    """Each step's data and noise are its own, wherever the run begins; it may break at a step."""

    breaks = None

    def embed(self, batch):
        if self.global_step == self.breaks:
            raise RuntimeError("interrupted")
        torch.manual_seed(100 + self.global_step)
        return super().embed([torch.randn_like(batch[0])])


class SeededManual(Seeded, Manual):
    pass


def callback(when, **arguments):
    loss = WassersteinLoss(LinearDecay(1.0), when=when)
    return UniformityCallback(
        every_n_steps=2, alerts=[CollapseAlert(**RULES)], auxiliary=loss, total_steps=STEPS, **arguments
    )


def run(kind, ours, folder, *, stop=None, breaks=None, ckpt_path=None):
    model = new(kind)
    model.breaks = breaks
    saver = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    options = {"max_steps": stop or STEPS, "enable_checkpointing": True, "ckpt_path": ckpt_path}
    if breaks is None:
        fit(model, [ours, saver], **options)
    else:
        with pytest.raises(RuntimeError, match="interrupted"):
            fit(model, [ours, saver], **options)
    return model


def told(ours):
    """Readings by step, of which a run that was interrupted has some twice, and alerts."""
    read = journal(ours)
    alerts = {(a.kind, a.step, a.since, a.recovered) for a in (*read.alerts, *read.recoveries)}
    return {reading.step: reading.values for reading in read.readings}, alerts


@goes_on_exactly
@pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization")  # advice on what it saves
@pytest.mark.parametrize(
    ("kind", "when", "first", "resumed_at"),
    [
        (Seeded, "always", {"stop": 1}, 1),
        (Seeded, "always", {"breaks": 6}, 4),
        (Seeded, "alert", {"stop": 1}, 1),
        (Seeded, "alert", {"stop": 5}, 5),
        (Seeded, "alert", {"stop": 8}, 8),  # at the end of an epoch
        (Seeded, "alert", {"breaks": 6}, 4),
        (SeededManual, "always", {"stop": 5}, 5),
        (SeededManual, "alert", {"breaks": 6}, 4),
    ],
)
def test_readings_alerts_and_weights_are_those_of_the_whole_run(tmp_path, kind, when, first, resumed_at):
    whole = callback(when, journal=tmp_path / "whole.jsonl")
    expected = run(kind, whole, tmp_path / "whole")
    parts = [callback(when, journal=tmp_path / "part.jsonl") for _ in range(2)]
    run(kind, parts[0], tmp_path / "parts", **first)
    model = run(kind, parts[1], tmp_path / "parts", ckpt_path=tmp_path / "parts" / f"step={resumed_at}.ckpt")
    readings, alerts = told(whole)
    assert list(readings) == list(range(0, STEPS, 2))
    assert alerts
    again, alerts_again = told(parts[1])
    assert alerts_again == alerts
    assert sorted(again) == sorted(readings)
    for step, values in readings.items():
        assert again[step] == pytest.approx(values, rel=1e-6), step
    assert distance(model.parameters(), expected.parameters()) < 1e-6
    weights = [values["aux_weight"] for values in readings.values()]
    assert (0.0 in weights) == (when == "alert")
    assert len(set(weights)) > 3


@goes_on_exactly
@pytest.mark.parametrize("first", [{"stop": 5}, {"breaks": 5}])
def test_so_it_does_in_one_mlflow_run(place, first):
    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    run(Seeded, callback("always", writers=[MLflowWriter()]), place, **first)
    (before,) = client.search_runs(["0"])
    assert before.info.status == "FINISHED"
    run(Seeded, callback("always", writers=[MLflowWriter()]), place, ckpt_path=place / "step=5.ckpt")
    (after,) = client.search_runs(["0"])
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    history = client.get_metric_history(after.info.run_id, "uniformity/w2")
    assert [metric.step for metric in history] == list(range(0, STEPS, 2))
