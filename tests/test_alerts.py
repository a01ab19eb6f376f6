"""Tables of values in, verdicts out."""

import math
import pickle

import pytest
import torch

from uniformity_callbacks import CollapseAlert, CollapseError, Reading
from uniformity_callbacks.alerts import AlertBook

NAN = math.nan


def reading(step, *, resultant=0.0, dims=100.0, d=128, samples=512.0, nonfinite=0.0, layer="projector", why=""):
    values = {"mean_resultant": resultant, "effective_dims": dims, "std_ratio": 0.97, "w2": 1.2}
    return Reading(step, layer, d, values | {"samples": samples, "nonfinite": nonfinite}, 0.0, why=why)


def blind(step):
    return Reading(step, "projector", 0, {"samples": 0.0, "nonfinite": 0.0}, 0.0, why="projector was not called")


def verdicts(rule, readings):
    """(step, since) of each alert, and of each recovery with a minus sign before the step."""
    book = AlertBook([rule])
    alerts = [alert for r in readings for alert in book.update(r)]
    return [(-alert.step if alert.recovered else alert.step, alert.since) for alert in alerts]


CONSTANT = CollapseAlert("constant", patience=2, warmup_steps=20)
DIMENSIONAL = CollapseAlert("dimensional", patience=2, warmup_steps=20)
ABSOLUTE = CollapseAlert("dimensional", patience=2, warmup_steps=20, fall=None)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1], []),
        ([0.99, 0.99, 0.1, 0.1, 0.1, 0.1], []),  # before the warm-up ends
        ([0.99, 0.99, 0.99, 0.99, 0.99, 0.99], [(30, 20)]),  # the warm-up does not count
        ([0.1, 0.1, 0.1, 0.95, 0.95, 0.95], [(40, 30)]),  # at the threshold; told once
        ([0.1, 0.1, 0.99, 0.1, 0.99, 0.1], []),  # never twice in a row
        ([0.1, 0.1, 0.99, 0.1, 0.99, 0.99], [(50, 40)]),  # since the row that is unbroken
        ([0.1, 0.1, 0.99, NAN, 0.99, 0.1], [(40, 20)]),  # a reading that cannot tell changes nothing
        ([0.1, 0.1, 0.99, 0.99, 0.1, 0.99, 0.99], [(30, 20)]),  # one clear reading is no recovery
        ([0.1, 0.1, 0.99, 0.99, 0.94, 0.91, 0.94, 0.99], [(30, 20)]),  # nor is a little less than the threshold
        ([0.1, 0.1, 0.99, 0.99, 0.89, 0.89, 0.89], [(30, 20), (-50, 20)]),  # two below 0.90 are one, told once
        ([0.1, 0.1, 0.99, 0.99, 0.89, NAN, 0.89], [(30, 20), (-60, 20)]),
        ([0.1, 0.1, 0.99, 0.99, 0.89, 0.92, 0.89], [(30, 20)]),  # not in a row
        ([0.1, 0.1, 0.99, 0.99, 0.1, 0.1, 0.99, 0.99], [(30, 20), (-50, 20), (70, 60)]),  # and again
    ],
)
def test_constant(values, expected):
    assert verdicts(CONSTANT, [reading(10 * k, resultant=v) for k, v in enumerate(values)]) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([83, 40, 30, 20, 15, 12], []),  # a healthy run falls, too
        ([83, 40, 30, 9, 8, 7], [(40, 30)]),
        ([83, 6, 6, 6, 6, 6], [(30, 20)]),
        ([83, 40, 6, 6, 20, 6, 20], [(30, 20)]),
        ([83, 40, 6, 6, NAN, 6, 6], [(30, 20)]),
        ([83, 40, 6, 6, 10, 11, 10], [(30, 20)]),  # above 9, but not by a quarter
        ([83, 40, 6, 6, 12, 12, 12], [(30, 20), (-50, 20)]),
        ([83, 40, 6, 6, 12, 10, 12], [(30, 20)]),
    ],
)
def test_few_dims(values, expected):
    assert verdicts(ABSOLUTE, [reading(10 * k, dims=float(v)) for k, v in enumerate(values)]) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([120, 120, 60, 60, 30, 20, 20], []),  # to a third of 60: the warm-up's 120 are not its level
        ([120, 120, 60, 60, 19, 19, 19], [(50, 40)]),
        ([120, 120, 60, 60, 19, 40, 19], []),
        ([120, 120, 30, 90, 30, 28, 29], []),  # 90 was not held for two readings
        ([120, 120, 30, 90, 90, 28, 29], [(60, 50)]),
        ([120, 120, 90, 28, 29, 28], []),  # nor is a first reading a level
        ([120, 120, 60, 60, 19, 19, 70, 90, 90, 28, 28], [(50, 40), (-70, 40), (100, 90)]),  # held across a recovery
        ([120, 120, 60, 60, 19, 19, 24, 24], [(50, 40)]),  # not clear of 19.8 by a quarter
        ([120, 120, 60, 60, 19, 19, 25, 25], [(50, 40), (-70, 40)]),
        ([120, 120, 60, 60, 19, 19, 25, 25, 19, 19], [(50, 40), (-70, 40), (90, 80)]),  # the level is remembered
    ],
)
def test_fall_from_the_runs_own_level(values, expected):
    assert verdicts(DIMENSIONAL, [reading(10 * k, dims=float(v)) for k, v in enumerate(values)]) == expected


