import math

import pytest

from uniformity_callbacks import CollapseAlert, Reading
from uniformity_callbacks.alerts import AlertBook


def reading(step, *, resultant=0.1, dims=100.0, d=128, samples=512.0, layer="projector"):
    values = {"mean_resultant": resultant, "effective_dims": dims, "std_ratio": 0.97, "w2": 1.2, "samples": samples}
    return Reading(step, layer, d, values, 0.0)


def fired(rule, readings):
    book = AlertBook([rule])
    return [(alert.step, alert.since) for r in readings for alert in book.update(r)]


CONSTANT = CollapseAlert("constant", patience=2, warmup_steps=20)
DIMENSIONAL = CollapseAlert("dimensional", patience=2, warmup_steps=20)
NAN = math.nan


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1], []),
        ([0.99, 0.99, 0.1, 0.1, 0.1, 0.1], []),  # before the warm-up ends
        ([0.99, 0.99, 0.99, 0.99, 0.99, 0.99], [(30, 20)]),  # the warm-up does not count
        ([0.1, 0.1, 0.1, 0.95, 0.95, 0.95], [(40, 30)]),  # at the threshold; told once
        ([0.1, 0.1, 0.99, 0.1, 0.99, 0.1], []),  # never twice in a row
        ([0.1, 0.1, 0.99, NAN, 0.99, 0.1], [(40, 20)]),  # a reading that cannot tell changes nothing
        ([0.1, 0.1, 0.99, 0.99, 0.1, 0.99, 0.99], [(30, 20), (60, 50)]),  # again, after it had passed
    ],
)
def test_constant(values, expected):
    assert fired(CONSTANT, [reading(10 * k, resultant=v) for k, v in enumerate(values)]) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([83, 40, 30, 20, 12, 10], []),  # a healthy run falls, too
        ([83, 40, 30, 9, 8, 7], [(40, 30)]),
        ([83, 6, 6, 6, 6, 6], [(30, 20)]),
        ([83, 6, 6, 20, 6, 20], []),
        ([83, 6, 6, NAN, 6, 6], [(40, 20)]),
    ],
)
def test_dimensional(values, expected):
    assert fired(DIMENSIONAL, [reading(10 * k, dims=float(v)) for k, v in enumerate(values)]) == expected


def test_dimensional_is_not_judged_near_one_point():
    """Effective dims mean nothing there: neither an alert nor a recovery comes of them."""
    collapsed = [reading(20 + k, dims=3.0, resultant=0.97) for k in range(5)]
    assert fired(DIMENSIONAL, collapsed) == []
    mixed = [reading(20, dims=3.0), reading(30, dims=119.0, resultant=0.99), reading(40, dims=3.0)]
    assert fired(DIMENSIONAL, mixed) == [(40, 20)]


@pytest.mark.parametrize(("d", "samples", "limit"), [(128, 512, 9.0), (16, 512, 4.0), (128, 17, 4.0), (2048, 8, 1.75)])
def test_few_dims_are_few_of_what_the_sample_can_show(d, samples, limit):
    assert CollapseAlert("dimensional").limit(reading(0, d=d, samples=float(samples))) == limit
    assert CollapseAlert("dimensional", threshold=30).limit(reading(0, d=d, samples=float(samples))) == 30


def test_the_message_says_what_since_when_against_what_and_what_to_do():
    book = AlertBook("stop")
    alerts = [a for step in range(0, 200, 10) for a in book.update(reading(step, dims=6.2))]
    (alert,) = alerts
    assert (alert.kind, alert.step, alert.since, alert.threshold) == ("dimensional", 120, 100, 9.0)
    assert alert.readings == (6.2, 6.2, 6.2)
    for part in ("dimensional collapse at step 120", "6.2, 6.2, 6.2", "threshold 9", "since step 100", "of projector"):
        assert part in alert.message
    for part in ("6.2 of 128", "blind to it, reads 0.97", "W2 1.200", "decorrelation", "WassersteinLoss", "stops"):
        assert part in alert.message
    assert max(len(line) for line in alert.message.splitlines()) <= 110


def test_layers_are_judged_apart():
    book = AlertBook([CONSTANT])
    for step in (20, 30):
        alerts = book.update(reading(step, layer="a")) + book.update(reading(step, layer="b", resultant=0.99))
    assert [alert.layer for alert in alerts] == ["b"]


def test_state_goes_on_where_it_was():
    readings = [reading(10 * k, resultant=0.99) for k in range(6)]
    book = AlertBook([CONSTANT])
    for r in readings[:3]:
        book.update(r)
    later = AlertBook([CONSTANT])
    later.load_state_dict(book.state_dict())
    assert [(a.step, a.since) for r in readings[3:] for a in later.update(r)] == [(30, 20)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "total"}, "kind must be one of constant, dimensional, got 'total'"),
        ({"kind": "constant", "action": "halt"}, "action must be one of warn, stop, got 'halt'"),
        ({"kind": "constant", "threshold": 1.2}, "a mean resultant length in"),
        ({"kind": "dimensional", "threshold": -1}, "threshold must be a positive number or None"),
        ({"kind": "dimensional", "patience": 0}, "patience must be at least 1 reading, got 0"),
        ({"kind": "dimensional", "warmup_steps": -5}, "warmup_steps must be >= 0, got -5"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_rules(arguments, message):
    with pytest.raises(ValueError, match=message):
        CollapseAlert(**arguments)


@pytest.mark.parametrize("rules", ["shout", ["warn"], [CONSTANT, 3]])
@pytest.mark.usefixtures("unchecked")
def test_bad_lists(rules):
    with pytest.raises(ValueError, match='alerts must be None, "warn", "stop" or a list of CollapseAlert'):
        AlertBook(rules)


def test_a_kind_twice():
    with pytest.raises(ValueError, match="each kind once, got constant, constant"):
        AlertBook([CONSTANT, CONSTANT])
