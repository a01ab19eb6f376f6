"""Where `uniformity sync` writes event files."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

try:
    from google.protobuf.message import DecodeError
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
except ImportError as error:
    raise ImportError("--to tensorboard needs tensorboard; pip install 'uniformity-callbacks[tensorboard]'") from error

from uniformity_callbacks.integrations.event_file import EventFile, alert_event, scalar_event
from uniformity_callbacks.integrations.syncing import Notice, Point

_TEXT = "/text_summary"
"""What torch's SummaryWriter appends to the tag of a text."""


class EventFiles:
    """The event files of a directory, those of other runs in directories below it not among them.

    What is missing goes into one new file, made when there is any. A point is there if TensorBoard shows it: not what
    comes after a record that is torn or corrupt, and not what a later record of an earlier step, or of the same one,
    has ended; TensorBoard takes that for a run that was resumed there.

    Args:
        directory: made if it is not there.

    Raises:
        NotADirectoryError: it is a file.
    """

    ordered = True

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory).expanduser()
        if self._directory.exists() and not self._directory.is_dir():
            raise NotADirectoryError(f"{str(self._directory)!r} is no directory; give the one with the event files")
        self._shown: defaultdict[str, list[int]] = defaultdict(list)
        self._last = ""
        for file in sorted(self._directory.glob("*tfevents*")):  # in TensorBoard's order
            if file.is_file():
                self._read(file)
                self._last = file.name
        self._suffix = f".sync-{uuid.uuid4().hex[:8]}"
        self._new: EventFile | None = None

    def __str__(self) -> str:
        return f"TensorBoard's {self._directory}"

    def steps(self, keys: Collection[str]) -> Mapping[str, Collection[int]]:
        """Return the steps that are shown."""
        return {key: set(self._shown[key]) for key in keys if key in self._shown}

    def write(self, points: Sequence[Point]) -> list[str]:
        """Write points with the time of their rows; takes all."""
        self._open().append(scalar_event(point.key, point.value, point.step, point.time) for point in points)
        return []

    def announce(self, notices: Sequence[Notice]) -> int:
        """Write alerts as text, and again those that come behind them."""
        missing = 0
        begun: set[str] = set()
        for notice in notices:
            tag = f"{notice.key}alerts/{notice.alert.kind}{_TEXT}"
            if notice.alert.step not in self._shown.get(tag, ()):
                missing += 1
                begun.add(tag)
            if tag in begun:
                when = time.time() if notice.time is None else notice.time
                self._open().append([alert_event(notice.alert, notice.key, when)])
        return missing

    def close(self) -> None:
        """Close the new file, if there is one, and see that TensorBoard reads it last."""
        if self._new is None:
            return
        self._new.close()
        # Names begin with the second, and then the process: of two files of one second the later may come first.
        path = self._new.path
        if path.name < self._last:
            path.rename(path.with_name(self._last + self._suffix))

    def _open(self) -> EventFile:
        if self._new is None:
            self._new = EventFile(self._directory, self._suffix)
        return self._new

    def _read(self, file: Path) -> None:
        # Not TensorBoard's public EventAccumulator, which would hold a run's images and embeddings in memory, too.
        try:
            for event in LegacyEventFileLoader(str(file)).Load():  # ends at a torn or corrupt record
                for value in event.summary.value:
                    shown = self._shown[value.tag]
                    while shown and shown[-1] >= event.step:
                        shown.pop()
                    shown.append(event.step)
        except DecodeError:  # a record that is whole and no event: TensorBoard reads no further, either
            pass
