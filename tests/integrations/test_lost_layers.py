"""A layer that is not seen any more in a real fit: an alert within two intervals, with the reason."""

import pytest
import torch
from torch import nn
from trainers import Twin, fit, journal, loader, new

from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = pytest.mark.usefixtures("own_place")
EVERY, LOST = 4, 9


class Loses(Twin):
    """From step 9 on its projector is lost to the monitor, in some way."""

    way = ""
    other = None

    def training_step(self, batch, batch_idx):
        if self.global_step == LOST:
            getattr(self, self.way)()
        return super().training_step(batch, batch_idx)

    def embed(self, batch):
        (x,) = batch
        rows = [self.encoder(x + 0.1 * torch.randn_like(x)) for _ in range(2)]
        if self.other is not None:
            return tuple(self.other(z) for z in rows)
        return tuple(self.projector(z) for z in rows)

    def skips(self):
        self.other = lambda z: z[:, :8]

    def reads_the_weights_alone(self):
        self.other = lambda z: nn.functional.linear(z, self.projector.weight)

    def calls_forward_past_the_hooks(self):
        self.other = self.projector.forward

    def clears_the_hooks(self):
        self.projector._forward_hooks.clear()

    def puts_another_in_its_place(self):
        self.projector = nn.Linear(16, 8)

    def runs_it_without_gradients(self):
        def other(z):
            with torch.no_grad():
                return self.projector(z) + z[:, :8]

        self.other = lambda z: other(z) + z[:, :8]


class Never(Twin):
    def __init__(self):
        super().__init__()
        self.idle = nn.Linear(6, 8)


def test_never_called(caplog):
    callback = UniformityCallback("idle", every_n_steps=EVERY)
    fit(new(Never), [callback], max_steps=9, max_epochs=-1)
    (alert,) = journal(callback).alerts
    assert (alert.kind, alert.since) == ("blind", 0)
    assert alert.step <= 2 * EVERY
    assert "idle was not called" in alert.message
    assert alert.message in caplog.text


REASONS = {
    "skips": "was not called",
    "reads_the_weights_alone": "was not called",
    "calls_forward_past_the_hooks": "was not called",
    "clears_the_hooks": "was not called",
    "puts_another_in_its_place": "was not called",
    "runs_it_without_gradients": "without gradients",
}


@pytest.mark.parametrize("way", REASONS)
def test_no_longer_called(way, caplog):
    model, callback = new(Loses), UniformityCallback("projector", every_n_steps=EVERY)
    model.way = way
    trainer = fit(model, [callback], data=loader(), max_steps=24, max_epochs=-1)
    assert trainer.global_step == 24
    (alert,) = [a for a in journal(callback).alerts if a.kind == "blind"]
    assert LOST <= alert.since <= LOST + EVERY
    assert alert.step <= LOST + 2 * EVERY
    assert REASONS[way] in alert.message
    assert alert.message in caplog.text
