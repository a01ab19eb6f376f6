"""Names: of metrics in loggers, and answers to one that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean a or b?", or what is known where nothing is near."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"


def key_of(prefix: str, stage: str, layer: str | None = None) -> str:
    """Return what a reading's metric names are appended to: ``uniformity/``, ``uniformity/val/projector/``.

    Args:
        prefix: as the user chose it.
        stage: "train" or "val".
        layer: dotted path where there are several layers.
    """
    parts = [prefix, *([] if stage == "train" else [stage]), *([] if layer is None else [layer])]
    return "/".join(parts) + "/"
