"""What is wrong is told before the first step or in it, and never after it."""

from pathlib import Path

import pytest
import torch
from plain import ROWS, batches, made, one_step, readings, sgd, watched
from torch import nn

from uniformity_callbacks import LinearDecay
from uniformity_callbacks.integrations.pytorch import watch

pytestmark = pytest.mark.usefixtures("own_place", "nothing_is_watched")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every_n_steps": 0}, ValueError, "every_n_steps must be"),
        ({"layer": "projektor"}, ValueError, "did you mean projector"),
        ({"first_step": -1}, ValueError, "first_step must be an integer >= 0, got -1"),
        ({"first_step": True}, ValueError, "first_step must be"),
        ({"auxiliary": LinearDecay(1.0)}, ValueError, "total_steps must be given"),
        ({"criterion": nn.MSELoss()}, ValueError, "there is none; give auxiliary"),
        ({"criterion": nn.functional.mse_loss, "auxiliary": 0.1}, TypeError, r"monitor.add_auxiliary\(loss\) instead"),
    ],
)
def test_bad_arguments(arguments, error, message, unchecked):
    model = made()
    optimizer = sgd(model)
    with pytest.raises(error, match=message):
        watch(model, optimizer=optimizer, **arguments)
    assert not optimizer._optimizer_step_post_hooks
    assert not model.projector._forward_hooks
    assert not Path("uniformity.jsonl").exists()


@pytest.mark.parametrize("optimizer", [None, "adam", [sgd(made())]])
def test_no_optimizer(optimizer, unchecked):
    with pytest.raises(TypeError, match=r"optimizer must be a torch.optim.Optimizer.*the one whose steps"):
        watch(made(), optimizer=optimizer)


def test_no_model(unchecked):
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got 'model'"):
        watch("model", optimizer=sgd(made()))


class Holder(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_a_model_is_not_watched_twice_in_silence():
    model = made()
    optimizer = sgd(model)
    first = watched(model, optimizer)
    for again in (model, torch.compile(model), Holder(model), model.projector):
        with pytest.raises(ValueError, match=r"watched already, under the prefix 'uniformity', every 2 steps; close"):
            watched(again, optimizer)
    with watched(model, optimizer, prefix="other", journal="other.jsonl") as second:
        one_step(model, optimizer)
    first.close()
    assert readings(first) == readings(second) == [(0, 2 * ROWS)]
    with watched(model, optimizer):
        pass
    with watched(made(), optimizer), watched(made(), optimizer):  # other models: the keys are their own business
        pass


def test_errors_of_the_first_step(unchecked):
    model = made()
    optimizer = sgd(model)
    monitor = watched(model, optimizer, auxiliary=0.1)
    with pytest.raises(ValueError, match=r"add_auxiliary was not called in this step: write loss = monitor.add_aux"):
        one_step(model, optimizer)
    monitor.close()
    monitor = watched(model, optimizer, auxiliary=0.1)
    with pytest.raises(ValueError, match="needs the outputs of 'projector', but projector was not called"):
        monitor.add_auxiliary(torch.zeros(()))
    with pytest.raises(TypeError, match=r"loss must be a tensor, got 1.0"):
        monitor.add_auxiliary(1.0)
    ((x0, x1),) = batches(1)[0]
    loss = monitor.add_auxiliary((model(x0) - model(x1)).square().mean())
    with pytest.raises(ValueError, match=r"add_auxiliary was called twice in one pass: call it once, on the sum"):
        monitor.add_auxiliary(loss)
    monitor.close()
    monitor = watched(model, optimizer, output="z")
    with pytest.raises(ValueError, match="output='z' failed on a Tensor"):
        one_step(model, optimizer)


class BYOL(nn.Module):
    """A symmetric loss is two calls of the criterion."""

    def forward(self, p, z):
        return 2 - 2 * nn.functional.cosine_similarity(p, z.detach()).mean()


def test_a_criterion_called_twice_before_one_backward_is_an_error_that_shows_the_line():
    model, criterion = made(), BYOL()
    optimizer = sgd(model)
    monitor = watched(model, optimizer, auxiliary=0.1, criterion=criterion)
    ((x0, x1),) = batches(1)[0]
    z0, z1 = model(x0), model(x1)
    criterion(z0, z1)
    with pytest.raises(ValueError, match=r"twice before one backward.*write loss = monitor.add_auxiliary\(loss\) befo"):
        criterion(z1, z0)
    monitor.close()


def test_a_criterion_that_returns_no_loss_or_is_not_called():
    model = made()
    optimizer = sgd(model)
    criterion = nn.Identity()
    monitor = watched(model, optimizer, auxiliary=0.1, criterion=criterion)
    z = model(batches(1)[0][0][0])
    with pytest.raises(ValueError, match=r'a mapping with one under "loss", got tuple; leave it out'):
        criterion((z, z))
    z.sum().backward()
    with pytest.raises(ValueError, match=r"the criterion, Identity, was not called in this step; leave it out and"):
        optimizer.step()
    monitor.close()


def test_after_the_first_step_nothing_raises(caplog):
    model, criterion = made(), BYOL()
    optimizer = sgd(model)
    monitor = watched(model, optimizer, auxiliary=0.1, criterion=criterion, every_n_steps=1)
    for k, ((x0, x1),) in enumerate(batches(3)):
        z0, z1 = model(x0), model(x1)
        loss = criterion(z0, z1)
        if k:
            loss = loss + criterion(z1, z0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model(x0).sum().backward()
    optimizer.step()
    monitor.close()
    assert monitor.step == 4
    assert monitor.monitor.faults.count == 3
    assert "twice before one backward" in caplog.text
    assert [step for step, _ in readings(monitor)] == [0, 1, 2, 3]


@pytest.mark.parametrize("method", ["pause", "end_pass", "begin", "finish", "take", "alert"])
def test_errors_of_ours_never_reach_the_loop(method, monkeypatch):
    model = made()
    optimizer = sgd(model)
    with watched(model, optimizer, auxiliary=0.1, every_n_steps=1) as monitor:
        one_step(model, optimizer, monitor)
        collector = monitor.monitor._collector
        target = collector if hasattr(collector, method) else monitor.monitor._desk.reader

        def broken(*args, **kwargs):
            raise RuntimeError("broken")

        with monkeypatch.context() as patch:
            patch.setattr(target, {"finish": "settle"}.get(method, method), broken)
            for _ in range(3):
                one_step(model, optimizer, monitor)
        for _ in range(2):
            one_step(model, optimizer, monitor)
    assert monitor.step == 6
    assert monitor.monitor.faults.count >= 3
    assert readings(monitor)[-1] == (5, 2 * ROWS)
