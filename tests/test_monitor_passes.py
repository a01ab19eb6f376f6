"""Passes of several backwards, of none, and passes that are repeated; in which of them the auxiliary loss is."""

import pytest
import torch

from loops import Model, views
from uniformity_callbacks import UniformityMonitor


@pytest.fixture
def watched(tmp_path):
    monitor, model = UniformityMonitor("projector", every_n_steps=1, auxiliary=1.0), Model()
    monitor.attach(model, directory=tmp_path)
    yield monitor, model
    monitor.close()


def added(monitor, **how):
    """What the auxiliary loss adds to a loss of 0."""
    value = monitor.add_auxiliary(torch.zeros(()), **how).item()
    monitor.pause()
    return value


def test_the_loss_enters_the_first_backward_after_the_layer_was_called(watched):
    monitor, model = watched
    assert not monitor.wants_auxiliary
    monitor.begin(0)
    assert added(monitor, required=False) == 0.0
    assert monitor.wants_auxiliary
    monitor.resume()
    model(views()[0])
    assert added(monitor, required=False) > 0.0
    assert not monitor.wants_auxiliary
    monitor.resume()
    model(views()[0])  # not captured any more
    assert added(monitor, required=False) == 0.0
    monitor.require_auxiliary()
    monitor.end_pass()
    assert not monitor.wants_auxiliary
    assert monitor.finish()[0].reading.values["samples"] == 32


@pytest.mark.parametrize("accumulating", [False, True])
def test_it_is_not_added_again_to_gradients_that_wait_for_their_optimizer(watched, accumulating):
    monitor, model = watched
    for k in range(2):
        monitor.begin(k, accumulating=accumulating)
        assert monitor.wants_auxiliary == (k == 0 or not accumulating)
        model(views()[0])
        assert (added(monitor, required=False) > 0.0) == (k == 0 or not accumulating)
        monitor.require_auxiliary()
        monitor.end_pass()
        monitor.finish()
    monitor.begin(2)
    assert monitor.wants_auxiliary


@pytest.mark.parametrize(("called", "message"), [(False, "needs the outputs of 'projector'"), (True, "was not added")])
def test_a_pass_without_it_is_an_error(watched, called, message):
    monitor, model = watched
    monitor.begin(0)
    if called:
        model(views()[0])
    with pytest.raises(ValueError, match=message):
        monitor.require_auxiliary()


def test_a_repeated_pass_has_its_own_loss_and_the_reading_of_the_first(watched):
    monitor, model = watched
    monitor.begin(0)
    monitor.repeat()  # the first time, which repeats nothing
    inputs = views()[0]
    for scale in (1.0, 0.0, 0.0):
        z = model(inputs * scale)
        loss = monitor.add_auxiliary(z.sum() * 0.0)
        monitor.pause()
        loss.backward()  # of its own graph alone
        monitor.repeat()
    monitor.end_pass()
    (outcome,) = monitor.finish()
    assert outcome.reading.values["samples"] == 32
    assert outcome.reading.values["mean_resultant"] < 0.99  # the others are one point
