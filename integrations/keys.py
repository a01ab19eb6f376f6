"""Metric keys as MLflow takes them: a name of each key that is always the same and no other key's."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterable

_FORBIDDEN = re.compile(r"[^/\w.\- :]")
"""What MLflow has in no name of a metric, parameter or tag."""

_LENGTH = 250
"""Characters that MLflow takes in a name."""

_DIGITS = 12
"""Of the hash that a changed key ends in: two of a million keys that look alike agree by one chance in 500."""


def mlflow_key(key: str) -> str:
    """Return the key itself where MLflow takes it, else a name that it takes.

    MLflow takes letters, digits, ``_ - . :``, spaces and slashes, 250 characters, which read as a path must be a plain
    one: not ``/a``, ``a//b``, ``a/../b``. All else becomes ``_``, and the name ends in a hash of the key, so that keys
    which differ in these characters alone have names that differ. It depends on the key alone, not on what others are
    there.

    Args:
        key: any string.

    Example:
        >>> mlflow_key("uniformity/projector.0/w2")
        'uniformity/projector.0/w2'
        >>> mlflow_key("uniformity/heads[0]/w2")
        'uniformity/heads_0_/w2-c5a683a2b251'
    """
    if _taken(key):
        return key
    parts = ["_" if part in ("", ".", "..") else part for part in _FORBIDDEN.sub("_", key).split("/")]
    parts[0] = re.sub(r"^\.\.", "__", parts[0])  # MLflow has it for a way up, whatever follows
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{'/'.join(parts)[: _LENGTH - _DIGITS - 1]}-{digest[:_DIGITS]}"


def mlflow_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return `mlflow_key` of each key."""
    return {key: mlflow_key(key) for key in keys}


def _taken(key: str) -> bool:
    if len(key) > _LENGTH or _FORBIDDEN.search(key) is not None:
        return False
    return posixpath.normpath(key) == key and key != "." and not key.startswith(("..", "/"))
