"""The threshold that a healthy run sets for the runs after it."""

import math

import pytest

from journals import write
from uniformity_callbacks import CollapseAlert, Reading, read_journal, threshold_from
from uniformity_callbacks.baseline import held
from uniformity_callbacks.journal import Journal


def journal(dims, *, layer="projector", stage="train", resultant=0.2, first=100):
    values = [{"effective_dims": value, "mean_resultant": resultant} for value in dims]
    return Journal(
        readings=[Reading(first + 10 * k, layer, 128, one, 0.0, stage=stage) for k, one in enumerate(values)]
    )


def test_half_of_the_least_that_was_held_for_three_readings():
    assert threshold_from(journal([40, 30, 20, 22, 24, 50, 50])) == 12.0  # 20, 22, 24
    assert threshold_from(journal([40, 40, 1, 40, 40, 40])) == 20.0  # one batch can be odd
    assert threshold_from(journal([40, 30, 20, 22, 24, 50, 50]), share=0.25) == 6.0


def test_what_does_not_count():
    early = journal([2.0] * 10, first=0)
    late = journal([30.0, math.nan, 31.0, 32.0])
    validated = journal([2.0] * 5, stage="val")
    one_point = journal([2.0] * 5, resultant=0.96, first=200)
    unseen = Journal(readings=[Reading(300 + k, "projector", 0, {}, 0.0) for k in range(5)])
    whole = Journal(readings=[r for one in (early, late, validated, one_point, unseen) for r in one.readings])
    assert threshold_from(whole) == 16.0


def test_layers():
    both = Journal(readings=journal([30.0] * 4).readings + journal([60.0] * 4, layer="encoder").readings)
    assert threshold_from(both, layer="encoder") == 30.0
    with pytest.raises(ValueError, match="the journal has several layers, name one of them: projector, encoder"):
        threshold_from(both)
    with pytest.raises(ValueError, match="no readings of 'head'; there are projector, encoder"):
        threshold_from(both, layer="head")
    with pytest.raises(ValueError, match="no readings of 'head'; there are none"):
        threshold_from(Journal(), layer="head")


@pytest.mark.parametrize(
    "bad", [Journal(), journal([30.0, 30.0]), journal([30.0] * 9, first=0), journal([30.0] * 5, resultant=0.99)]
)
def test_too_little_to_tell(bad):
    with pytest.raises(ValueError, match="sets no threshold: that takes 3 readings of effective_dims from step 100 on"):
        threshold_from(bad)


@pytest.mark.parametrize("share", [0, 1, -0.5, math.nan, True])
def test_share_is_a_share(share):
    with pytest.raises(ValueError, match=r"share must be a number in \(0, 1\)"):
        threshold_from(journal([30.0] * 4), share=share)


def test_no_file_and_no_journal(tmp_path):
    with pytest.raises(FileNotFoundError):
        threshold_from(tmp_path / "no.jsonl")
    (tmp_path / "a.jsonl").write_text("hello\n")
    with pytest.raises(ValueError, match="is no journal"):
        threshold_from(tmp_path / "a.jsonl")


def test_of_a_file_and_for_an_alert(tmp_path):
    path = write(tmp_path / "good.jsonl", range(0, 200, 10), effective_dims=24.5, mean_resultant=0.1)
    assert threshold_from(path) == threshold_from(str(path)) == threshold_from(read_journal(path)) == 12.25
    assert CollapseAlert("dimensional", threshold=threshold_from(path)).threshold == 12.25
    with pytest.raises(ValueError, match=r"a\.jsonl' sets no threshold"):
        threshold_from(write(tmp_path / "a.jsonl", range(0, 100, 10), effective_dims=24.5))


def test_held_is_what_a_row_of_readings_stays_at_or_below():
    assert held([5, 1, 4, 2, 3], 2) == 3
    assert held([5, 1, 4, 2, 3], 1) == 1
    assert math.isnan(held([5, 1], 3))
