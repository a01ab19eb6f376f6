"""What a plain loop's writers have after it, and after it was resumed."""

import logging

import pytest
import torch
from mlflow.tracking import MlflowClient
from plain import as_it_is, made, sgd, train, watched
from test_tensorboard import read

from uniformity_callbacks import CollapseAlert, read_journal
from uniformity_callbacks.integrations.mlflow import MLflowWriter
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter


@pytest.fixture
def client(place):
    return MlflowClient(f"sqlite:///{place / 'mlflow.db'}")


def part(state=None):
    """Five steps of a model that is one point."""
    model = made()
    with torch.no_grad():
        model.projector[0].weight.mul_(1e-3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    rule = CollapseAlert("constant", patience=2, warmup_steps=0)
    writers = [MLflowWriter(run_name="loop"), TensorBoardWriter("runs")]
    with watched(model, optimizer, every_n_steps=1, writers=writers, alerts=[rule]) as monitor:
        if state is not None:
            monitor.load_state_dict(state)
        train(model, as_it_is, steps=5, optimizer=optimizer)
        return monitor.state_dict()


def test_a_resumed_loop_goes_on_in_its_mlflow_run_and_its_event_files(client, caplog):
    caplog.set_level(logging.WARNING)
    part(part())
    (run,) = client.search_runs(["0"])
    history = client.get_metric_history(run.info.run_id, "uniformity/w2")
    assert sorted((point.step, point.value) for point in history) == list(
        zip(*read_journal("uniformity.jsonl").series("w2"), strict=True)
    )
    assert [step for step, _ in read("runs")["uniformity/w2"]] == list(range(10))
    assert run.info.status == "FINISHED"
    assert run.data.tags["uniformity/alerts/constant"] == "found at step 1, since step 0"
    assert caplog.text.count("constant collapse at step 1") == 1  # and not once more by the second part


def test_a_loop_that_never_steps_leaves_nothing(client, place):
    model = made()
    with watched(model, sgd(model), writers=[MLflowWriter(), TensorBoardWriter("runs")]):
        model(torch.randn(3, 6))
    assert client.search_runs(["0"]) == []
    assert not (place / "runs").exists()
    assert not (place / "uniformity.jsonl").exists()
