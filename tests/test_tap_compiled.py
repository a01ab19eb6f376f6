"""The tap where torch.compile runs the layer: nothing missed, no graph broken, nothing compiled twice."""

import collections
import gc
import logging
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from compiling import Counting, forget, fresh
from uniformity_callbacks.compiled import RECENT, Memory, remember
from uniformity_callbacks.tap import Tap

# Torch's own, on the fake tensors that it compiles with.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")


@pytest.fixture(autouse=True)
def _fresh():
    with fresh():
        yield


class Projector(nn.Module):
    """Of a class of its own: torch does not compile one of its own classes in place by itself."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, x):
        return self.linear(x).tanh()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 8)
        self.projector = Projector()

    def forward(self, x):
        return self.projector(self.encoder(x))


class Holder(nn.Module):
    """Its only part is called as a whole."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


def wrapped(model, **options):
    model.projector = torch.compile(model.projector, **options)
    model.encoder = torch.compile(model.encoder, **options)
    return model


def in_place(model, **options):
    model.projector.compile(**options)
    return model


def ancestor(model, **options):
    return Holder(torch.compile(model, **options))


def ancestor_in_place(model, **options):
    model.compile(**options)
    return Holder(model)


def held_function(model, **options):
    model.forward = torch.compile(model.forward, **options)
    return Holder(model)


def whole(model, **options):
    return torch.compile(model, **options)


class Decorated(Model):
    """With a compiled method, as `@torch.compile` leaves it in the class."""


def method(model, **options):
    model.__class__ = type("Decorated", (Decorated,), {"forward": torch.compile(Model.forward, **options)})
    return Holder(model)


WAYS = [wrapped, in_place, ancestor, ancestor_in_place, held_function, whole, method]
TRACED = [way for way in WAYS if way not in (wrapped, in_place)]


def passes(model, tap, modes=("train", "off", "watch", "off", "watch", "train", "off")):
    """Two calls in each pass, and one too late; returns what was caught and put out, and backpropagates both."""
    out = []
    for mode in modes:
        tap.start(mode)
        z0, z1 = (model(torch.randn(5, 4)) for _ in range(2))
        views = tap.views()
        tap.stop()
        model(torch.randn(5, 4))
        loss = z0.sum() + z1.sum() + sum(view.square().sum() for view in views if view.requires_grad)
        loss.backward()
        assert [view.requires_grad for view in tap.views()] == [mode == "train"] * (0 if mode == "off" else 2)
        out += zip(tap.views(), (z0, z1), strict=False)
        tap.start("off")
    return out


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


def test_calls_inside_and_outside_of_compiled_code_keep_their_order():
    inner = Model()
    model = torch.compile(inner, backend="aot_eager")
    tap = Tap(inner)
    tap.attach()
    tap.start("train")
    z = [call(torch.randn(5, 4)) for call in (model, inner, model, model, inner)]
    views = tap.views()
    assert all(torch.equal(a, b) for a, b in zip(views, z, strict=True))
    assert len(views) == 5


def test_momentum_networks_and_frozen_ones_are_left_out():
    class Momentum(nn.Module):
        def __init__(self):
            super().__init__()
            self.online, self.target = Model(), Model()

        def forward(self, x):
            with torch.no_grad():
                target = self.target(x)
            return (self.online(x) - target).square().sum()

    backend = Counting()
    inner = Momentum()
    model = torch.compile(inner, backend=backend, fullgraph=True)
    tap = Tap(model)
    tap.attach()
    for _ in range(4):
        tap.start("watch")
        model(torch.randn(5, 4)).backward()
        assert len(tap.views()) == 1
        assert tap.names == ["online.projector"]
    assert backend.graphs == 1
    tap.start("watch")
    inner.target(torch.randn(5, 4))  # its hook was left in the compiled code, but is not heard any more
    assert tap.views() == []
    assert "projector was not seen to be called" in tap.why_blind
    inner.requires_grad_(False)
    tap.start("watch")
    model(torch.randn(5, 4))
    assert tap.views() == []
    assert (
        tap.why_blind == "online.projector was called, but its output needs no gradient: nothing before it is trained"
    )


