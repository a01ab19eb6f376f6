"""Why a tap has nothing to show, and what it takes in validation."""

import pytest
import torch
from torch import nn

from loops import Model
from uniformity_callbacks.tap import Tap


@pytest.mark.parametrize(
    ("prepare", "call", "why"),
    [
        (lambda model: None, lambda model, x: None, "projector was not called"),
        (
            lambda model: None,
            lambda model, x: torch.no_grad()(model)(x),
            "projector was called, but without gradients",
        ),
        (
            lambda model: model.requires_grad_(False),
            lambda model, x: model(x),
            "projector was called, but its output needs no gradient: nothing before it is trained",
        ),
        (
            lambda model: setattr(model, "projector", nn.Linear(16, 8)),
            lambda model, x: model(x),
            "projector was not called; another module stands at projector since the monitor was attached",
        ),
        (
            lambda model: model.compile(backend="eager"),
            lambda model, x: None,
            "the model is compiled, where a hook that came after the first call never fires",
        ),
        (
            lambda model: setattr(model, "encoder", torch.compile(model.encoder, backend="eager")),
            lambda model, x: None,
            "encoder is compiled",
        ),
        (
            lambda model: setattr(model, "projector", torch.compile(model.projector, backend="eager")),
            lambda model, x: None,
            "projector is compiled",
        ),
    ],
)
def test_why_there_is_nothing(prepare, call, why):
    model = Model()
    tap = Tap(model, "projector")
    tap.attach()
    prepare(model)
    tap.start("watch")
    call(model, torch.randn(3, 4))
    tap.stop()
    assert tap.views() == []
    assert why in tap.why_blind
    tap.start("off")
    assert why in tap.why_blind  # asked for after the pass


def test_a_reason_does_not_outlive_its_step():
    model = Model()
    tap = Tap(model, "projector")
    tap.attach()
    tap.start("watch")
    with torch.no_grad():
        model(torch.randn(3, 4))
    tap.start("watch")
    assert tap.why_blind == "projector was not called"


def test_validation_is_collected_without_gradients():
    model = Model()
    tap = Tap(model, "projector")
    tap.attach()
    for context in (torch.no_grad, torch.inference_mode):
        tap.start("validate")
        with context():
            z = model(torch.randn(3, 4))
        (view,) = tap.views()
        assert torch.equal(view, z)
        assert view is not z
