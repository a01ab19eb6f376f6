"""UniformityCallback for Lightning's Trainer, of either package."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uniformity_callbacks.alerts import CollapseAlert
from uniformity_callbacks.loss import WassersteinLoss
from uniformity_callbacks.monitor import UniformityMonitor
from uniformity_callbacks.panel import DEFAULT_METRICS
from uniformity_callbacks.reader import Outcome
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
    handed out at once, every other at the next due step, or at the end of the epoch or before validation if that comes
    first. The auxiliary loss is added to what ``training_step`` returns; what the model logs of its own loss stays.
    Under ``fast_dev_run`` nothing is written.

    Args:
        layer: dotted path, list of paths, module, or None: the module named like a projector that is trained.
        every_n_steps: optimizer steps between readings, >= 1; step 0 is read.
        output: which tensor of the layer's output: None (it is a tensor), key, index, or a function of it.
        views: None (each call of the layer is a view) or 2 (one call holds both views stacked along the batch).
        metrics: names to compute, without prefix.
        alerts: None, "warn", "stop", or a list of `CollapseAlert`.
        auxiliary: None, a weight, or a `WassersteinLoss` to add to the training loss.
        scope: "global" (over all ranks) or "rank"; the same on one device.
        writers: each called with every reading's values and step, on a thread of its own.
        window: steps up to a due one whose rows are read together, 1 to every_n_steps.
        prefix: what the metric keys begin with.
        journal: file to record readings in; None for ``uniformity.jsonl`` in the Trainer's log directory.

    Raises:
        ValueError: an argument is out of its range; at the start of fit: no such layer, more than one rank, manual
            optimization.
        TypeError: an argument is of another type.

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
        alerts: str | Sequence[CollapseAlert] | None = "warn",
        auxiliary: float | WassersteinLoss | None = None,
        scope: str = "global",
        writers: Sequence[Writer] = (),
        window: int = 1,
        prefix: str = "uniformity",
        journal: str | Path | None = None,
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
        )
        self._injected: _Injected | None = None
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
        self.monitor.announce = _above_the_bar
        directory = trainer.log_dir or trainer.default_root_dir
        self.monitor.attach(pl_module, directory=directory, record=not getattr(trainer, "fast_dev_run", False))
        if self.monitor.auxiliary is not None:
            self._injected = _Injected(pl_module, self.monitor)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the last reading of the run that is resumed: the first due step may come after the epoch's end."""
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

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand out what is ready: callbacks that follow validation may look for it."""
        self._publish(trainer, self.monitor.collect())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand out what is ready; Lightning calls EarlyStopping and ModelCheckpoint after this."""
        self._publish(trainer, self.monitor.collect())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finish all readings while the Trainer's loggers are still open, and leave no trace on the model."""
        self._leave(trainer)

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
                    logger.log_metrics(dict(outcome.values), step=outcome.reading.step)
                except Exception as error:  # our point must not end the run through the user's logger
                    self.monitor.faults.add(type(logger).__name__, error, step=outcome.reading.step)
        if self.monitor.should_stop:
            trainer.should_stop = True

    @staticmethod
    def _show(trainer: pl.Trainer, values: Mapping[str, float]) -> None:
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in values.items()})


class _Injected:
    """Stands in for a module's ``training_step`` until `remove`; adds the auxiliary loss to what it returns."""

    def __init__(self, module: pl.LightningModule, monitor: UniformityMonitor) -> None:
        self._module, self._monitor = module, monitor
        self._step = module.training_step
        self._shadowed = vars(module).get("training_step")
        # Lightning reads the signature one level down to see whether to pass batch_idx: show it what it saw before.
        self.__wrapped__ = getattr(self._step, "__wrapped__", self._step)
        self.__name__ = "training_step"
        self.__doc__ = self._step.__doc__
        module.training_step = self  # type: ignore[method-assign]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self._step(*args, **kwargs)
        if isinstance(output, Tensor):
            return self._monitor.add_auxiliary(output)
        if isinstance(output, Mapping) and isinstance(output.get("loss"), Tensor):
            return {**output, "loss": self._monitor.add_auxiliary(output["loss"])}
        return output  # None skips the batch, anything else is Lightning's to refuse

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy or pickle of the module, taken while it trains, gets its own training_step without the loss.
        if self._shadowed is not None:
            return _same, (self._shadowed,)
        return getattr, (self._module, "training_step")

    def remove(self) -> None:
        """Put back what was there."""
        if vars(self._module).get("training_step") is self:
            if self._shadowed is None:
                del self._module.training_step
            else:
                self._module.training_step = self._shadowed


def _same(value: Any) -> Any:
    return value


def _above_the_bar(message: str) -> None:
    """Log a warning without breaking the line of a progress bar that is being drawn."""
    from tqdm.auto import tqdm  # Lightning depends on it

    with tqdm.external_write_mode():
        log.warning(message)