def test_without_gradients_in_validation_only():
    model = whole(Model(), backend="aot_eager")
    tap = Tap(model)
    tap.attach()
    for mode, count in (("watch", 0), ("validate", 1)):
        for context in (torch.no_grad, torch.inference_mode):
            tap.start(mode)
            with context():
                z = model(torch.randn(5, 4))
            assert len(tap.views()) == count
            assert all(torch.equal(view, z) for view in tap.views())


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_inside_of_compiled_code(reentrant):
    class Checkpointed(Model):
        def forward(self, x):
            return checkpoint(self.projector, self.encoder(x), use_reentrant=reentrant)

    backend = Counting()
    model = torch.compile(Checkpointed(), backend=backend, fullgraph=True)
    tap = Tap(model)
    tap.attach()
    for view, z in passes(model, tap):
        assert torch.equal(view, z)
    assert backend.graphs == 1


Pair = collections.namedtuple("Pair", "z n")


@pytest.mark.parametrize(
    ("make", "output"),
    [
        (lambda z: {"z": z, "n": 1}, "z"),
        (lambda z: collections.OrderedDict(z=z), "z"),
        (lambda z: (None, z), 1),
        (lambda z: [z, "text"], 0),
        (lambda z: Pair(z, 2), lambda pair: pair.z),
        (lambda z: {"z": {"z": z[:, :, None]}}, lambda out: out["z"]["z"].flatten(1)),
    ],
)
def test_outputs_are_picked_outside(make, output):
    class Returns(Model):
        def forward(self, x):
            return make(super().forward(x))

    backend = Counting()
    inner = Returns()
    model = torch.compile(Holder(inner), backend=backend, fullgraph=True)
    tap = Tap(model, inner, output=output)
    tap.attach()
    for mode in ("watch", "train"):
        tap.start(mode)
        model(torch.ones(5, 4))
        (view,) = tap.views()
        assert view.shape == (5, 3)
        assert view.requires_grad == (mode == "train")
    inner.requires_grad_(False)
    tap.start("watch")
    model(torch.ones(5, 4))
    assert tap.views() == []
    assert "needs no gradient" in tap.why_blind


def test_a_wrong_output_is_told_and_breaks_nothing():
    model = whole(Model(), backend="aot_eager", fullgraph=True)
    tap = Tap(model, "projector", output="y")
    tap.attach()
    tap.start("watch")
    model(torch.ones(5, 4))
    assert not tap.stop() or not tap.views()
    assert "output='y' failed on a Tensor" in tap.why_blind


def test_in_place_after_us_is_not_seen():
    class Changes(Model):
        def forward(self, x):
            return super().forward(x).mul_(0.0)

    inner = Changes()
    inner.projector = nn.Linear(8, 3)
    model = torch.compile(inner, backend="aot_eager")
    tap = Tap(model)
    tap.attach()
    for view, _ in passes(model, tap):
        assert (view != 0).any()


def test_the_graph_is_kept_once_it_is_asked_for_which_compiles_once():
    backend = Counting()
    model = whole(Model(), backend=backend)
    tap = Tap(model)
    tap.attach()
    passes(model, tap, modes=("watch", "off", "watch"))
    assert backend.graphs == 1
    passes(model, tap)
    passes(model, tap)
    assert backend.graphs == 2


def test_a_graph_break_in_the_layer():
    class Breaks(Projector):
        def forward(self, x):
            x = self.linear(x)
            torch._dynamo.graph_break()
            return x.tanh()

    def counted(tapped):
        forget()
        backend = Counting()
        inner = Model()
        inner.projector = Breaks()
        model = torch.compile(inner, backend=backend)
        tap = Tap(model)
        if tapped:
            tap.attach()
        for mode in ("watch", "off", "train"):
            tap.start(mode)
            z = model(torch.randn(5, 4))
            if tapped and mode != "off":
                (view,) = tap.views()
                assert torch.equal(view, z)
        return backend.graphs

    assert counted(True) == counted(False)


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


def test_code_compiled_outside_of_the_model_cannot_be_detected_but_is_told():
    first, second = Model(), Model()
    compiled = torch.compile(lambda model, x: model(x), backend="aot_eager")
    compiled(first, torch.randn(5, 4))
    tap = Tap(second)
    tap.attach()
    tap.start("watch")
    compiled(second, torch.randn(5, 4))
    assert not tap.views()
    assert "projector was not seen to be called; torch.compile was used in this process" in tap.why_blind
    torch.compiler.reset()
    compiled(second, torch.randn(5, 4))
    assert len(tap.views()) == 1
