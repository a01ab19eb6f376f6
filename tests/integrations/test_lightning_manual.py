"""Manual optimization: the loss enters one backward of a batch, the readings are those of the batches."""

import copy
import functools

import pytest
import torch
from manual import Adversarial, ClippedByNorm, ClippedByValue, Manual, ManualSpikes, Predicts, Raw, Toggled
from trainers import distance, fit, half, journal, loader, new

from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = pytest.mark.usefixtures("own_place")

EPOCH = {"max_epochs": 1, "max_steps": -1}  # 8 batches


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-8)])
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Manual, {}),
        (Manual, {"accumulate": 2}),
        (Manual, {"accumulate": 4}),
        (Raw, {"accumulate": 2}),
        (ClippedByNorm, {}),
        (ClippedByValue, {"accumulate": 2}),
        (Adversarial, {}),
        (Toggled, {}),
        (Predicts, {}),
    ],
)
def test_the_injected_loss_is_the_one_written_by_hand(kind, arguments, dtype, tolerance):
    plain, by_hand, injected = (new(kind, **arguments, **extra).to(dtype) for extra in ({}, {"weight": 0.7}, {}))
    callback = UniformityCallback(every_n_steps=3, auxiliary=0.7)
    for model, callbacks in ((plain, []), (by_hand, []), (injected, [callback])):
        fit(model, callbacks, data=loader(dtype=dtype), **EPOCH)
    effect = distance(by_hand.parameters(), plain.parameters())
    assert effect > 1e-3
    assert distance(by_hand.parameters(), injected.parameters()) <= tolerance * effect
    assert injected.seen == pytest.approx(by_hand.seen, rel=1e-6)
    assert vars(injected).keys() == vars(plain).keys()
    assert journal(callback).series("samples") == ([0, 3, 6], [32.0] * 3)
    assert callback.monitor.faults.count == 0


def test_after_a_step_that_the_scaler_skips_the_term_is_added_again():
    scalers, models = [], [new(ManualSpikes), new(ManualSpikes, weight=0.7), new(ManualSpikes)]
    callback = UniformityCallback(every_n_steps=1, auxiliary=0.7)
    for model, callbacks in zip(models, ([], [], [callback]), strict=True):
        fit(model, callbacks, plugins=[half(scalers)], **EPOCH)
    plain, by_hand, injected = (model.parameters() for model in models)
    assert [scaler.get_scale() for scaler in scalers] == [2.0**9] * 3
    assert all(value > 0 for value in journal(callback).series("aux_loss")[1])
    by_hand = list(by_hand)
    assert distance(by_hand, injected) <= 2e-2 * distance(by_hand, plain)


@pytest.mark.parametrize("kind", [Manual, Adversarial, Toggled, Predicts, Raw])
def test_watching_changes_nothing_and_reads_every_batch(kind):
    plain, watched, callback = new(kind), new(kind), UniformityCallback(every_n_steps=1)
    fit(plain, **EPOCH)
    fit(watched, [callback], **EPOCH)
    assert journal(callback).series("samples") == (list(range(8)), [32.0] * 8)
    for (name, a), b in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_micro_batches_by_hand_are_read_together_by_a_window():
    callback = UniformityCallback(every_n_steps=4, window=4, auxiliary=0.7)
    fit(new(Manual, accumulate=4), [callback], data=loader(256), **EPOCH)
    assert journal(callback).series("samples") == ([0, 4, 8, 12], [32.0] + [128.0] * 3)


def test_where_the_term_is_not_added_it_is_not_reported():
    callback = UniformityCallback(every_n_steps=1, auxiliary=0.7)
    fit(new(Manual, accumulate=2), [callback], **EPOCH)
    steps, values = journal(callback).series("aux_loss")
    assert steps == list(range(8))
    assert [value > 0 for value in values] == [True, False] * 4


class Elsewhere(Manual):
    """From batch ``late`` on its loss does not pass through the projector, or not by ``manual_backward``."""

    late, how = 0, "idle"

    def training_step(self, batch, batch_idx):
        if batch_idx < self.late:
            super().training_step(batch, batch_idx)
            return
        optimizer = self.optimizers()
        optimizer.zero_grad()
        if self.how == "idle":
            self.manual_backward(self.encoder(batch[0]).square().mean())
        elif self.how == "past":
            self.distance(*self.embed(batch)).backward()
        if self.how != "rests":
            optimizer.step()


CASES = [
    ("idle", "the auxiliary loss needs the outputs of 'projector', but projector was not called"),
    ("past", "the auxiliary loss was not added: no backward that it could enter came after 'projector'"),
]


@pytest.mark.parametrize(("how", "message"), CASES)
def test_a_step_that_ends_without_the_term_is_an_error_at_first(how, message):
    model = new(Elsewhere)
    model.how = how
    with pytest.raises(ValueError, match=message):
        fit(model, [UniformityCallback(auxiliary=0.7)], **EPOCH)


@pytest.mark.parametrize(("how", "message"), CASES)
def test_a_later_step_that_ends_without_it_is_told_once(how, message, caplog):
    model, callback = new(Elsewhere), UniformityCallback(auxiliary=0.7)
    model.how, model.late = how, 3
    fit(model, [callback], **EPOCH)
    assert callback.monitor.faults.count == 5
    assert caplog.text.count(message) == 1


def test_a_batch_without_a_step_needs_no_term():
    model, callback = new(Elsewhere), UniformityCallback(auxiliary=0.7)
    model.how, model.late = "rests", 3
    fit(model, [callback], **EPOCH)
    assert callback.monitor.faults.count == 0


@pytest.mark.parametrize("shadowed", [False, True])
def test_a_copy_has_its_own_manual_backward_and_nothing_is_left(shadowed):
    class Copies(Manual):
        def on_train_batch_end(self, *args):
            self.__dict__["twin"] = copy.deepcopy(self)

    model = new(Copies)
    own = functools.partial(Copies.manual_backward, model)
    if shadowed:
        model.manual_backward = own
    fit(model, [UniformityCallback(auxiliary=0.7)], **EPOCH)
    assert vars(model).get("manual_backward") is (own if shadowed else None)
    assert isinstance(model.twin.manual_backward, functools.partial) == shadowed
    assert shadowed or model.twin.manual_backward.__func__ is Manual.manual_backward


def test_no_hook_is_left_on_the_optimizers():
    trainer = fit(new(Manual), [UniformityCallback(auxiliary=0.7)], **EPOCH)
    assert not trainer.optimizers[0]._optimizer_step_post_hooks
