"""This rank in the company of those it trains with: what it owes them, and what they all know alike."""

from __future__ import annotations

from collections.abc import Sequence

from uniformity_callbacks.epochs import EpochPool
from uniformity_callbacks.gathered import Gathered
from uniformity_callbacks.pool import Pool, Pooled
from uniformity_callbacks.ranks import Message, Ranks, in_words
from uniformity_callbacks.reader import Outcome


class Company:
    """Joins every exchange at its place in a run, whatever went wrong on this rank meanwhile.

    The first rank reads and writes. What it has read is told to all at once, so that all act on it at one step.

    Args:
        ranks: who they are.
        metrics: names of the metrics that are computed.
        scope: "global", or "rank", where the first rank reads its own rows.
    """

    def __init__(self, ranks: Ranks, *, metrics: Sequence[str], scope: str) -> None:
        self.ranks = ranks
        self._shares = scope == "global"
        self._pool, self._epochs = Pool(ranks, metrics=metrics, scope=scope), EpochPool(ranks)
        self._trouble: str | None = None
        self._error: Exception | None = None

    @property
    def reads(self) -> bool:
        """Whether this rank is the one that reads."""
        return self.ranks.is_first

    def note(self, error: Exception, *, fatal: bool) -> None:
        """Remember what went wrong on this rank until the others can be told.

        Args:
            error: what it was.
            fatal: it is to end the run, on all ranks.
        """
        self._trouble = in_words(error)
        if fatal and self._error is None:
            self._error = error

    def begin(self, memory: Message) -> Message:
        """Return what the first rank remembers of the run that is resumed, so that all decide alike from the start.

        Args:
            memory: what this rank remembers, as plain values.

        Raises:
            RuntimeError: as `step`.
        """
        fatal, memory = self._pool.begin({"trouble": self._trouble, "fatal": self._error is not None, "memory": memory})
        self._raise(fatal)
        return memory

    def step(self, gathered: Sequence[Gathered], ready: Sequence[Outcome], *, waits: bool) -> Pooled:
        """Return what all ranks gathered at a due step, and the readings that all have now.

        Args:
            gathered: this rank's, layer by layer.
            ready: readings that this rank has finished.
            waits: whether the reading of this step is to be told at once; the first rank's word counts.

        Raises:
            RuntimeError: something fatal went wrong on another rank; what it was here is raised as it is.
        """
        trouble, self._trouble = self._trouble, None
        pooled = self._pool.step(
            gathered, ready, {"trouble": trouble, "fatal": self._error is not None, "waits": waits}
        )
        self._raise(pooled.fatal)
        return pooled

    def confirm(self) -> None:
        """Have all ranks raise what is fatal on one, when the first step ends.

        Raises:
            RuntimeError: as `step`.
        """
        self.begin({})

    def validation(self, gathered: Sequence[Gathered]) -> list[Gathered]:
        """Return what all ranks gathered in a validation epoch, of the layers that any has called."""
        return self._epochs.pool(gathered) if self._shares else self._pool.presence(gathered)

    def tell(self, ready: Sequence[Outcome]) -> list[Outcome]:
        """Return the readings that the first rank has finished, on all ranks."""
        return self._pool.outcomes(ready)

    def _raise(self, fatal: str | None) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
        if fatal is not None:
            raise RuntimeError(f"UniformityMonitor on {fatal}")
