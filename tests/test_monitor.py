import logging
import math

import pytest
import torch
from torch import nn

from uniformity_callbacks import CollapseAlert, UniformityMonitor, WassersteinLoss, functional, read_journal


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 16)
        self.projector = nn.Linear(16, 8)

    def forward(self, x):
        return self.projector(self.encoder(x))


def step(monitor, model, k, *batches, loss=None):
    """One optimizer step of a plain loop, with one pass for each pair of views."""
    for x0, x1 in batches:
        monitor.begin(k)
        total = (model(x0) - model(x1)).square().mean()
        total = monitor.add_auxiliary(total)
        monitor.pause()
        total.backward()
        monitor.end_pass()
    return monitor.finish()


def views(n=32):
    return torch.randn(n, 4), torch.randn(n, 4)


def run(tmp_path, steps, batches=1, **arguments):
    model = Model()
    monitor = UniformityMonitor(**arguments)
    monitor.attach(model, directory=tmp_path)
    outcomes = [o for k in range(steps) for o in step(monitor, model, k, *[views() for _ in range(batches)])]
    outcomes += monitor.close()
    return monitor, outcomes


def test_reads_both_views_at_due_steps(tmp_path):
    model, monitor = Model(), UniformityMonitor(every_n_steps=3)
    monitor.attach(model, directory=tmp_path)
    expected, outcomes = {}, []
    for k in range(8):
        x0, x1 = views()
        expected[k] = functional.wasserstein_uniformity(torch.cat([model(x0), model(x1)]).detach().double()).item()
        outcomes += step(monitor, model, k, (x0, x1))
    outcomes += monitor.close()
    assert [o.reading.step for o in outcomes] == [0, 3, 6]
    for outcome in outcomes:
        assert outcome.values["uniformity/w2"] == pytest.approx(expected[outcome.reading.step], rel=1e-6)
        assert outcome.values["uniformity/samples"] == 64
        assert outcome.values["uniformity/nonfinite"] == 0
    keys = "w2 effective_dims mean_resultant std_ratio lu samples nonfinite"
    assert outcomes[0].values.keys() == {f"uniformity/{key}" for key in keys.split()}
    assert [r.values["w2"] for r in read_journal(monitor.journal).readings] == [
        o.values["uniformity/w2"] for o in outcomes
    ]


def test_the_first_reading_is_there_at_once_and_others_at_the_next_due_step(tmp_path):
    model, monitor = Model(), UniformityMonitor(every_n_steps=2)
    monitor.attach(model, directory=tmp_path)
    handed_out = [[o.reading.step for o in step(monitor, model, k, views())] for k in range(7)]
    assert handed_out == [[0], [], [], [], [2], [], [4]]
    assert [o.reading.step for o in monitor.close()] == [6]


def test_micro_batches_of_a_step_are_one_reading(tmp_path):
    _, outcomes = run(tmp_path, 3, batches=4, every_n_steps=2)
    assert [(o.reading.step, o.values["uniformity/samples"]) for o in outcomes] == [(0, 256), (2, 256)]


def test_window_pools_the_steps_up_to_the_due_one(tmp_path):
    _, outcomes = run(tmp_path, 9, every_n_steps=4, window=3)
    assert [(o.reading.step, o.values["uniformity/samples"]) for o in outcomes] == [(0, 64), (4, 192), (8, 192)]


def test_several_layers_have_their_own_keys(tmp_path):
    _, outcomes = run(tmp_path, 1, layer=["encoder", "projector"], prefix="collapse/")
    assert {key for o in outcomes for key in o.values if key.endswith("w2")} == {
        "collapse/encoder/w2",
        "collapse/projector/w2",
    }


def test_auxiliary_is_the_loss_written_by_hand(tmp_path):
    model, (x0, x1) = Model().double(), (t.double() for t in views())
    by_hand = WassersteinLoss(0.3)(model(x0), model(x1)) + (model(x0) - model(x1)).square().mean()
    expected = torch.autograd.grad(by_hand, list(model.parameters()))
    monitor = UniformityMonitor(auxiliary=0.3)
    monitor.attach(model, directory=tmp_path)
    outcomes = step(monitor, model, 0, (x0, x1))
    for parameter, grad in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-12, atol=1e-15)
    values = outcomes[0].values
    assert values["uniformity/aux_loss"] == pytest.approx(0.3 * values["uniformity/w2"], rel=1e-12)
    assert values["uniformity/aux_weight"] == 0.3
    monitor.close()


