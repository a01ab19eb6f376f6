"""The tap where torch.compile runs the layer: nothing missed, no graph broken, nothing compiled twice."""

import gc
import logging
import weakref

import pytest
import torch

from compiling import TRACED, WAYS, Counting, Holder, Model, forget, passes, whole, wrapped
from uniformity_callbacks.compiled import RECENT, Memory, remember
from uniformity_callbacks.tap import Tap

# Torch's own, on the fake tensors that it compiles with.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")


def graphs(way, tapped, fullgraph=True):
    """How many graphs the same passes compile, with and without a tap."""
    forget()
    backend = Counting()
    model = way(Model(), backend=backend, fullgraph=fullgraph)
    tap = Tap(model)
    if tapped:
        tap.attach()
        assert len(passes(model, tap)) == 8
    else:
        for _ in range(21):
            model(torch.randn(5, 4)).sum().backward()
    return backend.graphs


@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_compiles_what_it_would_without_us(way, fullgraph):
    assert graphs(way, True, fullgraph) == graphs(way, False, fullgraph) == (2 if way is wrapped else 1)


@pytest.mark.parametrize("layer", [None, "projector", "module"])
@pytest.mark.parametrize("way", WAYS)
def test_catches_what_is_put_out(way, layer):
    inner = Model()
    model = way(inner, backend="aot_eager")
    path = "net.projector" if isinstance(model, Holder) else "projector"
    tap = Tap(model, {None: None, "projector": path, "module": inner.projector}[layer])
    tap.attach()
    assert tap.names == [path]
    for view, z in passes(model, tap):
        assert torch.equal(view, z)


def test_what_a_wrapper_wraps_goes_by_the_wrappers_path():
    model = wrapped(Model(), backend="aot_eager")
    projector, inner = model.projector, model.projector._orig_mod
    for layer in (None, "projector", "projector._orig_mod", projector, inner):
        tap = Tap(model, layer)
        assert tap.names == ["projector"]
        tap.attach()
        assert len(projector._forward_hooks) == 1
        assert len(inner._forward_hooks) == 0
        tap.detach()


@pytest.mark.parametrize("way", TRACED)
def test_a_sibling_compiled_before(way):
    """Dynamo does not look at hooks: compiled code of a model of the same class would run, without ours."""
    backend = Counting()
    sibling, model = way(Model(), backend=backend), way(Model(), backend=backend)
    sibling(torch.randn(5, 4)).sum().backward()
    model(torch.randn(5, 4)).sum().backward()
    tap = Tap(model)
    tap.attach()
    assert len(passes(model, tap)) == 8


@pytest.mark.parametrize("way", TRACED)
def test_attaching_again_is_seen(way):
    model = way(Model(), backend="aot_eager")
    for _ in range(2):
        tap = Tap(model)
        tap.attach()
        assert len(passes(model, tap)) == 8
        tap.detach()


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_held_once_it_is_detached(way):
    model = way(Model(), backend="aot_eager")
    tap = Tap(model)
    tap.attach()
    tap.start("watch")
    model(torch.randn(5, 4))
    tap.detach()
    references = []
    for _ in range(3):
        model(torch.randn(5, 4)).sum().backward()
        references += [weakref.ref(t) for t in gc.get_objects() if type(t) is torch.Tensor and t.shape == (5, 3)]
    gc.collect()
    assert [reference for reference in references if reference() is not None] == []


def test_a_closed_memory_keeps_nothing():
    """Should compiled code not be compiled anew for a hook that was taken off."""
    memory = Memory()
    memory.close()
    assert memory.take() == []
    remember(memory, torch.randn(5, 3))
    memory.forget()
    assert memory.calls is None


def test_what_nobody_collects_is_bounded():
    model = whole(Model(), backend="aot_eager")
    tap = Tap(model)
    tap.attach()
    with torch.no_grad():
        for _ in range(RECENT + 10):
            model(torch.randn(5, 4))
    held = [t for t in gc.get_objects() if type(t) is torch.Tensor and t.shape == (5, 3)]
    assert 0 < len(held) <= RECENT + 2
    del held
    tap.start("watch")
    assert [t for t in gc.get_objects() if type(t) is torch.Tensor and t.shape == (5, 3)] == []


def test_more_calls_than_are_kept_are_told():
    model = whole(Model(), backend="aot_eager")
    tap = Tap(model)
    tap.attach()
    tap.start("watch")
    for _ in range(RECENT):
        model(torch.randn(5, 4))
    assert not tap.views()
    assert (
        tap.why_blind == f"projector: compiled code called it {RECENT} times or more in one pass; only fewer are kept"
    )


def disabled(model, **options):
    model.helper = torch.compiler.disable(lambda: None)
    return model


@pytest.mark.parametrize("way", [*WAYS, disabled, None])
def test_resets_what_was_compiled_only_where_the_layer_lies_in_it(way, caplog):
    caplog.set_level(logging.INFO, "uniformity_callbacks")
    backend = Counting()
    other = torch.compile(Model(), backend=backend)
    other(torch.randn(5, 4))
    model = way(Model(), backend="aot_eager") if way else Model()
    Tap(model).attach()
    other(torch.randn(5, 4))
    resets = way not in (wrapped, disabled, None)
    assert backend.graphs == 1 + resets
    assert [
        record.message.endswith("torch.compiler.reset() has it traced anew, with the hook") for record in caplog.records
    ] == [True] * resets
