"""DeepCluster v2 has no clusters in its first epoch, and a loss that is NaN: nothing may be made of that."""

import pytest
import torch
from learners import EPOCHS, STEPS, build, pl
from watching import added, fit, journal


class Losses(pl.Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.values.append(outputs["loss"])


@pytest.mark.parametrize("loss", [{}, {"auxiliary": 0.5}], ids=["watched", "with the loss added"])
def test_a_loss_that_is_nan_stops_nothing(loss, tmp_path):
    learner, losses = build("deepclusterv2"), Losses()
    keys = {"every_n_steps": 1, "alerts": "stop", **loss}
    trainer = fit(learner, [losses], keys=keys, default_root_dir=tmp_path)
    finite = torch.stack(losses.values).isfinite().tolist()
    assert finite == [False] * STEPS + [True] * STEPS * (EPOCHS - 1)
    assert not added(trainer).monitor.should_stop
    record = journal(trainer)
    assert [r.step for r in record.readings if r.stage == "train"] == list(range(STEPS * EPOCHS))
    assert not record.alerts
    assert all(p.isfinite().all() for p in learner.model.parameters())
