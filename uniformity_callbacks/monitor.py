"""UniformityMonitor: tap, loss, reader, alerts, journal and writers wired together, free of any framework."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from uniformity_callbacks.alerts import AlertBook, CollapseAlert
from uniformity_callbacks.collector import Collector
from uniformity_callbacks.faults import Faults
from uniformity_callbacks.journal import JournalWriter
from uniformity_callbacks.loss import WassersteinLoss
from uniformity_callbacks.panel import DEFAULT_METRICS, check_metrics
from uniformity_callbacks.reader import Capture, Outcome, Reader
from uniformity_callbacks.tap import Output, Tap
from uniformity_callbacks.writers import Feed, Writer

log = logging.getLogger("uniformity_callbacks")

Layer = str | nn.Module | None

JOURNAL_NAME = "uniformity.jsonl"
"""File name of the journal where none is given."""

_FIRST_READING_S = 30.0
"""How long the first step waits for its reading, so that whoever looks for our keys finds them from the start."""

_READING_S = 1.0
"""How long a due step waits for the reading before it, which had a whole interval to finish: normally not at all."""

_CLOSE_S = 10.0
"""How long the end of training waits for readings, and then for each writer."""


class UniformityMonitor:
    """Watches the outputs of a layer while a model trains; what the integrations drive.

    A step is: `begin`, the forward passes, `add_auxiliary` (where there is a loss), `pause` before backward, `end_pass`
    after it; after the optimizer's step `finish`, which returns the readings that are ready. Up to the end of the first
    `finish` errors are raised; after it the first of each kind is logged, all are counted in `faults`, and training
    goes on.

    Args:
        layer: dotted path, list of paths, module, or None (the module named like a projector that is trained).
        every_n_steps: optimizer steps between readings, >= 1; step 0 is read.
        output: which tensor of the layer's output: None, key, index or function.
        views: None (each call of the layer is a view) or 2 (one call holds both views stacked along the batch).
        metrics: names to compute, see `panel.METRICS`.
        alerts: None, "warn", "stop", or a list of `CollapseAlert`.
        auxiliary: None, a weight, or a `WassersteinLoss` to add to the training loss.
        scope: "global" (over all ranks) or "rank"; the same on one device.
        writers: each called with every reading's values and step, on a thread of its own.
        window: steps up to a due one whose rows are read together, 1 to every_n_steps.
        prefix: what the metric keys begin with.
        journal: file to record readings in; None for `JOURNAL_NAME` in the run's directory.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: an argument is of another type.

    Attributes:
        should_stop: an alert with the action "stop" was collected.
        last: the newest values collected, by full key; part of the state.
        faults: errors of ours that were kept from training; writers count their own.
        announce: called with the text of each alert, on the caller's thread; logs a warning by default.
    """

    def __init__(
        self,
        layer: Layer | Sequence[Layer] = None,
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
        if isinstance(every_n_steps, bool) or not isinstance(every_n_steps, int) or every_n_steps < 1:
            raise ValueError(f"every_n_steps must be an integer >= 1, got {every_n_steps!r}")
        if isinstance(window, bool) or not isinstance(window, int) or not 1 <= window <= every_n_steps:
            raise ValueError(f"window must be an integer from 1 to every_n_steps ({every_n_steps}), got {window!r}")
        if scope not in ("global", "rank"):
            raise ValueError(f'scope must be "global" or "rank", got {scope!r}')
        if not isinstance(prefix, str) or not prefix.strip("/"):
            raise ValueError(f'prefix must be a name, got {prefix!r}; e.g. "uniformity"')
        for writer in writers:
            if isinstance(writer, type) or not callable(writer):
                raise TypeError(f"writers must be callables (values, step), got {writer!r}")
        if not (auxiliary is None or isinstance(auxiliary, WassersteinLoss)):
            auxiliary = WassersteinLoss(auxiliary)
        self.every_n_steps, self.scope, self.window, self.prefix = every_n_steps, scope, window, prefix.strip("/")
        self.auxiliary, self.writers = auxiliary, tuple(writers)
        self.should_stop = False
        self.last: dict[str, float] = {}
        self.faults = Faults("uniformity")
        self.announce: Callable[[str], None] = log.warning
        self._layers: tuple[Layer, ...] = (
            (layer,) if layer is None or isinstance(layer, (str, nn.Module)) else tuple(layer)
        )
        if not self._layers:
            raise ValueError("layer must name at least one layer, got an empty list")
        self._output, self._views = output, views
        self._book = AlertBook(alerts)
        self.metrics = tuple(dict.fromkeys((*check_metrics(metrics), *self._book.needs)))
        self._journal_path = None if journal is None else Path(journal)
        self._resume = False
        self._collector: Collector | None = None
        self._reader: Reader | None = None
        self._started = False
        self._blind: set[str] = set()

    @property
    def journal(self) -> Path | None:
        """The journal's path once it is open."""
        return self._journal_path

    def attach(self, model: nn.Module, *, directory: str | Path = ".", record: bool = True) -> None:
        """Put the hooks on a model and open the journal and the writers.

        Args:
            model: the module whose layers are meant.
            directory: where the journal goes by default.
            record: False writes nothing anywhere.

        Raises:
            ValueError: no such layer, or the journal cannot be written.
            RuntimeError: already attached.
        """
        if self._collector is not None:
            raise RuntimeError("the monitor is attached already; detach it by close() first")
        taps = [Tap(model, layer, output=self._output, views=self._views) for layer in self._layers]
        collector = Collector(taps, every_n_steps=self.every_n_steps, window=self.window, auxiliary=self.auxiliary)
        journal, feeds = None, []
        if record:
            feeds = [Feed(writer) for writer in self.writers]
            path = self._journal_path or Path(directory) / JOURNAL_NAME
            run = {"layers": collector.names, "every_n_steps": self.every_n_steps, "prefix": self.prefix}
            journal = JournalWriter(path, resume=self._resume, run=run)
            self._journal_path, self._resume = journal.path, True
        self._reader = Reader(self.metrics, self._book, faults=self.faults, journal=journal, feeds=feeds)
        self._collector = collector
        self._started, self.should_stop = False, False
        self._blind.clear()
        collector.attach()

    def close(self) -> list[Outcome]:
        """Take the hooks off, finish all readings, flush and close journal and writers; return what was left."""
        collector, self._collector = self._collector, None
        reader, self._reader = self._reader, None
        if collector is None or reader is None:
            return []
        collector.detach()
        self._started = True  # whatever goes wrong from here on must not hide why training ended
        outcomes: list[Outcome] = []
        with self._kept_from_training("close"):
            reader.settle(_CLOSE_S)
            outcomes = self._act(reader.collect())
            reader.close(_CLOSE_S)
        return outcomes

    def begin(self, step: int) -> None:
        """Begin a forward and backward pass of optimizer step ``step``; passes of one step are read together."""
        with self._kept_from_training("begin"):
            self._collecting.begin(step)

    def add_auxiliary(self, loss: Tensor) -> Tensor:
        """Return ``loss`` plus the auxiliary loss of the views that this pass has captured so far.

        Raises:
            ValueError: in the first step, if nothing was captured.
        """
        if self.auxiliary is None:
            return loss
        with self._kept_from_training("the auxiliary loss"):
            return self._collecting.add_auxiliary(loss)
        return loss

    def pause(self) -> None:
        """Collect no more in this pass: checkpointed layers run again in backward.

        Raises:
            ValueError: in the first step, if the layer's output could not be taken.
        """
        with self._kept_from_training("capture"):
            self._collecting.pause()

    def end_pass(self) -> None:
        """Take over what the pass captured and let go of its graph."""
        with self._kept_from_training("capture"):
            self._collecting.end_pass()

    def finish(self) -> list[Outcome]:
        """End the optimizer step: on a due one hand the rows to the reader and return the readings before it."""
        outcomes: list[Outcome] = []
        with self._kept_from_training("finish"):
            if self._collecting.is_due:
                outcomes = self.collect() if self._started else []
                self._submit()
                if not self._started:
                    outcomes = self.collect(_FIRST_READING_S)
            self._started = True
        return outcomes

    def collect(self, timeout: float = _READING_S) -> list[Outcome]:
        """Return the readings finished since the last call, waiting at most ``timeout`` seconds for those under way."""
        if self._reader is None:
            return []
        self._reader.settle(timeout)
        return self._act(self._reader.collect())

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values, readings under way included."""
        if self._reader is not None:
            self._reader.settle(_CLOSE_S)
        journal = None if self._journal_path is None else str(self._journal_path)
        return {"version": 1, "alerts": self._book.state_dict(), "journal": journal, "last": dict(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned: alerts go on, and the journal is appended to where it is still there.

        A state that cannot be read is reported and left: a run must resume all the same.
        """
        try:
            self._book.load_state_dict(state["alerts"])
            self.last = dict(state["last"])
            if state["journal"] is not None and Path(state["journal"]).exists():
                self._journal_path, self._resume = Path(state["journal"]), True
        except Exception as error:
            self.faults.add("its state could not be restored, alerts begin anew", error)

    @property
    def _collecting(self) -> Collector:
        assert self._collector is not None, "steps come between attach() and close()"
        return self._collector

    def _submit(self) -> None:
        assert self._reader is not None, "the reader is there as long as the collector"
        step, gathered = self._collecting.step, self._collecting.take()
        for layer in gathered:
            if layer.sample is None:
                if layer.layer not in self._blind:
                    self._blind.add(layer.layer)
                    log.warning("uniformity: nothing to read at step %d: %s", step, layer.why)
                continue
            key = f"{self.prefix}/{layer.layer}/" if len(gathered) > 1 else f"{self.prefix}/"
            self._reader.submit(Capture(step, layer.layer, key, time.time(), layer.sample, layer.extras))

    def _act(self, outcomes: list[Outcome]) -> list[Outcome]:
        for outcome in outcomes:
            self.last |= outcome.values
            for alert in outcome.alerts:
                self.announce(f"uniformity: {alert.message}")
                self.should_stop |= alert.action == "stop"
        return outcomes

    @contextmanager
    def _kept_from_training(self, doing: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._started:
                raise
            self.faults.add(doing, error, step=None if self._collector is None else self._collector.step)
