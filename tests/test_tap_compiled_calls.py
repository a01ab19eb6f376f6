"""What compiled code puts out, call by call: in order, picked outside, with what runs without gradients left out."""

import collections

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from compiling import Counting, Holder, Model, Projector, forget, passes, whole
from uniformity_callbacks.tap import Tap

# Torch's own, on the fake tensors that it compiles with.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")


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
