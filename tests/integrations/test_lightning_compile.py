"""torch.compile of a LightningModule or of its parts: exact readings, no compilation more, the loss written by hand."""

import gc

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from trainers import Embeds, distance, fit, journal, loader, new

from compiling import Counting, forget
from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = [
    pytest.mark.usefixtures("own_place"),
    # Of torch's own while it compiles: fake tensors' .grad, and a module of inductor's.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]
ROWS = (16, 11)
"""Of no other tensor's shape, so that those that are held can be told."""


class Projector(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, ROWS[1])

    def forward(self, x):
        return self.linear(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.projector = Projector()

    def forward(self, x):
        return self.projector(self.encoder(x))


class Nested(Embeds):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        del self.encoder, self.projector
        self.net = Net()
        if self.by_hand is not None:  # in eager mode, as the injected one is: torch.compile fails on the type checker
            self.by_hand.forward = torch.compiler.disable(self.by_hand.forward)

    def embed(self, x):
        return self.net(x)


class Validated(Nested):
    def validation_step(self, batch, batch_idx):
        self.net(batch[0])

    def val_dataloader(self):
        return loader(32)


def submodule(model, **options):
    model.net.projector = torch.compile(model.net.projector, **options)
    model.net.encoder = torch.compile(model.net.encoder, **options)
    return model


def in_place(model, **options):
    model.net.projector.compile(**options)
    return model


def ancestor(model, **options):
    model.net = torch.compile(model.net, **options)
    return model


def ancestor_in_place(model, **options):
    model.net.compile(**options)
    return model


def whole(model, **options):
    return torch.compile(model, **options)


def whole_in_place(model, **options):
    model.compile(**options)  # which Lightning does not call: it calls training_step
    return model


def sibling(model, **options):
    other = ancestor(new(Nested), **options)
    other.net(torch.randn(16, 6)).sum().backward()
    return ancestor(model, **options)


WAYS = [submodule, in_place, ancestor, ancestor_in_place, whole, whole_in_place, sibling]


def run(way, callback=None, *, kind=Nested, weight=None, backend="aot_eager", **options):
    """Fit a compiled model, with nothing left that was compiled before; returns its parameters."""
    forget()
    model = new(kind, weight=weight)
    parameters = list(model.parameters())
    fit(way(model, backend=backend, fullgraph=weight is None), [callback] if callback else [], **options)
    return parameters


@pytest.mark.parametrize("way", WAYS)
def test_the_injected_loss_is_the_one_written_by_hand(way):
    plain, by_hand = run(way), run(way, weight=0.7)
    callback = UniformityCallback(every_n_steps=3, auxiliary=0.7)
    injected = run(way, callback)
    effect = distance(by_hand, plain)
    assert effect > 1e-3
    assert distance(by_hand, injected) <= 1e-4 * effect
    assert [(r.step, r.values["samples"]) for r in journal(callback).readings] == [(0, 32), (3, 32), (6, 32)]
    assert callback.monitor.faults.count == 0


@pytest.mark.parametrize("auxiliary", [None, 0.7])
@pytest.mark.parametrize("way", WAYS)
def test_compiles_what_it_would_without_us(way, auxiliary):
    """In training, in the sanity check and in validation, which runs without gradients."""
    without, ours = Counting(), Counting()
    plain = run(way, kind=Validated, backend=without, max_steps=16)
    callback = UniformityCallback(every_n_steps=3, auxiliary=auxiliary)
    watched = run(way, callback, kind=Validated, backend=ours, max_steps=16)
    # What was compiled for the sibling before the fit is compiled for the model again, with the hook.
    assert ours.graphs == without.graphs + (way is sibling)
    training = [r for r in journal(callback).readings if r.stage == "train"]
    assert [(r.step, r.values["samples"]) for r in training] == [(step, 32) for step in range(0, 16, 3)]
    assert [r.values["samples"] for r in journal(callback).readings if r.stage == "val"] == [32, 32]
    if auxiliary is None:
        assert distance(plain, watched) == 0


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_held_after_the_fit(way):
    class After(pl.Callback):
        def on_fit_end(self, trainer, module):
            self.net = module.net

    after = After()
    forget()
    model = way(new(Nested), backend="aot_eager", fullgraph=True)
    fit(model, [UniformityCallback(every_n_steps=3, auxiliary=0.7), after])
    for _ in range(3):
        after.net(torch.randn(16, 6)).sum().backward()
    gc.collect()
    assert [t for t in gc.get_objects() if type(t) is torch.Tensor and t.shape == ROWS] == []


def test_a_loss_that_waits_for_an_alert_compiles_once_more_when_it_comes_on():
    from uniformity_callbacks import CollapseAlert, WassersteinLoss

    alert = CollapseAlert("dimensional", threshold=12, patience=1, warmup_steps=0)
    graphs = {}
    for when in ("always", "alert"):
        backend = Counting()
        callback = UniformityCallback(every_n_steps=2, auxiliary=WassersteinLoss(0.7, when=when), alerts=[alert])
        run(ancestor, callback, backend=backend)
        graphs[when] = backend.graphs
        weights = [r.values["aux_weight"] for r in journal(callback).readings]
        assert weights[0] == (0.7 if when == "always" else 0.0)
        assert weights[-1] == 0.7
    assert graphs["alert"] == graphs["always"] + 1


def test_a_second_fit_is_seen():
    model = ancestor(new(Nested), backend="aot_eager")
    for _ in range(2):
        callback = UniformityCallback(every_n_steps=3)
        fit(model, [callback])
        assert [r.values["samples"] for r in journal(callback).readings] == [32, 32, 32]


def test_inductor():
    plain, by_hand = run(whole, backend="inductor"), run(whole, weight=0.7, backend="inductor")
    callback = UniformityCallback(every_n_steps=3, auxiliary=0.7)
    injected = run(whole, callback, backend="inductor")
    effect = distance(by_hand, plain)
    assert effect > 1e-3
    assert distance(by_hand, injected) <= 1e-4 * effect
    assert [(r.step, r.values["samples"]) for r in journal(callback).readings] == [(0, 32), (3, 32), (6, 32)]
