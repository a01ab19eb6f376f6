"""What a monitor remembers beyond the process, in a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from uniformity_callbacks.faults import Faults
from uniformity_callbacks.reader import Outcome, Reader
from uniformity_callbacks.records import Records
from uniformity_callbacks.responder import Responder

log = logging.getLogger("uniformity_callbacks")

_VERSION = 1
"""Of the state's layout."""


class Memory:
    """Saves and restores what alerts, journal and writers need to go on. Neither ever raises.

    Args:
        responder: remembers readings and alerts.
        records: remember journal and writers.
        faults: takes what cannot be saved or restored.
    """

    def __init__(self, responder: Responder, records: Records, faults: Faults) -> None:
        self._responder, self._records, self._faults = responder, records, faults

    def state_dict(self, reader: Reader | None, timeout: float) -> dict[str, Any]:
        """Return the state as plain values, readings under way included; what fails of it is left out.

        Args:
            reader: of the run, if there is one.
            timeout: seconds to wait at most for the readings under way.
        """
        state: dict[str, Any] = {"version": _VERSION}
        try:
            waiting: list[Outcome] = []
            if reader is not None:
                reader.settle(timeout)
                waiting = reader.uncollected()
            state |= self._responder.state_dict(waiting)
        except Exception as error:  # a checkpoint is worth more
            self._faults.add("its alerts could not be saved", error)
        try:
            state |= self._records.state_dict()
        except Exception as error:
            self._faults.add("its journal and writers could not be saved", error)
        return state

    def load_state_dict(self, state: Any) -> None:
        """Take up a state of this version or another, as far as that goes; what cannot be read is reported and left."""
        version = state.get("version") if isinstance(state, Mapping) else None
        if version != _VERSION:
            told = "uniformity: its state is of version %s, this release's is %s; it is read as far as that goes"
            log.warning(told, version, _VERSION)
        parts = {"alerts": self._responder.load_state_dict, "journal and writers": self._records.load_state_dict}
        for part, load in parts.items():
            try:
                load(state)
            except Exception as error:  # a run must resume all the same
                self._faults.add(f"its state could not be restored, {part} begin anew", error)
