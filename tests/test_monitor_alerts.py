"""What alerts do to a run: warn, stop, raise, call, switch the loss, and what of it a resumed run knows."""

import math

import pytest
import torch
from torch import nn

from loops import QUICK, Model, Scripted, play, run, scripted, step, views
from uniformity_callbacks import (
    CollapseAlert,
    CollapseError,
    LinearDecay,
    UniformityMonitor,
    WassersteinLoss,
    read_journal,
)


def test_a_function_is_called_with_the_alert_on_the_callers_thread(tmp_path, caplog):
    import threading

    got = []

    def note(alert):
        got.append((alert.kind, alert.step, alert.since, len(alert.readings), threading.current_thread()))

    monitor, _, _ = scripted(tmp_path, range(3, 7), range(12), alerts=[CollapseAlert("constant", action=note, **QUICK)])
    monitor.close()
    assert got == [("constant", 4, 3, 2, threading.main_thread())]  # and not for the recovery
    back = read_journal(monitor.journal)
    assert [(a.step, a.action) for a in back.alerts] == [(4, "note")]
    assert [(a.step, a.since, a.recovered) for a in back.recoveries] == [(8, 3, True)]
    assert "over: constant collapse, at step 8; it stood since step 3" in caplog.text


def test_a_function_that_fails_does_not_end_the_run(tmp_path, caplog):
    def broken(alert):
        raise OSError("no network")

    monitor, _, _ = scripted(tmp_path, range(3, 7), range(12), alerts=broken)
    monitor.close()
    assert monitor.faults.count == 0  # warm-up of 100 steps: not reached
    rules = [CollapseAlert("constant", action=broken, **QUICK)]
    monitor, _, out = scripted(tmp_path, range(3, 7), range(12), alerts=rules)
    monitor.close()
    assert [o.reading.step for _, o in out] == list(range(11))
    assert monitor.faults.count == 1
    assert "action broken at step 4: OSError: no network" in caplog.text


def test_raise_raises_once_what_was_seen_when_it_is_asked_for(tmp_path):
    rules = [CollapseAlert("constant", action="raise", **QUICK)]
    monitor, model, _ = scripted(tmp_path, range(3, 100), range(5), alerts=rules)
    monitor.enforce()  # the reading of step 4 is collected with step 5
    play(monitor, model, [5])
    with pytest.raises(CollapseError, match="constant collapse at step 4, since step 3") as caught:
        monitor.enforce()
    assert (caught.value.alert.kind, caught.value.alert.action) == ("constant", "raise")
    monitor.enforce()
    monitor.close()


def test_a_loss_that_waits_for_an_alert(tmp_path):
    """Added from the step after the alert is known, until the step after its recovery is."""
    loss = WassersteinLoss(0.7, when="alert")
    rules = [CollapseAlert("constant", **QUICK)]
    monitor, model = (
        UniformityMonitor("projector", every_n_steps=1, auxiliary=loss, alerts=rules),
        Scripted(range(2, 6)),
    )
    monitor.attach(model, directory=tmp_path)
    added = []
    for k in range(12):
        model.k = k
        monitor.begin(k)
        plain = (model(torch.randn(32, 4)) - model(torch.randn(32, 4))).square().mean()
        total = monitor.add_auxiliary(plain)
        added.append(total.item() > plain.item())
        monitor.pause()
        total.backward()
        monitor.end_pass()
        monitor.finish()
    monitor.close()
    back = read_journal(monitor.journal)
    assert [(a.step, a.since) for a in back.alerts + back.recoveries] == [(3, 2), (7, 2)]
    assert added == [k in range(5, 9) for k in range(12)]  # readings of 3 and 7 are collected with 4 and 8
    steps, weights = back.series("aux_weight")
    assert dict(zip(steps, weights, strict=True)) == {k: 0.7 if k in range(5, 9) else 0.0 for k in range(12)}
    terms = dict(zip(*back.series("aux_loss"), strict=True))
    assert [terms[k] > 0 for k in range(12)] == added
    assert terms[5] == pytest.approx(0.7 * dict(zip(*back.series("w2"), strict=True))[5], rel=1e-6)


