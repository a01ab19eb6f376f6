"""Of several callbacks for one thing in a Trainer one acts, and the others' hooks do nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

Hook = TypeVar("Hook", bound=Callable[..., None])


class Acting(Protocol):
    """A callback that knows whether it is the one."""

    acts: bool


def if_acting(hook: Hook) -> Hook:
    """Have a hook do nothing where another callback of the Trainer acts in this one's place."""

    @functools.wraps(hook)
    def guarded(self: Acting, *args: Any, **kwargs: Any) -> None:
        if self.acts:
            hook(self, *args, **kwargs)

    return guarded  # type: ignore[return-value]
