import dataclasses
import math
import shutil
import time

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from uniformity_callbacks import Alert, UniformityMonitor
from uniformity_callbacks.feeds import Feed
from uniformity_callbacks.integrations.mlflow import MLflowWriter

VALUES = {"uniformity/w2": 0.5, "uniformity/projector.0/lu": -3.25}


def write(writer, steps=(0, 50)):
    """As a monitor does: opened here, written on a thread."""
    feed = Feed(writer)
    for step in steps:
        feed.put({key: value + step for key, value in VALUES.items()}, step)
    feed.close(60.0)
    assert feed.faults.count == 0
    return writer.run_id


def history(client, run_id, key="uniformity/w2"):
    return [(m.step, m.value) for m in client.get_metric_history(run_id, key)]


def test_without_settings_a_sqlite_file_in_the_working_directory(place):
    run_id = write(MLflowWriter())
    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    assert history(client, run_id) == [(0, 0.5), (50, 50.5)]
    assert history(client, run_id, "uniformity/projector.0/lu") == [(0, -3.25), (50, 46.75)]
    written = client.get_metric_history(run_id, "uniformity/w2")[-1].timestamp / 1000
    assert abs(written - time.time()) < 600  # in milliseconds, as MLflow has it
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_run(run_id).info.experiment_id == "0"


def test_readings_of_some_seconds_are_written_together(place, monkeypatch):
    calls, log_batch = [], MlflowClient.log_batch

    def counted(client, run_id, metrics):
        calls.append(len(metrics))
        log_batch(client, run_id, metrics=metrics)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    feed = Feed(writer := MLflowWriter(flush_secs=60.0))
    began = time.time()
    feed.put(VALUES, 0, began - 100)
    while writer.run_id is None or not calls:
        time.sleep(0.01)  # the first never waits
    steps = range(10, 6000, 10)
    for step in steps:
        feed.put(VALUES, step, began - 100 + step / 100)
    feed.alert(Alert("constant", 60, 50, (0.1,), 0.2, "warn", "projector", "all is one point"), "uniformity/")
    while sum(calls) < 2 * (1 + len(steps)):
        time.sleep(0.01)  # nor does an alert, and what is before it
    feed.close(60.0)
    assert calls[0] == 2
    assert len(calls) <= 1 + len(steps) / 256 + 1
    stored = MlflowClient(f"sqlite:///{place}/mlflow.db").get_metric_history(writer.run_id, "uniformity/w2")
    assert [m.step for m in stored] == [0, *steps]
    assert stored[-1].timestamp == int(1000 * (began - 100 + steps[-1] / 100))
    assert feed.faults.count == 0


def test_no_request_has_more_than_a_thousand_metrics(place, monkeypatch):
    calls = []
    monkeypatch.setattr(MlflowClient, "log_batch", lambda client, run_id, metrics: calls.append(len(metrics)))
    feed = Feed(writer := MLflowWriter())
    writer.many([({f"uniformity/{k}": 1.0 for k in range(30)}, step, 0.0) for step in range(70)])
    feed.close(60.0)
    assert calls == [1000, 1000, 100]


def test_a_rest_must_not_be_negative():
    with pytest.raises(ValueError, match="flush_secs must be >= 0, got -1"):
        MLflowWriter(flush_secs=-1)


def test_a_new_run_in_a_named_experiment(place):
    uri = f"sqlite:///{place / 'mlflow.db'}"
    ids = [write(MLflowWriter(uri, experiment="digits", run_name=name)) for name in ("a", "b")]
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("digits")
    runs = {run.info.run_id: run.info.run_name for run in client.search_runs([experiment.experiment_id])}
    assert runs == dict(zip(ids, "ab", strict=True))


def test_the_active_run_is_joined_and_left_running(place):
    mlflow.set_tracking_uri(f"sqlite:///{place / 'mlflow.db'}")
    with mlflow.start_run() as run:
        assert write(MLflowWriter()) == run.info.run_id
        client = MlflowClient()
        assert client.get_run(run.info.run_id).info.status == "RUNNING"
        assert history(client, run.info.run_id) == [(0, 0.5), (50, 50.5)]
        assert write(MLflowWriter(experiment="apart")) != run.info.run_id


