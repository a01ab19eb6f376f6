"""What solo-learn 1.0.2, of 2022, needs to run on today's pytorch-lightning: four repairs, made once in a process.

The newest code needs none.
"""

import functools
import math
import sys
import types

from torch.optim.lr_scheduler import LambdaLR
from which import NEWEST


class LinearWarmupCosineAnnealingLR(LambdaLR):
    """Stands in for the one of pl_bolts, which does not import beside the newest pytorch-lightning."""

    def __init__(self, optimizer, warmup_epochs, max_epochs, warmup_start_lr=0.0, eta_min=0.0):
        def factor(base, epoch):
            if epoch < warmup_epochs:
                return (warmup_start_lr + (base - warmup_start_lr) * epoch / max(1, warmup_epochs - 1)) / base
            done = (epoch - warmup_epochs) / max(1, max_epochs - warmup_epochs)
            return (eta_min + (base - eta_min) * (1 + math.cos(math.pi * min(1, done))) / 2) / base

        super().__init__(optimizer, [functools.partial(factor, group["lr"]) for group in optimizer.param_groups])


def _stand_in_for_pl_bolts():
    for name in ("pl_bolts", "pl_bolts.optimizers", "pl_bolts.optimizers.lr_scheduler"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules[name].LinearWarmupCosineAnnealingLR = LinearWarmupCosineAnnealingLR


def _validate_without_epoch_end(*classes):
    """Lightning 2 refuses a module that has the hook; it only averages what is logged."""
    for each in classes:
        del each.validation_epoch_end


def _end_batches_without_loader(momentum):
    """Lightning 2 passes no ``dataloader_idx`` any more."""
    momentum.on_train_batch_end = functools.partialmethod(momentum.on_train_batch_end, dataloader_idx=0)


def _clip_by_another_name(dino):
    """Lightning 2 has a ``clip_gradients`` of its own, with other arguments, which DINO's hides."""
    dino.dino_clip_gradients = dino.clip_gradients
    del dino.clip_gradients
    after_backward = dino.on_after_backward

    def on_after_backward(self):
        threshold, self.clip_grad = self.clip_grad, 0
        if threshold:
            self.dino_clip_gradients(threshold)
        after_backward(self)
        self.clip_grad = threshold

    dino.on_after_backward = on_after_backward


if not NEWEST:
    _stand_in_for_pl_bolts()

    from solo.methods.base import BaseMethod, BaseMomentumMethod
    from solo.methods.dino import DINO
    from solo.methods.linear import LinearModel

    _validate_without_epoch_end(BaseMethod, BaseMomentumMethod, LinearModel)
    _end_batches_without_loader(BaseMomentumMethod)
    _clip_by_another_name(DINO)
