"""The main job on real input: what `make demo` shows must come out, here in the fewest steps that show it."""

import pytest
import torch

from examples import demo
from examples.digits import data, evaluate, models, show

STEPS = 250


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    digits = data.load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "STEPS", STEPS)
        demo.make_store(folder)
        return {run.name: demo.train(run, digits, folder) for run in demo.RUNS}, folder


def last(result):
    return result.journal.readings[-1].values


def test_siamese_collapses_to_a_point_and_is_told_while_it_happens(results):
    result = results[0]["Siamese"]
    assert [(a.kind, a.step, a.since) for a in result.journal.alerts] == [("constant", 120, 100)]
    assert result.steps == STEPS
    assert last(result)["w2"] > 1.38
    assert last(result)["mean_resultant"] > 0.99
    assert result.eval_w2 > 1.38
    assert result.events == ["constant", "told at 120"]


def test_stop_stops_at_the_alert(results):
    result = results[0]["Siamese, stop"]
    assert result.steps == 131  # the alert is known at the next due step, 130
    assert result.events == ["constant", "told at 120", "stopped"]


def test_up_to_the_stop_it_is_the_same_run(results):
    watched, stopped = (results[0][name].journal.series("w2") for name in ("Siamese", "Siamese, stop"))
    assert stopped[1] == watched[1][: len(stopped[1])]
    assert len(stopped[0]) == 14


def test_the_loss_keeps_it_from_collapse(results):
    result, watched = results[0]["Siamese + W2"], results[0]["Siamese"]
    assert result.events == ["no collapse"]
    assert last(result)["w2"] < 1.0
    assert last(result)["std_ratio"] > 0.9
    assert result.accuracies.nearest_neighbour > watched.accuracies.nearest_neighbour + 0.05
    assert result.accuracies.linear_probe > watched.accuracies.linear_probe + 0.1


def test_a_loss_that_is_on_while_the_alert_stands_brings_it_back(results):
    result, watched = results[0]["Siamese, alert"], results[0]["Siamese"]
    ((found, since), (over, stood)) = [(a.step, a.since) for a in result.journal.alerts + result.journal.recoveries]
    assert (found, since, stood) == (120, 100, 100)
    assert 150 < over < STEPS
    steps, weights = result.journal.series("aux_weight")
    on = [step for step, weight in zip(steps, weights, strict=True) if weight]
    assert on == [step for step in steps if found + 10 < step <= over + 10]  # known at the next due step
    assert set(weights) == {0.0, 1.0}
    before, at = (dict(zip(*run.journal.series("mean_resultant"), strict=True)) for run in (watched, result))
    assert before[over] > 0.99
    assert at[over] < 0.9
    assert result.journal.series("w2")[1][: steps.index(130)] == watched.journal.series("w2")[1][: steps.index(130)]


def test_dimensional_collapse_is_told_as_such_though_std_ratio_reads_healthy(results):
    result = results[0]["Barlow*"]
    assert [(a.kind, a.step, a.since) for a in result.journal.alerts] == [("dimensional", 120, 100)]
    assert min(result.journal.series("std_ratio")[1]) > 0.65
    assert last(result)["effective_dims"] < 9
    assert last(result)["w2"] > 1.1


def test_the_loss_brings_the_dimensions_back(results):
    result = results[0]["Barlow* + W2"]
    assert result.events == ["no collapse"]
    assert last(result)["effective_dims"] > 90
    assert last(result)["w2"] < 0.6
    assert result.accuracies.linear_probe > results[0]["Barlow*"].accuracies.linear_probe + 0.02


def test_whole_barlow_twins_raises_no_alert(results, tmp_path):
    demo.make_store(tmp_path)
    run = demo.Run("Barlow whole", models.BarlowTwins, {})
    result = demo.train(run, data.load(), tmp_path)
    assert result.events == ["no collapse"]


def test_everything_is_in_tensorboard_and_mlflow(results):
    from mlflow.tracking import MlflowClient
    from test_tensorboard import read, texts

    found, folder = results
    client = MlflowClient(demo.store(folder))
    experiment = client.get_experiment_by_name(demo.EXPERIMENT)
    runs = {run.info.run_name: run.info for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == found.keys()
    for (name, result), directory in zip(found.items(), sorted_by_run(folder), strict=True):
        expected = [(r.step, pytest.approx(r.values["w2"], rel=1e-6)) for r in result.journal.readings]
        assert read(directory)["uniformity/w2"] == expected
        history = client.get_metric_history(runs[name].run_id, "uniformity/w2")
        assert [(m.step, m.value) for m in history] == expected
        assert runs[name].status == "FINISHED"
        said = {name.rpartition("/")[2] for name in client.get_run(runs[name].run_id).data.tags if "/alerts/" in name}
        assert said == {alert.kind for alert in result.journal.alerts}
        assert {name.rpartition("/")[2] for name in texts(directory)} == said


def sorted_by_run(folder):
    names = ["siamese", "siamese-stop", "siamese-w2", "siamese-alert", "barlow", "barlow-w2"]
    return [folder / "tensorboard" / name for name in names]


def test_table_and_figure(results, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    show.table(list(results[0].values()), evaluate.Accuracies(0.98, 0.95, 0.97))
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 80
    for part in (
        "constant",
        "dimensional",
        "told at 120",
        "over at 2",
        "stopped",
        "no collapse",
        "raw pixels",
        "0.980",
    ):
        assert part in out
    show.figure(list(results[0].values()), tmp_path / "collapse.png")
    assert (tmp_path / "collapse.png").read_bytes().startswith(b"\x89PNG")


def test_evaluation_leaves_the_model_as_it_was():
    model = models.Siamese()
    model.encoder[0].eval()
    before = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert evaluate.accuracies(model, data.load()).nearest_neighbour > 0.5
    assert [module.training for module in model.modules()] == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_views_are_reproducible():
    digits = data.load()
    first, second = (next(iter(data.train_loader(digits, steps=2, seed=5))) for _ in range(2))
    assert torch.equal(first[0][0], second[0][0])
    assert not torch.equal(first[0][0], first[0][1])
    assert first[0][0].shape == (256, 1, 8, 8)
