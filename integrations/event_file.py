"""An event file of TensorBoard's that is written at once, or not at all.

TensorBoard's own writer has a thread with a queue: after one failed write it is dead, what was in the queue is lost,
and waiting for it can last forever.
"""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import scalar, text

from uniformity_callbacks.alerts import Alert
from uniformity_callbacks.integrations.events import as_text
from uniformity_callbacks.recording import write_whole

_NUMBERS = count()


class EventFile:
    """Appends events to a new file of a directory; what is not written whole is taken back.

    Args:
        directory: made if it is not there.
        suffix: of the file's name.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, directory: str | Path, suffix: str = "") -> None:
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        # As TensorBoard has it: it takes files of a directory in the order of their names.
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
        self.path = directory / (name + suffix)
        self._file = open(self.path, "xb", buffering=0)  # noqa: SIM115 - held until the end of training
        self._end = 0
        try:
            self.append([Event(wall_time=time.time(), file_version="brain.Event:2")])
        except OSError:  # a file without its first event is none
            self._file.close()
            self.path.unlink(missing_ok=True)
            raise

    def append(self, events: Iterable[Any]) -> None:
        """Write some events.

        Raises:
            OSError: none of them is written.
        """
        whole = io.BytesIO()
        records = RecordWriter(whole)
        for event in events:
            records.write(event.SerializeToString())
        data = whole.getvalue()
        try:
            write_whole(self._file, data)
        except OSError:
            self._file.truncate(self._end)
            self._file.seek(self._end)
            raise
        self._end += len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def scalar_event(key: str, value: float, step: int, time: float) -> Any:
    """Return the event of one point of a curve."""
    return Event(wall_time=time, step=step, summary=scalar(key, value))  # type: ignore[no-untyped-call]  # torch leaves it untyped


def alert_event(alert: Alert, key: str, time: float) -> Any:
    """Return the event of an alert's text."""
    tag, block = as_text(alert, key)
    return Event(wall_time=time, step=alert.step, summary=text(tag, block))  # type: ignore[no-untyped-call]
