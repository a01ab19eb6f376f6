"""What a step asks of the device on the training thread, on a device without values, where to look at one raises."""

import pytest
import torch

from dispatch import Calls, Waits
from loops import Model, step
from uniformity_callbacks import UniformityMonitor, WassersteinLoss


def views(n=32):
    return torch.randn(n, 4, device="meta"), torch.randn(n, 4, device="meta")


@pytest.fixture
def watched(tmp_path):
    """Attach to a model on the meta device and let the first step pass."""
    closing = []

    def watched(**arguments):
        model, monitor = Model().to("meta"), UniformityMonitor("projector", **arguments)
        closing.append(monitor)
        monitor.attach(model, directory=tmp_path, total_steps=100)
        monitor.begin(0)
        for x in views():
            model(x)
        monitor.add_auxiliary(torch.zeros((), device="meta", requires_grad=True))
        monitor.pause()
        monitor.end_pass()
        monitor.finish()  # its reading fails: there are no values
        return model, monitor

    yield watched
    for monitor in closing:
        monitor.close()


@pytest.mark.parametrize("auxiliary", [None, 0.5, WassersteinLoss(0.1, when="alert")], ids=["none", "loss", "waiting"])
@pytest.mark.parametrize("every", [1, 2, 1000])
def test_no_step_waits_for_the_device(watched, auxiliary, every, caplog):
    """Due ones (every 1, and the second of 2) and those between."""
    model, monitor = watched(every_n_steps=every, auxiliary=auxiliary)
    with Waits() as waits:
        for k in range(1, 5):
            step(monitor, model, k, views(), views())  # two micro-batches
    assert waits.names == []
    messages = [record.getMessage() for record in caplog.records]
    assert messages
    assert all("meta" in message for message in messages)  # of the readings, which have no values


def test_off_step_a_watched_step_does_what_one_that_is_not_does(watched):
    def operations(monitor, model):
        with Calls() as calls:
            step(monitor, model, 1, views())
        return calls.names

    model, monitor = watched(every_n_steps=1000)
    _, other = watched(every_n_steps=1000)  # drives the step of a model that nobody watches
    assert operations(monitor, model) == operations(other, Model().to("meta"))


def test_a_wait_would_be_seen():
    with Waits() as waits:
        torch.ones(3).sum().item()
        torch.ones(3).to("meta")
        torch.ones(3).to("meta", non_blocking=True)
    assert waits.names == ["aten._local_scalar_dense", "aten._to_copy"]