def test_a_finished_pass_holds_no_graph(tmp_path):
    import gc
    import weakref

    model, monitor = Model(), UniformityMonitor(auxiliary=0.3)
    monitor.attach(model, directory=tmp_path)
    x = torch.randn(8, 4, requires_grad=True)
    graph = weakref.ref(x)
    step(monitor, model, 1, (x, x))
    del x
    gc.collect()
    assert graph() is None
    monitor.close()


def test_off_step_nothing_is_collected_without_a_loss(tmp_path):
    model, monitor = Model(), UniformityMonitor(every_n_steps=10)
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views())
    for k in range(1, 10):
        monitor.begin(k)
        model(torch.randn(4, 4))
        assert monitor._collector._layers[0].tap.views() == []
    monitor.close()


def test_alerts_stop(tmp_path, caplog):
    rules = [CollapseAlert("constant", patience=2, warmup_steps=0, action="stop")]
    model = Model()
    nn.init.zeros_(model.projector.weight)
    monitor = UniformityMonitor(every_n_steps=1, alerts=rules)
    monitor.attach(model, directory=tmp_path)
    seen = []
    for k in range(4):
        step(monitor, model, k, views())
        seen.append(monitor.should_stop)
    assert seen == [False, False, True, True]
    assert "constant collapse at step 1, since step 0" in caplog.text
    monitor.close()
    (alert,) = read_journal(monitor.journal).alerts
    assert (alert.kind, alert.step, alert.since, alert.action) == ("constant", 1, 0, "stop")


def test_what_alerts_need_is_measured_though_not_asked_for():
    assert UniformityMonitor(metrics=["lu"], alerts=None).metrics == ("lu",)
    assert set(UniformityMonitor(metrics=["lu"]).metrics) == {
        *("lu", "w2", "mean_resultant", "effective_dims", "std_ratio")
    }


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


