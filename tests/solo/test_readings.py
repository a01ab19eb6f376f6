"""Each method in a real Trainer: the right rows are read, at the due steps, and training stays as it is."""

import random

import numpy as np
import oracle
import pytest
import torch
from learners import EPOCHS, METHODS, STEPS, VALIDATION_ROWS, build, told_apart
from oracle import Oracle
from watching import fit, journal
from which import NEWEST

from reference import w2_by_svd

DUE = [0, 3, 6]


@pytest.fixture(scope="module", params=METHODS)
def watched(request, tmp_path_factory):
    seen, learner = Oracle(request.param), told_apart(build(request.param))
    trainer = fit(learner, [seen], keys={"every_n_steps": 3}, default_root_dir=tmp_path_factory.mktemp("run"))
    return request.param, learner.model, seen, journal(trainer), random_state()


def random_state():
    return torch.get_rng_state(), np.random.get_state()[1], random.getstate()


def check(reading, views):
    rows = torch.cat(views).double().numpy()
    assert reading.values["samples"] == len(rows)
    assert reading.values["nonfinite"] == 0
    assert reading.values["w2"] == pytest.approx(w2_by_svd(rows), rel=1e-5)
    assert reading.values["norm_mean"] == pytest.approx(np.sqrt((rows**2).sum(1)).mean(), rel=1e-5)


def test_the_views_of_the_due_steps_are_read(watched):
    method, _, seen, record, _ = watched
    assert [len(step) for step in seen.steps] == [oracle.calls(method)] * STEPS * EPOCHS
    readings = [r for r in record.readings if r.stage == "train"]
    assert [r.step for r in readings] == DUE
    for reading in readings:
        assert reading.layer == oracle.layer(method)
        check(reading, seen.steps[reading.step][oracle.read(method)])


def test_validation_is_read_as_a_whole(watched):
    """1.0.2's methods do not project in validation: there is nothing to read."""
    method, _, seen, record, _ = watched
    readings = [r for r in record.readings if r.stage != "train"]
    if not NEWEST:
        assert not any(seen.validations)
        assert not readings
        return
    assert [(r.stage, r.layer) for r in readings] == [("val", oracle.layer(method))] * EPOCHS
    for reading, rows in zip(readings, seen.validations, strict=True):
        assert reading.values["samples"] == VALIDATION_ROWS
        check(reading, rows)


def test_no_alert_and_no_trouble(watched):
    record = watched[3]
    assert not record.alerts
    assert not record.unreadable
    assert len(record.runs) == 1


def test_weights_and_random_state_are_those_of_an_unwatched_run(watched, tmp_path):
    method, model, _, _, state = watched
    learner = told_apart(build(method))
    fit(learner, default_root_dir=tmp_path)
    assert not list(tmp_path.iterdir())
    for one, other in zip(random_state(), state, strict=True):
        np.testing.assert_equal(np.asarray(one, dtype=object), np.asarray(other, dtype=object))
    for (name, a), b in zip(learner.model.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
