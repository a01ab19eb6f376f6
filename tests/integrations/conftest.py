from pathlib import Path

import pytest


@pytest.fixture
def own_place(tmp_path, monkeypatch):
    """A working directory of the test's own, where Trainers leave their files."""
    monkeypatch.chdir(tmp_path)


# The Trainer's own advice, which small runs on a CPU do not follow.
ADVICE = (
    "ignore:.*does not have many workers",
    "ignore:.*exists and is not empty",
    "ignore:.*resuming from a checkpoint that ended before the epoch ended",
    "ignore:The number of training batches",
)


def pytest_collection_modifyitems(items):
    for item in (item for item in items if item.path.is_relative_to(Path(__file__).parent)):
        for advice in ADVICE:
            item.add_marker(pytest.mark.filterwarnings(advice), append=False)
