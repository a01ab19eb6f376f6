import logging
import threading

import pytest
import torch
from torch import nn

from loops import Model, run, step, views
from uniformity_callbacks import CollapseAlert, UniformityMonitor, WassersteinLoss, functional, read_journal


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
    keys = "w2 w2_corrected effective_dims mean_resultant std_ratio lu alignment rankme norm_mean samples nonfinite"
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


def test_writers_are_opened_on_the_callers_thread_and_closed(tmp_path):

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
    assert seen
    assert seen == [True] * len(read_journal(tmp_path / "uniformity.jsonl").readings)  # fewer than 6 on a busy machine


def test_record_false_writes_nothing(tmp_path):
    monitor = UniformityMonitor(writers=[pytest.fail])
    monitor.attach(Model(), directory=tmp_path, record=False)
    monitor.close()
    assert list(tmp_path.iterdir()) == []


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


def test_logs_under_one_name(caplog):
    caplog.set_level(logging.WARNING, logger="uniformity_callbacks")
    UniformityMonitor()._responder.announce("hello")
    assert caplog.record_tuples == [("uniformity_callbacks", logging.WARNING, "hello")]


@pytest.mark.parametrize(
    ("kind", "needs"),
    [
        ("constant", {"mean_resultant", "w2"}),
        ("dimensional", {"effective_dims", "mean_resultant", "std_ratio", "w2"}),
        ("nonfinite", set()),
    ],
)
def test_a_rule_alone_is_measured_what_it_needs(kind, needs):
    assert set(UniformityMonitor(metrics=["lu"], alerts=[CollapseAlert(kind)]).metrics) == {"lu"} | needs


def test_the_loss_of_a_steps_passes_is_their_mean(tmp_path):
    model, monitor = Model().double(), UniformityMonitor(auxiliary=0.3)
    monitor.attach(model, directory=tmp_path)
    batches = [tuple(x.double() for x in views()) for _ in range(3)]
    terms = [WassersteinLoss(0.3)(model(x0), model(x1)).item() for x0, x1 in batches]
    (outcome,) = step(monitor, model, 0, *batches)
    monitor.close()
    assert outcome.values["uniformity/aux_loss"] == pytest.approx(sum(terms) / 3, rel=1e-12)


def test_a_resumed_run_whose_journal_is_gone_has_one_where_it_is(tmp_path):
    first, _ = run(tmp_path / "a", 1)
    state = first.state_dict()
    first.journal.unlink()
    second = UniformityMonitor()
    second.load_state_dict(state)
    second.attach(Model(), directory=tmp_path / "b")
    second.close()
    assert second.journal == tmp_path / "b" / "uniformity.jsonl"


def test_a_step_that_was_begun_and_not_finished_is_forgotten(tmp_path):
    """GradScaler skipped it, say: its rows are not read with those of the next due step."""
    model, monitor = Model(), UniformityMonitor(every_n_steps=2)
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views())
    step(monitor, model, 1, views())
    monitor.begin(2)
    model(views()[0]).sum().backward()
    monitor.end_pass()
    step(monitor, model, 3, views())
    step(monitor, model, 4, views())
    (outcome,) = monitor.close()
    assert (outcome.reading.step, outcome.values["uniformity/samples"]) == (4, 64)
