"""Of several callbacks for one thing in a Trainer one acts, and the others' hooks do nothing."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable
from typing import Any, TypeVar

from uniformity_callbacks.integrations.packages import pl
from uniformity_callbacks.monitor import UniformityMonitor

Hook = TypeVar("Hook", bound=Callable[..., None])

_instances = itertools.count(1)


def if_acting(hook: Hook) -> Hook:
    """Have a hook do nothing unless its callback ``acts``."""

    @functools.wraps(hook)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.acts:
            hook(self, *args, **kwargs)

    return guarded  # type: ignore[return-value]


def harmless(hook: Hook) -> Hook:
    """The same for a hook that comes within training: once that goes on, only an alert's error leaves it."""

    @functools.wraps(hook)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> None:
        if not self.acts:
            return
        try:
            hook(self, *args, **kwargs)
        except Exception as error:
            self.monitor.absorb(hook.__name__, error)

    return guarded  # type: ignore[return-value]


class OneOfSeveral(pl.Callback):
    """A callback with a monitor, one of which acts in a Trainer for each prefix of metric keys, and keeps its state.

    Those that a factory added step aside for any of the user's own; of several with one prefix the first acts.
    """

    monitor: UniformityMonitor

    added = False
    """Whether a factory among Lightning's entry points made it: such a one steps aside for the user's own."""

    wanted = True
    """Whether anybody asked for it; one that a factory added learns of that in `setup`."""

    def __init__(self) -> None:
        super().__init__()
        self.acts = not self.added
        self._number = next(_instances)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Decide whether it acts; before a state is restored, whose key depends on it."""
        if stage == "fit":
            several: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # no annotation of Lightning's tells it
            wanted = [each for each in several if isinstance(each, OneOfSeveral) and each.wanted]
            rivals = [each for each in wanted if not each.added] or wanted
            self.acts = self is next((each for each in rivals if each.monitor.prefix == self.monitor.prefix), None)

    @property
    def state_key(self) -> str:
        """Tells apart the states of two callbacks in one Trainer: the user's must have different prefixes."""
        if not self.added:
            return self._family
        return f"{self._family}.{'added' if self.acts else self._number}"

    @property
    def _family(self) -> str:
        return f"UniformityCallback[{self.monitor.prefix}]"

    def state_dict(self) -> dict[str, Any]:
        """Return the monitor's state as plain values; nothing where another one acts."""
        try:
            return self.monitor.state_dict() if self.acts else {}
        except Exception as error:  # a checkpoint is worth more
            self.monitor.faults.add("state_dict", error)
            return {}

    def load_state_dict(self, state_dict: Any) -> None:
        """Take up what `state_dict` returned."""
        self.monitor.load_state_dict(state_dict)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take up the state of the one that acted, if that was another one: the user's own, or one that was added."""
        states = {str(key): state for key, state in checkpoint.get("callbacks", {}).items()}
        if self.acts and self.state_key not in states:
            for key, state in states.items():
                if key.startswith(self._family):
                    self.load_state_dict(copy.deepcopy(state))
