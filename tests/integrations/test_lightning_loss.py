"""The injected loss is the one written by hand, and nothing is left of the injection."""

import copy
import functools

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from trainers import Twin, WithoutIndex, distance, fit, journal, loader, new

from uniformity_callbacks import WassersteinLoss
from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = pytest.mark.usefixtures("own_place")


def test_what_else_training_step_returns_is_passed_on():
    class Looks(Twin):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            self.outputs = outputs

    model = new(Looks, as_dict=True)
    fit(model, [UniformityCallback(auxiliary=0.7)], max_steps=1)
    assert model.outputs.keys() == {"loss", "z"}
    assert model.outputs["loss"] > model.seen[0]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("arguments", [{}, {"as_dict": True}, {"kind": WithoutIndex}])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-8)])
def test_the_injected_loss_is_the_one_written_by_hand(dtype, tolerance, arguments, accumulate):
    options = {"data": loader(dtype=dtype), "max_steps": 8, "accumulate_grad_batches": accumulate}
    plain, by_hand, injected = (new(**arguments, **extra).to(dtype) for extra in ({}, {"weight": 0.7}, {}))
    fit(plain, **options)
    fit(by_hand, **options)
    fit(injected, [UniformityCallback(every_n_steps=3, auxiliary=0.7)], **options)
    effect = distance(by_hand.parameters(), plain.parameters())
    assert effect > 1e-3
    assert distance(by_hand.parameters(), injected.parameters()) <= tolerance * effect
    assert injected.seen == pytest.approx(by_hand.seen, rel=1e-6)  # its own loss, as it logs it, has no term of ours
    assert vars(injected).keys() == vars(plain).keys()


def test_a_training_step_set_on_the_instance_is_put_back():
    model = new()
    own = model.training_step
    model.training_step = own
    fit(model, [UniformityCallback(auxiliary=0.1)], max_steps=2)
    assert vars(model)["training_step"] is own


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_skipped_batch_is_left_alone():
    class Skips(Twin):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 2 else super().training_step(batch, batch_idx)

    callback = UniformityCallback(every_n_steps=1, auxiliary=0.1)
    fit(new(Skips), [callback], max_steps=5)
    assert callback.monitor.faults.count == 0
    assert [(r.step, r.values["samples"]) for r in journal(callback).readings][1:4] == [(1, 32), (2, 0), (3, 32)]


def test_the_loss_is_reported_as_added():
    callback = UniformityCallback(every_n_steps=2, auxiliary=WassersteinLoss(0.7))
    trainer = fit(new(), [callback], max_steps=5)
    for reading in journal(callback).readings:
        assert reading.values["aux_weight"] == 0.7
        assert reading.values["aux_loss"] == pytest.approx(0.7 * reading.values["w2"], rel=1e-6)
    assert trainer.callback_metrics["uniformity/aux_weight"] == pytest.approx(0.7)


@pytest.mark.parametrize("shadowed", [False, True])
def test_a_module_can_be_copied_and_pickled_while_the_loss_is_injected(shadowed):
    twins = []

    class Copies(Twin):
        def on_train_batch_end(self, *args):
            twins.append(copy.deepcopy(self))

    model = new(Copies)
    if shadowed:
        model.training_step = functools.partial(Twin.training_step, model)
    monitor = (callback := UniformityCallback(every_n_steps=1, auxiliary=0.7)).monitor
    fit(model, [callback], max_steps=2)
    assert [r.values["samples"] for r in journal(callback).readings] == [32, 32]
    (x,) = next(iter(loader()))
    twin = twins[0]
    twin.log = lambda *args: None
    assert isinstance(twin.training_step, functools.partial) == shadowed
    assert twin.training_step((x,), 0).item() == twin.seen[-1]  # its own, without the loss
    assert monitor.faults.count == 0


class Saver(pl.Callback):
    def on_train_batch_end(self, trainer, module, *args):
        torch.save(module, "whole.pt")


def test_a_module_can_be_pickled_while_the_loss_is_injected():
    fit(new(), [UniformityCallback(auxiliary=0.7), Saver()], max_steps=2)
    back = torch.load("whole.pt", weights_only=False)
    assert back.training_step.__self__ is back
    assert type(back) is Twin


def test_what_another_puts_in_its_place_meanwhile_is_left():
    class Wraps(pl.Callback):
        def on_train_start(self, trainer, module):
            self.own = module.training_step = functools.partial(module.training_step)

    wraps = Wraps()
    model = new()
    fit(model, [UniformityCallback(auxiliary=0.1), wraps], max_steps=2)
    assert vars(model)["training_step"] is wraps.own


def test_a_step_without_a_loss_is_lightnings_to_refuse():
    class Lossless(Twin):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            return {"loss": None}

    with pytest.raises(MisconfigurationException, match="the 'loss' key needs to be present"):
        fit(new(Lossless), [UniformityCallback(auxiliary=0.1)], max_steps=2)
