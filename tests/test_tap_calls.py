"""Which of a pass's calls are read: All4One projects both views twice, multi-crop has small crops."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from compiling import WAYS
from compiling import Model as Compiled
from test_tap import Model, collect
from uniformity_callbacks.monitor import UniformityMonitor
from uniformity_callbacks.outputs import which_calls
from uniformity_callbacks.tap import Tap

CALLS = {None: [0, 1, 2, 3], "all": [0, 1, 2, 3], "first:2": [0, 1], "last:2": [2, 3], "last:9": [0, 1, 2, 3]}


def run(model, batches):
    """Each batch with gradients, and with a call without them, as of a momentum network, before it."""
    for x in batches:
        with torch.no_grad():
            model(x)
        model(x)


@pytest.mark.parametrize("mode", ["watch", "train"])
@pytest.mark.parametrize("calls", CALLS)
def test_the_calls_that_are_meant_are_read_in_their_order(calls, mode):
    model, batches = Model(), [torch.randn(5, 4) for _ in range(4)]
    views = collect(Tap(model, calls=calls), lambda: run(model, batches), mode=mode)
    assert len(views) == len(CALLS[calls])
    for view, k in zip(views, CALLS[calls], strict=True):
        assert torch.equal(view, model(batches[k]))


def test_a_call_that_holds_two_views_is_one():
    model, batches = Model(), [torch.randn(6, 4) for _ in range(4)]
    views = collect(Tap(model, views=2, calls="last:1"), lambda: run(model, batches))
    assert [len(view) for view in views] == [3, 3]
    assert torch.equal(torch.cat(views), model(batches[3]))


def test_calls_in_reentrant_checkpoints_count_where_they_were_made():
    model, x = Model(), torch.randn(5, 4, requires_grad=True)
    views = collect(
        Tap(model, calls="first:2"),
        lambda: [model(x), checkpoint(model, x + 1, use_reentrant=True), model(x + 2)],
    )
    assert torch.equal(torch.cat(views), torch.cat([model(x), model(x + 1)]))


# Torch's own, on the fake tensors that it compiles with.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")
@pytest.mark.parametrize("way", WAYS)
def test_calls_in_compiled_code_count_in_their_order(way):
    inner, batches = Compiled(), [torch.randn(5, 4) for _ in range(4)]
    model = way(inner, backend="aot_eager")
    views = collect(Tap(model, calls="last:2"), lambda: run(model, batches))
    assert len(views) == 2
    for view, x in zip(views, batches[2:], strict=True):
        assert torch.allclose(view, inner.projector(inner.encoder(x)))


def test_the_loss_and_the_reading_are_of_the_same_calls(tmp_path):
    model, batches = Model(), [torch.randn(16, 4) for _ in range(4)]
    monitor = UniformityMonitor(calls="last:2", auxiliary=1.0, alerts=None, journal=tmp_path / "run.jsonl")
    monitor.attach(model)
    monitor.begin(0)
    run(model, batches)
    loss = monitor.add_auxiliary(torch.zeros(()))
    monitor.pause()
    expected = torch.cat([model(x) for x in batches[2:]])
    assert torch.equal(loss, monitor.auxiliary(expected))
    loss.backward()
    monitor.end_pass()
    (outcome,) = monitor.finish()
    monitor.close()
    assert outcome.values["uniformity/samples"] == 32
    assert outcome.values["uniformity/w2"] == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("calls", ["first", "first:0", "last:-1", "frist:2", "first:2:3", 2, ["first:2"], "first:2 "])
@pytest.mark.usefixtures("unchecked")
def test_anything_else_is_refused(calls):
    with pytest.raises(ValueError, match=r'calls must be None or "all" .*, "first:N" or "last:N", got '):
        which_calls(calls)
