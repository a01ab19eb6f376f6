"""Layers inside activation checkpointing, which runs them twice: once each, with gradients where a loss needs them."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from loops import Model
from uniformity_callbacks.tap import Tap

# Torch's word on a checkpoint inside another, or on a momentum network inside one.
pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")


def projector_inside(model, x, **options):
    return checkpoint(model.projector, model.encoder(x), **options)


def all_inside(model, x, **options):
    return checkpoint(model, x, **options)


def encoder_inside(model, x, **options):
    return model.projector(checkpoint(model.encoder, x, **options))


def one_in_another(model, x, **options):
    return checkpoint(lambda x: checkpoint(model.projector, model.encoder(x), **options), x, **options)


WAYS = [projector_inside, all_inside, encoder_inside, one_in_another]


def inputs():
    return torch.randn(6, 4, requires_grad=True)


def tapped(model, **arguments):
    tap = Tap(model, **arguments)
    tap.attach()
    return tap


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("mode", ["watch", "train"])
@pytest.mark.parametrize("way", WAYS)
def test_each_call_is_one_view_and_backward_adds_none(way, mode, reentrant):
    model = Model()
    tap = tapped(model)
    tap.start(mode)
    z = [way(model, inputs(), use_reentrant=reentrant) for _ in range(2)]
    views = tap.views()
    assert all(torch.equal(a, b) and a is not b for a, b in zip(views, z, strict=True))
    assert [view.requires_grad for view in views] == [mode == "train"] * 2
    tap.stop()
    (z[0].sum() + z[1].sum()).backward()
    assert [id(view) for view in tap.views()] == [id(view) for view in views]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_loss_of_the_views_has_the_gradient_of_one_written_by_hand(way, reentrant):
    model = Model()
    x = inputs()
    loss = way(model, x, use_reentrant=False).square().sum()
    expected = torch.autograd.grad(2 * loss, list(model.parameters()))
    tap = tapped(model)
    tap.start("train")
    z = way(model, x, use_reentrant=reentrant)
    (view,) = tap.views()
    (z.square().sum() + view.square().sum()).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient)


def test_both_views_in_one_call_and_a_part_of_the_output():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.projector = nn.LSTM(4, 3)

        def forward(self, x):
            return checkpoint(self.projector, x, use_reentrant=True)[0]

    model = Pair()
    tap = tapped(model, output=lambda output: output[0].flatten(1), views=2)
    tap.start("train")
    z = model(torch.randn(6, 1, 4, requires_grad=True))
    views = tap.views()
    assert torch.equal(torch.cat(views), z.flatten(1))
    assert [len(view) for view in views] == [3, 3]
    sum(view.sum() for view in views).backward()


def test_what_a_reentrant_checkpoint_keeps_to_itself_is_watched_but_has_no_gradient():
    model = Model()
    tap = tapped(model)
    for mode, count in (("watch", 1), ("train", 0)):
        tap.start(mode)
        checkpoint(lambda x: model(x) * 2, inputs(), use_reentrant=True)
        assert len(tap.views()) == count
    assert tap.why_blind == (
        "projector: it lies in a reentrant checkpoint and is not what that returns: a loss cannot reach it; "
        "use checkpoint(..., use_reentrant=False)"
    )


def test_what_is_changed_after_it_left_a_reentrant_checkpoint_is_told():
    model = Model()
    tap = tapped(model)
    tap.start("train")
    checkpoint(model, inputs(), use_reentrant=True).mul_(2)
    assert tap.views() == []
    assert "projector: its output was changed in place after it left a reentrant checkpoint; use" in tap.why_blind


def test_a_wrong_output_is_told_at_once():
    model = Model()
    tap = tapped(model, output="z")
    for mode in ("watch", "train"):
        tap.start(mode)
        checkpoint(model, inputs(), use_reentrant=True)
        assert "output='z' failed on a Tensor" in tap.problem


class Momentum(nn.Module):
    def __init__(self):
        super().__init__()
        self.online, self.target = Model(), Model()
        self.target.requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            self.target(x)
        return self.online(x)


def apart(model, x):
    with torch.no_grad():
        checkpoint(model.target, x, use_reentrant=True)
    return checkpoint(model.online, x, use_reentrant=True)


@pytest.mark.parametrize("mode", ["watch", "train"])
@pytest.mark.parametrize("call", [apart, lambda model, x: checkpoint(model, x, use_reentrant=True)])
def test_momentum_networks_are_left_out(call, mode):
    model = Momentum()
    tap = tapped(model)
    tap.start(mode)
    z = call(model, inputs())
    (view,) = tap.views()
    assert torch.equal(view, z)
    assert tap.name == "online.projector"


def test_a_momentum_network_whose_parameters_have_gradients_is_known_by_its_checkpoint():
    model = Momentum()
    model.target.requires_grad_(True)
    tap = tapped(model)
    tap.start("watch")
    apart(model, inputs())
    assert len(tap.views()) == 1
    assert tap.name == "online.projector"


def test_momentum_networks_by_name_are_told_as_ever():
    model = Momentum()
    tap = tapped(model, layer="target.projector")
    tap.start("watch")
    apart(model, inputs())
    checkpoint(model, inputs(), use_reentrant=True)
    assert tap.views() == []
    assert tap.why_blind == "target.projector was called, but without gradients"


def test_a_layer_without_parameters():
    model = nn.ModuleDict({"encoder": nn.Linear(4, 3), "projector": nn.Tanh()})
    tap = tapped(model)
    tap.start("watch")
    checkpoint(lambda x: model["projector"](model["encoder"](x)), inputs(), use_reentrant=True)
    assert len(tap.views()) == 1


def test_the_stack_is_looked_at_only_while_open(monkeypatch):
    from uniformity_callbacks import tap as module

    model = Model()
    tap = tapped(model)
    monkeypatch.setattr(module, "in_reentrant_checkpoint", lambda module: pytest.fail("looked"))
    for _ in range(2):
        checkpoint(model, inputs(), use_reentrant=True)
        tap.start("validate")
        tap.stop()


def test_views_asked_for_inside_are_not_lost():
    """As a checkpointed function that calls the loss itself would."""
    model = Model()
    tap = tapped(model)
    tap.start("watch")
    checkpoint(lambda x: (model(x), tap.views())[0], inputs(), use_reentrant=True)
    assert len(tap.views()) == 1
