import shutil
from pathlib import Path

import pytest

from advice import ADVICE


@pytest.fixture
def own_place(tmp_path, monkeypatch):
    """A working directory of the test's own, where Trainers leave their files."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def asks(monkeypatch):
    """Set the variable that asks for the callback."""
    from uniformity_callbacks.integrations.factory import VARIABLE

    return lambda text: monkeypatch.setenv(VARIABLE, text)


@pytest.fixture
def nothing_is_watched():
    """Close the monitors that a test left open."""
    from uniformity_callbacks.integrations import pytorch

    yield
    for loop in list(pytorch._watching):
        loop.leave()


@pytest.fixture
def own_mlflow(monkeypatch):
    """MLflow without a setting of any other test, and none left for the next."""
    import mlflow

    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
        monkeypatch.setenv(name, "")  # so that it is put back even where MLflow itself sets it
        monkeypatch.delenv(name)
    yield
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A new store takes seconds to make: it is made once and copied."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def place(tmp_path, empty_store, own_mlflow, monkeypatch):
    """A working directory with a store of MLflow's default name in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def pytest_collection_modifyitems(items):
    for item in (item for item in items if item.path.is_relative_to(Path(__file__).parent)):
        for advice in ADVICE:
            item.add_marker(pytest.mark.filterwarnings(advice), append=False)
