"""Due steps in which the layer is not seen."""

from loops import Model, idle, step, views
from uniformity_callbacks import UniformityMonitor, read_journal


def test_a_layer_that_is_not_called_is_told_at_once_and_raises_an_alert(tmp_path, caplog):
    model, monitor = Model(), UniformityMonitor("projector", every_n_steps=2)
    monitor.attach(model, directory=tmp_path)
    outcomes = [o for k in range(7) for o in idle(monitor, k)]
    assert [(o.reading.step, o.reading.dims, o.values) for o in outcomes] == [
        (step, 0, {"uniformity/samples": 0.0, "uniformity/nonfinite": 0.0}) for step in (0, 2, 4, 6)
    ]
    assert caplog.text.count("nothing to read at step 0: projector was not called") == 1
    alerts = [(a.kind, a.step, a.since, a.action) for o in outcomes for a in o.alerts]
    assert alerts == [("blind", 2, 0, "warn")]
    assert "means: projector was not called" in caplog.text
    step(monitor, model, 8, views())
    step(monitor, model, 10, views())
    monitor.close()
    back = read_journal(monitor.journal)
    assert [(a.kind, a.step, a.since) for a in back.recoveries] == [("blind", 10, 0)]
    assert [r.why for r in back.readings] == ["projector was not called"] * 4 + ["", ""]


def test_a_blind_step_is_told_by_the_second_due_step(tmp_path):
    """Two intervals at most: the alert is handed out with the reading that makes it certain, not one due step later."""
    model, monitor = Model(), UniformityMonitor("projector", every_n_steps=5)
    monitor.attach(model, directory=tmp_path)
    told = []
    for k in range(16):
        outcomes = step(monitor, model, k, views()) if k < 4 else idle(monitor, k)
        told += [(k, a.kind, a.since) for o in outcomes for a in o.alerts]
    monitor.close()
    assert told == [(10, "blind", 5)]


def test_without_a_rule_for_it_blindness_is_logged_once(tmp_path, caplog):
    model, monitor = Model(), UniformityMonitor("projector", every_n_steps=1, alerts=None)
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views())
    for k in range(1, 5):
        idle(monitor, k)
    monitor.close()
    assert caplog.text.count("nothing to read at step 1") == caplog.text.count("nothing to read") == 1


def test_blindness_is_told_again_in_another_run(tmp_path, caplog):
    monitor = UniformityMonitor("projector", every_n_steps=1, alerts=None)
    for _ in range(2):
        monitor.attach(Model(), directory=tmp_path)
        for k in range(3):
            idle(monitor, k)
        monitor.close()
    assert caplog.text.count("nothing to read at step 0") == 2


def test_a_layer_is_not_waited_for_because_another_is_blind(tmp_path):
    model, monitor = Model(), UniformityMonitor(["encoder", "projector"], every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    told = [[o.reading.step for o in step(monitor, model.encoder, k, views())] for k in range(3)]
    monitor.close()
    assert told == [[0, 0], [], [1, 1]]


def test_a_step_with_nothing_to_read_has_no_loss_either(tmp_path):
    model, monitor = Model(), UniformityMonitor("projector", auxiliary=0.3, every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views())
    (outcome,) = idle(monitor, 1)
    monitor.close()
    assert outcome.values.keys() == {"uniformity/samples", "uniformity/nonfinite"}
