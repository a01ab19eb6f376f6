"""What is done about outcomes, and what of it a resumed or another run knows."""

import pytest
import torch

from loops import QUICK, Scripted, play, scripted, validate
from test_alerts import reading
from uniformity_callbacks import CollapseAlert, CollapseError, UniformityMonitor, WassersteinLoss
from uniformity_callbacks.alerts import AlertBook
from uniformity_callbacks.faults import Faults
from uniformity_callbacks.reader import Outcome
from uniformity_callbacks.responder import Responder


def alerts_of(rules, readings):
    book = AlertBook(rules)
    return [alert for r in readings for alert in book.update(r)]


def test_of_two_errors_the_first_is_raised_and_a_stop_stands():
    quick = {"patience": 1, "warmup_steps": 0}
    found = alerts_of("raise", [reading(k, nonfinite=9.0, resultant=0.99) for k in range(98, 103)])
    assert len(found) == 2
    responder = Responder(AlertBook("raise"), Faults("uniformity"))
    responder.act([Outcome(reading(40), "uniformity/", found)])
    with pytest.raises(CollapseError) as caught:
        responder.enforce()
    assert caught.value.alert == found[0]
    rules = [CollapseAlert("constant", action="stop", **quick), CollapseAlert("nonfinite", action="warn", **quick)]
    responder = Responder(AlertBook(rules), Faults("uniformity"))
    both = alerts_of(rules, [reading(0, nonfinite=9.0, resultant=0.99)])
    responder.act([Outcome(reading(40), "uniformity/", both)])
    assert responder.should_stop


def test_an_outcome_as_plain_values_is_the_same():
    r = reading(40, resultant=0.99, why="x")
    alerts = alerts_of([CollapseAlert("constant", patience=1, warmup_steps=0)], [r])
    outcome = Outcome(r, "collapse/encoder/", alerts)
    assert outcome.alerts
    assert Outcome.from_plain(outcome.to_plain()) == outcome


def test_another_run_from_the_start_owes_nothing_of_the_one_before(tmp_path):
    rules = [CollapseAlert("constant", action="raise", **QUICK)]
    monitor, _, _ = scripted(tmp_path, range(2, 9), range(9), alerts=rules)
    monitor.close()
    monitor.attach(Scripted(range(1)), directory=tmp_path)
    monitor.start(0)
    assert monitor.last == {}
    monitor.enforce()
    monitor.close()


def test_another_run_is_not_stopped_by_the_alert_of_the_one_before(tmp_path):
    rules = [CollapseAlert("constant", action="stop", **QUICK)]
    monitor, _, _ = scripted(tmp_path, range(2, 9), range(9), alerts=rules)
    assert monitor.should_stop
    monitor.close()
    monitor.attach(Scripted(range(1)), directory=tmp_path)
    assert not monitor.should_stop
    monitor.close()


def resumed(tmp_path, alerts):
    """A monitor resumed from a state with one reading, of step 4 and with an alert, that was not handed out."""
    rules = [CollapseAlert("constant", **QUICK)]
    first, _, _ = scripted(tmp_path, range(3, 99), range(5), alerts=rules)
    state = first.state_dict()
    first.close()
    assert [len(outcome["alerts"]) for outcome in state["waiting"]] == [1]
    second = UniformityMonitor("projector", every_n_steps=1, alerts=alerts)
    second.load_state_dict(state)
    assert second.state_dict()["waiting"] == state["waiting"]  # saved again before the first step
    return second


def test_what_was_waiting_comes_before_what_is_read_after(tmp_path):
    monitor = resumed(tmp_path, [CollapseAlert("constant", **QUICK)])
    monitor.attach(model := Scripted(range(99)), directory=tmp_path)
    monitor.begin(5)
    out = validate(monitor, model, [[torch.randn(32, 4)]])
    monitor.close()
    assert [(o.reading.step, o.reading.stage) for o in out] == [(4, "train"), (5, "val")]


def test_a_waiting_alert_whose_rule_is_gone_is_told_and_no_fault(tmp_path, caplog):
    monitor = resumed(tmp_path, None)
    monitor.attach(model := Scripted(range(99)), directory=tmp_path)
    out = play(monitor, model, [5])
    monitor.close()
    assert [o.reading.step for _, o in out] == [4]
    assert monitor.faults.count == 0
    assert "constant collapse at step 4" in caplog.text


def test_a_state_is_taken_up_at_step_0_too(tmp_path):
    """By a loop that counts its steps anew."""
    monitor = resumed(tmp_path, [CollapseAlert("constant", **QUICK)])
    monitor.attach(Scripted(range(99)), directory=tmp_path)
    last = dict(monitor.last)
    monitor.start(0)
    assert last
    assert monitor.last == last
    monitor.close()


def test_a_resumed_run_is_over_once_closed(tmp_path):
    monitor = resumed(tmp_path, [CollapseAlert("constant", **QUICK)])
    monitor.attach(model := Scripted(range(99)), directory=tmp_path)
    play(monitor, model, [5])
    monitor.close()
    monitor.attach(model, directory=tmp_path)
    monitor.start(0)
    assert monitor.last == {}
    monitor.close()


def standing(tmp_path):
    """The state of a run whose constant alert stands and was handed out."""
    rules = [CollapseAlert("constant", **QUICK)]
    monitor, _, _ = scripted(tmp_path, range(99), range(6), alerts=rules)
    state = monitor.state_dict()
    monitor.close()
    assert state["standing"] == [["projector", "constant"]]
    return state


@pytest.mark.parametrize(
    ("rules", "on"),
    [([CollapseAlert("constant")], True), ([CollapseAlert("dimensional")], False)],
    ids=["same kind", "other kind"],
)
def test_a_loss_resumes_only_where_a_rule_can_end_it(tmp_path, rules, on):
    loss = WassersteinLoss(0.7, when="alert")
    monitor = UniformityMonitor("projector", every_n_steps=1, alerts=rules, auxiliary=loss)
    monitor.load_state_dict(standing(tmp_path))
    monitor.attach(model := Scripted(range(99)), directory=tmp_path)
    play(monitor, model, [6])
    (outcome,) = monitor.close()
    assert outcome.values["uniformity/aux_weight"] == (0.7 if on else 0.0)


def test_a_state_that_fails_to_load_is_left_whole(tmp_path, caplog):
    """Of the alerts nothing is taken up, not the loss without the watch that could end it; the journal goes on."""
    state = standing(tmp_path)
    state["alerts"][0]["of a later version"] = 1
    monitor = UniformityMonitor("projector", auxiliary=WassersteinLoss(0.7, when="alert"))
    monitor.load_state_dict(state)
    assert "could not be restored, alerts begin anew" in caplog.text
    fresh = UniformityMonitor("projector").state_dict()
    assert monitor.state_dict() == fresh | {"journal": state["journal"]}


def test_a_loss_resumes_before_it_is_known_which_projector_is_trained(tmp_path):
    class Two(Scripted):
        def __init__(self, collapsed):
            super().__init__(collapsed)
            self.target = torch.nn.ModuleDict({"projector": torch.nn.Linear(4, 8)})

    loss = WassersteinLoss(0.7, when="alert")
    monitor = UniformityMonitor(every_n_steps=1, alerts=[CollapseAlert("constant")], auxiliary=loss)
    monitor.load_state_dict(standing(tmp_path))
    monitor.attach(model := Two(range(99)), directory=tmp_path)
    play(monitor, model, [6])
    (outcome,) = monitor.close()
    assert outcome.reading.layer == "projector"
    assert outcome.values["uniformity/aux_weight"] == 0.7
    assert outcome.values["uniformity/aux_loss"] > 0
