"""1.0.2 alone: that the repairs leave it what it does."""

import pytest
import torch
from learners import build, pl
from repairs import LinearWarmupCosineAnnealingLR
from watching import fit

THRESHOLD = 0.01


class Norms(pl.Callback):
    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.values = torch.stack([p.grad.norm() for p in module.encoder.parameters() if p.grad is not None])


@pytest.mark.parametrize("threshold", [0, THRESHOLD])
def test_dino_clips_where_it_is_told_to(threshold, tmp_path):
    norms = Norms()
    fit(build("dino", clip_grad=threshold), [norms], max_steps=1, default_root_dir=tmp_path)
    assert (norms.values.max() <= 1.001 * THRESHOLD) == bool(threshold)


def test_the_learning_rate_rises_and_falls():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = LinearWarmupCosineAnnealingLR(optimizer, warmup_epochs=3, max_epochs=5, warmup_start_lr=0.2)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.2, 0.6, 1.0, 1.0, 0.5, 0.0])
