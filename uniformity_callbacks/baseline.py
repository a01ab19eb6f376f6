"""The threshold of a run's dimensional alert, from an earlier run that was healthy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from uniformity_callbacks.journal import Journal, read_journal
from uniformity_callbacks.rules import CONSTANT_THRESHOLD, PATIENCE, WARMUP_STEPS

SHARE = 0.5
"""Of what a healthy run held, the share at which a run like it counts as collapsed. On digits half of what a healthy
run of the same method and another seed held, at the same learning rate or at half of it, tells 47 of 48 dimensional
collapses and is wrong in none of 160 healthy runs (docs/alert_benchmark.md)."""


def threshold_from(journal: str | Path | Journal, *, layer: str | None = None, share: float = SHARE) -> float:
    """Return the threshold that an earlier, healthy run sets for the dimensional alert of runs like it.

    How many dimensions are few depends on the method: healthy SimCLR keeps 13 of 128 on digits, healthy Zero-CL 73, so
    that no number serves both. A run of the same method, data and layer that went well says what is usual.

    Args:
        journal: of a run that was healthy: a ``.jsonl`` file, or what `read_journal` returned.
        layer: dotted path of the layer, where the run read several.
        share: the part of it at which it is a collapse, in (0, 1).

    Returns:
        ``share`` times the least effective dims, corrected, that the run held for as many readings as the patience (3)
        after the warm-up (step 100): in (0, d).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no journal; the share is not in (0, 1); the run has no such layer, or several and none
            is named; or fewer readings of it after the warm-up than the patience that tell effective dims (outputs that
            are one point have none).

    Example:
        >>> from uniformity_callbacks.panel import Reading
        >>> readings = [Reading(step, "projector", 128, {"effective_dims": 24.0}, 0.0) for step in (100, 150, 200)]
        >>> threshold_from(Journal(readings=readings))
        12.0
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise ValueError(f"share must be a number in (0, 1), got {share!r}")
    name = "the journal" if isinstance(journal, Journal) else repr(str(journal))
    found = journal if isinstance(journal, Journal) else read_journal(journal)
    trained = [reading for reading in found.readings if reading.stage == "train" and reading.dims]
    layers = list(dict.fromkeys(reading.layer for reading in trained))
    if layer is None and len(layers) > 1:
        raise ValueError(f"{name} has several layers, name one of them: {', '.join(layers)}")
    if layer is not None and layer not in layers:
        raise ValueError(f"{name} has no readings of {layer!r}; there are {', '.join(layers) or 'none'}")
    values = [
        reading.values.get("effective_dims", math.nan)
        for reading in trained
        if layer in (None, reading.layer) and reading.step >= WARMUP_STEPS
        if reading.values.get("mean_resultant", 0.0) < CONSTANT_THRESHOLD
    ]
    least = held([value for value in values if math.isfinite(value)], PATIENCE["dimensional"])
    if not least > 0:
        raise ValueError(
            f"{name} sets no threshold: that takes {PATIENCE['dimensional']} readings of effective_dims from step "
            f"{WARMUP_STEPS} on, of outputs that are not one point"
        )
    return share * least


def held(values: Sequence[float], count: int) -> float:
    """Return the least that was held for a number of values in a row; NaN where there are fewer."""
    return min((max(values[k : k + count]) for k in range(len(values) - count + 1)), default=math.nan)
