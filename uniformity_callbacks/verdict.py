"""What one reading says of collapse, in words: by the thresholds of the alerts, without their patience."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from uniformity_callbacks.panel import Reading
from uniformity_callbacks.rules import METRIC, CollapseAlert
from uniformity_callbacks.sample import REPEATS_TOLD
from uniformity_callbacks.sample_size import LEAST_ROWS
from uniformity_callbacks.wording import MENDS, TITLES, means, w2

Finding = Literal["constant", "dimensional", "none", "unknown"]

_ASKED: tuple[Literal["constant", "dimensional"], ...] = ("constant", "dimensional")
"""In this order: near one point the number of dimensions means nothing."""

MODES = (
    "Eval mode, in which embeddings are usually written, reads differently from train mode, in which a run is watched: "
    "a fresh small encoder with BatchNorm reads a W2 of 0.83 and a mean resultant length of 0.57 in train mode, 1.41 "
    "and 0.9998 in eval mode. Compare like with like."
)
"""To be said beside numbers whose mode is not that of what they are compared with (measured)."""


@dataclass(frozen=True)
class Verdict:
    """What a reading says of collapse.

    Attributes:
        kind: "constant" (close to one point), "dimensional" (few dimensions in use), "none" (neither was found), or
            "unknown" (the reading cannot tell).
        title: the same in words.
        words: what was seen, against which threshold, and what it means; one to four sentences.
    """

    kind: Finding
    title: str
    words: str


def verdict(reading: Reading, *, repeated: float = 0.0) -> Verdict:
    """Return what a reading says of collapse.

    The thresholds are those of `CollapseAlert`. A single reading has neither a patience nor a level of its own run.

    Args:
        reading: as `UniformityMonitor` or a journal has it; ``layer`` is what the words call the outputs.
        repeated: share of the rows that repeat another, if it is known. Above 1 % effective dims read too few, and a
            dimensional collapse is not told from that.

    Example:
        >>> values = {"mean_resultant": 0.99, "effective_dims": 80.0, "w2": 1.37, "samples": 512.0, "nonfinite": 0.0}
        >>> verdict(Reading(0, "projector", 128, values, 0.0)).title
        'constant collapse'
    """
    for kind in _ASKED:
        rule = CollapseAlert(kind)
        if reason := _untold(rule, reading):
            return _found("unknown", "cannot tell", reason, reading)
        value = rule.value(reading)
        assert value is not None, "it is told"
        limit = rule.limit(reading)
        if not rule.collapsed(value, limit):
            continue
        if kind == "dimensional" and repeated > REPEATS_TOLD:
            return _found("unknown", "cannot tell", _repeats(value, repeated, reading), reading)
        seen = f"{means(kind, reading, value)}: {METRIC[kind]} {value:.4g}, threshold {limit:.3g}{w2(reading)}"
        if not reading.values["samples"]:
            seen = f"every finite row of {reading.layer} is zero"
        return _found(kind, TITLES[kind], f"{seen}. What people do about it: {MENDS[kind]}", reading)
    point, dims = (
        f"{METRIC[kind]} {reading.values[METRIC[kind]]:.4g}, threshold {CollapseAlert(kind).limit(reading):.3g}"
        for kind in _ASKED
    )
    seen = (
        f"the outputs of {reading.layer} are not close to one point ({point}; 1 is one point) and use more than few of "
        f"their {reading.dims} dimensions ({dims}){w2(reading)}"
    )
    return _found("none", "no collapse found", seen, reading)


def _found(kind: Finding, title: str, words: str, reading: Reading) -> Verdict:
    rule = CollapseAlert("nonfinite")
    bad = rule.value(reading)
    if bad is not None and rule.collapsed(bad, rule.limit(reading)) and reading.values["samples"]:
        words += f". {means('nonfinite', reading, bad)}"
    return Verdict(kind, title, words + ".")


def _untold(rule: CollapseAlert, reading: Reading) -> str:
    """Return why a reading has nothing to say of a kind; nothing where it has."""
    values, name, layer = reading.values, METRIC[rule.kind], reading.layer
    if reading.dims == 0:
        return f"nothing of {layer} was read{': ' * bool(reading.why)}{reading.why}"
    samples = values["samples"]
    if samples == 1:
        return f"{layer} has one row that is finite and not zero, which tells nothing of a spread"
    if rule.value(reading) is not None:
        return ""
    if name in values and not samples and rule.kind == "constant":
        bad = values["nonfinite"]
        return f"all {bad:,.0f} rows of {layer} are NaN or infinite" if bad else f"{layer} has no rows"
    if name not in values and rule.kind == "dimensional" and samples:
        near = values.get("mean_resultant", math.nan)
        return (
            f"{layer} is not close to one point (mean_resultant {near:.4g}; 1 is one point), but how many dimensions "
            f"are in use is told by at least {LEAST_ROWS} rows of a view, and there are {samples:,.0f} rows in all"
        )
    return f"the reading of {layer} has no {name}"


def _repeats(value: float, repeated: float, reading: Reading) -> str:
    return (
        f"effective_dims of {reading.layer} read {value:.4g} of {reading.dims}, but {repeated:.1%} of the rows repeat "
        "another to the last bit, for which they read too few: leave repeats out and measure again. If it is the model "
        "that made equal rows of different inputs, they are a collapse to as many points"
    )
