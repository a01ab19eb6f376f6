"""What a monitor says of samples too small or repeated, and of whole validation sets."""

import itertools
import math

import pytest
import torch

from loops import Model, run, step, validate, views
from uniformity_callbacks import CollapseAlert, UniformityMonitor, functional, read_journal


def test_a_view_of_few_rows_has_no_corrected_numbers(tmp_path, caplog):
    model, monitor = Model(), UniformityMonitor(every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    for k in range(4):
        step(monitor, model, k, views(15))
    step(monitor, model, 4, views(16))
    monitor.close()
    readings = read_journal(monitor.journal).readings
    assert [{"w2_corrected", "effective_dims"} & r.values.keys() for r in readings[:4]] == [set()] * 4
    assert all("w2" in r.values for r in readings)
    assert {"w2_corrected", "effective_dims"} <= readings[4].values.keys()
    assert caplog.text.count("not reported: a view has 15 rows, 16 are needed; a larger batch, or window=") == 1


def test_a_window_gives_a_small_batch_its_corrected_numbers(tmp_path):
    _, outcomes = run(tmp_path, 5, every_n_steps=4, window=4)
    assert "uniformity/w2_corrected" in outcomes[1].values


def test_each_view_is_corrected_by_itself(tmp_path):
    model, monitor = Model(), UniformityMonitor(every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    x0, x1 = views()
    z = [model(x).detach().double() for x in (x0, x1)]
    (outcome,) = step(monitor, model, 0, (x0, x1))
    monitor.close()
    for key, metric in (
        ("w2_corrected", functional.corrected_wasserstein_uniformity),
        ("effective_dims", functional.effective_dims),
    ):
        mean = (metric(z[0]) + metric(z[1])).item() / 2
        assert outcome.values[f"uniformity/{key}"] == pytest.approx(mean, rel=1e-4)
    assert outcome.values["uniformity/w2"] == pytest.approx(
        functional.wasserstein_uniformity(torch.cat(z)).item(), rel=1e-6
    )
    assert outcome.values["uniformity/alignment"] == pytest.approx(functional.alignment(*z).item(), rel=1e-6)


def test_repeated_rows_are_pointed_out_once(tmp_path, caplog):
    model, monitor = Model(), UniformityMonitor(every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    for k in range(4):
        x0, x1 = views(16)
        step(monitor, model, k, (torch.cat([x0, x0]), torch.cat([x1, x1])))
    monitor.close()
    assert caplog.text.count("biased: 32 of 64 rows repeat another of their view; does a sampler pad?") == 1


def test_one_point_is_a_collapse_and_no_repetition(tmp_path, caplog):
    model, monitor = Model(), UniformityMonitor(every_n_steps=1)
    torch.nn.init.zeros_(model.projector.weight)
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views())
    monitor.close()
    assert "repeat another" not in caplog.text


def test_one_view_has_no_alignment(tmp_path):
    model, monitor = Model(), UniformityMonitor(every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    monitor.begin(0)
    model(views()[0]).sum().backward()
    monitor.pause()
    monitor.end_pass()
    (outcome,) = monitor.finish()
    monitor.close()
    assert "uniformity/alignment" not in outcome.values
    assert "uniformity/lu" in outcome.values


def test_any_metric_on_request(tmp_path):
    names = ["floor", "alpha", "norm_cv", "effective_rank", "participation_ratio", "stable_rank"]
    _, (outcome,) = run(tmp_path, 1, metrics=names, alerts=None)
    assert outcome.values.keys() == {f"uniformity/{name}" for name in (*names, "samples", "nonfinite")}
    assert outcome.values["uniformity/floor"] == pytest.approx(functional.wasserstein_floor(64, 8).item())


def test_a_validation_epoch_is_read_as_a_whole(tmp_path):
    model, monitor = Model(), UniformityMonitor(every_n_steps=2)
    monitor.attach(model, directory=tmp_path)
    data = torch.randn(1500, 4)
    trained = [step(monitor, model, k, views()) for k in range(3)]
    outcomes = validate(monitor, model, [[part] for part in data.split(100)])
    outcomes += [o for k in range(3, 7) for o in step(monitor, model, k, views())] + monitor.close()
    assert [o.reading.step for o in itertools.chain(*trained)] == [0]
    assert [(o.reading.step, o.reading.stage) for o in outcomes] == [
        (2, "train"),
        (2, "val"),
        (4, "train"),
        (6, "train"),
    ]
    values = outcomes[1].values
    z = model(data).detach()
    assert values["uniformity/val/samples"] == 1500
    assert values["uniformity/val/w2"] == pytest.approx(functional.wasserstein_uniformity(z.double()).item(), rel=1e-6)
    expected = functional.corrected_wasserstein_uniformity(z.double()).item()
    assert values["uniformity/val/w2_corrected"] == pytest.approx(expected, rel=1e-6)
    assert values["uniformity/val/lu"] == pytest.approx(functional.wang_isola_uniformity(z).item(), rel=1e-4)
    assert "uniformity/val/alignment" not in values
    back = read_journal(monitor.journal)
    assert back.series("w2", stage="val") == ([2], [values["uniformity/val/w2"]])
    assert back.series("w2")[0] == [0, 2, 4, 6]
    assert monitor.last["uniformity/val/w2"] == values["uniformity/val/w2"]


def test_two_views_of_a_validation_batch_are_aligned(tmp_path):
    model, monitor = Model(), UniformityMonitor()
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views())
    x = torch.randn(90, 4)
    (outcome,) = validate(monitor, model, [[part, 2 * part] for part in x.split(30)])
    monitor.close()
    with torch.no_grad():
        expected = functional.alignment(model(x), model(2 * x)).item()
    assert outcome.values["uniformity/val/alignment"] == pytest.approx(expected, rel=1e-5)
    assert outcome.values["uniformity/val/samples"] == 180


def test_validation_feeds_no_alert_and_several_layers_have_their_keys(tmp_path):
    model = Model()
    rules = [CollapseAlert("constant", patience=1, warmup_steps=0)]
    monitor = UniformityMonitor(["encoder", "projector"], every_n_steps=1, alerts=rules)
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views())
    one_point = torch.ones(64, 4)
    outcomes = [o for _ in range(5) for o in validate(monitor, model, [[one_point]])]
    monitor.close()
    assert len(outcomes) == 10
    assert all(o.values[o.key + "mean_resultant"] > 0.999 for o in outcomes)
    assert {o.key for o in outcomes} == {"uniformity/val/encoder/", "uniformity/val/projector/"}
    assert [o.alerts for o in outcomes] == [[]] * 10


def test_a_layer_that_validation_does_not_call_is_not_read(tmp_path, caplog):
    model, monitor = Model(), UniformityMonitor("projector")
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views())
    monitor.begin_validation()
    monitor.begin_validation_batch()
    model.encoder(torch.ones(4, 4))
    monitor.end_validation_batch()
    assert monitor.finish_validation() == []
    monitor.close()
    assert caplog.text == ""


