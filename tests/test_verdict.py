"""What a reading says of collapse."""

import math

import pytest

from uniformity_callbacks import CollapseAlert, Reading
from uniformity_callbacks.glossary import GLOSSARY
from uniformity_callbacks.panel import COUNTS, METRICS
from uniformity_callbacks.rules import CONSTANT_THRESHOLD, DIMENSIONAL_THRESHOLD
from uniformity_callbacks.verdict import verdict

GOOD = {"mean_resultant": 0.1, "effective_dims": 80.0, "std_ratio": 0.97, "w2": 0.5, "samples": 512.0, "nonfinite": 0.0}


def reading(dims=128, why="", without=(), **changed):
    values = {name: value for name, value in {**GOOD, **changed}.items() if name not in without}
    return Reading(0, "projector", dims, values, 0.0, why=why)


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("none", {}),
        ("none", {"mean_resultant": CONSTANT_THRESHOLD - 1e-9, "effective_dims": 12.0 + 1e-9}),
        ("dimensional", {"mean_resultant": CONSTANT_THRESHOLD - 1e-9, "effective_dims": 12.0}),
        ("none", {"mean_resultant": 0.0, "effective_dims": DIMENSIONAL_THRESHOLD + 1e-9}),
        ("constant", {"mean_resultant": CONSTANT_THRESHOLD}),
        ("dimensional", {"effective_dims": DIMENSIONAL_THRESHOLD}),
        ("constant", {"mean_resultant": 0.99, "effective_dims": math.nan}),
        ("constant", {"mean_resultant": 0.99, "effective_dims": 2.0}),  # where dims mean nothing
        ("constant", {"mean_resultant": 0.99, "samples": 2.0, "without": ["effective_dims"]}),
        ("none", {"effective_dims": 5.0, "dims": 16}),  # a quarter of 16 is 4
        ("dimensional", {"effective_dims": 4.0, "dims": 16}),
        ("none", {"effective_dims": 8.0, "samples": 25.0}),  # a quarter of 24 is 6
        ("unknown", {"dims": 0, "why": "it was not called", "samples": 0.0}),
        ("unknown", {"mean_resultant": 1.0, "samples": 1.0}),
        ("unknown", {"samples": 8.0, "without": ["effective_dims"]}),
        ("unknown", {"mean_resultant": math.nan, "effective_dims": math.nan, "samples": 0.0, "nonfinite": 64.0}),
        ("unknown", {"mean_resultant": math.nan, "effective_dims": math.nan, "samples": 0.0}),
        ("unknown", {"without": ["mean_resultant"]}),
        ("unknown", {"effective_dims": math.nan}),
    ],
)
def test_kinds(kind, changed):
    assert verdict(reading(**changed)).kind == kind


@pytest.mark.parametrize("dims", [1, 2, 16, 128, 4096])
@pytest.mark.parametrize("value", [0.5, 3.9, 8.9, 9.1, 100.0])
def test_the_line_is_that_of_the_alert(dims, value):
    rule, read = CollapseAlert("dimensional"), reading(dims=dims, effective_dims=value)
    collapsed = rule.collapsed(value, rule.limit(read))
    assert verdict(read).kind == ("dimensional" if collapsed else "none")


def test_repeated_rows_leave_few_dimensions_open_and_nothing_else():
    few, point = reading(effective_dims=5.0), reading(mean_resultant=0.999)
    assert verdict(few, repeated=0.01).kind == "dimensional"
    found = verdict(few, repeated=0.02)
    assert (found.kind, found.title) == ("unknown", "cannot tell")
    assert "read 5 of 128, but 2.0% of the rows repeat another to the last bit" in found.words
    assert verdict(reading(), repeated=0.5).kind == "none"  # they read too few
    assert verdict(point, repeated=0.999).kind == "constant"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "(mean_resultant 0.1, threshold 0.95; 1 is one point) and use more than few of their 128 dimensions "),
        ({}, "(effective_dims 80, threshold 9.09); W2 0.500 (0 is ideal, 1.414 one point)."),
        ({"mean_resultant": 0.998}, "the outputs of projector are close to one point (mean resultant length 1 is one"),
        ({"mean_resultant": 0.998}, "mean_resultant 0.998, threshold 0.95; W2 0.500"),
        ({"mean_resultant": 0.998}, "What people do about it: stop-gradient or a predictor"),
        ({"effective_dims": 5.0}, "use 5.0 of 128 dimensions; std_ratio, blind to it, reads 0.97: effective_dims 5,"),
        ({"effective_dims": 5.0}, "What people do about it: a decorrelation term"),
        ({"nonfinite": 12.0}, "). 12 of 524 rows of projector are NaN or infinite; they are left out of the metrics."),
        ({"mean_resultant": 1.0, "samples": 0.0}, "every finite row of projector is zero"),
        ({"dims": 0, "why": "it was not called"}, "nothing of projector was read: it was not called."),
        ({"dims": 0}, "nothing of projector was read."),
        ({"mean_resultant": 1.0, "samples": 1.0}, "projector has one row that is finite and not zero"),
        ({"samples": 8.0, "without": ["effective_dims"]}, "at least 16 rows of a view, and there are 8 rows in all."),
        (
            {"mean_resultant": math.nan, "effective_dims": math.nan, "samples": 0.0, "nonfinite": 64.0},
            "all 64 rows of projector are NaN or infinite.",
        ),
        ({"mean_resultant": math.nan, "effective_dims": math.nan, "samples": 0.0}, "projector has no rows."),
        ({"without": ["mean_resultant"]}, "the reading of projector has no mean_resultant."),
    ],
)
def test_words(changed, words):
    assert words in verdict(reading(**changed)).words


def test_the_glossary_has_each_number_of_a_reading():
    assert tuple(GLOSSARY) == (*METRICS, *COUNTS, "aux_loss", "aux_weight")
    assert all(entry.what for entry in GLOSSARY.values())