def test_an_active_run_of_another_store_is_not_joined(place, empty_store):
    mlflow.set_tracking_uri(f"sqlite:///{place / 'mlflow.db'}")
    shutil.copy(empty_store, place / "other.db")
    other = f"sqlite:///{place / 'other.db'}"
    with mlflow.start_run() as run:
        run_id = write(MLflowWriter(other))
    assert run_id != run.info.run_id
    assert history(MlflowClient(other), run_id) == [(0, 0.5), (50, 50.5)]


def test_a_run_by_id(place):
    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    run_id = client.create_run("0").info.run_id
    assert write(MLflowWriter(f"sqlite:///{place / 'mlflow.db'}", run_id=run_id)) == run_id
    assert history(client, run_id) == [(0, 0.5), (50, 50.5)]
    assert client.get_run(run_id).info.status == "RUNNING"


def test_the_environment(place, empty_store, monkeypatch):
    shutil.copy(empty_store, place / "env.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place / 'env.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from-env")
    run_id = write(MLflowWriter())
    client = MlflowClient(f"sqlite:///{place / 'env.db'}")
    assert client.get_run(run_id).info.experiment_id == client.get_experiment_by_name("from-env").experiment_id


def test_set_experiment(place):
    mlflow.set_tracking_uri(f"sqlite:///{place / 'mlflow.db'}")
    experiment = mlflow.set_experiment("set")
    run_id = write(MLflowWriter())
    assert MlflowClient().get_run(run_id).info.experiment_id == experiment.experiment_id


def test_nan_is_stored_as_nan(place):
    feed = Feed(writer := MLflowWriter())
    feed.put({"uniformity/w2": math.nan, "uniformity/lu": 1.0}, 3)
    feed.close(60.0)
    assert feed.faults.count == 0
    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    ((step, value),) = history(client, writer.run_id)
    assert step == 3
    assert math.isnan(value)


def test_an_alert_is_a_tag_and_a_text_artifact(place):
    message = "constant collapse at step 50\n  seen:  mean_resultant 0.99"
    found = Alert("constant", 50, 10, (0.99,), 0.95, "warn", "projector", message)
    over = dataclasses.replace(found, step=90, message="over", recovered=True)
    feed = Feed(writer := MLflowWriter(experiment="alerts"))
    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    client.create_experiment("alerts", artifact_location=(place / "artifacts").as_uri())
    feed.alert(found, "uniformity/projector.0/")
    feed.alert(over, "uniformity/projector.0/")
    feed.put(VALUES, 100)
    feed.close(60.0)
    assert feed.faults.count == 0
    tags = client.get_run(writer.run_id).data.tags
    assert tags["uniformity/projector.0/alerts/constant"] == "over at step 90, since step 10"
    folder = "uniformity/projector.0/alerts"
    names = [file.path for file in client.list_artifacts(writer.run_id, folder)]
    assert names == [f"{folder}/constant-50-found.txt", f"{folder}/constant-90-over.txt"]
    (file,) = (place / "artifacts").rglob("constant-50-found.txt")
    assert file.read_text() == message + "\n"
    assert history(client, writer.run_id) == [(100, 0.5)]


def test_a_store_that_is_not_there_harms_nobody(tmp_path, caplog):
    writer = MLflowWriter(f"sqlite:///{tmp_path / 'none' / 'x' / 'mlflow.db'}".replace("x", "\0"))
    monitor = UniformityMonitor(writers=[writer])
    monitor.close()
    feed = Feed(writer)
    feed.put(VALUES, 0)
    feed.close(0.5)
    assert feed.faults.count == 0
    assert "writer MLflowWriter: 1 were still waiting after 0 s" in caplog.text
    if not mlflow.__version__.startswith("2."):  # which tries for a while by itself
        assert "step 0: ValueError: embedded null byte; training goes on, readings wait and are tried" in caplog.text


def test_run_id_goes_alone():
    with pytest.raises(ValueError, match="run_id names an existing run; give it without experiment and run_name"):
        MLflowWriter(run_id="a", experiment="b")