def test_only_collapse_switches_the_loss_on(tmp_path):
    loss = WassersteinLoss(0.7, when="alert")
    model, monitor = Model(), UniformityMonitor(every_n_steps=1, auxiliary=loss)
    monitor.attach(model, directory=tmp_path)
    x = torch.full((32, 4), math.nan)
    for k in range(8):
        step(monitor, model, k, (x, x))
    monitor.close()
    back = read_journal(monitor.journal)
    assert [a.kind for a in back.alerts] == ["nonfinite"]
    assert set(back.series("aux_weight")[1]) == {0.0}


def test_only_the_layer_that_collapses_gets_the_loss(tmp_path):
    model = Model()
    nn.init.zeros_(model.projector.weight)
    rules = [CollapseAlert("constant", **QUICK)]
    loss = WassersteinLoss(0.7, when="alert")
    monitor = UniformityMonitor(["encoder", "projector"], every_n_steps=1, auxiliary=loss, alerts=rules)
    monitor.attach(model, directory=tmp_path)
    for k in range(6):
        step(monitor, model, k, views())
    monitor.close()
    back = read_journal(monitor.journal)
    assert back.series("aux_weight", "projector")[1] == [0.0] * 3 + [0.7] * 3
    assert back.series("aux_weight", "encoder")[1] == [0.0] * 6


@pytest.mark.parametrize("cut", range(2, 11))
def test_a_resumed_run_goes_on_as_one_that_was_not_interrupted(tmp_path, cut):
    """Alerts, the loss's weight and when either changes, with readings under way at the moment of the checkpoint."""
    arguments = {"alerts": [CollapseAlert("constant", **QUICK)], "auxiliary": WassersteinLoss(0.7, when="alert")}
    collapsed = range(2, 6)

    def said(out):
        return [(k, a.kind, a.step, a.recovered) for k, o in out for a in o.alerts]

    monitor, _, out = scripted(tmp_path, collapsed, range(14), **arguments)
    monitor.close()
    expected, weights = said(out), read_journal(monitor.journal).series("aux_weight")

    first, _, before = scripted(tmp_path, collapsed, range(cut), **arguments)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    first._desk.reader._journal._file.close()  # and then the process is killed
    second = UniformityMonitor("projector", every_n_steps=1, **arguments)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    model = Scripted(collapsed)
    second.attach(model, directory=tmp_path)
    after = play(second, model, range(cut, 14))
    second.close()
    assert said(before) + said(after) == expected
    assert [o.reading.step for _, o in before + after] == list(range(13))
    assert read_journal(second.journal).series("aux_weight") == weights


def test_another_run_from_the_start_knows_nothing_of_the_one_before(tmp_path):
    rules = [CollapseAlert("constant", **QUICK)]
    arguments = {"alerts": rules, "auxiliary": WassersteinLoss(0.7, when="alert")}
    monitor, _, _ = scripted(tmp_path, range(2, 9), range(9), **arguments)
    monitor.close()
    assert monitor.last
    monitor.attach(model := Scripted(range(1)), directory=tmp_path)
    out = play(monitor, model, range(4))
    monitor.close()
    assert out[0][0] == 0  # its first reading is handed out at once
    assert not [a for _, o in out for a in o.alerts]
    assert {o.reading.values["aux_weight"] for _, o in out} == {0.0}


def test_the_same_run_in_another_fit_goes_on(tmp_path):
    rules = [CollapseAlert("constant", **QUICK)]
    monitor, _, _ = scripted(tmp_path, range(2, 99), range(4), alerts=rules, auxiliary=WassersteinLoss(when="alert"))
    (left,) = monitor.close()
    assert [a.kind for a in left.alerts] == ["constant"]
    monitor.attach(model := Scripted(range(99)), directory=tmp_path)
    out = play(monitor, model, range(4, 8))
    monitor.close()
    assert not [a for _, o in out for a in o.alerts]  # it was told
    assert {o.reading.values["aux_weight"] for _, o in out} == {0.1}


