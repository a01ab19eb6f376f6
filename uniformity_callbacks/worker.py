"""A thread that works off a bounded queue, for what must not hold up training."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from uniformity_callbacks.threads import interrupt

T = TypeVar("T")


class Worker(Generic[T]):
    """Calls ``work(items)`` for what is put, in order, on a thread of its own.

    The thread is a daemon: one that hangs in a dead server must not keep the process from ending. It starts with the
    first item and outlives what ``work`` raises. ``work`` may take out of its list what is done: only the rest counts
    as left where the worker is closed meanwhile.

    Args:
        work: called on the thread with a list of items.
        name: the thread's name.
        capacity: items that may wait; `put` refuses more.
        failed: told what ``work`` raises, whose items are gone then.
        begin: called on the thread before all.
        at_most: items of a call.
        rest: seconds from one call to the next in which items gather, unless there is a hurry.
    """

    def __init__(
        self,
        work: Callable[[list[T]], None],
        *,
        name: str,
        capacity: int,
        failed: Callable[[Exception], None],
        begin: Callable[[], None] | None = None,
        at_most: int = 1,
        rest: float = 0.0,
    ) -> None:
        self._work, self._name, self._capacity, self._begin = work, name, capacity, begin
        self._at_most, self._rest, self._failed = at_most, rest, failed
        self._items: deque[T] = deque()
        self._hurry = False
        self._hand: list[T] = []
        self._busy = 0  # items that are being worked on
        self._closing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, item: T, *, hurry: bool = False, beyond: bool = False) -> bool:
        """Queue an item without waiting; return False, with nothing queued, if the queue is full or closed.

        Args:
            item: what to queue.
            hurry: do not rest before it.
            beyond: take it even if the queue is full.
        """
        with self._changed:
            if self._closing or (len(self._items) >= self._capacity and not beyond):
                return False
            self._items.append(item)
            self._hurry |= hurry
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
                _started.add(self)
            self._changed.notify_all()
            return True

    def settle(self, timeout: float) -> bool:
        """Wait until all items are worked off, at most ``timeout`` seconds; return whether they are."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._items and not self._busy, timeout)

    def close(self, timeout: float) -> int:
        """Take no more items, wait at most ``timeout`` seconds, and return how many were not worked off."""
        deadline = time.monotonic() + timeout
        self.settle(timeout)
        with self._changed:
            left = len(self._items) + len(self._hand)
            self._items.clear()
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
        return left

    def abandon(self, timeout: float) -> bool:
        """After `close`: end the thread amid what it still does; return whether it ended within ``timeout`` seconds."""
        return self._thread is None or interrupt(self._thread, timeout)

    @property
    def waits(self) -> bool:
        """Whether items are queued."""
        return bool(self._items)

    @property
    def closed(self) -> bool:
        """Whether it takes no more items."""
        return self._closing

    def pause(self, seconds: float) -> bool:
        """From within ``work``: wait, less where there is a hurry; return False if the worker was closed meanwhile."""
        with self._changed:
            self._hurry = False
            self._changed.wait_for(lambda: self._hurry or self._closing, seconds)
            return not self._closing

    def _run(self) -> None:
        with suppress(SystemExit):  # `abandon`
            self._serve()

    def _serve(self) -> None:
        if self._begin is not None:
            self._begin()
        rested = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._items) or self._closing)
                self._changed.wait_for(lambda: self._hurry or self._closing, max(0.0, rested - time.monotonic()))
                if not self._items:
                    return
                self._hand = items = [self._items.popleft() for _ in range(min(self._at_most, len(self._items)))]
                self._hurry &= bool(self._items)
                self._busy = len(items)
            try:
                self._work(items)
            except Exception as error:
                self._failed(error)
            finally:
                del items  # a sample is not kept alive until the next one comes
                self._hand = []
                rested = time.monotonic() + self._rest
                with self._changed:
                    self._busy = 0
                    self._changed.notify_all()


_started: weakref.WeakSet[Worker[Any]] = weakref.WeakSet()

_EXIT_S = 0.2
"""What those that are still at work when the process exits have together to end."""


@atexit.register
def _end_all() -> None:
    """End what is amid its work; run after what closes workers at exit, which is registered later."""
    threads = [worker._thread for worker in _started if worker._busy and worker._thread is not None]
    for thread in threads:
        interrupt(thread, 0.0)
    deadline = time.monotonic() + _EXIT_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
