"""A journal into MLflow: everything is there by key and step, and a second time adds nothing."""

import json
import math
import shutil

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from journals import AGAIN, ALERTS, BEGAN, FOUND, OVER, write, written
from uniformity_callbacks import read_journal
from uniformity_callbacks.integrations.events import to_mlflow
from uniformity_callbacks.integrations.keys import mlflow_key
from uniformity_callbacks.integrations.sync_mlflow import TAG, MLflowRun
from uniformity_callbacks.integrations.syncing import SyncError, identity, notices_of, points_of, sync

STEPS = list(range(0, 100, 10))


@pytest.fixture
def uri(place):
    return f"sqlite:///{place / 'mlflow.db'}"


@pytest.fixture
def client(uri, place):
    client = MlflowClient(uri)
    client.create_experiment("apart", artifact_location=(place / "artifacts").as_uri())
    return client


def new_run(client):
    return client.create_run(client.get_experiment_by_name("apart").experiment_id).info.run_id


def history(client, run_id, key="uniformity/w2"):
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, key)]


def done(uri, journal, **options):
    store = MLflowRun(uri, journal, experiment=None if "run_id" in options else "apart", **options)
    return store.run_id, sync(journal, store), store


def test_everything_is_there_and_a_second_time_adds_nothing(client, uri, place):
    journal = written(place / "a.jsonl", alerts=ALERTS, huge=1e300, odd=math.inf)
    _, outcome, store = done(uri, journal, name="mine")
    assert (outcome.points, outcome.readings, outcome.alerts) == (40, 10, 3)
    assert (outcome.points_there, outcome.alerts_there, outcome.refused) == (0, 0, [])
    run = client.get_run(store.run_id)
    assert history(client, store.run_id) == [(step, step / 7) for step in STEPS]
    assert history(client, store.run_id, "uniformity/huge") == [(step, 1e300) for step in STEPS]
    assert all(math.isnan(value) for _, value in history(client, store.run_id, "uniformity/odd"))
    first = client.get_metric_history(store.run_id, "uniformity/w2")[3]
    assert first.timestamp == 1000 * (BEGAN + first.step)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "mine")
    assert (run.info.start_time, run.info.end_time) == (1000 * BEGAN, 1000 * (BEGAN + 90))
    assert run.data.tags["uniformity/alerts/constant"] == "found at step 60, since step 50"
    assert [file.name for file in sorted(place.rglob("artifacts/**/*.txt"))] == [
        "constant-20-found.txt",
        "constant-40-over.txt",
        "constant-60-found.txt",
    ]
    found, outcome, store = done(uri, journal)
    assert found == run.info.run_id
    assert (outcome.points, outcome.readings, outcome.alerts) == (0, 0, 0)
    assert (outcome.points_there, outcome.alerts_there) == (40, 3)
    assert len(history(client, found)) == 10


def test_what_is_there_is_left_as_it_is(client, uri, place):
    run_id = new_run(client)
    for step in (20, 30, 90):
        client.log_metric(run_id, "uniformity/w2", -5.0, step=step)
    journal = written(place / "a.jsonl", stores=[{"kind": "mlflow", "run_id": run_id}])
    found, outcome, store = done(uri, journal)
    assert found == run_id
    assert str(store) == f"MLflow run {run_id} (named by the journal)"
    assert (outcome.points, outcome.readings, outcome.points_there) == (17, 10, 3)
    assert sorted(history(client, run_id)) == [(s, -5.0 if s in (20, 30, 90) else s / 7) for s in STEPS]
    assert client.get_run(run_id).info.status == "RUNNING"


def test_the_last_run_that_the_journal_names_and_the_store_has(client, uri, place):
    runs = [new_run(client) for _ in range(3)]
    client.delete_run(runs[2])
    stores = [{"kind": "mlflow", "run_id": run_id} for run_id in [*runs, "0" * 32, "no id", 3, None]]
    journal = written(place / "a.jsonl", stores=[*stores, {"kind": "other", "run_id": runs[0]}, {"kind": "mlflow"}])
    assert done(uri, journal)[0] == runs[1]


def test_a_run_by_its_id_is_found_again_by_the_journal(client, uri, place):
    journal, other = written(place / "a.jsonl"), written(place / "b.jsonl", layers=("projector", "encoder"))
    run_id = new_run(client)
    assert done(uri, journal, run_id=run_id)[0] == run_id
    assert done(uri, journal)[0] == run_id
    assert done(uri, other, run_id=run_id)[0] == run_id
    assert client.get_run(run_id).data.tags[TAG] == journal.id
    assert len(history(client, run_id, "uniformity/encoder/w2")) == 10
    with pytest.raises(SyncError, match="the store has no run 'gone'"):
        done(uri, journal, run_id="gone")
    client.delete_run(run_id)
    with pytest.raises(SyncError, match="has it among the deleted"):
        done(uri, journal, run_id=run_id)
    assert done(uri, journal)[0] is None  # a new one was made: the tagged one is deleted


def test_a_journal_without_an_id_is_told_from_others_too(client, uri, place):
    path = write(place / "a.jsonl")
    lines = path.read_text().splitlines()
    run = json.loads(lines[0])
    for changed in ({**run, "time": 1.0}, {**run, "time": 2.0}, {**run, "id": "' or 1=1"}):
        path.write_text("\n".join([json.dumps({k: v for k, v in changed.items() if v != run["id"]}), *lines[1:]]))
        journal = read_journal(path)
        assert done(uri, journal)[0] is None
        assert done(uri, journal)[1].points_there == 20
    path.write_text("\n".join(lines[1:]))
    assert len(identity(read_journal(path))) == 32


