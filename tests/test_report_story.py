"""What the report says of a run in words, and the points it draws: plain logic, nothing drawn."""

import math
from pathlib import Path

import pytest

from uniformity_callbacks.alerts import AlertBook
from uniformity_callbacks.journal import Journal
from uniformity_callbacks.panel import Reading
from uniformity_callbacks.report.series import Line, heat_map, line, spread
from uniformity_callbacks.report.story import Story, judged, names_of
from uniformity_callbacks.rules import CollapseAlert

VALUES = {"w2": 0.9, "w2_corrected": 0.7, "effective_dims": 40.0, "mean_resultant": 0.1, "std_ratio": 0.9}
VALUES |= {"samples": 512.0, "nonfinite": 0.0}
FLOOR = 0.56  # sqrt(2 (1 - sqrt(127 / 128) I(1.008))), I of the Marchenko-Pastur law
POINT = {"mean_resultant": 0.999, "w2": 1.41, "w2_corrected": 1.41, "effective_dims": 90.0}
FEW = {"effective_dims": 4.0, "w2": 1.3, "w2_corrected": 1.3}


def reading(step, layer="projector", **values):
    return Reading(step, layer, 128, VALUES | values, 1e9 + step)


def story(readings, rules="warn", name="a"):
    book, journal = AlertBook(rules), Journal(readings=readings)
    journal.runs.append({"type": "run", "time": 1e9, "alerts": [rule.kind for rule in book.rules]})
    for alert in (alert for each in readings if each.stage == "train" for alert in book.update(each)):
        (journal.recoveries if alert.recovered else journal.alerts).append(alert)
    return Story(name, journal)


def steps(*kinds):
    """Readings every ten steps, some of each kind one after another."""
    every = [values for values, many in kinds for _ in range(many)]
    return [reading(10 * k, **values) for k, values in enumerate(every)]


def test_a_healthy_run():
    told = story(steps(({}, 30)))
    assert (told.tone, told.headline) == ("good", "No collapse was found")
    (numbers,) = told.sentences
    assert numbers == (
        "The last reading, of step 290: corrected W2 is 0.70 (0 ideal, 1.41 one point), 40.0 of 128 dimensions are in "
        "use, the mean resultant length is 0.10 (1 is one point)."
    )
    assert told.facts == [
        ("readings", "30, steps 0 to 290"),
        ("rows a reading", "512 in 128 dimensions"),
        ("for dimensional alerts of runs like it", "threshold=20 (half its dims)"),
    ]
    short = story(steps(({}, 12)))  # sets none
    assert (short.tone, len(short.facts)) == ("good", 2)


def test_a_collapse_that_stands():
    told = story(steps(({}, 15), (POINT, 10)))
    assert len(told.facts) == 2  # no run to take a threshold from
    assert (told.tone, told.headline) == ("bad", "Constant collapse since step 150")
    assert told.sentences[0] == "Constant collapse of projector was told at step 170, from readings since step 150."
    assert "dimensions are in use" not in told.sentences[-1]  # of one point they mean nothing


def test_a_collapse_that_is_over():
    told = story(steps(({}, 15), (POINT, 10), ({}, 10)))
    assert (told.tone, told.headline) == ("over", "Constant collapse, over at step 270")
    (episode,) = told.episodes
    assert (episode.since, episode.told, episode.over) == (150, 170, 270)


def test_two_kinds_one_after_the_other():
    told = story(steps(({}, 15), (FEW, 10), ({}, 5), (POINT, 5)))
    assert [(e.kind, e.over is None) for e in told.episodes] == [("dimensional", False), ("constant", True)]
    assert told.headline == "Constant collapse since step 300"


def test_a_run_that_was_stopped_says_so():
    told = story(steps(({}, 15), (FEW, 5)), rules=[CollapseAlert("dimensional", action="stop")])
    assert told.sentences[0].endswith("from readings since step 150, and the run was stopped.")


def test_a_run_without_alerts_is_judged_by_the_default_rules():
    told = story(steps(({}, 15), (FEW, 10)), rules=None)
    assert told.judged_here
    assert told.headline == "Dimensional collapse since step 150"
    assert "would have been told at step 170" in told.sentences[0]
    assert (
        told.notes[0] == "No alert was recorded: the readings were judged by the default rules when this was written."
    )
    assert not story(steps(({}, 15))).judged_here


def test_readings_of_validation_are_not_judged():
    points = [Reading(10 * k, "projector", 128, VALUES | POINT, 1e9, stage="val") for k in range(15, 30)]
    assert judged([*steps(({}, 15)), *points]) == []


