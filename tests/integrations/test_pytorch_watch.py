"""Watching a plain loop changes nothing of it, and sees each pass once, however the model is called."""

import copy
import io
import pickle
import random
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from plain import ROWS, Checkpointed, Net, Reentrant, as_it_is, batches, made, readings, sgd, train, watched
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.tensorboard import SummaryWriter

from uniformity_callbacks import backward, functional, read_journal
from uniformity_callbacks.integrations import course

pytestmark = pytest.mark.usefixtures("own_place")


def everything(model):
    return [
        *(p.detach().clone() for p in model.state_dict().values()),
        torch.get_rng_state(),
        torch.from_numpy(np.random.get_state()[1].astype("int64")),
        torch.tensor(random.getstate()[1]),
    ]


class Together(Net):
    """All of it in one checkpoint, a layer after the projector among it."""

    def __init__(self):
        super().__init__()
        self.after = nn.Linear(8, 8)

    def forward(self, x):
        return checkpoint(lambda x: self.after(self.projector(self.encoder(x))).tanh(), x, use_reentrant=False)


class Inplace(Net):
    def forward(self, x):
        return super().forward(x).mul_(2.0).relu_()


@pytest.mark.usefixtures("unchecked")  # the checker draws from Python's generator
@pytest.mark.parametrize("kind", [Net, Checkpointed, Reentrant, Together, Inplace])
def test_weights_and_random_state_are_bitwise_those_of_an_unwatched_run(kind):
    def run(watching):
        model = made(kind)
        random.seed(0)
        np.random.seed(0)
        optimizer = sgd(model)
        monitor = watched(model, optimizer, every_n_steps=1) if watching else None
        train(model, as_it_is, parts=2, optimizer=optimizer)
        state = everything(model)
        if monitor is not None:
            monitor.close()
            assert readings(monitor) == [(k, 4 * ROWS) for k in range(6)]
            assert monitor.monitor.faults.count == 0
        return state

    expected, got = run(False), run(True)
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


@pytest.mark.parametrize("kind", [Net, Checkpointed, Reentrant, Together])
def test_a_reading_is_of_the_views_of_all_passes(kind):
    """Two micro-batches: the first views of both are one view, and so the second ones."""
    model = made(kind)
    caught = []
    model.projector.register_forward_hook(lambda module, args, z: caught.append(z.detach().clone()))
    with watched(model, optimizer := sgd(model)) as monitor:
        train(model, as_it_is, steps=1, parts=2, optimizer=optimizer)
    a0, a1, b0, b1 = caught[:2] + caught[4:6] if len(caught) == 8 else caught  # a checkpointed layer runs twice
    (reading,) = read_journal(monitor.journal).readings
    u, v = torch.cat([a0, b0]), torch.cat([a1, b1])
    assert reading.values["w2"] == pytest.approx(functional.wasserstein_uniformity(torch.cat([u, v])).item(), rel=1e-6)
    assert reading.values["alignment"] == pytest.approx(functional.alignment(u, v).item(), rel=1e-5)


def test_a_copy_is_not_captured_and_a_pickle_is_whole():
    model = made()
    optimizer = sgd(model)
    criterion = nn.MSELoss()
    monitor = watched(model, optimizer, every_n_steps=1, auxiliary=0.1, criterion=criterion)
    teacher, other = copy.deepcopy(model), copy.deepcopy(criterion)
    torch.save(model, stored := io.BytesIO())
    stored.seek(0)
    loaded = torch.load(stored, weights_only=False)
    pickle.loads(pickle.dumps((criterion, optimizer)))
    ForkingPickler.dumps(model.projector[0].weight)
    for ((x0, x1),) in batches(3):
        z0, z1 = model(x0), model(x1)
        t0, t1 = teacher(x0), teacher(x1)  # with gradients, even
        loaded(x0).sum().backward()
        assert other(t0, t1).item() == (t0 - t1).square().mean().item()
        (criterion(z0, z1) + 0.1 * (t0 - t1).square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    monitor.close()
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(3)]
    assert monitor.monitor.faults.count == 0


def hooks(*modules):
    """All hooks of modules and their parameters, and what their instances hold."""
    found = []
    for module in modules:
        for part in module.modules():
            found += [*part._forward_hooks.values(), *part._forward_pre_hooks.values(), *part._backward_hooks.values()]
            found += [*part.__dict__.keys()]
        for parameter in module.parameters():
            found += [*(parameter._backward_hooks or {}).values()]
    return found


