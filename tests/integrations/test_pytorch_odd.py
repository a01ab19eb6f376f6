"""A monitor of a plain loop where the loop, its optimizer, criterion or model is out of the ordinary."""

import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from plain import ROWS, as_it_is, batches, by_hand, distance, made, readings, sgd, train, watched
from torch import nn
from torch._dynamo.utils import counters
from torch.func import functional_call, grad, vmap
from torch.nn.parallel import DataParallel

from uniformity_callbacks import CollapseAlert, read_journal
from uniformity_callbacks.integrations import pytorch

pytestmark = [
    pytest.mark.usefixtures("own_place"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nothing_is_watched():
    yield
    for loop in list(pytorch._watching):
        loop.leave()
    torch.compiler.reset()
    counters.clear()  # or what is said of a layer that was not called, in other tests, would be of torch.compile


class Parent(torch.optim.SGD):
    """Steps by its parent's step, whose hooks are called, too, once there was an optimizer of that class."""

    def step(self, closure=None):
        return super().step(closure)


def test_an_optimizer_that_steps_by_its_parents_step_is_counted_once():
    model = made()
    sgd(model)
    optimizer = Parent(model.parameters(), lr=0.1)
    with watched(model, optimizer, every_n_steps=1) as monitor:
        train(model, as_it_is, steps=3, optimizer=optimizer)
    assert monitor.step == 3
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(3)]


class Result(OrderedDict):
    """As in transformers: its items are attributes, too."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Criterion(nn.Module):
    def forward(self, z0, z1):
        return Result(loss=distance(z0, z1), other=1)


def test_what_a_criterion_returns_keeps_its_type():
    model, criterion = made(dropout=0.0), Criterion()
    ((x0, x1),) = batches(1)[0]
    with watched(model, sgd(model), criterion=criterion, auxiliary=0.3):
        z0, z1 = model(x0), model(x1)
        result = criterion(z0, z1)
    assert type(result) is Result
    assert result.other == 1
    assert result.loss.item() == pytest.approx(by_hand(0.3)(distance(z0, z1), z0, z1).item(), rel=1e-6)


def test_an_evaluation_with_gradients_costs_the_next_step_no_loss():
    model, criterion = made(dropout=0.0), nn.MSELoss()
    optimizer = sgd(model)
    with watched(model, optimizer, every_n_steps=1, criterion=criterion, auxiliary=0.3) as monitor:
        for ((x0, x1),) in batches(3):
            criterion(model(x0), model(x1)).backward()
            optimizer.step()
            optimizer.zero_grad()
            model.eval()
            for _ in range(2):
                z0, z1 = model(x0), model(x1)
                assert criterion(z0, z1) == nn.functional.mse_loss(z0, z1)
            model.train()
    _, added = read_journal(monitor.journal).series("aux_loss")
    assert min(added) > 0.1


class Other(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net


def test_a_model_wrapped_anew_is_the_same_model():
    model = made()
    optimizer = sgd(model)
    for first in (torch.compile, DataParallel):
        with watched(first(model), optimizer):
            for again in (torch.compile, DataParallel, Other, lambda model: model):
                with pytest.raises(ValueError, match="watched already"):
                    watched(again(model), optimizer)
    with watched(Other(model), optimizer), pytest.raises(ValueError, match="watched already"):
        watched(torch.compile(model), optimizer)
    shared = made()
    with watched(Other(shared), optimizer), watched(Other(shared), optimizer):
        pass  # two models that share a part


def test_a_closed_monitor_takes_no_state():
    model = made()
    monitor = watched(model, sgd(model))
    state = monitor.state_dict()
    monitor.close()
    with pytest.raises(RuntimeError, match="must come before the first step"):
        monitor.load_state_dict(state)
    assert not list(Path().iterdir())


@pytest.mark.parametrize("order", ["penalty", "two losses"])
def test_a_backward_before_the_loss_is_added_is_told_as_such(order):
    model = made()
    ((x0, x1),) = batches(1)[0]
    monitor = watched(model, sgd(model), auxiliary=0.3)
    z0, z1 = model(x0.requires_grad_()), model(x1)
    if order == "penalty":
        torch.autograd.grad(z0.sum(), x0, create_graph=True)
    else:
        distance(z0, z1).backward(retain_graph=True)
    with pytest.raises(ValueError, match=r"came after a backward, or autograd.grad, .* call it before, on the first"):
        monitor.add_auxiliary(distance(z0, z1))


def test_a_layer_that_gets_its_shape_in_the_first_pass():
    model = made()
    model.projector = nn.LazyLinear(8)
    optimizer = sgd(model.encoder)
    with watched(model, optimizer, every_n_steps=1) as monitor:
        for ((x0, x1),) in batches(2):
            distance(model(x0), model(x1)).backward()
            optimizer.step()
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(2)]


def test_an_alert_may_close_the_monitor():
    model = made(dropout=0.0)
    with torch.no_grad():
        model.projector[0].weight.mul_(1e-3)
    closes = CollapseAlert("constant", patience=1, warmup_steps=0, action=lambda alert: monitor.close())
    optimizer = sgd(model)
    monitor = watched(model, optimizer, every_n_steps=1, alerts=[closes])
    train(model, as_it_is, steps=3, optimizer=optimizer)
    assert monitor.closed
    assert monitor.monitor.faults.count == 0
    assert readings(monitor) == [(0, 2 * ROWS)]


def test_a_monitor_closed_while_it_validates():
    model = made()
    data = [x for ((x, _),) in batches(3)]
    monitor = watched(model, sgd(model))
    seen = 0
    for x in monitor.validation(data):
        model(x)
        monitor.close()
        seen += 1
    assert seen == 3
    assert monitor.monitor.faults.count == 0


@pytest.mark.parametrize("auxiliary", [None, 0.3])
@pytest.mark.parametrize("transform", ["vmap of grad", "grad", "vmap", "export"])
def test_tensors_of_transforms_are_not_read(transform, auxiliary):
    """They are dead once the transform is over; those of torch.export have no values."""

    def transformed(model, x):
        weights = {name: p.detach() for name, p in model.named_parameters()}
        total = lambda weights, x: functional_call(model, weights, (x,)).square().sum()  # noqa: E731
        if transform == "vmap of grad":
            vmap(grad(total), (None, 0))(weights, x[:, None])
        elif transform == "grad":
            grad(total)(weights, x)
        elif transform == "vmap":
            vmap(model)(x[:, None])
        else:
            torch.export.export(model, (x,), strict=False)

    model = made(dropout=0.0)
    model.encoder[1] = nn.Identity()  # running statistics have no place in a transform
    optimizer = sgd(model)
    with watched(model, optimizer, every_n_steps=1, auxiliary=auxiliary) as monitor:
        for ((x0, x1),) in batches(2):
            transformed(model, x0)
            z0, z1 = model(x0), model(x1)
            monitor.add_auxiliary(distance(z0, z1)).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(2)]
    assert monitor.monitor.faults.count == 0


def test_a_loop_of_transforms_is_told_why_nothing_is_read(caplog):
    model = made(dropout=0.0)
    model.encoder[1] = nn.Identity()
    optimizer = sgd(model)
    ((x0, _),) = batches(1)[0]
    with watched(model, optimizer, every_n_steps=1):
        weights = dict(model.named_parameters())
        used = grad(lambda weights: functional_call(model, weights, (x0,)).square().sum())(weights)
        for name, p in model.named_parameters():
            p.grad = used[name]
        optimizer.step()
    assert "projector was called, but in torch.func or torch.export" in caplog.text


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # Dynamo's own
@pytest.mark.parametrize("what", ["criterion in place", "criterion in a function", "add_auxiliary"])
def test_what_adds_the_loss_is_not_compiled_with_it(what):
    """A graph of the loss's own is all that is compiled, and once; 100 frames of ours would be otherwise."""
    torch.compiler.reset()
    model, criterion = made(dropout=0.0), nn.MSELoss()
    optimizer = sgd(model)
    if what == "criterion in place":
        criterion.compile(backend="aot_eager")
    named = None if what == "add_auxiliary" else criterion
    with watched(model, optimizer, every_n_steps=2, auxiliary=0.3, criterion=named) as monitor:

        def loss_of(x0, x1):
            loss = criterion(model(x0), model(x1))
            return loss if named else monitor.add_auxiliary(loss)

        loss_of = loss_of if what == "criterion in place" else torch.compile(loss_of, backend="aot_eager")
        counters.clear()
        for ((x0, x1),) in batches(4):
            loss_of(x0, x1).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert counters["frames"]["total"] <= 5
    assert [step for step, _ in readings(monitor)] == [0, 2]
    assert read_journal(monitor.journal).series("aux_loss")[1][0] > 0.1


FORGOTTEN = """
import gc
from plain import as_it_is, made, sgd, train, watched

def main():
    model = made()
    optimizer = sgd(model)
    watched(model, optimizer, every_n_steps=1)
    train(model, as_it_is, steps=3, optimizer=optimizer)

main()
gc.collect()
"""


def test_nothing_is_lost_of_what_was_garbage_before_the_end():
    """Its thread would be killed amid its last reading, and the process aborted."""
    paths = ":".join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "integrations")))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORGOTTEN],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PATH": os.environ.get("PATH", "")},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert [r.step for r in read_journal("uniformity.jsonl").readings] == [0, 1, 2]
