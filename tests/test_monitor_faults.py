"""What goes wrong around a monitor, injected: it must cost what it costs and no more."""

import math
import threading
import time

import pytest
import torch
from torch import nn

from loops import Model, run, step, views
from uniformity_callbacks import CollapseAlert, UniformityMonitor, read_journal


def test_rows_that_are_not_finite_are_counted(tmp_path):
    model, monitor = Model(), UniformityMonitor(every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    x0, x1 = views()
    x0[3, 1], x1[:] = math.nan, math.inf
    (first,) = step(monitor, model, 0, (x0, x1))
    assert first.values["uniformity/nonfinite"] == 33
    assert first.values["uniformity/samples"] == 31
    assert 0 < first.values["uniformity/w2"] < math.sqrt(2)
    step(monitor, model, 1, (x1, x1))
    (second,) = monitor.close()
    assert second.values["uniformity/nonfinite"] == 64
    assert math.isnan(second.values["uniformity/w2"])
    assert math.isnan(read_journal(monitor.journal).readings[1].values["w2"])


def test_a_wrong_output_is_an_error_before_the_first_step_only(tmp_path, caplog):
    model, monitor = Model(), UniformityMonitor("projector", output="z")
    monitor.attach(model, directory=tmp_path)
    with pytest.raises(ValueError, match="layer projector: output='z' failed on a Tensor"):
        step(monitor, model, 0, views())
    monitor.close()


def test_an_output_that_turns_wrong_later_is_told_at_due_steps_only(tmp_path, caplog):
    model, monitor = (
        Model(),
        UniformityMonitor("projector", output=lambda z: z if len(z) == 32 else z[0], every_n_steps=2),
    )
    monitor.attach(model, directory=tmp_path)
    outcomes = [o for k in range(7) for o in step(monitor, model, k, views(33 if k in (1, 2) else 32))]
    outcomes += monitor.close()
    assert [(o.reading.step, o.reading.values["samples"]) for o in outcomes] == [(0, 64), (2, 0), (4, 64), (6, 64)]
    assert outcomes[1].reading.why.startswith("projector: output=")
    assert monitor.faults.count == 1
    assert "capture at step 2: ValueError: layer projector: output=" in caplog.text


def test_an_auxiliary_loss_without_views_is_an_error_before_the_first_step_only(tmp_path, caplog):
    model, monitor = Model(), UniformityMonitor("projector", auxiliary=1.0, every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    monitor.begin(0)
    with pytest.raises(ValueError, match="needs the outputs of 'projector', but projector was not called"):
        monitor.add_auxiliary(torch.tensor(1.0))
    step(monitor, model, 0, views())
    for k in (1, 2):
        monitor.begin(k)
        assert monitor.add_auxiliary(torch.tensor(1.0)) == 1.0
        monitor.finish()
    assert monitor.faults.count == 2
    assert caplog.text.count("the auxiliary loss at step 1: ValueError") == 1
    monitor.close()


def test_a_failing_writer_harms_nobody(tmp_path, caplog):
    got = []

    def bad(values, step):
        raise OSError("disk full")

    monitor, outcomes = run(tmp_path, 5, every_n_steps=1, writers=[bad, lambda values, step: got.append(step)])
    assert got == [0, 1, 2, 3, 4]
    assert [r.step for r in read_journal(monitor.journal).readings] == got
    assert len(outcomes) == 5
    assert caplog.text.count("writer bad: write at step 0: OSError: disk full") == 1
    assert f"writer bad: 5 readings failed; all are in the journal {monitor.journal}" in caplog.text


def test_a_slow_writer_holds_up_neither_training_nor_alerts(tmp_path):

    gate = threading.Event()
    model, monitor = Model(), UniformityMonitor(every_n_steps=1, writers=[lambda values, step: gate.wait(60)])
    monitor.attach(model, directory=tmp_path)
    outcomes = [o for k in range(20) for o in step(monitor, model, k, views())]
    assert len(outcomes) == 19
    gate.set()
    monitor.close()


def test_a_writer_may_do_what_it_likes_with_its_values(tmp_path):
    got = []
    writers = [lambda values, step: values.clear(), lambda values, step: got.append(len(values))]
    _, outcomes = run(tmp_path, 3, every_n_steps=1, writers=writers)
    assert got == [11, 11, 11] == [len(o.values) for o in outcomes]


def test_leaves_no_hook_and_no_thread(tmp_path):

    before = set(threading.enumerate())
    model = Model()
    monitor = UniformityMonitor(every_n_steps=1, writers=[lambda values, step: None])
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views())
    with pytest.raises(RuntimeError, match="attached already"):
        monitor.attach(model)
    monitor.close()
    assert set(threading.enumerate()) == before
    assert not any(module._forward_hooks for module in model.modules())
    assert monitor.close() == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every_n_steps": 0}, ValueError, "every_n_steps must be an integer >= 1, got 0"),
        ({"every_n_steps": 2.5}, ValueError, "every_n_steps must be an integer >= 1, got 2.5"),
        ({"every_n_steps": 5, "window": 6}, ValueError, r"window must be an integer from 1 to every_n_steps \(5\)"),
        ({"scope": "node"}, ValueError, 'scope must be "global" or "rank", got \'node\''),
        ({"prefix": "/"}, ValueError, "prefix must be a name, got '/'"),
        ({"layer": []}, ValueError, "layer must name at least one layer"),
        ({"metrics": ["w3"]}, ValueError, "metrics has no 'w3'; did you mean w2"),
        ({"metrics": ["xyz"]}, ValueError, "metrics has no 'xyz'; known are w2, "),
        ({"metrics": "w2"}, ValueError, r"got the string 'w2'; write \['w2'\]"),
        ({"writers": [3]}, TypeError, r"writers must be callables \(values, step\), got 3"),
        ({"auxiliary": "0.1"}, TypeError, "weight must be a number"),
        ({"alerts": "loud"}, ValueError, "alerts must be None"),
        ({"close_timeout": -1}, ValueError, "close_timeout must be seconds from 0 to a billion, got -1"),
        ({"close_timeout": math.nan}, ValueError, "close_timeout must be seconds from 0 to a billion, got nan"),
        ({"close_timeout": math.inf}, ValueError, "close_timeout must be seconds from 0 to a billion, got inf"),
        ({"close_timeout": "10"}, TypeError, "close_timeout must be a number of seconds, got '10'"),
        ({"durable": 1}, TypeError, "durable must be True or False, got 1"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        UniformityMonitor(**arguments)


@pytest.mark.parametrize("state", [{}, {"alerts": 3}, {"alerts": [{"layer": "a"}]}, {"alerts": [], "last": 3}])
def test_a_broken_state_is_reported_and_left(state, caplog):
    monitor = UniformityMonitor()
    monitor.load_state_dict(state)
    assert monitor.faults.count == 2
    assert "could not be restored, alerts begin anew" in caplog.text
    assert monitor.state_dict()["alerts"] == []


def test_what_goes_wrong_at_the_end_does_not_hide_why_training_ended(tmp_path, caplog, monkeypatch):
    from uniformity_callbacks.recording import JournalWriter

    def fail(self):
        self._file.close()
        raise OSError("stale file handle")

    monkeypatch.setattr(JournalWriter, "close", fail)
    run(tmp_path, 2)
    assert "close: OSError: stale file handle" in caplog.text


def test_a_journal_that_fails_costs_nothing_but_itself(tmp_path, caplog, monkeypatch):
    from uniformity_callbacks.recording import JournalWriter

    def fail(self, reading):
        raise OSError("no space left on device")

    monkeypatch.setattr(JournalWriter, "reading", fail)
    got = []
    _, outcomes = run(tmp_path, 3, every_n_steps=1, writers=[lambda values, step: got.append(step)])
    assert got == [o.reading.step for o in outcomes] == [0, 1, 2]
    assert caplog.text.count("journal at step 0: OSError: no space left") == 1


def test_a_metric_that_fails_costs_its_reading_only(tmp_path, caplog, monkeypatch):
    from uniformity_callbacks import reader

    measure = reader.measure

    def sometimes(views, metrics):
        if views.whole.count == 66:
            raise RuntimeError("eigh did not converge")
        return measure(views, metrics)

    monkeypatch.setattr(reader, "measure", sometimes)
    model, monitor = Model(), UniformityMonitor(every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    outcomes = [o for k in range(5) for o in step(monitor, model, k, views(33 if k == 2 else 32))] + monitor.close()
    assert [o.reading.step for o in outcomes] == [0, 1, 3, 4]
    assert "reading at step 2: RuntimeError: eigh did not converge" in caplog.text


def test_one_kind_of_fault_does_not_silence_another(tmp_path, caplog):
    model, monitor = Model(), UniformityMonitor("projector", auxiliary=1.0, every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views())
    monitor.faults.add("a logger", "it is gone")
    for k in (1, 2):
        monitor.begin(k)
        monitor.add_auxiliary(torch.tensor(1.0))
        monitor.finish()
    monitor.close()
    assert monitor.faults.count == 3
    assert caplog.text.count("uniformity: a logger: it is gone") == 1
    assert caplog.text.count("uniformity: the auxiliary loss at step 1: ValueError") == 1


def test_dead_outputs_are_a_constant_collapse(tmp_path):
    """All rows zero have no direction: none is a sample, and they read as one point."""
    rules = [CollapseAlert("constant", patience=1, warmup_steps=0), CollapseAlert("dimensional", warmup_steps=0)]
    model = Model()
    nn.init.zeros_(model.projector.weight)
    nn.init.zeros_(model.projector.bias)
    monitor = UniformityMonitor(every_n_steps=1, alerts=rules)
    monitor.attach(model, directory=tmp_path)
    (outcome,) = step(monitor, model, 0, views())
    monitor.close()
    assert outcome.values["uniformity/samples"] == outcome.values["uniformity/nonfinite"] == 0
    assert outcome.values["uniformity/w2"] == pytest.approx(math.sqrt(2))
    assert [alert.kind for alert in outcome.alerts] == ["constant"]


def test_a_call_that_cannot_be_taken_does_not_cost_the_others(tmp_path):
    model, monitor = Model(), UniformityMonitor("projector", output=lambda z: z if len(z) == 32 else z[0])
    monitor.attach(model, directory=tmp_path)
    (outcome,) = step(monitor, model, 0, (torch.randn(32, 4), torch.randn(32, 4)[:1]))
    monitor.close()
    assert outcome.values["uniformity/samples"] == 32


@pytest.mark.parametrize("total_steps", [0, 2.5, True])
@pytest.mark.usefixtures("unchecked")
def test_bad_total_steps(total_steps):
    with pytest.raises(ValueError, match="total_steps must be a positive number of optimizer steps or None"):
        UniformityMonitor(total_steps=total_steps)


@pytest.mark.usefixtures("unchecked")
def test_a_writers_class_is_no_writer():
    with pytest.raises(TypeError, match=r"writers must be callables \(values, step\), got <class 'dict'>"):
        UniformityMonitor(writers=[dict])


@pytest.mark.parametrize("layers", [["projector", "projector"], ["projector", None]])
def test_a_layer_twice(tmp_path, layers):
    with pytest.raises(ValueError, match="layer must name each layer once, got projector, projector"):
        UniformityMonitor(layers).attach(Model(), directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_end_waits_once_for_all_writers(tmp_path, caplog):
    gate = threading.Event()
    hangs = [lambda values, step: gate.wait(60.0) for _ in range(4)]
    model, monitor = Model(), UniformityMonitor(every_n_steps=1, writers=hangs, close_timeout=2.0)
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views())
    began = time.monotonic()
    monitor.close()
    took = time.monotonic() - began
    gate.set()
    assert 2.0 <= took < 5.0  # half a second for each of those that come later, not 2 s
    assert caplog.text.count("still waiting") == 4