def test_the_weight_follows_the_training(tmp_path):
    monitor, outcomes = run(tmp_path, 5, every_n_steps=1, auxiliary=LinearDecay(4.0, 0.0), total_steps=4)
    assert [o.values["uniformity/aux_weight"] for o in outcomes] == [4.0, 3.0, 2.0, 1.0, 0.0]
    for outcome in outcomes:
        weight, w2 = outcome.values["uniformity/aux_weight"], outcome.values["uniformity/w2"]
        assert outcome.values["uniformity/aux_loss"] == pytest.approx(weight * w2, rel=1e-6)
    assert not monitor.needs_total_steps


@pytest.mark.parametrize("total", [None, math.inf, -1])
def test_a_decaying_weight_over_a_training_without_end(tmp_path, total):
    monitor = UniformityMonitor(auxiliary=WassersteinLoss(LinearDecay(1.0)))
    assert monitor.needs_total_steps
    with pytest.raises(ValueError, match=r"total_steps must be given: the weight of WassersteinLoss.*LinearDecay"):
        monitor.attach(Model(), directory=tmp_path, total_steps=total)
    assert list(tmp_path.iterdir()) == []
    assert not UniformityMonitor(auxiliary=1.0).needs_total_steps


def test_a_length_of_the_users_own_comes_first(tmp_path):
    model, monitor = Model(), UniformityMonitor(every_n_steps=1, auxiliary=LinearDecay(1.0), total_steps=4)
    monitor.attach(model, directory=tmp_path, total_steps=100)
    outcomes = [o for k in range(3) for o in step(monitor, model, k, views())] + monitor.close()
    assert [o.values["uniformity/aux_weight"] for o in outcomes] == [1.0, 0.75, 0.5]


def test_the_alert_of_the_last_reading_is_told_at_the_end(tmp_path, caplog):
    rules = [CollapseAlert("constant", **QUICK)]
    monitor, _, out = scripted(tmp_path, range(3, 100), range(5), alerts=rules)
    assert not [a for _, o in out for a in o.alerts]
    (left,) = monitor.close()
    assert [a.kind for a in left.alerts] == ["constant"]
    assert "constant collapse at step 4" in caplog.text


class Memory:
    """A writer that keeps what it is given, in order."""

    def __init__(self):
        self.got = []

    def __call__(self, values, step):
        self.got.append(step)

    def alert(self, alert, key):
        self.got.append((key, alert.kind, alert.step, alert.recovered))


def test_writers_get_alerts_after_their_readings(tmp_path, caplog):
    memory, plain = Memory(), []
    writers = [memory, lambda values, step: plain.append(step)]
    rules = [CollapseAlert("constant", **QUICK)]
    monitor, _, _ = scripted(tmp_path, range(2, 4), range(8), alerts=rules, writers=writers)
    monitor.close()
    key = "uniformity/"
    raised, over = (key, "constant", 3, False), (key, "constant", 5, True)
    assert memory.got == [0, 1, 2, 3, raised, 4, 5, over, 6, 7]
    assert plain == list(range(8))
    assert "writer" not in caplog.text  # one without alert() is not asked for it


def test_a_writer_that_fails_on_alerts_gets_its_readings(tmp_path, caplog):
    class Fails(Memory):
        def alert(self, alert, key):
            raise OSError("no artifact store")

    rules = [CollapseAlert("constant", **QUICK)]
    monitor, _, _ = scripted(tmp_path, range(2, 4), range(8), alerts=rules, writers=[fails := Fails()])
    monitor.close()
    assert fails.got == list(range(8))
    assert "writer Fails: alert at step 3: OSError: no artifact store" in caplog.text
