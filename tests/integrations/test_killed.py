"""A training that is killed again and again and resumed is the one that was not."""

import shutil

import pytest
from killable import EVERY, STEPS, compare, killed, run, train
from test_tensorboard import read

ROUNDS = 3


@pytest.fixture
def folders(tmp_path, empty_store):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        shutil.copy(empty_store, tmp_path / name / "mlflow.db")
    return tmp_path / "whole", tmp_path / "killed"


def test_kills_at_random_steps(folders):
    whole, broken = folders
    assert run(train, whole) == 0
    killed(broken, ROUNDS, seed=4)
    assert compare(whole, broken, ROUNDS) > 0
    assert {step for step, _ in read(broken / "events")["uniformity/w2"]} >= set(range(0, STEPS - EVERY, EVERY))
