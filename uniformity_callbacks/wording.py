"""What an alert says: what was seen, since when, against which threshold, what it means and what people do about it."""

from __future__ import annotations

import math

from uniformity_callbacks.panel import Reading
from uniformity_callbacks.rules import COLLAPSE, METRIC, CollapseAlert, Kind

TITLES: dict[Kind, str] = {
    "constant": "constant collapse",
    "dimensional": "dimensional collapse",
    "nonfinite": "outputs that are not finite",
    "blind": "blind, nothing to read",
}
_MEANS: dict[Kind, str] = {
    "constant": "the outputs of {layer} are close to one point (mean resultant length 1 is one point)",
    "dimensional": "the outputs of {layer} use {value:.1f} of {d} dimensions; std_ratio, blind to it, reads "
    "{std_ratio:.2f}",
    "nonfinite": "{nonfinite:.0f} of {rows:.0f} rows of {layer} are NaN or infinite; they are left out of the metrics",
    "blind": "{why}",
}
MENDS: dict[Kind, str] = {
    "constant": "stop-gradient or a predictor on one branch, a momentum target, negatives, a lower learning rate",
    "dimensional": "a decorrelation term (Barlow Twins, VICReg), another projector, a lower learning rate",
    "nonfinite": "a lower learning rate, gradient clipping, bf16 instead of fp16, a look at the input for NaN",
    "blind": "name the layer whose outputs are trained by layer=, or which of them by output=",
}


def title(kind: str) -> str:
    """Return what a kind of alert is called in a sentence; a kind of another version's is called by its name."""
    return next((said for known, said in TITLES.items() if known == kind), kind)


def message(
    rule: CollapseAlert,
    reading: Reading,
    *,
    since: int,
    recent: tuple[float, ...],
    limit: float,
    level: float | None,
    recovered: bool,
) -> str:
    """Return the text of an alert or of its end, some lines of at most about 110 characters."""
    title, kind = TITLES[rule.kind], rule.kind
    seen = f"{METRIC[kind]} {', '.join(f'{value:.4g}' for value in recent)}"
    if recovered:
        return (
            f"over: {title}, at step {reading.step}; it stood since step {since}\n  seen:  {seen}{_past(kind, limit)}"
        )
    lines = [f"{title} at step {reading.step}, since step {since}"]
    if kind != "blind":
        fell = f", {rule.fall:.0%} of the {level:.1f} that the run had held" if _is_fall(rule, reading, level) else ""
        lines.append(f"  seen:  {seen}, threshold {limit:.3g}{fell}{w2(reading)}")
    lines += [f"  means: {means(kind, reading, recent[-1])}", f"  mends: {MENDS[kind]}"]
    if kind in COLLAPSE:
        lines[-1] += ";"
        lines.append("         or the Wasserstein loss, auxiliary=1.0")
    if rule.action == "stop":
        lines.append("  training stops, as alerts asked")
    return "\n".join(lines)


def means(kind: Kind, reading: Reading, value: float) -> str:
    """Return what it means that a reading has this value of what a kind watches."""
    values = reading.values
    facts = {"layer": reading.layer, "d": reading.dims, "why": reading.why, "value": value}
    facts |= {"std_ratio": values.get("std_ratio", math.nan), "nonfinite": values["nonfinite"]}
    facts["rows"] = values["samples"] + values["nonfinite"]
    return _MEANS[kind].format_map(facts)


def w2(reading: Reading) -> str:
    """Return "; W2 0.123" and how to read it, where a reading has it."""
    return f"; W2 {reading.values['w2']:.3f} (0 is ideal, 1.414 one point)" if "w2" in reading.values else ""


def _past(kind: Kind, limit: float) -> str:
    sides: dict[Kind, str] = {"constant": f", below {limit:.3g}", "dimensional": f", above {limit:.3g}"}
    return sides.get(kind, "")


def _is_fall(rule: CollapseAlert, reading: Reading, level: float | None) -> bool:
    return rule.kind == "dimensional" and rule.limit(reading, level) > rule.limit(reading)
