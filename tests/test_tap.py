import copy
import io

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from uniformity_callbacks.tap import Tap


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 8)
        self.projector = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x):
        return self.projector(self.encoder(x))


def collect(tap, run, mode="watch"):
    tap.attach()
    tap.start(mode)
    run()
    tap.stop()
    return tap.views()


@pytest.mark.parametrize("how", [None, "projector", "module"])
def test_each_call_is_a_view(how):
    model = Model()
    tap = Tap(model, model.projector if how == "module" else how)
    x0, x1 = torch.randn(5, 4), torch.randn(7, 4)
    views = collect(tap, lambda: (model(x0), model(x1)))
    assert tap.name == "projector"
    assert [tuple(view.shape) for view in views] == [(5, 3), (7, 3)]
    assert torch.equal(views[0], model(x0))
    assert not views[0].requires_grad


def test_with_the_graph_for_the_loss():
    model = Model()
    (view,) = collect(Tap(model), lambda: model(torch.randn(5, 4)), mode="train")
    view.sum().backward()
    assert model.encoder.weight.grad is not None


def test_no_grad_calls_frozen_layers_and_off_are_left_out():
    model = Model()
    tap = Tap(model)

    def run():
        with torch.no_grad():
            model(torch.randn(5, 4))
        with torch.inference_mode():
            model(torch.randn(5, 4))

    assert collect(tap, run) == []
    tap.start("off")
    model(torch.randn(5, 4))
    assert tap.views() == []
    model.requires_grad_(False)
    assert collect(tap, lambda: model(torch.randn(5, 4))) == []


def test_an_output_of_a_no_grad_call_is_not_looked_at():
    """A momentum network's layer may return something else, or the very tensor that it was given."""
    model = nn.ModuleDict({"projector": nn.Identity()})
    tap = Tap(model)
    tap.attach()
    tap.start("watch")
    with torch.no_grad():
        model["projector"](torch.randn(5, 4, requires_grad=True))
        model["projector"]({"z": 1})
    assert tap.views() == []
    assert tap.problem is None


def test_is_off_step_free_of_copies_and_gone_after_detach():
    model = Model()
    tap = Tap(model)
    tap.attach()
    tap.attach()
    assert len(model.projector._forward_hooks) == 1
    tap.detach()
    assert len(model.projector._forward_hooks) == 0


def test_a_view_is_a_copy():
    model = Model()
    (view,) = collect(Tap(model), lambda: model(torch.ones(2, 4)).detach().mul_(0.0))
    assert (view != 0).any()


def test_checkpointed_layers_run_again_in_backward_and_are_not_collected_twice():
    model = Model()
    tap = Tap(model)
    tap.attach()
    tap.start("watch")
    loss = checkpoint(model, torch.randn(5, 4, requires_grad=True), use_reentrant=False).sum()
    tap.stop()
    loss.backward()
    assert len(tap.views()) == 1


def test_views_2_splits_a_call():
    model = Model()
    x = torch.randn(10, 4)
    views = collect(Tap(model, views=2), lambda: model(x))
    assert torch.equal(torch.cat(views), model(x))
    assert [len(view) for view in views] == [5, 5]