def test_what_goes_wrong_in_validation_does_not_reach_training(tmp_path, caplog):
    model = Model()
    monitor = UniformityMonitor("projector", output=lambda z: z if len(z) == 32 else z[0], every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views())
    assert validate(monitor, model, [[torch.ones(7, 4)]]) == []
    step(monitor, model, 1, views())
    assert [o.reading.step for o in monitor.close()] == [1]


def test_nothing_finite_is_nan_in_every_metric_asked_for(tmp_path):
    model, monitor = Model(), UniformityMonitor(every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    x = torch.full((32, 4), math.nan)
    (outcome,) = step(monitor, model, 0, (x, x))
    monitor.close()
    counts = {"uniformity/samples": 0.0, "uniformity/nonfinite": 64.0}
    assert {k: v for k, v in outcome.values.items() if not math.isnan(v)} == counts
    assert {"uniformity/w2_corrected", "uniformity/effective_dims", "uniformity/w2"} <= outcome.values.keys()


def test_one_of_several_layers_in_validation_has_its_own_key(tmp_path):
    model, monitor = Model(), UniformityMonitor(["encoder", "projector"], every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views())
    (outcome,) = validate(monitor, model.encoder, [[torch.randn(20, 4)]])
    monitor.close()
    assert outcome.key == "uniformity/val/encoder/"


def test_a_validation_epoch_that_was_broken_off_leaves_nothing(tmp_path):
    model, monitor = Model(), UniformityMonitor()
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views())
    monitor.begin_validation()
    monitor.begin_validation_batch()
    model(torch.randn(50, 4))
    monitor.end_validation_batch()  # and the user interrupts it
    (outcome,) = validate(monitor, model, [[torch.randn(20, 4)]])
    assert outcome.values["uniformity/val/samples"] == 20
    assert monitor.finish_validation() == []
    monitor.close()


def test_validation_before_the_first_step_of_a_resumed_run_is_read_at_its_step(tmp_path):
    model, monitor = Model(), UniformityMonitor()
    monitor.attach(model, directory=tmp_path)
    monitor.start(8)
    (outcome,) = validate(monitor, model, [[torch.randn(20, 4)]])
    monitor.close()
    assert outcome.reading.step == 8


def test_validation_before_it_is_known_which_projector_is_trained_harms_nobody(tmp_path, caplog):
    class Two(Model):
        def __init__(self):
            super().__init__()
            self.target = torch.nn.ModuleDict({"projector": torch.nn.Linear(16, 8)})

    model, monitor = Two(), UniformityMonitor(every_n_steps=1)
    monitor.attach(model, directory=tmp_path)
    monitor.start(0)
    monitor.begin_validation()
    monitor.begin_validation_batch()
    for projector in (model.projector, model.target["projector"]):
        projector(torch.randn(20, 16))
    monitor.end_validation_batch()
    assert monitor.finish_validation() == []
    assert "more than one projector that is run" in caplog.text
    (outcome,) = step(monitor, model, 0, views())
    monitor.close()
    assert outcome.reading.layer == "projector"


def test_too_few_rows_are_told_of_training_and_of_validation(tmp_path, caplog):
    model, monitor = Model(), UniformityMonitor()
    monitor.attach(model, directory=tmp_path)
    step(monitor, model, 0, views(15))
    for _ in range(2):
        validate(monitor, model, [[torch.randn(10, 4)]])
    monitor.close()
    assert caplog.text.count("not reported: a view has 15 rows") == 1
    assert caplog.text.count("not reported: a view has 10 rows") == 1


def test_the_larger_view_is_told(tmp_path, caplog):
    model, monitor = Model(), UniformityMonitor()
    monitor.attach(model, directory=tmp_path)
    monitor.begin(0)
    for n in (15, 10):
        model(torch.randn(n, 4))
    monitor.pause()
    monitor.end_pass()
    monitor.finish()
    monitor.close()
    assert "a view has 15 rows, 16 are needed" in caplog.text