def test_nothing_was_read():
    assert (story([]).tone, story([]).headline) == ("unknown", "Nothing was read in training")
    blind = Reading(0, "projector", 0, {"samples": 0.0, "nonfinite": 0.0}, 1e9, why="projector was not called")
    told = story([blind], rules=None)
    assert told.tone == "unknown"
    assert told.notes[-1] == "At 1 due step there was nothing to read: projector was not called."


def test_notes_of_what_a_reader_has_to_know():
    journal = story([reading(0, samples=128.0), reading(10, samples=128.0, nonfinite=3.0)]).journal
    journal.abandoned.append(reading(20))
    journal.unreadable.extend([7, 9])
    journal.runs.append({"type": "run", "resumed": True})
    told = Story("a", journal)
    assert told.notes == [
        f"Plain W2 depends on the sample's size: 128 ideal rows of 128 dimensions read {FLOOR:.2f}. "
        "The corrected one does not.",
        "In 1 reading some rows were NaN or infinite; they are left out.",
        "1 reading of steps that were done again after a resumption: left out.",
        "2 lines of the journal could not be read, as a crash in mid-write leaves them.",
    ]
    assert told.facts[-1] == ("resumed", "once")


def test_what_was_not_asked_for_is_not_told():
    journal = Journal(readings=[Reading(0, "p", 8, {"lu": -1.0, "samples": 9.0, "nonfinite": 0.0}, 1e9)])
    assert Story("a", journal).sentences == ["The last reading, of step 0: none of these metrics was asked for."]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["logs/version_0/uniformity.jsonl"], ["logs/version_0"]),
        (["logs/a.jsonl"], ["logs/a"]),
        (["logs/a/uniformity.jsonl", "logs/b/uniformity.jsonl"], ["a", "b"]),
        (["logs/uniformity.jsonl", "logs/uniformity-2.jsonl"], ["uniformity", "uniformity-2"]),
        (["x/a/v0/u.jsonl", "x/b/v0/u.jsonl", "x/b/v1/u.jsonl"], ["a/v0", "b/v0", "b/v1"]),
        (["x/a.jsonl", "x/y/a.jsonl"], ["x", "x/y"]),
        (["p/1/2/3/x.jsonl", "q/1/2/3/x.jsonl", "q/1/2/3/y.jsonl"], ["p/1/2/3/x", "q/1/2/3/x", "q/1/2/3/y"]),
        (["a.jsonl", "a.jsonl"], None),
    ],
)
def test_names_tell_paths_apart(paths, names):
    got = names_of([Path("/data") / path for path in paths])
    assert got == names if names else len(got) == 2
    assert all(got)


def test_lines_keep_their_spikes_and_their_gaps():
    values = [1.0] * 10_000
    values[1_234], values[5_678] = 9.0, -9.0
    values[7_000:8_000] = [math.nan] * 1_000
    few = Line(list(range(10_000)), values).thinned(200)
    assert len(few.steps) <= 210
    assert (few.steps[0], few.steps[-1]) == (0, 9_999)
    assert {9.0, -9.0} <= set(few.values)
    assert any(math.isnan(value) for step, value in zip(few.steps, few.values, strict=True) if 7_000 <= step < 8_000)


def test_a_second_fit_breaks_the_line():
    told = story([reading(0), reading(10), reading(0), reading(10)])
    drawn = line(told, "w2", "projector")
    assert drawn.steps == [0, 10, 10, 0, 10]
    assert math.isnan(drawn.values[2])


def test_points_alone_are_found():
    drawn = Line([0, 1, 2, 3, 4], [1.0, math.nan, 2.0, 3.0, math.nan])
    assert drawn.alone == [(0, 1.0)]


def test_effective_dims_are_undefined_at_one_point():
    drawn = line(story([reading(0), reading(10, **POINT)]), "effective_dims", "projector")
    assert drawn.values[0] == 40.0
    assert math.isnan(drawn.values[1])


def test_the_heat_map_is_of_the_last_fit():
    def spectral(step, value):
        return Reading(step, "p", 4, VALUES, 1e9, spectrum=(value,) * 4)

    heat = heat_map(story([spectral(0, 1.0), spectral(10, 1.0), spectral(0, 2.0), spectral(5, 3.0)]), "p")
    assert (heat.steps, heat.ranks, heat.columns) == ([0, 5], [1, 2, 3, 4], [(2.0,) * 4, (3.0,) * 4])
    assert heat_map(story(steps(({}, 5))), "projector") is None


def test_spread_has_the_first_and_the_last():
    some = spread(steps(({}, 100)), 12)
    assert len(some) == 12
    assert (some[0].step, some[-1].step) == (0, 990)
    assert spread(steps(({}, 3)), 12) == steps(({}, 3))
