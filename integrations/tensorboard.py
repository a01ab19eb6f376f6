"""TensorBoardWriter: readings into TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as error:
    raise ImportError("TensorBoardWriter needs tensorboard; pip install 'uniformity-callbacks[tensorboard]'") from error

from uniformity_callbacks.alerts import Alert
from uniformity_callbacks.integrations.events import to_tensorboard


class TensorBoardWriter:
    """Writes each value as a scalar under its metric key, and each alert as text.

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
        self._target = target
        self._summary: SummaryWriter | None = None

    def __call__(self, values: Mapping[str, float], step: int, /) -> None:
        """Add one point to each curve."""
        summary = self._open()
        for key, value in values.items():
            summary.add_scalar(key, value, step)
        summary.flush()  # seen at once, and not lost with the process

    def alert(self, alert: Alert, key: str) -> None:
        """Add an alert's message as text."""
        summary = self._open()
        to_tensorboard(summary, alert, key)
        summary.flush()

    def close(self) -> None:
        """Flush, and close what we opened; a later reading would open a new file."""
        if self._summary is None:
            return
        if self._summary is self._target:
            self._summary.flush()
        else:
            self._summary.close()
            self._summary = None

    def _open(self) -> SummaryWriter:
        if self._summary is None:
            given = self._target
            self._summary = given if isinstance(given, SummaryWriter) else SummaryWriter(str(given))
        return self._summary
