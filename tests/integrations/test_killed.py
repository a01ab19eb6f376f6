"""A training that is killed again and again and resumed is the one that was not."""

import shutil

import pytest
import torch
from mlflow.tracking import MlflowClient
from test_tensorboard import read

from killable import EVERY, STEPS, killed, run, train
from uniformity_callbacks import read_journal
from uniformity_callbacks.integrations.sync_mlflow import MLflowRun
from uniformity_callbacks.integrations.syncing import sync

ROUNDS = 3


def values(journal):
    """All of a journal's readings but for their times, NaN as None."""
    return [(r.step, r.layer, {k: None if v != v else v for k, v in r.values.items()}) for r in journal.readings]


@pytest.fixture
def folders(tmp_path, empty_store):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        shutil.copy(empty_store, tmp_path / name / "mlflow.db")
    return tmp_path / "whole", tmp_path / "killed"


def test_kills_at_random_steps(folders):
    whole, broken = folders
    assert run(train, whole) == 0
    killed(broken, ROUNDS)
    assert all(map(torch.equal, torch.load(whole / "weights.pt"), torch.load(broken / "weights.pt")))
    expected, journal = read_journal(whole / "journal.jsonl"), read_journal(broken / "journal.jsonl")
    assert len(expected.alerts) > 0
    assert {0.0, 1.0} <= set(expected.series("aux_weight")[1])
    assert values(journal) == values(expected)
    assert journal.series("w2")[0] == list(range(0, STEPS, EVERY))
    assert journal.alerts == expected.alerts
    assert journal.recoveries == expected.recoveries
    assert len(journal.runs) == ROUNDS + 1
    assert len(journal.abandoned) > 0
    assert sorted(p.name for p in broken.glob("*.jsonl")) == ["journal.jsonl"]

    assert {step for step, _ in read(broken / "events")["uniformity/w2"]} >= set(range(0, STEPS - EVERY, EVERY))
    uri = f"sqlite:///{broken}/mlflow.db"
    client = MlflowClient(uri)
    (there,) = client.search_runs(["0"])
    sync(journal, MLflowRun(uri, journal))
    assert sync(journal, MLflowRun(uri, journal)).points == 0
    history = client.get_metric_history(there.info.run_id, "uniformity/w2")
    assert {m.step: m.value for m in history} == dict(zip(*journal.series("w2"), strict=True))
    assert len(client.search_runs(["0"])) == 1
