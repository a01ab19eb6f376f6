"""What Lightning's entry points call for every Trainer: a callback where it is asked for, else nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from uniformity_callbacks.integrations import solo_learn

if TYPE_CHECKING:
    from uniformity_callbacks.integrations.added import AddedCallback

VARIABLE = "UNIFORMITY_CALLBACKS"
"""Environment variable that asks for the callback: keys (``every_n_steps=50,alerts=stop``), ``on`` or ``off``."""


def callbacks() -> list[AddedCallback]:
    """Return the callback to add to a Trainer: one where solo-learn is loaded or the variable is set, else none.

    The groups of its entry points are ``lightning.pytorch.callbacks_factory`` and
    ``pytorch_lightning.callbacks_factory``.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if text.lower() in ("off", "0", "false") or not (text or solo_learn.is_loaded()):
        return []
    # Not before it is wanted: this function is called in scripts that have nothing to do with us.
    from uniformity_callbacks.integrations.added import AddedCallback

    return [AddedCallback(text)]
