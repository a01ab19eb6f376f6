"""What a step is to Lightning's Trainer, in automatic and in manual optimization, and how many there will be."""

from __future__ import annotations

from typing import Any


def curve_step(trainer: Any) -> int:
    """Return the step that the Trainer's loggers draw the batch under that is being trained on, or comes next."""
    # Private, since there is no public name for it. global_step is another count: it runs ahead where several
    # optimizers step in a batch, and behind where they are called past Lightning, or gradients accumulate by hand.
    step = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", None)
    return int(trainer.global_step if step is None else step)


def total_steps(trainer: Any) -> float:
    """Return how many steps the training has, by `curve_step`; infinite or not positive if it is not known."""
    estimated = float(trainer.estimated_stepping_batches)
    if trainer.max_steps == -1 or trainer.lightning_module.automatic_optimization:
        return estimated
    # max_steps counts every optimizer's steps; that each steps once a batch is all that can be known.
    return min(estimated, float(trainer.max_steps) / max(1, len(trainer.optimizers)))


class Steps:
    """Follows a fit's steps, batch by batch.

    Where Lightning steps the optimizer, a step is what that step took, of one batch or several. In manual optimization
    every batch is one, as Lightning has it in its curves.

    Args:
        trainer: while it fits, its optimizers set up.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._manual = not trainer.lightning_module.automatic_optimization
        self._raw = self._before = 0
        # Optimizers that the user calls past Lightning are not in global_step; steps that a GradScaler skips fire no
        # hook. Whoever counts both sees every step.
        hooked = [o for o in trainer.optimizers if self._manual and hasattr(o, "register_step_post_hook")]
        self._handles = [optimizer.register_step_post_hook(self._count) for optimizer in hooked]

    @property
    def taken(self) -> int:
        """A number that grows with each step of an optimizer."""
        return int(self._trainer.global_step) + self._raw

    @property
    def optimized(self) -> bool:
        """Whether an optimizer stepped since `begin`."""
        return self.taken > self._before

    @property
    def ended(self) -> bool:
        """Whether the batch since `begin` is the last of its step."""
        return self._manual or self.optimized

    def begin(self) -> int:
        """Begin a batch and return its step."""
        self._before = self.taken
        return curve_step(self._trainer)

    def remove(self) -> None:
        """Take the hooks off the optimizers."""
        for handle in self._handles:
            handle.remove()

    def _count(self, *args: Any) -> None:
        self._raw += 1
