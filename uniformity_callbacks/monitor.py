"""UniformityMonitor: tap, loss, reader, alerts, journal and writers wired together, free of any framework."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from uniformity_callbacks.alerts import AlertBook
from uniformity_callbacks.arguments import (
    Layer,
    check_cadence,
    check_durable,
    check_layers,
    check_length,
    check_loss,
    check_names,
    check_overload,
    check_timeout,
    check_writers,
)
from uniformity_callbacks.collector import Collector
from uniformity_callbacks.company import Company
from uniformity_callbacks.desk import Desk
from uniformity_callbacks.driver import Driver
from uniformity_callbacks.faults import Faults
from uniformity_callbacks.feeds import Feed
from uniformity_callbacks.loss import WassersteinLoss
from uniformity_callbacks.memory import Memory
from uniformity_callbacks.panel import DEFAULT_METRICS, check_metrics
from uniformity_callbacks.ranks import Ranks
from uniformity_callbacks.reader import Outcome, Reader
from uniformity_callbacks.records import Records
from uniformity_callbacks.responder import Responder
from uniformity_callbacks.rules import Action, CollapseAlert
from uniformity_callbacks.schedules import Schedule
from uniformity_callbacks.tap import Output, Tap
from uniformity_callbacks.writers import Writer


class UniformityMonitor(Driver):
    """Watches the outputs of a layer while a model trains; what the integrations drive.

    How a step goes is `Driver`'s to say.

    Args:
        layer: dotted path, list of paths, module, or None (the module named like a projector that is trained).
        every_n_steps: optimizer steps between readings, >= 1; step 0 is read.
        output: which tensor of the layer's output: None, key, index or function.
        views: None (each call of the layer is a view) or 2 (one call holds both views stacked along the batch).
        calls: which of a pass's calls with gradients are read: None or "all", "first:N" (large crops) or "last:N".
        metrics: names to compute, see `panel.METRICS`.
        alerts: None, "warn", "stop", "raise", a function of the alert, or a list of `CollapseAlert`.
        auxiliary: None, a weight (a number or a schedule), or a `WassersteinLoss` to add to the training loss.
        scope: "global" (over all ranks) or "rank"; the same on one device.
        writers: each called with every reading's values and step, on a thread of its own.
        window: steps up to a due one whose rows are read together, 1 to every_n_steps.
        overload: what gives way where readings take too long: "skip" (due steps) or "subsample" (rows of each view).
        prefix: what the metric keys begin with.
        journal: file to record readings in; None for `JOURNAL_NAME` in the run's directory.
        durable: have the disk confirm each record (fdatasync), so that a crash of the machine costs none.
        close_timeout: seconds that the end of training waits for readings and writers, >= 0.
        total_steps: optimizer steps of the whole training, for a loss whose weight depends on how much is done; None
            for what `attach` is told.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: an argument is of another type.

    Attributes:
        faults: errors of ours that were kept from training; writers count their own.
    """

    def __init__(
        self,
        layer: Layer | Sequence[Layer] = None,
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
        check_cadence(every_n_steps, window, total_steps)
        self.overload = check_overload(overload)
        self._book, self.faults = AlertBook(alerts), Faults("uniformity")
        super().__init__(Responder(self._book, self.faults), self.faults, prefix=check_names(scope, prefix))
        self.every_n_steps, self.scope, self.window, self.total_steps = every_n_steps, scope, window, total_steps
        self.auxiliary, self.close_timeout = check_loss(auxiliary, self._book), check_timeout(close_timeout)
        self.metrics = tuple(dict.fromkeys((*check_metrics(metrics), *self._book.needs)))
        self._layers = check_layers(layer)
        self._tap: dict[str, Any] = {"output": output, "views": views, "calls": calls}
        path = None if journal is None else Path(journal)
        self.records = Records(check_writers(writers), path, durable=check_durable(durable), faults=self.faults)
        self._memory = Memory(self._responder, self.records, self.faults)
        self._directory: Path | None = None

    @property
    def needs_total_steps(self) -> bool:
        """Whether `attach` must be told how long the training is."""
        return self.total_steps is None and self.auxiliary is not None and self.auxiliary.needs_progress

    @property
    def journal(self) -> Path | None:
        """The journal's path once it is open."""
        return self.records.path

    @property
    def layers(self) -> list[str]:
        """The dotted paths of the layers that are watched; empty while none is."""
        return [] if self._collector is None else self._collector.names

    @property
    def is_open(self) -> bool:
        """Whether journal and writers are open."""
        return self._desk is not None

    def attach(
        self,
        model: nn.Module,
        *,
        directory: str | Path = ".",
        record: bool = True,
        total_steps: float | None = None,
        together: bool = True,
        group: dist.ProcessGroup | None = None,
        on_backward: Callable[[bool], None] | None = None,
        opens: bool = True,
    ) -> None:
        """Put the hooks on a model and open the journal and the writers.

        Args:
            model: the module whose layers are meant.
            directory: where the journal goes by default.
            record: False writes nothing anywhere.
            total_steps: optimizer steps of the whole training, if known.
            together: whether the ranks of torch.distributed, where it is initialised, train this model together: then
                all must call every method but `state_dict` and `load_state_dict`, and the first of them records.
            group: which ranks these are; None for all.
            on_backward: called when a backward pass goes through a layer, as `Collector` has it, for a training that
                does not tell when one begins.
            opens: False leaves journal and writers to `open`, so that a state can be loaded until then.

        Raises:
            ValueError: no such layer, or one twice; the journal cannot be written; the loss's weight depends on how
                much of the training is done, and its length is not known.
            RuntimeError: already attached; or something of this went wrong on another rank.
        """
        if self._collector is not None:
            raise RuntimeError("the monitor is attached already; detach it by close() first")
        ranks = Ranks.of(model, group) if together else None
        company = None if ranks is None else Company(ranks, metrics=self.metrics, scope=self.scope)
        self._directory = Path(directory) if record else None
        try:
            collector = self._collector_of(model, total_steps, company, on_backward)
            desk = self._desk_of(collector.names, company) if opens else None
            self._attached(collector, company)
            self._desk = desk
            collector.attach()
        except Exception as error:
            if company is None:
                self.close()
                raise
            company.note(error, fatal=True)
        if company is not None:
            self._agree(company, joins=opens)

    def open(self) -> Callable[[], None]:
        """Open the journal and the writers, where `attach` left that for later; before the first `finish`.

        Returns:
            What finishes readings, journal and writers without the model: `close`, for when both are garbage.

        Raises:
            ValueError: the journal cannot be written.
            RuntimeError: something went wrong on another rank.
        """
        assert not self.is_open, "called once"
        company = self._company
        try:
            self._desk = self._desk_of(self.layers, company)
        except Exception as error:
            if company is None:
                raise
            company.note(error, fatal=True)
        if company is not None:
            self._agree(company, joins=True)
        self._collecting.alert(self._responder.collapsed)
        return partial(self._open.reader.close, self.close_timeout)

    def _collector_of(
        self,
        model: nn.Module,
        total_steps: float | None,
        company: Company | None,
        on_backward: Callable[[bool], None] | None,
    ) -> Collector:
        total = check_length(self.auxiliary, self.total_steps or total_steps)
        taps = [Tap(model, layer, **self._tap) for layer in self._layers]
        if len({tap.name for tap in taps}) < len(taps):
            raise ValueError(f"layer must name each layer once, got {', '.join(tap.name for tap in taps)}")
        return Collector(
            taps,
            every_n_steps=self.every_n_steps,
            window=self.window,
            auxiliary=self.auxiliary,
            total_steps=total,
            ranks=company.ranks if company is not None and self.scope == "global" else None,
            seed=0 if company is None else company.ranks.rank,
            on_backward=on_backward,
        )

    def _desk_of(self, layers: list[str], company: Company | None) -> Desk:
        journal, layered = None, len(layers) > 1
        feeds: list[Feed] = []
        if self._directory is not None and (company is None or company.reads):
            run = {
                "layers": layers,
                "every_n_steps": self.every_n_steps,
                "prefix": self.prefix,
                "alerts": [rule.kind for rule in self._book.rules],
                "resumed": self._resumed,
            }
            journal, feeds = self.records.open(self._directory, run, prefix=self.prefix, layered=layered)
        overload = self.overload
        reader = Reader(self.metrics, self._book, faults=self.faults, journal=journal, feeds=feeds, overload=overload)
        return Desk(reader, self._responder, self.faults, prefix=self.prefix, layered=layered, company=company)

    def _agree(self, company: Company, *, joins: bool) -> None:
        """Begin together with the other ranks, or not at all; where it joins, with the memory of the first one."""
        own = {"resumed": self._resumed, **self._responder.state_dict([])}
        try:
            memory = company.begin(own if joins else {})
        except Exception:
            self.close()
            raise
        if joins and not company.reads:
            self._resumed = memory["resumed"]
            self._responder.load_state_dict(memory)

    def close(self, *, together: bool = False) -> list[Outcome]:
        """Take the hooks off, finish all readings, flush and close journal and writers; return what was left.

        Args:
            together: on several ranks, that all of them close now: then all get what was left.
        """
        collector, self._collector = self._collector, None
        if collector is not None:
            collector.detach()
        desk, outcomes = self._desk, []
        if collector is None or desk is None:
            return []
        self._resumed = False
        self._started = True  # whatever goes wrong from here on must not hide why training ended
        deadline = time.monotonic() + self.close_timeout
        ready = desk.ready(self.close_timeout)
        with self.kept_from_training("close"):
            outcomes = self._act(desk.tell(ready) if together else ready)
        with self.kept_from_training("close"):
            desk.close(max(0.0, deadline - time.monotonic()))
        self._desk = self._company = None
        return outcomes

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values, readings under way included."""
        reader = None if self._desk is None else self._desk.reader
        return self._memory.state_dict(reader, self.close_timeout)

    def load_state_dict(self, state: Any) -> None:
        """Take up what `state_dict` returned: alerts go on, and the journal is appended to where it is still there.

        A part that cannot be read, or is of another version, is reported and left: a run must resume all the same.
        """
        self._resumed = True
        self._memory.load_state_dict(state)
