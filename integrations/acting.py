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
