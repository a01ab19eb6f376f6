"""Of several callbacks for one thing in a Trainer one acts, and the others' hooks do nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Hook = TypeVar("Hook", bound=Callable[..., None])


def if_acting(hook: Hook) -> Hook:
    """Have a hook do nothing unless its callback ``acts``."""

    @functools.wraps(hook)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.acts:
            hook(self, *args, **kwargs)

    return guarded  # type: ignore[return-value]


def acts(callback: Any, trainer: Any, kind: type[Any]) -> bool:
    """Return whether a callback is the one of its kind that acts in a Trainer.

    Those that a factory added step aside for any of the user's own; of several with one prefix the first acts.
    """
    wanted = [each for each in trainer.callbacks if isinstance(each, kind) and each.wanted]
    rivals = [each for each in wanted if not each.added] or wanted
    return callback is next((each for each in rivals if each.monitor.prefix == callback.monitor.prefix), None)
