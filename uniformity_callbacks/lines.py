"""What a journal's lines hold: each record checked once, when it is read, so that nobody else has to."""

from __future__ import annotations

import json
import math
from typing import Any

from uniformity_callbacks.alerts import Alert
from uniformity_callbacks.panel import Reading, spectrum_ranks

NOT_OURS = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What the functions below raise on a line that is not as we write one."""

_INTEGER = 2**63
"""Stores hold steps and milliseconds as 64-bit integers."""


def is_storable(step: Any, seconds: Any) -> bool:
    """Whether stores can hold a step and a time."""
    try:
        _count(step)
        _time(seconds)
    except NOT_OURS:
        return False
    return True


def record_of(line: bytes) -> tuple[str, dict[str, Any]]:
    """Return the kind of a line's record, and the rest of it."""
    record = json.loads(line)
    return record.pop("type"), record


def run_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return what is said at the start of a run; all of it may be missing."""
    _each("id and prefix are words", str, [record[name] for name in ("id", "prefix") if name in record])
    _each("layers are a list", list, [record.get("layers", [])])
    _each("layers are names", str, record.get("layers", []))
    _each("alerts are a list", list, [record.get("alerts", [])])
    if "time" in record:
        _time(record["time"])
    return record


def reading_of(record: dict[str, Any]) -> Reading:
    """Return a reading."""
    values = {name: _number(value) for name, value in record["values"].items()}
    words = record["layer"], record.get("stage", ""), record.get("why", "")
    _each("layer, stage and why are words", str, words)
    _count(record["step"])
    _count(record["dims"])
    _time(record["time"])
    eigenvalues = tuple(_number(value) for value in record.get("spectrum", ()))
    if eigenvalues and len(eigenvalues) != len(spectrum_ranks(record["dims"])):
        raise ValueError("a spectrum has as many values as ranks")
    return Reading(**{**record, "values": values, "spectrum": eigenvalues})


def alert_of(record: dict[str, Any]) -> Alert:
    """Return an alert, or the end of one."""
    readings, threshold = tuple(_number(value) for value in record["readings"]), _number(record["threshold"])
    words = (record[name] for name in ("kind", "action", "layer", "message"))
    _each("kind, action, layer and message are words", str, words)
    _each("recovered is true or false", bool, [record.get("recovered", False)])
    _count(record["step"])
    _count(record["since"])
    return Alert(**{**record, "readings": readings, "threshold": threshold})


def _each(rule: str, kind: type, values: Any) -> None:
    if not all(isinstance(value, kind) for value in values):
        raise TypeError(rule)


def _number(value: Any) -> float:
    """Return a number as it was before it was written: what was not finite is null."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("a value is a number")
    return float(value)


def _count(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("a step and a dimension are whole numbers")
    if not 0 <= value < _INTEGER:
        raise ValueError("a step or dimension is out of all bounds")


def _time(value: Any) -> None:
    if not 0 <= _number(value) < _INTEGER / 1000:  # and not NaN
        raise ValueError("a time is out of all bounds")