def test_a_layer_that_is_not_called_is_told_once(tmp_path, caplog):
    model, monitor = Model(), UniformityMonitor("projector", every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    for k in range(3):
        monitor.begin(k)
        monitor.pause()
        monitor.end_pass()
        assert monitor.finish() == []
    assert caplog.text.count("nothing to read at step 0: projector was not called with gradients") == 1
    assert caplog.text.count("nothing to read") == 1
    monitor.close()


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
    assert [o.reading.step for o in outcomes + monitor.close()] == [0, 4, 6]
    assert monitor.faults.count == 1
    assert "capture at step 2: ValueError: layer projector: output=" in caplog.text
    assert "nothing to read at step 2: projector: output=" in caplog.text


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
    assert caplog.text.count("writer bad: step 0: OSError: disk full") == 1
    assert "5 readings failed, 0 were still waiting" in caplog.text


def test_a_slow_writer_holds_up_neither_training_nor_alerts(tmp_path):
    import threading

    gate = threading.Event()
    model, monitor = Model(), UniformityMonitor(every_n_steps=1, writers=[lambda values, step: gate.wait(60)])
    monitor.attach(model, directory=tmp_path)
    outcomes = [o for k in range(20) for o in step(monitor, model, k, views())]
    assert len(outcomes) == 19
    gate.set()
    monitor.close()


def test_writers_are_opened_on_the_callers_thread_and_closed(tmp_path):
    import threading

    class Recorder:
        def __init__(self):
            self.calls = []

        def open(self):
            self.calls.append(("open", threading.current_thread() is threading.main_thread()))

        def __call__(self, values, step):
            self.calls.append((step, threading.current_thread() is threading.main_thread()))

        def close(self):
            self.calls.append(("close", threading.current_thread() is threading.main_thread()))

    recorder = Recorder()
    run(tmp_path, 2, every_n_steps=1, writers=[recorder])
    assert recorder.calls == [("open", True), (0, False), (1, False), ("close", False)]


def test_a_reading_is_on_disk_before_it_goes_anywhere_else(tmp_path):
    seen = []

    def check(values, step):
        seen.append(step in [r.step for r in read_journal(tmp_path / "uniformity.jsonl").readings])

    run(tmp_path, 6, every_n_steps=1, writers=[check])
    assert seen == [True] * 6


def test_a_writer_may_do_what_it_likes_with_its_values(tmp_path):
    got = []
    writers = [lambda values, step: values.clear(), lambda values, step: got.append(len(values))]
    _, outcomes = run(tmp_path, 3, every_n_steps=1, writers=writers)
    assert got == [7, 7, 7] == [len(o.values) for o in outcomes]


def test_record_false_writes_nothing(tmp_path):
    monitor = UniformityMonitor(writers=[pytest.fail])
    monitor.attach(Model(), directory=tmp_path, record=False)
    monitor.close()
    assert list(tmp_path.iterdir()) == []


def test_leaves_no_hook_and_no_thread(tmp_path):
    import threading

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


def test_state_is_plain_and_the_journal_goes_on(tmp_path):
    rules = [CollapseAlert("constant", patience=3, warmup_steps=0)]
    model = Model()
    nn.init.zeros_(model.projector.weight)

    def part(monitor, steps):
        monitor.attach(model, directory=tmp_path)
        alerts = [a for k in steps for o in step(monitor, model, k, views()) for a in o.alerts]
        state = monitor.state_dict()
        return alerts + [a for o in monitor.close() for a in o.alerts], state

    first, second = (UniformityMonitor(every_n_steps=1, alerts=rules) for _ in range(2))
    alerts, state = part(first, range(2))
    assert alerts == []
    torch.save(state, tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    alerts, _ = part(second, range(2, 4))
    assert [(a.step, a.since) for a in alerts] == [(2, 0)]
    assert second.journal == first.journal
    assert [r.step for r in read_journal(second.journal).readings] == [0, 1, 2, 3]


def test_a_new_run_in_the_same_place_has_its_own_journal(tmp_path):
    first, _ = run(tmp_path, 1)
    second, _ = run(tmp_path, 1)
    assert (first.journal.name, second.journal.name) == ("uniformity.jsonl", "uniformity-2.jsonl")


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
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        UniformityMonitor(**arguments)


def test_logs_under_one_name(caplog):
    caplog.set_level(logging.WARNING, logger="uniformity_callbacks")
    UniformityMonitor().announce("hello")
    assert caplog.record_tuples == [("uniformity_callbacks", logging.WARNING, "hello")]


@pytest.mark.parametrize("state", [{}, {"alerts": 3}, {"alerts": [{"layer": "a"}]}, {"alerts": [], "last": 3}])
def test_a_broken_state_is_reported_and_left(state, caplog):
    monitor = UniformityMonitor()
    monitor.load_state_dict(state)
    assert monitor.faults.count == 1
    assert "could not be restored, alerts begin anew" in caplog.text
    assert monitor.state_dict()["alerts"] == []


def test_what_goes_wrong_at_the_end_does_not_hide_why_training_ended(tmp_path, caplog, monkeypatch):
    from uniformity_callbacks.journal import JournalWriter

    def fail(self):
        self._file.close()
        raise OSError("stale file handle")

    monkeypatch.setattr(JournalWriter, "close", fail)
    run(tmp_path, 2)
    assert "close: OSError: stale file handle" in caplog.text


def test_a_journal_that_fails_costs_nothing_but_itself(tmp_path, caplog, monkeypatch):
    from uniformity_callbacks.journal import JournalWriter

    def fail(self, reading):
        raise OSError("no space left on device")

    monkeypatch.setattr(JournalWriter, "reading", fail)
    got = []
    _, outcomes = run(tmp_path, 3, every_n_steps=1, writers=[lambda values, step: got.append(step)])
    assert got == [o.reading.step for o in outcomes] == [0, 1, 2]
    assert caplog.text.count("step 0 is not in the journal: OSError: no space left") == 1


def test_a_metric_that_fails_costs_its_reading_only(tmp_path, caplog, monkeypatch):
    from uniformity_callbacks import reader

    measure = reader.measure

    def sometimes(sample, metrics):
        if len(sample.rows) == 66:
            raise RuntimeError("eigh did not converge")
        return measure(sample, metrics)

    monkeypatch.setattr(reader, "measure", sometimes)
    model, monitor = Model(), UniformityMonitor(every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    outcomes = [o for k in range(5) for o in step(monitor, model, k, views(33 if k == 2 else 32))] + monitor.close()
    assert [o.reading.step for o in outcomes] == [0, 1, 3, 4]
    assert "step 2 has no reading: RuntimeError: eigh did not converge" in caplog.text