def test_experiments(client, uri, place):
    journal = written(place / "a.jsonl")
    sync(journal, store := MLflowRun(uri, journal, experiment="made"))
    made = client.get_experiment_by_name("made").experiment_id
    assert client.get_run(store.run_id).info.experiment_id == made
    assert done(uri, journal)[0] == store.run_id  # found in any
    other = written(place / "b.jsonl")
    sync(other, store := MLflowRun(uri, other))
    assert client.get_run(store.run_id).info.experiment_id == "0"
    assert str(store).endswith("(new, in experiment Default)")


def test_a_journal_of_nothing_makes_no_run(client, uri, place):
    (place / "a.jsonl").touch()
    assert done(uri, read_journal(place / "a.jsonl"))[2].run_id is None
    assert client.search_runs(["0", client.get_experiment_by_name("apart").experiment_id]) == []


def test_batches_and_a_point_that_the_store_refuses(client, uri, place, monkeypatch):
    sizes, log_batch = [], MlflowClient.log_batch

    def choosy(client, run_id, metrics):
        sizes.append(len(metrics))
        if any(metric.key.endswith("bad") and metric.step == 500 for metric in metrics):
            raise MlflowException("not this one", INVALID_PARAMETER_VALUE)
        log_batch(client, run_id, metrics=metrics)

    monkeypatch.setattr(MlflowClient, "log_batch", choosy)
    journal = written(place / "a.jsonl", range(500, 1200), bad=1.0)
    _, outcome, store = done(uri, journal)
    assert max(sizes) == sizes[0] == 1000
    assert len(sizes) < 30
    assert (outcome.points, outcome.refused) == (2099, ["uniformity/bad at step 500: not this one"])
    assert len(history(client, store.run_id, "uniformity/bad")) == 699
    assert len(history(client, store.run_id)) == 700


def test_a_store_that_refuses_everything_is_not_asked_point_by_point(client, uri, place, monkeypatch):
    calls = []

    def refuse(client, run_id, metrics):
        calls.append(len(metrics))
        raise MlflowException("the run is closed", INVALID_PARAMETER_VALUE)

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    with pytest.raises(SyncError, match="the run is closed"):
        done(uri, written(place / "a.jsonl", range(2000)))
    assert len(calls) < 300


def test_names_that_mlflow_does_not_take(client, uri, place):
    layers = ("heads[0]", "heads(0)", "a/../b", "café", "x" * 300)
    alert = [FOUND.__class__(**{**FOUND.__dict__, "layer": layer}) for layer in layers]
    journal = written(place / "a.jsonl", layers=layers, alerts=alert)
    _, outcome, store = done(uri, journal)
    assert (outcome.points, outcome.alerts, outcome.refused) == (100, 5, [])
    for layer in layers:
        assert history(client, store.run_id, mlflow_key(f"uniformity/{layer}/w2")) == [(s, s / 7) for s in STEPS]
    assert len(client.get_run(store.run_id).data.metrics) == 10
    assert len([*place.rglob("artifacts/**/*.txt")]) == 5
    assert done(uri, journal)[1].points_there == 100
    assert done(uri, journal)[1].alerts_there == 5


def test_an_older_alert_does_not_take_the_tag(client, uri, place):
    run_id = new_run(client)
    to_mlflow(client, run_id, AGAIN, "uniformity/")
    (text,) = place.rglob("artifacts/**/*.txt")
    before = text.stat().st_mtime_ns
    journal = written(place / "a.jsonl", alerts=[FOUND, OVER, AGAIN])
    _, outcome, _ = done(uri, journal, run_id=run_id)
    assert (outcome.alerts, outcome.alerts_there) == (2, 1)
    assert client.get_run(run_id).data.tags["uniformity/alerts/constant"] == "found at step 60, since step 50"
    assert text.stat().st_mtime_ns == before
    assert len([*place.rglob("artifacts/**/*.txt")]) == 3


def test_a_branch_that_died_is_left_out(client, uri, place):
    write(place / "a.jsonl", alerts=ALERTS, dead=1.0)
    journal = written(place / "a.jsonl", range(30, 80, 10), resume=True, alive=2.0)
    _, outcome, store = done(uri, journal)
    assert outcome.alerts == 1
    assert history(client, store.run_id) == [(step, step / 7) for step in range(0, 80, 10)]
    assert [step for step, _ in history(client, store.run_id, "uniformity/dead")] == [0, 10, 20]


def test_a_point_that_is_there_twice_and_values_that_are_odd(tmp_path):
    path = write(tmp_path / "a.jsonl", [0, 30], alerts=[FOUND])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[2]["values"] = {"w2": math.inf, "\ud800": 2}
    lines += [lines[2], {**lines[-1], "step": 40}]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    points, notices = points_of(read_journal(path)), notices_of(read_journal(path))
    assert {(p.key, p.step) for p in points} == {
        ("uniformity/w2", 0),
        ("uniformity/lu", 0),
        ("uniformity/w2", 30),
        ("uniformity/?", 30),
    }
    assert math.isnan(points[-2].value)  # MLflow would take infinity for 1.797e308
    assert len(points) == 4  # what is there twice is written once
    assert [(notice.alert.step, notice.time) for notice in notices] == [(20, None), (40, None)]


def test_a_database_that_is_not_there_is_told_at_once(place, empty_store):
    journal = written(place / "a.jsonl")
    with pytest.raises(SQLAlchemyError, match="unable to open database file"):
        MLflowRun(f"sqlite:///{place / 'none' / 'mlflow.db'}", journal)
    shutil.copy(place / "a.jsonl", place / "b.db")
    with pytest.raises(SQLAlchemyError, match="file is not a database"):
        MLflowRun(f"sqlite:///{place / 'b.db'}", journal)
