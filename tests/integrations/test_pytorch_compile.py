"""A plain loop whose model is compiled, before it is watched or after."""

import pytest
import torch
from plain import ROWS, batches, made, readings, sgd, watched
from torch.utils.checkpoint import checkpoint

from compiling import WAYS, Counting, Model, forget
from uniformity_callbacks import read_journal

pytestmark = [
    pytest.mark.usefixtures("own_place"),
    # Torch's own, on the fake tensors that it compiles with, and on what it imports then.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]


def steps_of(model, optimizer, monitor=None, weight=None, steps=6):
    for _ in range(steps):
        for _ in range(2):
            z0, z1 = model(torch.randn(10, 4)), model(torch.randn(10, 4))
            loss = (z0 - z1).square().mean()
            loss = loss if weight is None or monitor is None else monitor.add_auxiliary(loss)
            (loss / 2).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("weight", [None, 0.5])
@pytest.mark.parametrize("after", [False, True], ids=["watched, then compiled", "compiled, then watched"])
@pytest.mark.parametrize("way", WAYS)
def test_a_compiled_model(way, after, weight):
    """Bitwise the run that is not watched; each pass seen; no graph more than without."""

    def run(watching):
        forget()
        torch.manual_seed(0)
        plain = Model()
        counting = Counting()
        optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
        monitor = None
        arguments = {"every_n_steps": 2, "alerts": None, "auxiliary": weight}
        if watching and not after:
            monitor = watched(plain, optimizer, **arguments)
        model = way(plain, backend=counting)
        torch.manual_seed(1)
        if after:  # it has run
            steps_of(model, optimizer, steps=1)
            if watching:
                monitor = watched(model, optimizer, **arguments)
        graphs = counting.graphs
        steps_of(model, optimizer, monitor, weight)
        if monitor is not None:
            monitor.close()
            assert readings(monitor) == [(0, 40), (2, 40), (4, 40)]
            series = read_journal(monitor.journal).series("alignment")[1]
            assert len(series) == 3
            assert monitor.monitor.faults.count == 0
        return [p.detach().clone() for p in plain.parameters()], counting.graphs - graphs, graphs

    expected, graphs, first = run(False)
    got, more, _ = run(True)
    if weight is None:
        assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    # Watched later, all is traced once more, with the hook in it.
    assert more <= graphs + (first if after else 0)


def test_a_compiled_step_of_the_optimizer_is_counted():
    model = made()
    optimizer = sgd(model)
    with watched(model, optimizer, every_n_steps=1) as monitor:
        step = torch.compile(optimizer.step, backend="eager")
        for ((x0, x1),) in batches(3):
            (model(x0) - model(x1)).square().mean().backward()
            step()
            optimizer.zero_grad()
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(3)]


class Within(Model):
    """The projector's linear layer is inside of compiled code, and that in a checkpoint that does more after it."""

    def forward(self, x):
        return checkpoint(lambda h: self.projector(h).tanh(), self.encoder(x), use_reentrant=False)


@pytest.mark.parametrize("weight", [None, 0.5])
def test_compiled_code_that_runs_again_in_backward_is_seen_once_where_the_loss_is_followed(weight):
    model = Within()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watched(model, optimizer, layer="projector.linear", auxiliary=weight, every_n_steps=1) as monitor:
        model.projector = torch.compile(model.projector, backend=Counting())
        for _ in range(3):
            for _ in range(2):
                z0, z1 = model(torch.randn(20, 4)), model(torch.randn(20, 4))
                # Without a weight, too: then it says where backward begins.
                monitor.add_auxiliary((z0 - z1).square().mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert readings(monitor) == [(k, 80) for k in range(3)]
    assert monitor.monitor.faults.count == 0


def test_between_due_steps_compiled_code_keeps_no_more_than_a_step_brings():
    model = Model()
    optimizer = sgd(model)
    with watched(model, optimizer, every_n_steps=100) as monitor:
        compiled = torch.compile(model, backend=Counting(), fullgraph=True)
        kept = []
        for _ in range(6):
            (compiled(torch.randn(10, 4)) - compiled(torch.randn(10, 4))).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            ((hook, _),) = monitor.monitor._collector._layers[0].tap._hooks.values()
            kept.append(sum(call.output is not None for call in hook.memory.calls))
        assert kept == [0] * 6  # let go of when the next step begins
    assert readings(monitor) == [(0, 20)]
