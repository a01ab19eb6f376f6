"""The writing side of the journal: what was read is on the local disk before it goes anywhere else."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import threading
import time
import uuid
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from uniformity_callbacks.alerts import Alert
from uniformity_callbacks.journal import FORMAT
from uniformity_callbacks.panel import Reading

try:
    import fcntl
except ImportError:  # Windows, where two runs are kept from one journal by its name alone
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("uniformity_callbacks")

_HELD = 10_000
"""Records that wait in memory for a disk that takes none, some MB; then the oldest are lost, and counted."""

_LINE = 1_000_000
"""Bytes of a first line that are looked at."""

_LINGER_S = 6.0
"""How long a journal's lock is waited for: a killed run's data loaders have it until they see, within 5 s, that their
parent is gone."""


class JournalWriter:
    """Appends records to a file, each in one unbuffered write, so that a killed process loses no finished record.

    What the disk does not take waits in memory and is written before the next record that it takes.

    Args:
        path: file to create; where it is taken, ``name-2``, ``name-3``, ... is created instead, since two runs must not
            share one journal.
        resume: append to ``path`` if it is there and no other run has it open.
        run: what to say of the run in its first line; plain values.
        durable: have the disk itself confirm each record (fdatasync), so that a crash of the machine costs none.

    Raises:
        ValueError: the file cannot be created.

    Attributes:
        path: the file.
        lost: records that were never written: even memory had no room for them.
    """

    def __init__(self, path: str | Path, *, resume: bool = False, run: dict[str, Any], durable: bool = False) -> None:
        try:
            self.path, self._file = _open(Path(path), resume)
        except OSError as error:
            raise ValueError(
                f"journal {str(path)!r} cannot be written ({error}); give another path by journal="
            ) from error
        self._durable, self._waiting, self.lost = durable, deque[bytes](), 0
        self._end, self._torn = self._file.seek(0, os.SEEK_END), False
        self._gap: float | None = None  # since when the disk takes nothing
        self._lock = threading.Lock()  # the writers' threads tell of their stores
        try:
            self._write({"type": "run", "format": FORMAT, "id": uuid.uuid4().hex, "time": time.time(), **run})
        except OSError as error:  # full, as it may be where a run is resumed
            log.warning(
                "uniformity: the journal %s cannot be written yet (%s); readings wait in memory", self.path, error
            )

    @property
    def waiting(self) -> int:
        """Records that are not yet on the disk."""
        return len(self._waiting)

    def reading(self, reading: Reading) -> int:
        """Append a reading and return where in the file it begins.

        Raises:
            OSError: the disk did not take it; it waits in memory.
        """
        return self._write({"type": "reading", **asdict(reading)})

    def alert(self, alert: Alert) -> None:
        """Append an alert, or the end of one; raises as `reading` does."""
        self._write({"type": "alert", **asdict(alert)})

    def store(self, store: dict[str, Any]) -> None:
        """Append what a writer says of where it writes; raises as `reading` does."""
        self._write({"type": "store", "time": time.time(), **store})

    def close(self) -> None:
        """Write what waits, and close the file.

        Raises:
            OSError: the disk still does not take it; how many records that cost is in the text.
        """
        try:
            self._flush()
        finally:
            self._file.close()
            if self._waiting or self.lost:
                log.warning(
                    "uniformity: %d records could not be written to %s and are lost",
                    self.lost + len(self._waiting),
                    self.path,
                )

    def _write(self, record: dict[str, Any]) -> int:
        line = (json.dumps(_plain(record), allow_nan=False) + "\n").encode()
        with self._lock:
            self._waiting.append(line)
            if len(self._waiting) > _HELD:
                self._waiting.popleft()
                self.lost += 1
            return self._flush()

    def _flush(self) -> int:
        """Write what waits, and return where the last of it begins."""
        begin = self._end
        try:
            while self._waiting:
                begin = self._append(self._waiting[0])
                self._waiting.popleft()
        except OSError:
            self._gap = self._gap or time.time()
            raise
        if self._gap is not None:
            log.warning(
                "uniformity: the journal %s can be written again after %.0f s; %s",
                self.path,
                time.time() - self._gap,
                f"{self.lost} records are lost" if self.lost else "nothing is lost",
            )
            self._gap = None
        return begin

    def _append(self, line: bytes) -> int:
        begin = self._end
        if self._torn:  # the rest of a line that the disk had no room for, and could not be cut off
            line = b"\n" + line
        try:
            write_whole(self._file, line)
            if self._durable:
                os.fdatasync(self._file.fileno()) if hasattr(os, "fdatasync") else os.fsync(self._file.fileno())
        except OSError:
            self._cut()
            raise
        self._torn, self._end = False, begin + len(line)
        return begin

    def _cut(self) -> None:
        """Take half a line back."""
        try:
            self._file.truncate(self._end)
            self._file.seek(self._end)
        except OSError:
            end = self._file.seek(0, os.SEEK_END)
            self._torn, self._end = self._torn or end > self._end, end


def is_journal(path: Path) -> bool:
    """Whether a file is empty or begins as a journal does; anything else is not to be appended to."""
    with open(path, "rb") as file:
        line = file.readline(_LINE)
    try:
        return not line or json.loads(line)["type"] == "run"
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def write_whole(file: BinaryIO, data: bytes) -> None:
    """Write to an unbuffered file; the rest of a write that was cut short tells why it was.

    Raises:
        OSError: the disk did not take all of it; a part may be there.
    """
    done = 0
    while done < len(data):
        taken = file.write(data[done:])
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done += taken


def _open(path: Path, resume: bool) -> tuple[Path, BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    if resume and path.exists():
        file = open(path, "r+b", buffering=0)  # noqa: SIM115 - held for the whole run
        if _locked(file):
            _mend(file)
            return path, file
        file.close()
        log.warning("uniformity: another run writes to the journal %s; this one gets a file of its own", path)
    for k in range(1, 1000):
        free = path if k == 1 else path.with_stem(f"{path.stem}-{k}")
        try:
            file = open(free, "xb", buffering=0)  # noqa: SIM115
        except FileExistsError:
            continue
        _locked(file)
        return free, file
    raise FileExistsError(f"{path} and 998 more of that name are taken")


def _locked(file: BinaryIO) -> bool:
    """Whether this is the only run that has the file open; the lock goes with the file or the process."""
    deadline = time.monotonic() + _LINGER_S
    while fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        except OSError:  # a file system without locks
            break
        else:
            break
    return True


def _mend(file: BinaryIO) -> None:
    """End the last line, which a crash may have cut: the next must not be lost with it."""
    if file.seek(0, os.SEEK_END) > 0:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def _plain(value: Any) -> Any:
    """Strict JSON has no NaN or infinity: both become null, which is read back as NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
