"""UniformityCallback for Lightning's Trainer, of either package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from uniformity_callbacks.integrations.acting import OneOfSeveral, harmless, if_acting
from uniformity_callbacks.integrations.injection import Injection, inject
from uniformity_callbacks.integrations.packages import join_the_other, pl
from uniformity_callbacks.integrations.publishing import Publisher, above_the_bar, be_heard, show
from uniformity_callbacks.integrations.steps import Steps, total_steps
from uniformity_callbacks.loss import WassersteinLoss
from uniformity_callbacks.monitor import UniformityMonitor
from uniformity_callbacks.panel import DEFAULT_METRICS
from uniformity_callbacks.reader import Outcome
from uniformity_callbacks.rules import Action, CollapseAlert
from uniformity_callbacks.schedules import Schedule
from uniformity_callbacks.tap import Output
from uniformity_callbacks.writers import Writer


class UniformityCallback(OneOfSeveral):
    """Watches a layer's outputs for collapse during ``fit``, and can stop the run or add the Wasserstein loss.

    The LightningModule is not edited. Readings go to the journal (``uniformity.jsonl`` in the Trainer's log directory),
    to the Trainer's loggers, to ``trainer.callback_metrics`` (so that ``EarlyStopping`` and ``ModelCheckpoint`` can
    monitor ``uniformity/w2``) and to ``writers``. The step is that of Lightning's own curves. The first reading is
    handed out at once, every other at the next due step, or at the end of the epoch or of validation if that comes
    first. Over each validation epoch the same is read of the whole set, in eval mode, under ``uniformity/val/``, and is
    there before ``on_validation_end``; of several validation loaders the first is read. ``fast_dev_run`` writes
    nothing.

    The auxiliary loss is added to what ``training_step`` returns; what the model logs of its own loss stays. A batch
    that the optimizer evaluates several times, as LBFGS does, has it each time, and is read the first time.

    In manual optimization every batch is a step, as in Lightning's curves; ``window`` reads several together. The loss
    enters the first ``manual_backward`` of a batch that comes after the layer was called, with the views up to there;
    at most once a batch, and only if an optimizer, whichever, stepped since it last did: of micro-batches that are
    accumulated by hand, the first has the whole of it. A step that ends without it is an error, or reported.

    A resumed run goes on in its journal, its alerts, and its writers' places; before Lightning 2.5 its curves, and so
    ours, have the step before it twice, and `read_journal` sets the earlier reading apart. Of several callbacks with
    one prefix the first acts; one that a factory among Lightning's entry points added steps aside for the user's own.

    Args:
        layer: dotted path, list of paths, module, or None: the module named like a projector that is trained.
        every_n_steps: steps between readings, >= 1; step 0 is read.
        output: which tensor of the layer's output: None (it is a tensor), key, index, or a function of it.
        views: None (each call of the layer is a view) or 2 (one call holds both views stacked along the batch).
        calls: which of a pass's calls with gradients are read: None or "all", "first:N" (large crops) or "last:N".
        metrics: names to compute, without prefix.
        alerts: None, "warn", "stop", "raise", a function of the alert, or a list of `CollapseAlert`.
        auxiliary: None, a weight (a number or a schedule), or a `WassersteinLoss` to add to the training loss.
        scope: "global" (the batch of all ranks together) or "rank" (the loss of each rank's own rows, readings of
            rank zero's); the same on one device.
        writers: each called with every reading's values and step, on a thread of its own.
        window: steps up to a due one whose rows are read together, 1 to every_n_steps.
        overload: what gives way where readings take too long: "skip" (due steps) or "subsample" (rows of each view).
        prefix: what the metric keys begin with.
        journal: file to record readings in; None for ``uniformity.jsonl`` in the Trainer's log directory.
        durable: have the disk confirm each record of the journal (fdatasync): a crash of the machine costs none, and a
            reading, on its thread, takes as long as the disk does.
        close_timeout: seconds that the end of training waits for readings and writers, >= 0; what a writer has not
            taken by then is in the journal, and a warning says how to write it.
        total_steps: steps of the whole training, for a loss whose weight depends on how much is done; None for what the
            Trainer estimates (in manual optimization with ``max_steps``, as if each optimizer stepped once a batch).

    Raises:
        ValueError: an argument is out of its range; at the start of fit: no such layer, several devices without
            torch.distributed, a weight that decays over a training without end; in the first step: the layer's output
            cannot be taken, or is not there for the auxiliary loss.
        TypeError: an argument is of another type.
        CollapseError: during fit, by an alert whose action is "raise".

    Example:
        >>> callback = UniformityCallback("projector", every_n_steps=50, alerts="stop")
        >>> trainer = pl.Trainer(callbacks=[callback], accelerator="cpu", logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        layer: str | Sequence[str] | nn.Module | None = None,
        *,
        every_n_steps: int = 50,
        output: Output = None,
        views: int | None = None,
        calls: str | None = None,
        metrics: Sequence[str] = DEFAULT_METRICS,
        alerts: Sequence[CollapseAlert] | Action | None = "warn",
        auxiliary: float | Schedule | WassersteinLoss | None = None,
        scope: str = "global",
        writers: Sequence[Writer] = (),
        window: int = 1,
        overload: str = "skip",
        prefix: str = "uniformity",
        journal: str | Path | None = None,
        durable: bool = False,
        close_timeout: float = 10.0,
        total_steps: int | None = None,
    ) -> None:
        super().__init__()
        join_the_other(UniformityCallback)
        self.monitor = UniformityMonitor(
            layer,
            every_n_steps=every_n_steps,
            output=output,
            views=views,
            calls=calls,
            metrics=metrics,
            alerts=alerts,
            auxiliary=auxiliary,
            scope=scope,
            writers=writers,
            window=window,
            overload=overload,
            prefix=prefix,
            journal=journal,
            durable=durable,
            close_timeout=close_timeout,
            total_steps=total_steps,
        )
        self._publisher = Publisher()
        self._injection: Injection | None = None
        self._steps: Steps | None = None

    @if_acting
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Attach; here and not in ``setup``, after which Lightning may still replace layers."""
        if trainer.world_size > 1 and not (dist.is_available() and dist.is_initialized()):
            raise ValueError(
                f"UniformityCallback needs torch.distributed on {trainer.world_size} devices, which "
                f"{type(trainer.strategy).__name__} has not initialised; use a strategy such as ddp or fsdp"
            )
        be_heard()
        self.monitor.announce_by(above_the_bar)
        self.monitor.attach(
            pl_module,
            directory=self._directory(trainer),
            record=not getattr(trainer, "fast_dev_run", False),
            together=trainer.world_size > 1,  # a sweep may run a Trainer by itself on each rank
            # Asked only where it is needed: the estimate may have to load the data.
            total_steps=total_steps(trainer) if self.monitor.needs_total_steps else None,
        )

    @if_acting
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the last reading of the run that is resumed: the first due step may come after the epoch's end."""
        self._steps = Steps(trainer)
        self._injection = inject(pl_module, self.monitor, self._steps)
        self.monitor.start(self._steps.begin())
        show(trainer, self.monitor.last)

    @harmless
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Open the tap for this batch."""
        accumulating = self._injection is not None and self._injection.accumulating
        self.monitor.begin(self._now.begin(), accumulating=accumulating)

    @harmless
    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Close the tap."""
        self.monitor.pause()

    @harmless
    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open it again if the layer is still to be called: in manual optimization backwards follow each other."""
        if not pl_module.automatic_optimization:
            self.monitor.resume()

    @harmless
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Take over the batch, and end the step unless gradients are still being accumulated."""
        if self._now.optimized and not pl_module.automatic_optimization:
            self.monitor.require_auxiliary()
        self.monitor.end_pass()
        if self._now.ended:
            self._publish(trainer, self.monitor.finish())
            self.monitor.enforce()

    @harmless
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a validation epoch."""
        if self._validates(trainer):
            self.monitor.begin_validation()

    @harmless
    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Open the tap for a batch of the first loader."""
        if dataloader_idx == 0 and self._validates(trainer):
            self.monitor.begin_validation_batch()

    @harmless
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add up what it brought."""
        if dataloader_idx == 0 and self._validates(trainer):
            self.monitor.end_validation_batch()

    @harmless
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the whole set and hand out what is ready; EarlyStopping and ModelCheckpoint look after this."""
        if self._validates(trainer):
            self._publish(trainer, self.monitor.finish_validation())

    @harmless
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand out what is ready; Lightning calls EarlyStopping and ModelCheckpoint after this."""
        self._publish(trainer, self.monitor.collect())
        self.monitor.enforce()

    @harmless
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finish all readings while the Trainer's loggers are still open, and leave no trace on the model."""
        self._leave(trainer, together=True)
        self.monitor.enforce()

    @harmless
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """The same where fit ends by an error or by the user."""
        self._leave(trainer)

    @harmless
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """The same where fit ended before training began."""
        if stage == "fit":
            self._leave(trainer)

    def _directory(self, trainer: pl.Trainer) -> Path:
        """Return where the journal goes, unless it is told."""
        return Path(trainer.log_dir or trainer.default_root_dir)

    @property
    def _now(self) -> Steps:
        assert self._steps is not None, "batches come between on_train_start and on_train_end"
        return self._steps

    def _validates(self, trainer: pl.Trainer) -> bool:
        """Whether a validation epoch is one of a training: neither ``trainer.validate`` nor its sanity check."""
        return self.acts and trainer.state.fn == "fit" and not trainer.sanity_checking

    def _leave(self, trainer: pl.Trainer, *, together: bool = False) -> None:
        if self._injection is not None:
            self._injection.remove()
        if self._steps is not None:
            self._steps.remove()
        self._injection = self._steps = None
        self._publish(trainer, self.monitor.close(together=together))
        self._publisher.finish(trainer, self.monitor.journal)

    def _publish(self, trainer: pl.Trainer, outcomes: list[Outcome]) -> None:
        self._publisher.publish(trainer, outcomes, self.monitor.faults)
        if self.monitor.should_stop:
            trainer.should_stop = True


join_the_other(UniformityCallback)
