"""TensorBoardWriter: readings into TensorBoard event files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as error:
    raise ImportError("TensorBoardWriter needs tensorboard; pip install 'uniformity-callbacks[tensorboard]'") from error

from uniformity_callbacks.alerts import Alert
from uniformity_callbacks.integrations.event_file import EventFile, alert_event, scalar_event
from uniformity_callbacks.integrations.events import to_tensorboard
from uniformity_callbacks.writers import Entry


class TensorBoardWriter:
    """Writes each value as a scalar under its metric key, and each alert as text.

    Event files of its own are written without a buffer: a killed process loses none, and where the disk is full for a
    while the readings wait.

    Args:
        target: a directory for event files, made at the first reading and closed at the end of training; or an existing
            ``SummaryWriter``, which is flushed and left open.

    Raises:
        TypeError: target is neither.

    Example:
        >>> writer = TensorBoardWriter("runs/a")
    """

    def __init__(self, target: str | Path | SummaryWriter) -> None:
        if not isinstance(target, (str, Path, SummaryWriter)):
            raise TypeError(f"target must be a directory or a SummaryWriter, got {target!r}")
        self._summary = target if isinstance(target, SummaryWriter) else None
        self._directory = None if isinstance(target, SummaryWriter) else Path(target)
        self._file: EventFile | None = None

    @property
    def target(self) -> str | None:
        """What ``uniformity sync --to`` names the place; None for a ``SummaryWriter``."""
        return None if self._directory is None else f"tensorboard:{self._directory}"

    def __call__(self, values: Mapping[str, float], step: int, /) -> None:
        """Add one point to each curve, now."""
        self.many([(values, step, time.time())])

    def many(self, readings: Sequence[Entry]) -> None:
        """Add some readings: all of them or, with an error, none."""
        if self._summary is not None:
            for values, step, seconds in readings:
                for key, value in values.items():
                    self._summary.add_scalar(key, value, step, walltime=seconds)
            self._summary.flush()  # seen at once, and not lost with the process
            return
        events = [
            scalar_event(key, value, step, seconds)
            for values, step, seconds in readings
            for key, value in values.items()
        ]
        self._append(events)

    def alert(self, alert: Alert, key: str) -> None:
        """Add an alert's message as text."""
        if self._summary is not None:
            to_tensorboard(self._summary, alert, key)
            self._summary.flush()
        else:
            self._append([alert_event(alert, key, time.time())])

    def close(self) -> None:
        """Flush, and close what we opened; a later reading would open a new file."""
        if self._summary is not None:
            self._summary.flush()
        elif self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, events: list[Any]) -> None:
        assert self._directory is not None, "only of a directory"
        if self._file is None:
            self._file = EventFile(self._directory)
        try:
            self._file.append(events)
        except OSError:  # a new file may do where this one cannot be written any more
            file, self._file = self._file, None
            with suppress(OSError):
                file.close()
            raise
