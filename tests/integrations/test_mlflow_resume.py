"""An MLflow run that goes on where training is resumed."""

import pickle
import time

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from test_mlflow import VALUES, history, write

from uniformity_callbacks import UniformityMonitor
from uniformity_callbacks.feeds import Feed
from uniformity_callbacks.integrations.mlflow import MLflowWriter


def store(place):
    return f"sqlite:///{place / 'mlflow.db'}"


def resumed(state, **arguments):
    writer = MLflowWriter(**arguments)
    writer.load_state_dict(state)
    return writer


@pytest.mark.parametrize("ended", [True, False])
def test_the_run_goes_on_and_is_ended_whether_it_was_or_not(place, ended):
    client = MlflowClient(store(place))
    first = MLflowWriter(run_name="a")
    run_id = write(first)
    if not ended:  # killed
        client.update_run(run_id, status="RUNNING")
    feed = Feed(second := resumed(first.state_dict()))
    feed.put(VALUES, 100)
    deadline = time.monotonic() + 30
    while len(history(client, run_id)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert client.get_run(run_id).info.status == "RUNNING"
    feed.close(60.0)
    assert second.run_id == run_id
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [step for step, _ in history(client, run_id)] == [0, 50, 100]
    assert len(client.search_runs(["0"])) == 1


@pytest.mark.parametrize("gone", ["another store", "deleted", "no id of this store"])
def test_a_run_that_is_not_there_any_more_is_followed_by_a_new_one(place, gone, caplog):
    client = MlflowClient(store(place))
    run_id = {"another store": "0" * 32, "deleted": write(MLflowWriter()), "no id of this store": "?" * 300}[gone]
    if gone == "deleted":
        client.delete_run(run_id)
    writer = resumed({"run_id": run_id})
    assert write(writer) != run_id
    assert [step for step, _ in history(client, writer.run_id)] == [0, 50]
    assert f"MLflow run {run_id} is not in {store(place)} any more; a new one is begun" in caplog.text


def test_a_server_that_is_down_for_a_while_costs_no_second_run_and_no_reading(place, monkeypatch, caplog):
    run_id = write(first := MLflowWriter())
    feed, get_run = Feed(second := resumed(first.state_dict())), MlflowClient.get_run

    def down(client, run_id):
        monkeypatch.setattr(MlflowClient, "get_run", get_run)
        raise MlflowException("no connection")

    monkeypatch.setattr(MlflowClient, "get_run", down)
    for step in (100, 150):
        feed.put(VALUES, step)
        assert feed._worker.settle(60.0)
    feed.close(60.0)
    assert feed.faults.count == 0
    assert "MlflowException: no connection; training goes on" in caplog.text
    assert "takes readings again after" in caplog.text
    assert second.run_id == run_id
    assert [step for step, _ in history(MlflowClient(store(place)), run_id)] == [0, 50, 100, 150]


def test_a_run_that_is_given_or_active_comes_before_it(place):
    client = MlflowClient(store(place))
    state = {"run_id": write(MLflowWriter())}
    given = client.create_run("0").info.run_id
    assert write(resumed(state, run_id=given)) == given
    mlflow.set_tracking_uri(store(place))
    with mlflow.start_run(experiment_id="0") as run:  # not that of a set_experiment before
        assert write(resumed(state)) == run.info.run_id
    assert len(history(client, state["run_id"])) == 2


def test_the_next_fit_of_a_process_goes_on_in_the_run_and_ends_it(place):
    writer = MLflowWriter()
    assert write(writer) == write(writer, (100,))
    run = MlflowClient(store(place)).get_run(writer.run_id)
    assert run.info.status == "FINISHED"
    assert [step for step, _ in history(MlflowClient(store(place)), writer.run_id)] == [0, 50, 100]


def test_a_checkpoint_right_after_the_first_reading_knows_the_run(place):
    feed = Feed(writer := MLflowWriter())
    feed.put(VALUES, 0)
    assert writer.state_dict() == {"run_id": writer.run_id}
    feed.close(60.0)
    assert writer.run_id is not None


def test_a_store_that_does_not_answer_holds_up_one_checkpoint_for_a_second(place):
    writer = MLflowWriter()
    unused = time.monotonic()
    assert writer.state_dict() == {"run_id": None}  # nothing to wait for
    writer.open()
    begun = time.monotonic()
    assert begun - unused < 0.5
    assert [writer.state_dict() for _ in range(3)] == [{"run_id": None}] * 3
    assert 0.9 < time.monotonic() - begun < 2.0


def test_the_state_is_the_monitors_by_position(place, caplog):
    class Odd:
        def __call__(self, values, step):
            pass

        def state_dict(self):
            raise OSError("no state")

        def load_state_dict(self, state):
            raise OSError("takes none")

    kept = MLflowWriter(run_id="a" * 32)
    monitor = UniformityMonitor(writers=[print, Odd(), kept])
    state = monitor.state_dict()
    assert state["writers"] == [None, None, {"run_id": "a" * 32}]
    assert "state of the writer Odd: OSError: no state" in caplog.text
    state["writers"][1] = 3
    other = UniformityMonitor(writers=[print, Odd(), MLflowWriter(), MLflowWriter()])
    other.load_state_dict(state)
    assert [writer.state_dict()["run_id"] for writer in other.records.writers[2:]] == ["a" * 32, None]
    assert "OSError: takes none" in caplog.text
    del state["writers"]  # as an older version left it
    again = UniformityMonitor(writers=[MLflowWriter()])
    again.load_state_dict(state)
    assert again.faults.count == 0


def test_a_writer_can_be_pickled_before_and_after_it_wrote(place):
    writer = pickle.loads(pickle.dumps(MLflowWriter(experiment="pickled")))
    run_id = write(writer)
    assert write(pickle.loads(pickle.dumps(writer)), (100,)) == run_id


def test_no_password_is_told(monkeypatch, caplog):
    monkeypatch.setattr("uniformity_callbacks.integrations.mlflow.active_run", lambda client, run_id: None)
    writer = resumed({"run_id": "a" * 32}, tracking_uri="https://me:secret@host/path")
    writer._last = "a" * 32
    assert writer._reopen(MlflowClient("https://host")) is None
    assert "is not in https://***@host/path any more" in caplog.text
    assert "secret" not in caplog.text + repr(writer.target)
