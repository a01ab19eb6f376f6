"""What MLflow will never take costs nothing else, and is told; a real store, in a file."""

import math

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.tracking import MlflowClient
from test_mlflow import VALUES, history

from uniformity_callbacks import Alert
from uniformity_callbacks.feeds import Feed
from uniformity_callbacks.integrations.keys import mlflow_key
from uniformity_callbacks.integrations.mlflow import MLflowWriter
from uniformity_callbacks.writers import Refused

GOOD = {f"uniformity/layer.{k}/w2": k / 7 for k in range(999)}
FOUND = Alert("constant", 60, 50, (0.1,), 0.2, "warn", "projector", "all is one point")


def store(writer):
    return MlflowClient(writer.store["uri"])  # before MLflow 3 the default store is another


def there(writer):
    return store(writer).get_run(writer.run_id).data.metrics


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("uniformity/bad", None, "TypeError: float"),
        ("uniformity/bad", "high", "ValueError: could not convert"),
        ("uniformity/bad", np.ones(2), "TypeError: only"),
        ("uniformity/bad", 10**400, "OverflowError: int too large"),
        (3, 1.0, "Type"),
    ],
    ids=["none", "word", "array", "huge", "number"],
)
def test_one_of_a_thousand(place, key, value, why):
    writer = MLflowWriter()
    writer.open()
    values = {**dict(list(GOOD.items())[:500]), key: value, **dict(list(GOOD.items())[500:])}
    with pytest.raises(Refused, match=f"MLflow does not take 1 of 1000 values: {key} at step 7: {why}") as raised:
        writer.many([(values, 7, 1e9)])
    assert raised.value.count == 1
    assert there(writer) == GOOD


@pytest.mark.parametrize(("step", "seconds"), [(2**63, 1e9), (7, -1.0), (7, math.nan), (7, 1e300)])
def test_a_step_or_time_that_no_store_can_hold(place, step, seconds):
    writer = MLflowWriter()
    writer.open()
    with pytest.raises(Refused, match=r"does not take 2 of 4 values: .* its step or time is out of all bounds"):
        writer.many([(VALUES, step, seconds), (VALUES, 8, 1e9)])
    assert history(store(writer), writer.run_id) == [(8, 0.5)]


def test_what_the_store_alone_refuses_costs_no_other(place, monkeypatch, caplog):
    calls, log_batch = [], MlflowClient.log_batch

    def choosy(client, run_id, metrics):
        calls.append(len(metrics))
        if any(metric.key == "uniformity/bad" for metric in metrics):
            raise MlflowException("not this one", INVALID_PARAMETER_VALUE)
        log_batch(client, run_id, metrics=metrics)

    monkeypatch.setattr(MlflowClient, "log_batch", choosy)
    feed = Feed(writer := MLflowWriter(flush_secs=60.0))
    for step in range(30):
        feed.put({**VALUES, "uniformity/bad": 1.0}, step)
    feed.close(60.0)
    assert feed.faults.count == 30
    assert [step for step, _ in history(store(writer), writer.run_id)] == list(range(30))
    assert "uniformity/bad at step 0: not this one" in caplog.text
    assert "writer MLflowWriter: 30 readings failed" in caplog.text


def test_keys_that_look_alike_and_values_of_all_sizes(place):
    values = {f"uniformity/{layer}/w2": k + 0.5 for k, layer in enumerate(["heads[0]", "heads(0)", "heads_0_", "a//b"])}
    values |= {"uniformity/huge": 1e300, "uniformity/most": 1.7976931348623157e308, "uniformity/least": -1e300}
    feed = Feed(writer := MLflowWriter())
    feed.put(values, 3)
    feed.put({"uniformity/none": math.inf}, 4)
    feed.close(60.0)
    assert feed.faults.count == 0
    found = there(writer)
    assert math.isnan(found.pop("uniformity/none"))
    assert found == {mlflow_key(key): value for key, value in values.items()}
    assert len(found) == len(values)


def test_a_reading_of_more_values_than_a_request_takes(place):
    values = {f"uniformity/{k}": float(k) for k in range(2345)}
    feed = Feed(writer := MLflowWriter())
    feed.put(values, 0)
    feed.close(60.0)
    assert feed.faults.count == 0
    assert there(writer) == values


def test_a_deleted_run_keeps_readings_waiting(place, caplog):
    feed = Feed(writer := MLflowWriter(flush_secs=0.0))
    feed.put(VALUES, 0)
    assert feed._worker.settle(60.0)
    client = store(writer)
    client.delete_run(writer.run_id)
    feed.put(VALUES, 1)
    while "is deleted; training goes on" not in caplog.text:
        pass
    client.restore_run(writer.run_id)
    feed.close(60.0)
    assert [step for step, _ in history(client, writer.run_id)] == [0, 1]
    assert feed.faults.count == 0


def test_readings_do_not_wait_for_an_alert_that_has_no_place(place, monkeypatch, caplog):
    def denied(*arguments):
        raise PermissionError("no such bucket")

    monkeypatch.setattr(MlflowClient, "log_text", denied)
    feed = Feed(writer := MLflowWriter(flush_secs=0.0))
    feed.alert(FOUND, "uniformity/")
    for step in range(4):
        feed.put(VALUES, step)
    feed.close(60.0)
    assert [step for step, _ in history(store(writer), writer.run_id)] == list(range(4))
    assert feed.faults.count == 1
    assert "alert at step 60: PermissionError: no such bucket" in caplog.text


def test_an_alert_is_tried_again(place, monkeypatch):
    log_text = MlflowClient.log_text

    def once(*arguments):
        monkeypatch.setattr(MlflowClient, "log_text", log_text)
        raise OSError("away")

    feed = Feed(writer := MLflowWriter())
    monkeypatch.setattr(MlflowClient, "log_text", once)
    feed.alert(FOUND, "uniformity/")
    feed.close(60.0)
    assert feed.faults.count == 0
    (file,) = store(writer).list_artifacts(writer.run_id, "uniformity/alerts")
    assert file.path.endswith("constant-60-found.txt")