def test_closing_leaves_no_trace():
    model, criterion = made(), nn.MSELoss()
    optimizer = sgd(model)
    held = lambda: (  # noqa: E731
        hooks(model, criterion),
        [*optimizer._optimizer_step_pre_hooks, *optimizer._optimizer_step_post_hooks],
        sorted(vars(optimizer)),
    )
    before = held()
    monitor = watched(model, optimizer, auxiliary=0.1, criterion=criterion)
    assert held() != before
    (x0, x1), *_ = batches(1)[0]
    criterion(model(x0), model(x1)).backward()
    optimizer.step()
    optimizer.zero_grad()
    monitor.close()
    assert held() == before
    criterion(z := model(x0), z).backward()
    assert model(x0).grad_fn is not None
    optimizer.step()
    assert monitor.step == 1
    assert monitor.add_auxiliary(loss := torch.zeros(())) is loss
    monitor.close()
    with watched(model, optimizer) as again:  # and can be watched again
        assert again.layers == ["projector"]


def evaluate(model):
    model.eval()
    for ((x, _),) in batches(3, seed=5):
        model(x)  # without no_grad, as happens
    model.train()


def test_an_evaluation_with_gradients_is_not_read():
    model = made()
    with watched(model, optimizer := sgd(model), every_n_steps=1) as monitor:
        for _ in range(3):
            train(model, as_it_is, steps=1, optimizer=optimizer)
            evaluate(model)
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(3)]


def test_a_model_that_is_never_in_train_mode_is_read_all_the_same():
    model = made(dropout=0.0).eval()
    with watched(model, optimizer := sgd(model), every_n_steps=1) as monitor:
        train(model, as_it_is, steps=2, optimizer=optimizer)
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(2)]


def test_a_forgotten_train_mode_is_told(caplog):
    model = made(dropout=0.0)
    with watched(model, optimizer := sgd(model), every_n_steps=1, alerts="warn") as monitor:
        train(model, as_it_is, steps=2, optimizer=optimizer)
        model.eval()
        train(model, as_it_is, steps=4, optimizer=optimizer)
    assert readings(monitor)[2:] == [(k, 0) for k in range(2, 6)]
    assert "in eval mode, unlike before; does model.train() follow the evaluation?" in caplog.text


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("auxiliary", [None, 0.1])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_an_optimizer_that_is_not_stepped_is_told(parts, auxiliary, before, caplog, monkeypatch):
    """One made anew, as after unfreezing, or the wrong one; at a due step and at another."""
    monkeypatch.setattr(course, "_UNSTEPPED", 4)
    monkeypatch.setattr(backward, "_DOZES", 1)
    model = made()
    with watched(model, optimizer := sgd(model), auxiliary=auxiliary) as monitor:
        add = as_it_is if auxiliary is None else lambda loss, z0, z1: monitor.add_auxiliary(loss)
        train(model, add, steps=before, parts=parts, optimizer=optimizer)
        train(model, add, steps=3 // parts, parts=parts, optimizer=sgd(model))
        assert not caplog.records
        train(model, add, steps=6, parts=parts, optimizer=sgd(model))
        told = f"4 backward passes came since step {before}, and no step of the optimizer, SGD; give the one that is"
        assert [told in record.getMessage() for record in caplog.records] == [True]


def test_calls_without_gradients_between_the_steps_are_not_read():
    model = made()
    with watched(model, optimizer := sgd(model), every_n_steps=1) as monitor:
        for ((x0, x1),) in batches(3):
            with torch.no_grad():
                model(x0)
            (model(x0) - model(x1)).square().mean().backward()
            with torch.no_grad():
                model(x1)
            optimizer.step()
            optimizer.zero_grad()
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(3)]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # SummaryWriter itself still traces so
def test_a_graph_for_tensorboard_is_not_read(tmp_path):
    """It is traced in train mode, with gradients, before the first step."""
    model = made()
    ((x, _),) = batches(1)[0]
    with watched(model, optimizer := sgd(model), every_n_steps=1) as monitor:
        with SummaryWriter(tmp_path / "graph") as writer:
            writer.add_graph(model, x)
        torch.jit.trace(model.eval(), x)  # and checks that a trace without gradients is the same
        train(model.train(), as_it_is, steps=2, optimizer=optimizer)
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(2)]
    assert monitor.monitor.faults.count == 0


def test_a_gradient_penalty_is_no_backward_of_the_step():
    """autograd.grad goes through the layer, too, and leaves no gradient behind."""
    model = made(dropout=0.0)
    with watched(model, optimizer := sgd(model), every_n_steps=1, auxiliary=0.3) as monitor:
        for ((x0, x1),) in batches(3):
            z0, z1 = model(x0.requires_grad_()), model(x1)
            loss = monitor.add_auxiliary((z0 - z1).square().mean())
            (slope,) = torch.autograd.grad(z0.sum(), x0, create_graph=True)
            (loss + 0.1 * slope.square().sum()).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(3)]
    assert monitor.monitor.faults.count == 0
