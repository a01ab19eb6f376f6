"""What is read where a reading takes longer than the time between two due steps allows: plain logic, times in."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from uniformity_callbacks.sample_size import LEAST_ROWS

Overload = Literal["skip", "subsample"]
"""What gives way: due steps are passed over, or rows are left out."""

SHARE = 0.5
"""Share of the time that the reader may be busy: it runs beside the training, on the same cores."""

SHORT_S = 0.1
"""A reading so short is never too long, however short the interval: who reads every step of a loop of milliseconds
wants each of them, and a due step waits no longer than that for the reading before it. Small models read in some
milliseconds; ten times as long where processes share the cores (0.05 s measured)."""

_LAST = 3
"""Readings by which the load is judged: a single one that is out of the way, as a process's first, does not count."""

_MARGIN = 2
"""How far below the bound the load must be to read more again, or it would go to and fro."""

_RISE = 8
"""How much longer a reading may take with twice the rows: the eigenvalues of (n, n) are of third order."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of a due step.

    Attributes:
        reads: whether it is read.
        thinning: of each view one of so many rows is.
        told: what has changed, in words, or nothing.
    """

    reads: bool
    thinning: int = 1
    told: str = ""


class Load:
    """Decides how much is read, from what readings take and how often one is due.

    Args:
        overload: what gives way first. Where no rows are left to leave out, due steps are passed over in either case.

    Attributes:
        every: one of so many due steps is read, a power of two.
        thinning: of each view one of so many rows is, a power of two.
    """

    def __init__(self, overload: Overload = "skip") -> None:
        self.every = self.thinning = 1
        self._overload = overload
        self._intervals: deque[float] = deque(maxlen=5)  # between due steps, in seconds
        self._took: deque[float] = deque(maxlen=_LAST)  # the readings since the last change, in seconds
        self._before: float | None = None  # when the last step was due
        self._waited = 0.0  # what training has waited for readings since
        self._passed = 0  # due steps since the last that was read
        self._open: dict[int, list[float]] = {}  # by step: captures that are to be read, and what those before took
        self._running: tuple[int, float] | None = None  # step of the capture that is being read, and since when
        self._late = False  # the last reading was not done in time
        self._missed = False  # at the last due step something was not caught

    @property
    def is_high(self) -> bool:
        """Whether something gives way: then no due step waits for the reading before it."""
        return self.every > 1 or self.thinning > 1 or self._late

    def waited(self, seconds: float) -> None:
        """Take it that training waited so long for readings, which is no part of the interval."""
        self._waited += seconds

    def began(self, step: int, now: float) -> None:
        """Take it that the reading of a capture begins at ``now``, in seconds."""
        self._running = step, now

    def ended(self, step: int, now: float) -> None:
        """Take it that the reading that began last is done."""
        assert self._running is not None, "a reading begins before it ends"
        since, self._running = self._running[1], None
        self._leave(step, now - since)

    def dropped(self, step: int) -> None:
        """Take it that a capture is not read after all."""
        self._leave(step, 0.0)

    def _leave(self, step: int, seconds: float) -> None:
        if step in self._open:
            self._open[step][0] -= 1
            self._open[step][1] += seconds
            if self._open[step][0] == 0:
                self._took.append(self._open.pop(step)[1])

    def due(self, step: int, now: float, rows: Sequence[int | None]) -> Verdict:
        """Return what becomes of a due step.

        One at which something was not caught is read in any case, and so is the one after it: a layer that is not seen
        is told as soon as ever, and one that is seen again is no longer taken for blind.

        Args:
            step: its number.
            now: its time, in seconds.
            rows: for each of its captures the fewest rows of a view that can be left out, 0 if none can; None if
                nothing was caught.
        """
        if self._before is not None:
            self._intervals.append(max(now - self._before - self._waited, 1e-6))
        self._before, self._waited = now, 0.0
        least = min((n for n in rows if n is not None), default=0)
        late, missed, self._missed = self._is_late(now), self._missed, None in rows
        if late:
            told = "" if self._late else self._tell_late(step, now)
            self._late = True
        else:
            told, self._late = self._judge(least), False
        self._passed += 1
        if not (missed or self._missed) and (late or self._passed < self.every):
            return Verdict(False, told=told)
        self._passed = 0
        if not self._missed:  # or its time would be that of nothing
            self._open[step] = [len(rows), 0.0]
        return Verdict(True, max(1, min(self.thinning, least // LEAST_ROWS)), told)

    @property
    def _interval(self) -> float:
        return median(self._intervals) if self._intervals else math.inf

    def _needed(self, seconds: float) -> float:
        """Return of how many due steps one may be read if a reading takes so long."""
        return seconds / (SHARE * self._interval)

    def _is_high(self, seconds: float) -> bool:
        return seconds > SHORT_S and self._needed(seconds) > self.every

    def _is_late(self, now: float) -> bool:
        step, since = self._running or (-1, now)
        return step in self._open and self._is_high(now - since + self._open[step][1])

    def _judge(self, rows: int) -> str:
        """Read less, or more again, by the last readings; return what has changed, in words."""
        took = list(self._took)
        typical = median(took) if len(took) == _LAST else 0.0
        if self._late and took:
            typical = max(typical, took[-1])
        if self._is_high(typical):
            self._read_less(typical, rows)
        elif not (len(took) == _LAST and self.is_high and self._read_more(max(took))):
            return ""
        self._took.clear()
        return self._tell(typical)

    def _read_less(self, seconds: float, rows: int) -> None:
        most = _power(rows / LEAST_ROWS, up=False) if self._overload == "subsample" else 1
        if self.thinning < most:
            # As if of second order: of a lower one it takes another time, of a higher one rows come back.
            self.thinning = min(most, self.thinning * _power(math.sqrt(self._needed(seconds) / self.every)))
        else:
            self.every = _power(self._needed(seconds))

    def _read_more(self, seconds: float) -> bool:
        before = self.every, self.thinning
        if self.every > 1:
            wanted = _MARGIN * self._needed(seconds) if seconds > SHORT_S / _MARGIN else 1.0
            self.every = min(self.every, _power(wanted))
        elif _RISE * seconds <= max(SHORT_S, SHARE * self._interval):
            self.thinning = max(1, self.thinning // 2)
        return before != (self.every, self.thinning)

    def _tell(self, seconds: float) -> str:
        which = "every due step" if self.every == 1 else f"one of {self.every} due steps"
        what = "" if self.thinning == 1 else f", one of {self.thinning} rows of it"
        mend = "" if self.every == self.thinning == 1 else f"; {self._mend}"
        return f"a reading takes {_s(seconds)}, one is due every {_s(self._interval)}: {which} is read now{what}{mend}"

    def _tell_late(self, step: int, now: float) -> str:
        assert self._running is not None, "late is a reading that runs"
        running, since = self._running
        return (
            f"the reading of step {running} has taken {_s(now - since)} by step {step}, one is due every "
            f"{_s(self._interval)}: due steps are passed over until it is done; {self._mend}"
        )

    @property
    def _mend(self) -> str:
        other = 'overload="subsample", which leaves out rows' if self._overload == "skip" else 'overload="skip"'
        return f"choose a larger every_n_steps, fewer metrics or {other}"


def _power(least: float, *, up: bool = True) -> int:
    """Return the power of two next to a number, at least 1."""
    exponent = math.log2(max(least, 1.0))
    return 1 << (math.ceil(exponent - 1e-9) if up else math.floor(exponent + 1e-9))


def _s(seconds: float) -> str:
    return f"{seconds:.3g} s"