def test_a_fall_says_from_what():
    book = AlertBook([DIMENSIONAL])
    values = (83.0, 60.0, 60.0, 61.0, 15.0, 16.0)
    (alert,) = [a for k, v in enumerate(values) for a in book.update(reading(10 * k, dims=v))]
    assert alert.threshold == pytest.approx(0.33 * 60)
    assert "effective_dims 15, 16, threshold 19.8, 33% of the 60.0 that the run had held" in alert.message


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("hysteresis", [None, 5.0])
def test_every_threshold_of_constant_collapse_can_be_recovered_from(threshold, hysteresis):
    rule = CollapseAlert("constant", threshold=threshold, hysteresis=hysteresis, patience=1, warmup_steps=0)
    below = threshold / 2 - 0.01
    assert verdicts(rule, [reading(0, resultant=1.0), reading(10, resultant=below)]) == [(0, 0), (-10, 0)]
    assert verdicts(rule, [reading(0, resultant=1.0), reading(10, resultant=threshold)]) == [(0, 0)]


@pytest.mark.parametrize("threshold", [9.0, 60.0, 110.0, 127.0])
@pytest.mark.parametrize("hysteresis", [None, 5.0])
def test_every_threshold_of_dims_can_be_recovered_from(threshold, hysteresis):
    rule = CollapseAlert("dimensional", threshold=threshold, hysteresis=hysteresis, patience=1, warmup_steps=0)
    assert verdicts(rule, [reading(0, dims=3.0), reading(10, dims=127.9)]) == [(0, 0), (-10, 0)]
    assert verdicts(rule, [reading(0, dims=3.0), reading(10, dims=threshold)]) == [(0, 0)]


def test_dims_are_not_judged_near_one_point():
    """Effective dims mean nothing there: neither an alert, nor a recovery, nor a level comes of them."""
    near = [reading(20 + k, dims=3.0, resultant=0.97) for k in range(5)]
    assert verdicts(DIMENSIONAL, near) == []
    mixed = [reading(20, dims=3.0), reading(30, dims=119.0, resultant=0.99), reading(40, dims=3.0)]
    assert verdicts(DIMENSIONAL, mixed) == [(40, 20)]
    leaving = [reading(20, dims=60.0, resultant=0.99), *(reading(30 + k, dims=3.0, resultant=0.92) for k in range(5))]
    assert verdicts(DIMENSIONAL, leaving) == []  # not clear of one point yet
    noise = [reading(20 + k, dims=119.0, resultant=0.99) for k in range(3)]
    assert verdicts(DIMENSIONAL, [*noise, *(reading(30 + k, dims=20.0) for k in range(3))]) == []
    standing = [reading(20, dims=3.0), reading(30, dims=3.0), *(reading(40 + k, resultant=0.99) for k in range(3))]
    assert verdicts(DIMENSIONAL, standing) == [(30, 20)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0, 0, 0, 0], []),
        ([0, 1, 0, 1, 0], []),
        ([1, 1, 1, 1, 1], [(20, 0)]),  # no warm-up
        ([0, 64, 64, 64, 0, 0, 0], [(30, 10), (-60, 10)]),
        ([0, 64, 64, 64, 0, 0, 1], [(30, 10)]),
    ],
)
def test_nonfinite(values, expected):
    rule = CollapseAlert("nonfinite")
    assert verdicts(rule, [reading(10 * k, nonfinite=float(v)) for k, v in enumerate(values)]) == expected


def test_nonfinite_readings_tell_nothing_of_collapse():
    lost = [reading(10 * k, resultant=NAN, dims=NAN, samples=0.0, nonfinite=512.0) for k in range(10)]
    book = AlertBook("warn")
    (alert,) = [a for r in lost for a in book.update(r)]
    assert alert.kind == "nonfinite"
    assert "512 of 512 rows of projector are NaN or infinite" in alert.message


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ("rrrrr", []),
        ("rbrbr", []),
        ("bbbbb", [(10, 0)]),  # no warm-up, and within two intervals
        ("rrbbb", [(30, 20)]),
        ("rbbrr", [(20, 10), (-40, 10)]),
        ("rbbrb", [(20, 10)]),
    ],
)
def test_blind(seen, expected):
    made = {"r": reading, "b": blind}
    assert verdicts(CollapseAlert("blind"), [made[kind](10 * k) for k, kind in enumerate(seen)]) == expected


def test_blind_steps_tell_nothing_else():
    book = AlertBook("warn")
    alerts = [a for k in range(30) for a in book.update(blind(10 * k))]
    assert [(a.kind, a.step) for a in alerts] == [("blind", 10)]
    assert "means: projector was not called" in alerts[0].message
    mixed = [reading(20, dims=3.0), blind(30), reading(40, dims=3.0)]
    assert verdicts(ABSOLUTE, mixed) == [(40, 20)]


