"""A thread that works off a bounded queue, for what must not hold up training."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Worker(Generic[T]):
    """Calls ``work(item)`` for each item put, in order, on a thread of its own.

    The thread is a daemon: one that hangs in a dead server must not keep the process from ending. It starts with the
    first item. ``work`` must not raise; it handles its own errors.

    Args:
        work: called on the thread.
        name: the thread's name.
        capacity: items that may wait; `put` refuses more.
        begin: called on the thread before all.
    """

    def __init__(
        self, work: Callable[[T], None], *, name: str, capacity: int, begin: Callable[[], None] | None = None
    ) -> None:
        self._work, self._name, self._capacity, self._begin = work, name, capacity, begin
        self._items: deque[T] = deque()
        self._busy = False
        self._closing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, item: T) -> bool:
        """Queue an item without waiting; return False, with nothing queued, if the queue is full or closed."""
        with self._changed:
            if self._closing or len(self._items) >= self._capacity:
                return False
            self._items.append(item)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return True

    def settle(self, timeout: float) -> bool:
        """Wait until all items are worked off, at most ``timeout`` seconds; return whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._items and not self._busy, timeout)

    def close(self, timeout: float) -> int:
        """Take no more items, wait at most ``timeout`` seconds, and return how many were not worked off."""
        deadline = time.monotonic() + timeout
        self.settle(timeout)
        with self._changed:
            left = len(self._items) + self._busy
            self._items.clear()
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
        return left

    def _run(self) -> None:
        if self._begin is not None:
            self._begin()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._items) or self._closing)
                if not self._items:
                    return
                item = self._items.popleft()
                self._busy = True
            try:
                self._work(item)
            finally:
                del item  # a sample is not kept alive until the next one comes
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