class Returns(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.make = make

    def forward(self, x):
        return self.make(self.linear(x))


@pytest.mark.parametrize(
    ("make", "output"),
    [
        (lambda z: {"z": z, "other": 1}, "z"),
        (lambda z: (None, z), 1),
        (lambda z: [z], -1),
        (lambda z: z[:, :, None], lambda z: z.flatten(1)),
    ],
)
def test_output_picks_a_tensor(make, output):
    model = Returns(make)
    tap = Tap(model, model, output=output)
    assert [tuple(v.shape) for v in collect(tap, lambda: model(torch.randn(5, 4)))] == [(5, 3)]
    assert tap.problem is None


@pytest.mark.parametrize(
    ("make", "output", "problem"),
    [
        (lambda z: {"z": z}, None, "output=None gives a dict with the keys 'z', not a tensor; pick one by key"),
        (lambda z: (z, z), None, "gives a tuple of 2, not a tensor"),
        (lambda z: {"z": z}, "y", "output='y' failed on a dict with the keys 'z': KeyError"),
        (lambda z: z[:, :, None], None, r"tensor (5, 3, 1), expected floats (n, d); pass a function"),
        (lambda z: z.argmax(1), None, "gives a torch.int64 tensor (5,)"),
    ],
)
def test_a_wrong_output_is_told_and_does_not_raise(make, output, problem):
    model = Returns(make)
    tap = Tap(model, model, output=output)
    assert collect(tap, lambda: model(torch.randn(5, 4))) == []
    assert problem in tap.problem


class Momentum(nn.Module):
    """BYOL's shape: the target network's projector runs, too, without gradients."""

    def __init__(self, target_grad=False):
        super().__init__()
        self.online_network, self.target_network = Model(), Model()
        self.target_grad = target_grad

    def forward(self, x):
        z = self.online_network(x)
        with torch.set_grad_enabled(self.target_grad):
            self.target_network(x)
        return z


def test_of_several_projectors_the_trained_one_is_kept():
    model = Momentum()
    tap = Tap(model)
    assert tap.name == "online_network.projector or target_network.projector"
    views = collect(tap, lambda: model(torch.randn(5, 4)))
    assert len(views) == 1
    assert tap.name == "online_network.projector"
    assert len(model.target_network.projector._forward_hooks) == 0


def test_two_trained_projectors_are_an_error():
    model = Momentum(target_grad=True)
    with pytest.raises(ValueError, match=r"more than one .*: online_network.projector, target_network.projector; name"):
        collect(Tap(model), lambda: model(torch.randn(5, 4)))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "projecter",
            r"layer 'projecter' is not in the model; did you mean online_network.projector or target_network.projector",
        ),
        ("online_network.projektor", "did you mean online_network.projector"),
        ("xyz", "'xyz' is not in the model; the model has online_network, target_network, online_network.encoder"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(layer, message):
    with pytest.raises(ValueError, match=message):
        Tap(Momentum(), layer)


def test_no_projector_is_an_error_that_lists_what_there_is():
    with pytest.raises(
        ValueError, match=r"found no projector or .* in the model; the nearest are projectr; name it by"
    ):
        Tap(nn.ModuleDict({"encoder": nn.Linear(2, 2), "projectr": nn.Linear(2, 2)}))
    with pytest.raises(ValueError, match="the model has 0, 1"):
        Tap(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    with pytest.raises(ValueError, match="the model has no submodules"):
        Tap(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layer": nn.Linear(2, 2)}, ValueError, "got a Linear that is not in it"),
        ({"layer": 3}, TypeError, "layer must be a dotted path, a module or None, got 3"),
        ({"views": 3}, ValueError, "views must be None .* or 2 .*, got 3"),
        ({"output": 1.5}, TypeError, "output must be None, a key, an index or a function, got 1.5"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        Tap(Model(), **arguments)


def test_a_projector_within_a_projector_is_part_of_it():
    model = nn.ModuleDict({"projector": nn.ModuleDict({"projection": nn.Linear(2, 2)})})
    assert Tap(model).name == "projector"


def test_copies_and_pickles_of_the_model_are_not_tapped():
    model = Model()
    tap = Tap(model)
    tap.attach()
    tap.start("watch")
    twin = copy.deepcopy(model)
    twin(torch.randn(5, 4))
    assert [type(hook).__name__ for hook in twin.projector._forward_hooks.values()] == ["Inert"]
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    torch.load(buffer, weights_only=False)(torch.randn(5, 4))
    assert tap.views() == []
    model(torch.randn(5, 4))
    assert len(tap.views()) == 1


def test_a_copy_that_fails_does_not_end_the_forward_pass():
    class Full(torch.Tensor):
        def detach(self):
            raise torch.OutOfMemoryError("out of memory")

    model = Model()
    tap = Tap(model, output=lambda z: z.as_subclass(Full))
    assert collect(tap, lambda: model(torch.randn(5, 4))) == []
    assert tap.problem == "projector: out of memory"


def test_a_view_with_its_graph_is_a_copy_too():
    """The model may change its output in place, as nn.ReLU(inplace=True) does."""
    model = Model()
    (view,) = collect(Tap(model), lambda: model(torch.ones(2, 4)).mul_(0.0), mode="train")
    assert (view != 0).any()
    view.sum().backward()


def test_a_problem_does_not_outlive_its_step():
    model = Model()
    tap = Tap(model, output=lambda z: z if len(z) == 3 else z[0])
    collect(tap, lambda: model(torch.randn(5, 4)))
    assert "expected floats (n, d)" in tap.why_blind
    tap.start("watch")
    assert tap.problem is None
    assert tap.why_blind == "projector was not called"


def test_a_name_that_begins_like_another_is_no_part_of_it():
    model = nn.ModuleDict({"projection": nn.Linear(2, 2), "projection_head": nn.Linear(2, 2)})
    assert Tap(model).name == "projection or projection_head"
