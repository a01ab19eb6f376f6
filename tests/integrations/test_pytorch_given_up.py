"""A batch that a loop gives up before backward has no part in the next one's loss and reading."""

import pytest
import torch
from plain import ROWS, Checkpointed, Net, Reentrant, batches, distance, made, readings, sgd, watched
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

from uniformity_callbacks import read_journal

pytestmark = [
    pytest.mark.usefixtures("own_place"),
    # Torch's own, on the fake tensors that it compiles with, and on what it imports then.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _nothing_stays_compiled():
    yield
    torch.compiler.reset()
    counters.clear()


class Parts(Net):
    """Encoder and projector in compiled code, the projector checkpointed there."""

    def forward(self, x):
        return checkpoint(self.projector, self.encoder(x), use_reentrant=False)


class Both(Net):
    """Both views in one call."""

    def forward(self, x0, x1):
        return super().forward(torch.cat([x0, x1])).chunk(2)


def bad(micro):
    return [(x0 * torch.nan, x1) for x0, x1 in micro]


def one_by_one(model, x0, x1):
    return model(x0), model(x1)


def compiled(model, x0, x1):
    call = torch.compile(model, backend="aot_eager")
    return call(x0), call(x1)


def compiled_together(model, x0, x1):
    return torch.compile(one_by_one, backend="aot_eager")(model, x0, x1)


def in_one_call(model, x0, x1):
    return model(x0, x1)


def summed(model, x0, x1):
    """The loss does not use the first two of its calls."""
    model(x0), model(x1)
    return model(x0), model(x1)


LOOPS = {
    "plain": (Net, one_by_one, {}),
    "checkpointed": (Checkpointed, one_by_one, {}),
    "reentrant": (Reentrant, one_by_one, {}),
    "compiled": (Net, compiled, {}),
    "compiled together": (Net, compiled_together, {}),
    "compiled and checkpointed": (Parts, compiled, {}),
    "both in one call": (Both, in_one_call, {"views": 2}),
    "first calls": (Net, one_by_one, {"calls": "first:2"}),
    "last calls": (Net, one_by_one, {"calls": "last:2"}),
    "calls of no loss": (Net, summed, {}),
}


def trained(name, micros, *, parts=1):
    """Gradients of each step of a loop that gives batches up whose loss is not finite, and its monitor."""
    kind, call, arguments = LOOPS[name]
    torch.compiler.reset()
    model = made(kind, dropout=0.0)
    model.encoder[1] = nn.Identity()  # its running statistics would not be finite any more
    optimizer, used, waiting = sgd(model), [], 0
    with watched(model, optimizer, every_n_steps=1, auxiliary=0.7, **arguments) as monitor:
        for x0, x1 in micros:
            z0, z1 = call(model, x0, x1)
            loss = distance(z0, z1)
            if not loss.isfinite():
                continue
            (monitor.add_auxiliary(loss) / parts).backward()
            waiting += 1
            if waiting < parts:
                continue
            waiting = 0
            used.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
            optimizer.step()
            optimizer.zero_grad()
    assert monitor.monitor.faults.count == 0
    return used, monitor


def all_readings(monitor):
    return [reading.values for reading in read_journal(monitor.journal).readings]


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", LOOPS)
def test_gradients_and_readings_are_those_of_a_loop_that_never_saw_it(name, parts):
    good = [micro for step in batches(6, parts=1, seed=2) for micro in step]
    expected, without = trained(name, good, parts=parts)
    assert len(expected) == 6 // parts
    first = [] if name == "calls of no loss" else bad(good[3:5])  # those would be lost with them
    some = [*first, good[0], *bad(good[:1]), good[1], good[2], *bad(good[1:4]), *good[3:], *bad(good[:1])]
    used, monitor = trained(name, some, parts=parts)
    assert all(map(torch.equal, used, expected))
    assert len(used) == len(expected)
    assert all_readings(monitor) == all_readings(without)


def test_a_batch_given_up_between_its_calls():
    """One that does not fit into memory, say."""
    model = made(dropout=0.0)
    optimizer = sgd(model)
    with watched(model, optimizer, every_n_steps=1, auxiliary=0.7) as monitor:
        for k, ((x0, x1),) in enumerate(batches(4)):
            z0 = model(x0)
            if k == 2:
                continue
            monitor.add_auxiliary(distance(z0, model(x1))).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(3)]


def test_what_the_page_says_of_finite_batches_before_the_first_loss_and_without_auxiliary():
    for auxiliary, rows in ((0.7, [4, 2, 2, 2]), (None, [4, 2, 4, 2])):
        model = made(dropout=0.0)
        optimizer = sgd(model)
        with watched(model, optimizer, every_n_steps=1, auxiliary=auxiliary) as monitor:
            for k, ((x0, x1),) in enumerate(batches(6)):
                z0, z1 = model(x0), model(x1)
                if k in (0, 3):
                    continue
                monitor.add_auxiliary(distance(z0, z1)).backward()
                optimizer.step()
                optimizer.zero_grad()
        assert readings(monitor) == [(k, n * ROWS) for k, n in enumerate(rows)]