def test_a_blind_step_does_not_take_the_outputs_from_their_point():
    near = [reading(20, dims=60.0, resultant=0.99), blind(30)]
    assert verdicts(DIMENSIONAL, [*near, *(reading(40 + k, dims=3.0, resultant=0.92) for k in range(5))]) == []


def test_blind_steps_are_not_finite_ones():
    rule = CollapseAlert("nonfinite", patience=2)
    lost = [reading(0, nonfinite=64.0), blind(10), reading(20, nonfinite=64.0)]
    assert verdicts(rule, lost) == [(20, 0)]
    assert verdicts(rule, [*lost, blind(30), blind(40), blind(50)]) == [(20, 0)]


def test_readings_without_corrected_dims_are_not_judged_for_them():
    r = reading(200, dims=3.0)
    del r.values["effective_dims"]
    assert verdicts(CollapseAlert("dimensional", patience=1), [r]) == []


def test_the_message_says_what_since_when_against_what_and_what_to_do():
    book = AlertBook("stop")
    alerts = [a for step in range(0, 200, 10) for a in book.update(reading(step, dims=6.2))]
    (alert,) = alerts
    assert (alert.kind, alert.step, alert.since, alert.threshold) == ("dimensional", 120, 100, 9.0)
    assert (alert.action, alert.recovered) == ("stop", False)
    assert alert.readings == (6.2, 6.2, 6.2)
    for part in ("dimensional collapse at step 120", "6.2, 6.2, 6.2", "threshold 9", "since step 100", "of projector"):
        assert part in alert.message
    for part in ("6.2 of 128", "blind to it, reads 0.97", "W2 1.200", "decorrelation", "auxiliary=1.0", "stops"):
        assert part in alert.message
    assert max(len(line) for line in alert.message.splitlines()) <= 110


def test_what_a_message_says_of_each_kind_and_action():
    def said(rules, readings):
        book = AlertBook(rules)
        return [alert.message for r in readings for alert in book.update(r)]

    (nonfinite,) = said("warn", [reading(10 * k, nonfinite=64.0) for k in range(3)])
    (unseen,) = said("warn", [blind(10 * k) for k in range(2)])
    assert "Wasserstein" not in nonfinite + unseen
    assert "seen:" in nonfinite
    assert "seen:" not in unseen
    (raised,) = said("raise", [reading(100 + 10 * k, dims=8.0 - k) for k in range(3)])
    assert "training stops" not in raised
    assert "use 6.0 of 128 dimensions" in raised  # the newest
    few = [reading(10 * k, dims=d) for k, d in enumerate([6.0] * 4 + [12.0] * 2)]
    _, over = said([ABSOLUTE], few)
    assert "effective_dims 12, 12, above 11.2" in over


def test_a_recovery_says_so():
    book = AlertBook([CONSTANT])
    values = [0.1, 0.1, 0.99, 0.99, 0.8, 0.7]
    _, over = [a for k, v in enumerate(values) for a in book.update(reading(10 * k, resultant=v))]
    assert (over.kind, over.step, over.since, over.recovered) == ("constant", 50, 20, True)
    assert over.readings == (0.8, 0.7)
    assert over.threshold == pytest.approx(0.90)
    assert over.message.splitlines()[0] == "over: constant collapse, at step 50; it stood since step 20"
    assert "mean_resultant 0.8, 0.7, below 0.9" in over.message


def test_layers_are_judged_apart():
    book = AlertBook([CONSTANT])
    for step in (20, 30):
        alerts = book.update(reading(step, layer="a")) + book.update(reading(step, layer="b", resultant=0.99))
    assert [alert.layer for alert in alerts] == ["b"]


@pytest.mark.parametrize("cut", range(1, 9))
def test_state_goes_on_where_it_was(cut, tmp_path):
    values = [(0.1, 60.0), (0.1, 60.0), (0.99, 60.0), (0.99, 119.0), (0.99, 119.0), (0.8, 15.0), (0.5, 15.0)]
    values += [(0.5, 15.0), (0.5, 50.0), (0.5, 50.0)]
    readings = [reading(20 + 10 * k, resultant=r, dims=d) for k, (r, d) in enumerate(values)]
    rules = [CONSTANT, DIMENSIONAL]
    whole, first, second = AlertBook(rules), AlertBook(rules), AlertBook(rules)
    expected = [(a.kind, a.step, a.recovered) for r in readings for a in whole.update(r)]
    assert len(expected) == 4
    got = [a for r in readings[:cut] for a in first.update(r)]
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    got += [a for r in readings[cut:] for a in second.update(r)]
    assert [(a.kind, a.step, a.recovered) for a in got] == expected


def test_an_error_crosses_processes():
    book = AlertBook("raise")
    (alert,) = [a for k in range(13) for a in book.update(reading(10 * k, dims=3.0))]
    error = pickle.loads(pickle.dumps(CollapseError(alert)))
    assert error.alert == alert
    assert "dimensional collapse at step 120" in str(error)
