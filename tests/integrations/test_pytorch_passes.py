"""Where a pass of a plain loop begins and ends, and that nothing is done where none is wanted."""

import pytest
import torch
from plain import ROWS, Net, as_it_is, batches, by_hand, distance, made, readings, sgd, train, watched
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

from uniformity_callbacks import CollapseAlert, CollapseError
from uniformity_callbacks.integrations import pytorch

pytestmark = [
    pytest.mark.usefixtures("own_place"),
    # Torch's own, on the fake tensors that it compiles with, and on what it imports then.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _nothing_stays():
    yield
    for loop in list(pytorch._watching):
        loop.leave()
    torch.compiler.reset()
    counters.clear()


class InParts(Net):
    def forward(self, x):
        h = checkpoint(self.encoder, x, use_reentrant=False)
        return checkpoint(self.projector, h, use_reentrant=False)


def compiled_with_checkpoints(model, fullgraph):
    return torch.compile(model, backend="aot_eager", fullgraph=fullgraph)


def checkpointed_around(model, more):
    inner = torch.compile(model, backend="aot_eager")
    return lambda x: checkpoint((lambda x: inner(x).tanh()) if more else inner, x, use_reentrant=False)


@pytest.mark.parametrize("auxiliary", [None, 0.3])
@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("make", [compiled_with_checkpoints, checkpointed_around])
def test_compiled_and_checkpointed_layers_are_seen_once(make, flag, auxiliary):
    def run(watching):
        torch.compiler.reset()
        model = made(InParts if make is compiled_with_checkpoints else Net, dropout=0.0)
        model.encoder[1] = nn.Identity()
        optimizer = sgd(model)
        call = make(model, flag)
        monitor = watched(model, optimizer, auxiliary=auxiliary) if watching else None
        if monitor is not None:
            add = lambda loss, *z: monitor.add_auxiliary(loss)  # noqa: E731
        elif flag and make is checkpointed_around:
            # What is read is the layer's, and not what the region makes of it.
            hand = by_hand(auxiliary or 0.0)
            add = lambda loss, *z: hand(loss, *[y.clamp(-1 + 1e-6, 1 - 1e-6).atanh() for y in z])  # noqa: E731
        else:
            add = by_hand(auxiliary or 0.0)
        for micro in batches(4, parts=2):
            for x0, x1 in micro:
                z0, z1 = call(x0), call(x1)
                (add(distance(z0, z1), z0, z1) / 2).backward()
            optimizer.step()
            optimizer.zero_grad()
        if monitor is not None:
            monitor.close()
        return torch.cat([p.detach().flatten() for p in model.parameters()]), monitor

    got, monitor = run(True)
    assert torch.allclose(got, run(False)[0], atol=1e-5)
    assert readings(monitor) == [(k, 4 * ROWS) for k in (0, 2)]
    assert monitor.last["uniformity/alignment"] > 0
    assert monitor.monitor.faults.count == 0


def scaled(model, monitor_of, *, skipped, steps, parts=1):
    """Train by a GradScaler that skips some of the steps, and return the monitor."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=10**6)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with monitor_of(optimizer) as monitor:
        for k, micro in enumerate(batches(steps, parts=parts)):
            for j, (x0, x1) in enumerate(micro):
                bad = float("inf") if k in skipped and j == parts - 1 else 1.0
                scaler.scale(distance(model(x0), model(x1)) * bad).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert monitor.monitor.faults.count == 0
    return monitor


@pytest.mark.parametrize("skipped", [(), (3,), (4,), (3, 4), (1, 2, 6, 7)])
@pytest.mark.parametrize("parts", [1, 2])
def test_steps_that_are_read_together_lose_what_a_skipped_one_brought_and_no_more(skipped, parts):
    model = made(dropout=0.0)
    steps = 9 + len(skipped)
    of = lambda optimizer: watched(model, optimizer, every_n_steps=4, window=2)  # noqa: E731
    monitor = scaled(model, of, skipped=skipped, steps=steps, parts=parts)
    assert monitor.step == 9
    rows = 2 * ROWS * parts
    assert readings(monitor) == [(0, rows), (4, 2 * rows), (8, 2 * rows)]


@pytest.mark.parametrize("frozen", [False, True])
def test_a_skipped_step_of_a_layer_with_nothing_to_train(frozen):
    """What its model trains tells of the gradients then."""
    model = made(dropout=0.0)
    model.projector.requires_grad_(not frozen)
    layer = "projector" if frozen else "encoder.2"
    of = lambda optimizer: watched(model, optimizer, layer=layer, every_n_steps=1)  # noqa: E731
    monitor = scaled(model, of, skipped=(1, 3), steps=5)
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(3)]


def test_gradients_that_are_only_looked_at():
    """autograd.grad comes to the parameters, too, and leaves them none."""
    model = made(dropout=0.0)
    with watched(model, optimizer := sgd(model), every_n_steps=1) as monitor:
        for ((x0, x1),) in batches(3):
            loss = distance(model(x0), model(x1))
            torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(3)]


def test_off_a_due_step_nothing_is_collected(monkeypatch):
    model = made()
    with watched(model, optimizer := sgd(model), every_n_steps=100) as monitor:
        train(model, as_it_is, steps=1, optimizer=optimizer)
        collector = monitor.monitor._collector

        def unexpected():
            raise AssertionError("nothing is to be done")

        with monkeypatch.context() as patch:
            for name in ("pause", "end_pass", "take"):
                patch.setattr(collector, name, unexpected)
            train(model, as_it_is, steps=3, parts=2, optimizer=optimizer)
    assert monitor.monitor.faults.count == 0
    assert monitor.step == 4


def test_a_loss_without_gradients_is_left_alone():
    model, criterion = made(), nn.MSELoss()
    ((x0, x1),) = batches(1)[0]
    optimizer = sgd(model)
    with watched(model, optimizer, auxiliary=0.3, criterion=criterion, every_n_steps=1) as monitor:
        with torch.no_grad():
            loss = distance(model(x0), model(x1))
            assert monitor.add_auxiliary(loss) is loss
        z0, z1 = model(x0), model(x1)
        assert criterion(z0.detach(), z1.detach()) == distance(z0, z1)
        total = criterion(z0, z1)
        with torch.no_grad():
            assert criterion(z0, z1) == distance(z0, z1) < total  # as a value to log, before the backward
        assert criterion(z0.detach(), z1.detach()) == distance(z0, z1)
        total.backward()
        optimizer.step()
    assert readings(monitor) == [(0, 2 * ROWS)]
    assert monitor.monitor.faults.count == 0


def test_who_asks_for_the_values_gets_the_error_of_an_alert():
    model = made(dropout=0.0)
    with torch.no_grad():
        model.projector[0].weight.mul_(1e-3)
    rule = CollapseAlert("constant", patience=1, warmup_steps=0, action="raise")
    with watched(model, optimizer := torch.optim.SGD(model.parameters(), lr=0.0), alerts=[rule]) as monitor:
        monitor.monitor._resumed = True  # or the first step would wait for its reading, and raise it
        train(model, as_it_is, steps=1, optimizer=optimizer)
        with pytest.raises(CollapseError, match="constant"):
            monitor.collect()


def test_an_optimizer_wrapped_twice():
    model = made()
    optimizer = sgd(model)
    outer = sgd(made())
    outer.optimizer = middle = sgd(made())
    middle.optimizer = optimizer
    with watched(model, outer) as monitor:
        train(model, as_it_is, steps=2, optimizer=optimizer)
    assert monitor.step == 2
