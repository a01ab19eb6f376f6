"""Where a run is recorded: its journal, and the writers with what they remember."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uniformity_callbacks.faults import Faults
from uniformity_callbacks.feeds import Feed, feeds_of
from uniformity_callbacks.recording import JournalWriter, is_journal
from uniformity_callbacks.writers import Writer, load_writer_states, writer_states

JOURNAL_NAME = "uniformity.jsonl"
"""File name of the journal where none is given."""


class Records:
    """Opens journal and writers for a run, and for the next one where the last left them.

    Args:
        writers: take readings.
        path: of the journal; None for `JOURNAL_NAME` in the run's directory.
        durable: have the disk confirm each record.
        faults: takes what writers raise on being asked for their state.

    Attributes:
        writers: of the next run that is opened.
        path: of the journal, once it is known.
    """

    def __init__(self, writers: Sequence[Writer], path: Path | None, *, durable: bool, faults: Faults) -> None:
        self.writers, self.path = writers, path
        self._durable, self._faults, self._resume = durable, faults, False

    def open(
        self, directory: Path, run: dict[str, Any], *, prefix: str, layered: bool
    ) -> tuple[JournalWriter, list[Feed]]:
        """Open the journal and the writers.

        Args:
            directory: of the run.
            run: what to say of it in the journal; plain values.
            prefix: what the metric keys begin with.
            layered: whether they name the layer.

        Raises:
            ValueError: the journal cannot be written.
        """
        path = self.path or directory / JOURNAL_NAME
        journal = JournalWriter(path, resume=self._resume, run=run, durable=self._durable)
        self.path, self._resume = journal.path, True
        return journal, feeds_of(self.writers, journal, prefix, layered)

    def state_dict(self) -> dict[str, Any]:
        """Return the journal's path and what the writers remember, as plain values."""
        path = None if self.path is None else str(self.path)
        return {"journal": path, "writers": writer_states(self.writers, self._faults)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the writers take up what `state_dict` told, and go on in its journal if that is still there.

        Raises:
            ValueError: the file is there and is no journal: a checkpoint of somebody else's may name any.
        """
        path = None if state["journal"] is None else Path(state["journal"])
        if path is not None and path.exists():
            if not is_journal(path):
                raise ValueError(f"{str(path)!r} is no journal")
            self.path, self._resume = path, True
        load_writer_states(self.writers, state.get("writers", ()), self._faults)
