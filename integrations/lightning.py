"""UniformityCallback for Lightning's Trainer, of either package."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uniformity_callbacks.integrations.events import to_experiment
from uniformity_callbacks.integrations.injection import InjectedLoss
from uniformity_callbacks.loss import WassersteinLoss
from uniformity_callbacks.monitor import UniformityMonitor
from uniformity_callbacks.panel import DEFAULT_METRICS
from uniformity_callbacks.reader import Outcome
from uniformity_callbacks.rules import Action, CollapseAlert
from uniformity_callbacks.schedules import Schedule
from uniformity_callbacks.tap import Output
from uniformity_callbacks.writers import Writer

try:
    import lightning.pytorch as pl
except ImportError:
    try:
        import pytorch_lightning as pl  # type: ignore[no-redef]
    except ImportError as error:
        raise ImportError(
            "UniformityCallback needs lightning or pytorch-lightning; pip install 'uniformity-callbacks[lightning]'"
        ) from error

log = logging.getLogger("uniformity_callbacks")


class UniformityCallback(pl.Callback):
    """Watches a layer's outputs for collapse during ``fit``, and can stop the run or add the Wasserstein loss.

    The LightningModule is not edited. Readings go to the journal (``uniformity.jsonl`` in the Trainer's log directory),
    to the Trainer's loggers, to ``trainer.callback_metrics`` (so that ``EarlyStopping`` and ``ModelCheckpoint`` can
    monitor ``uniformity/w2``) and to ``writers``. The step is that of Lightning's own curves. The first reading is
    handed out at once, every other at the next due step, or at the end of the epoch or of validation if that comes
    first. Over each validation epoch the same is read of the whole set, in eval mode, under ``uniformity/val/``, and is
    there before ``on_validation_end``; of several validation loaders the first is read. The auxiliary loss is added to
    what ``training_step`` returns; what the model logs of its own loss stays. ``fast_dev_run`` writes nothing.

    Args:
        layer: dotted path, list of paths, module, or None: the module named like a projector that is trained.
        every_n_steps: optimizer steps between readings, >= 1; step 0 is read.
        output: which tensor of the layer's output: None (it is a tensor), key, index, or a function of it.
        views: None (each call of the layer is a view) or 2 (one call holds both views stacked along the batch).
        metrics: names to compute, without prefix.
        alerts: None, "warn", "stop", "raise", a function of the alert, or a list of `CollapseAlert`.
        auxiliary: None, a weight (a number or a schedule), or a `WassersteinLoss` to add to the training loss.
        scope: "global" (over all ranks) or "rank"; the same on one device.
        writers: each called with every reading's values and step, on a thread of its own.
        window: steps up to a due one whose rows are read together, 1 to every_n_steps.
        prefix: what the metric keys begin with.
        journal: file to record readings in; None for ``uniformity.jsonl`` in the Trainer's log directory.
        total_steps: optimizer steps of the whole training, for a loss whose weight depends on how much is done; None
            for what the Trainer estimates.

    Raises:
        ValueError: an argument is out of its range; at the start of fit: no such layer, more than one rank, manual
            optimization, a weight that decays over a training without end.
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
        metrics: Sequence[str] = DEFAULT_METRICS,
        alerts: Action | Sequence[CollapseAlert] | None = "warn",
        auxiliary: float | Schedule | WassersteinLoss | None = None,
        scope: str = "global",
        writers: Sequence[Writer] = (),
        window: int = 1,
        prefix: str = "uniformity",
        journal: str | Path | None = None,
        total_steps: int | None = None,
    ) -> None:
        super().__init__()
        self.monitor = UniformityMonitor(
            layer,
            every_n_steps=every_n_steps,
            output=output,
            views=views,
            metrics=metrics,
            alerts=alerts,
            auxiliary=auxiliary,
            scope=scope,
            writers=writers,
            window=window,
            prefix=prefix,
            journal=journal,
            total_steps=total_steps,
        )
        self._injected: InjectedLoss | None = None
        self._step = 0

    @property
    def state_key(self) -> str:
        """Tells apart the states of two callbacks in one Trainer, which must have different prefixes."""
        return f"UniformityCallback[{self.monitor.prefix}]"

    def state_dict(self) -> dict[str, Any]:
        """Return the monitor's state as plain values."""
        return self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.monitor.load_state_dict(state_dict)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Attach; here and not in ``setup``, after which Lightning may still replace layers."""
        if trainer.world_size > 1:
            raise ValueError(f"UniformityCallback works on one device so far, got {trainer.world_size}; use devices=1")
        if not pl_module.automatic_optimization:
            raise ValueError(
                f"UniformityCallback needs automatic optimization so far, got automatic_optimization=False in "
                f"{type(pl_module).__name__}"
            )
        self.monitor.announce_by(_above_the_bar)
        self.monitor.attach(
            pl_module,
            directory=trainer.log_dir or trainer.default_root_dir,
            record=not getattr(trainer, "fast_dev_run", False),
            # Asked only where it is needed: the estimate may have to load the data.
            total_steps=trainer.estimated_stepping_batches if self.monitor.needs_total_steps else None,
        )
        if self.monitor.auxiliary is not None:
            self._injected = InjectedLoss(pl_module, self.monitor)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the last reading of the run that is resumed: the first due step may come after the epoch's end."""
        self.monitor.start(trainer.global_step)
        self._show(trainer, self.monitor.last)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Open the tap for this batch; ``global_step`` counts the optimizer steps before it."""
        self._step = trainer.global_step
        self.monitor.begin(self._step)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Close the tap."""
        self.monitor.pause()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Take over the batch, and end the step unless gradients are still being accumulated."""
        self.monitor.end_pass()
        if trainer.global_step > self._step:
            self._publish(trainer, self.monitor.finish())
            self.monitor.enforce()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a validation epoch."""
        if _validates_fit(trainer):
            self.monitor.begin_validation()

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Open the tap for a batch of the first loader."""
        if dataloader_idx == 0 and _validates_fit(trainer):
            self.monitor.begin_validation_batch()

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
        if dataloader_idx == 0 and _validates_fit(trainer):
            self.monitor.end_validation_batch()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the whole set and hand out what is ready; EarlyStopping and ModelCheckpoint look after this."""
        if _validates_fit(trainer):
            self._publish(trainer, self.monitor.finish_validation())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand out what is ready; Lightning calls EarlyStopping and ModelCheckpoint after this."""
        self._publish(trainer, self.monitor.collect())
        self.monitor.enforce()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finish all readings while the Trainer's loggers are still open, and leave no trace on the model."""
        self._leave(trainer)
        self.monitor.enforce()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """The same where fit ends by an error or by the user."""
        self._leave(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """The same where fit ended before training began."""
        if stage == "fit":
            self._leave(trainer)

    def _leave(self, trainer: pl.Trainer) -> None:
        if self._injected is not None:
            self._injected.remove()
            self._injected = None
        self._publish(trainer, self.monitor.close())

    def _publish(self, trainer: pl.Trainer, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self._show(trainer, outcome.values)
            for logger in trainer.loggers:
                try:
                    self._log(logger, outcome)
                except Exception as error:  # our point must not end the run through the user's logger
                    self.monitor.faults.add(type(logger).__name__, error, step=outcome.reading.step)
        if self.monitor.should_stop:
            trainer.should_stop = True

    @staticmethod
    def _log(logger: Any, outcome: Outcome) -> None:
        logger.log_metrics(dict(outcome.values), step=outcome.reading.step)
        for alert in outcome.alerts:
            to_experiment(getattr(logger, "experiment", None), getattr(logger, "run_id", None), alert, outcome.key)

    @staticmethod
    def _show(trainer: pl.Trainer, values: Mapping[str, float]) -> None:
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in values.items()})


def _validates_fit(trainer: pl.Trainer) -> bool:
    """Whether a validation epoch is one of a training: neither ``trainer.validate`` nor its sanity check."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _above_the_bar(message: str) -> None:
    """Log a warning without breaking the line of a progress bar that is being drawn."""
    from tqdm.auto import tqdm  # Lightning depends on it

    with tqdm.external_write_mode():
        log.warning(message)
