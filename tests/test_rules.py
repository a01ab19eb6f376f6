import math

import pytest

from test_alerts import CONSTANT, reading
from uniformity_callbacks import CollapseAlert
from uniformity_callbacks.alerts import AlertBook


@pytest.mark.parametrize(("d", "samples", "limit"), [(128, 512, 9.0), (16, 512, 4.0), (128, 17, 4.0), (2048, 8, 1.75)])
def test_few_dims_are_few_of_what_the_sample_can_show(d, samples, limit):
    assert CollapseAlert("dimensional").limit(reading(0, resultant=0.0, d=d, samples=float(samples))) == limit
    assert CollapseAlert("dimensional", threshold=30).limit(reading(0, d=d, samples=float(samples))) == 30


@pytest.mark.parametrize(
    ("resultant", "limit"), [(0.0, 9.0), (0.3, 9.0 / 0.91), (0.5, 12.0), (0.6, 12.0), (0.94, 12.0)]
)
def test_a_shared_mean_leaves_less_for_the_dims_about_it(resultant, limit):
    rule, read = CollapseAlert("dimensional"), reading(0, resultant=resultant)
    assert rule.limit(read) == pytest.approx(limit)
    assert rule.limit(reading(0, d=16, resultant=resultant)) == 4.0
    assert rule.limit(read, level=60.0) == pytest.approx(0.33 * 60)
    assert CollapseAlert("dimensional", threshold=9).limit(read) == 9.0


def test_the_level_only_raises_the_limit():
    rule = CollapseAlert("dimensional")
    assert rule.limit(reading(0), level=60.0) == pytest.approx(0.33 * 60)
    assert rule.limit(reading(0, resultant=0.0), level=12.0) == 9.0
    assert CollapseAlert("dimensional", fall=None).limit(reading(0, resultant=0.0), level=60.0) == 9.0


@pytest.mark.parametrize(
    ("kind", "patience", "warmup", "limit", "recovery"),
    [
        ("constant", 3, 100, 0.95, 0.90),
        ("dimensional", 3, 100, 9.0, 11.25),
        ("nonfinite", 3, 0, 1.0, 1.0),
        ("blind", 2, 0, 0.0, 0.0),
    ],
)
def test_defaults_are_as_documented(kind, patience, warmup, limit, recovery):
    rule = CollapseAlert(kind)
    assert (rule.patience, rule.warmup_steps, rule.action) == (patience, warmup, "warn")
    assert rule.limit(reading(0, resultant=0.0)) == limit
    assert rule.recovery(limit, 128) == pytest.approx(recovery)


def test_hysteresis_is_the_users_to_set():
    assert CollapseAlert("constant", threshold=0.8, hysteresis=0.5).recovery(0.8, 128) == pytest.approx(0.7)
    assert CollapseAlert("dimensional", hysteresis=0.0).recovery(9.0, 128) == 9.0


def test_a_list_of_defaults_and_what_only_warns():
    for action in ("stop", "raise"):
        rules = {rule.kind: rule.action for rule in AlertBook(action).rules}
        assert rules == {"constant": action, "dimensional": action, "nonfinite": action, "blind": "warn"}


def test_a_function_is_an_action():
    def page_me(alert):
        pass

    (rule, *_) = AlertBook(page_me).rules
    assert rule.action is page_me
    assert rule.action_name == "page_me"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "total"}, "kind must be one of constant, dimensional, nonfinite, blind, got 'total'"),
        ({"kind": "constant", "action": "halt"}, "action must be one of warn, stop, raise or a function.*got 'halt'"),
        ({"kind": "constant", "threshold": 1.2}, "a mean resultant length in"),
        ({"kind": "dimensional", "threshold": -1}, "threshold must be a positive number or None"),
        ({"kind": "dimensional", "threshold": math.nan}, "threshold must be a positive number or None"),
        ({"kind": "blind", "threshold": 1}, "threshold is not for blind alerts, got 1; leave it out"),
        ({"kind": "dimensional", "fall": 1.5}, r"fall must be a share in \(0, 1\) or None, got 1.5"),
        ({"kind": "constant", "fall": 0.5}, "fall is for dimensional alerts, got 0.5 for constant"),
        (
            {"kind": "nonfinite", "hysteresis": 0.5},
            "hysteresis is for constant and dimensional alerts, got 0.5 for non",
        ),
        ({"kind": "blind", "hysteresis": 0.0}, "hysteresis is for constant and dimensional alerts, got 0.0 for blind"),
        ({"kind": "constant", "hysteresis": -0.1}, "hysteresis must be >= 0 or None for the default, got -0.1"),
        ({"kind": "dimensional", "fall": 0.0}, r"fall must be a share in \(0, 1\) or None, got 0.0"),
        ({"kind": "constant", "hysteresis": math.inf}, "hysteresis must be >= 0 or None for the default, got inf"),
        ({"kind": "dimensional", "patience": 0}, "patience must be an integer >= 1 or None for the default, got 0"),
        ({"kind": "dimensional", "patience": 2.0}, r"patience must be an integer >= 1 .*, got 2\.0"),
        ({"kind": "dimensional", "warmup_steps": -5}, "warmup_steps must be an integer >= 0 .*, got -5"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_rules(arguments, message):
    with pytest.raises(ValueError, match=message):
        CollapseAlert(**arguments)


@pytest.mark.parametrize("rules", ["shout", ["warn"], [CONSTANT, 3]])
@pytest.mark.usefixtures("unchecked")
def test_bad_lists(rules):
    with pytest.raises(
        ValueError, match='alerts must be None, "warn", "stop", "raise", a function or a list of CollapseAlert'
    ):
        AlertBook(rules)


def test_a_kind_twice():
    with pytest.raises(ValueError, match="each kind once, got constant, constant"):
        AlertBook([CONSTANT, CONSTANT])


def test_one_is_a_threshold_of_constant_collapse():
    assert CollapseAlert("constant", threshold=1.0).limit(reading(0)) == 1.0
