"""The alert benchmark: labels by their rule, the replay is what a monitor does, and the command runs."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import page
from benchmarks.alerting import __main__ as command
from benchmarks.alerting import baselines, record, replay, report, sweep, truth
from benchmarks.alerting.cases import EVERY, SEEDS, Case, cases
from benchmarks.alerting.record import Run, Task
from benchmarks.alerting.truth import Label, Look
from examples.digits import data
from examples.digits.networks import Network
from examples.methods import METHODS
from examples.methods.loop import train
from uniformity_callbacks import CollapseAlert, functional, read_journal
from uniformity_callbacks.panel import Reading
from uniformity_callbacks.rules import LEAST_ABOUT_MEAN

ALL = {case.name: case for case in cases()}


def looks(cosines=(), components=()):
    cosines = cosines or [0.1] * len(components)
    components = components or [50] * len(cosines)
    return [Look(EVERY * k, *pair) for k, pair in enumerate(zip(cosines, components, strict=True))]


def readings(name, values, **others):
    base = {"effective_dims": 60.0, "mean_resultant": 0.2, "std_ratio": 1.0, "w2": 1.0, "samples": 256, "nonfinite": 0}
    return [Reading(EVERY * k, "projector", 128, base | others | {name: v}, 0.0) for k, v in enumerate(values)]


def test_cases_are_unique_and_have_their_intact_counterparts():
    assert len(ALL) == len(cases())
    for case in cases():
        assert case.method == "siamese" or ALL[case.intact].expected == "healthy"
    assert sum(case.expected == "healthy" for case in cases()) == 16
    assert {case.expected for case in cases()} == {"healthy", "constant", "dimensional", "nonfinite", None}


@pytest.mark.parametrize(
    ("cosines", "expected"),
    [
        ((0.1, 0.99, 0.995, 1.0), Label("constant", 10)),
        ((0.1, 0.99, 0.5, 1.0), Label("constant", 30)),  # since when without interruption
        ((1.0, 1.0, 1.0, 0.98), Label(None, None)),  # what holds at the end
        ((0.99, 0.99), Label("constant", 0)),
        ((0.1, 0.99, math.nan, math.nan), Label("nonfinite", 20)),
    ],
)
def test_constant_and_nonfinite_labels(cosines, expected):
    assert truth.label(looks(cosines), None) == expected


def test_dimensional_label_is_by_the_intact_run():
    intact = looks(components=(90, 60, 45, 30))
    assert truth.label(looks(components=(90, 21, 15, 10)), intact) == Label("dimensional", 20)
    assert truth.label(looks(components=(90, 21, 15, 11)), intact) == Label(None, None)
    assert truth.label(looks(components=(90, 21, 15, 11)), intact, share=0.5) == Label("dimensional", 10)
    assert truth.label(looks(components=(90, 21, 15, 10)), None) == Label(None, None)


def test_look_is_by_pairs_and_components_and_touches_nothing():
    torch.manual_seed(0)
    method, images = METHODS["simclr"](), torch.rand(40, 1, 8, 8)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    seen = truth.look(10, Network(), method, images)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    z = F.normalize(method(images).double(), dim=1).detach().numpy()
    cosines = z @ z.T
    assert seen.cosine == pytest.approx((cosines.sum() - np.trace(cosines)) / (40 * 39), abs=1e-6)
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(z.T)))[::-1]
    shares = np.cumsum(eigenvalues) / eigenvalues.sum()
    assert seen.components == int(np.sum(shares < truth.VARIANCE)) + 1
    with torch.no_grad():
        method.projector[0].weight.fill_(math.nan)
    assert not truth.look(10, Network(), method, images).finite


def test_replay_is_what_a_monitor_says(tmp_path):
    rules, said = [CollapseAlert("constant", warmup_steps=20)], []
    for alerts in (rules, None):
        torch.manual_seed(0)
        batches = data.train_loader(data.load(), steps=80, batch_size=32)
        journal = tmp_path / f"{len(said)}.jsonl"
        said.append(read_journal(train(METHODS["siamese"](), batches, every_n_steps=5, alerts=alerts, journal=journal)))
    live = [(alert.kind, alert.step) for alert in said[0].alerts]
    told = replay.told_of(said[1].readings, rules)
    assert [(one.alert.kind, one.alert.step) for one in told] == live
    assert [kind for kind, _ in live] == ["constant"]
    assert not said[1].alerts


@pytest.mark.parametrize(
    ("onset", "begins", "delay", "found"),
    [
        (200, 200, 3, True),  # three readings at 200, 210, 220
        (180, 100, 5, True),
        (170, 100, 6, False),
        (250, 200, -2, True),  # told before
        (50, 180, 5, True),  # the rule begins at 180
        (50, 170, 6, False),
    ],
)
def test_delay_counts_readings_from_the_onset_or_from_where_the_rule_begins(onset, begins, delay, found):
    values = [0.99 if step >= 200 else 0.2 for step in range(0, 300, EVERY)]
    run = Run(ALL["siamese"], 1, readings("mean_resultant", values), ())
    verdict = replay.verdict(run, Label("constant", onset), [CollapseAlert("constant", warmup_steps=begins)])
    assert (verdict.delay, verdict.found, verdict.kinds) == (delay, found, ("constant",))


def test_an_alert_that_was_over_before_the_onset_tells_nothing():
    values = [0.99 if 100 <= step < 150 else 0.2 for step in range(0, 400, EVERY)]
    run = Run(ALL["siamese"], 1, readings("mean_resultant", values), ())
    (told,) = replay.told_of(run.readings, sweep.defaults())
    assert (told.alert.step, told.over) == (120, 170)
    rules = sweep.defaults()
    assert replay.verdict(run, Label("constant", 200), rules).delay is None
    assert replay.verdict(run, Label("constant", 160), rules).delay is not None


def test_points_count_collapses_found_and_false_alarms():
    low, high = [5.0] * 30, [60.0] * 30
    runs = [
        sweep.Known(Run(ALL["barlow-no-off"], 1, readings("effective_dims", low), ()), Label("dimensional", 100)),
        sweep.Known(Run(ALL["barlow-no-off"], 2, readings("effective_dims", high), ()), Label("dimensional", 100)),
        sweep.Known(Run(ALL["byol-1"], 1, readings("effective_dims", low), ()), Label("dimensional", 100)),
        sweep.Known(Run(ALL["byol-1"], 2, readings("effective_dims", high), ()), Label(None, None)),
    ]
    point = sweep.point(runs, CollapseAlert("dimensional"))
    assert (point.found, point.collapses, point.false, point.healthy) == (1, 2, 1, 2)
    assert (point.share, point.in_twenty) == (0.5, 10.0)
    table = report.confused(sweep.verdicts(runs, sweep.defaults()))
    assert "| dimensional | 0 | 1 | 0 | 1 | 0 |" in table
    assert "| healthy | 0 | 1 | 0 | 1 | 0 |" in table


def test_a_healthy_run_of_another_seed_sets_the_threshold():
    def run(case, seed, dims, kind=None):
        return sweep.Known(Run(ALL[case], seed, readings("effective_dims", [dims] * 30), ()), Label(kind, kind and 100))

    runs = [
        run("byol-1", 1, 40.0),
        run("byol-1", 2, 24.0),
        run("byol-0.5", 1, 90.0),
        run("byol-0.5", 2, 90.0),
        run("byol-high", 1, 12.0, "dimensional"),  # half of 24, of seed 2
        run("byol-high", 2, 21.0, "dimensional"),  # not half of 40
        run("siamese", 1, 5.0, "constant"),  # never healthy, sets none and has none
    ]
    for rate, share, expected in ((1.0, 0.5, (1, 2, 0, 4)), (1.0, 0.6, (2, 2, 1, 4)), (0.5, 0.5, (2, 2, 2, 4))):
        p = baselines.points(runs, runs, rate, share)
        assert (p.found, p.collapses, p.false, p.healthy) == expected
    assert "| its own | 0.5, the default | 0 of 1 | 0 of 2 | 1 of 2 | 0 of 4 |" in baselines.table(
        runs, report.judging(runs)
    )


def test_dims_about_the_mean_are_those_that_w2_sees():
    generator = torch.Generator().manual_seed(0)
    z = torch.zeros(4096, 32)
    z[:, :6] = torch.randn(4096, 6, generator=generator)
    z[:, 6] += 2.0
    dims, resultant = functional.effective_dims(z).item(), functional.mean_resultant_length(z).item()
    w2 = functional.corrected_wasserstein_uniformity(z).item()
    assert 0.3 < resultant**2 < 0.7
    values = {"mean_resultant": resultant, "effective_dims": dims, "samples": 4096.0}
    run = Run(ALL["byol-1"], 1, [Reading(0, "projector", 32, values, 0.0)], ())
    seen = [replay.about_mean(run, least).readings[0].values["effective_dims"] for least in (0.0, 0.9, 1.0)]
    assert seen == [pytest.approx(32 * (1 - w2**2 / 2) ** 2, rel=1e-2), 0.9 * dims, dims]


def test_dims_about_the_mean_are_judged_as_the_default_judges_dims():
    rule, flat = CollapseAlert("dimensional"), CollapseAlert("dimensional", threshold=9)
    told = set()
    for resultant in (0.0, 0.3, 0.45, 0.7, 0.9):
        for dims in (8.9, 9.5, 10.5, 11.9, 12.1):
            values = {"mean_resultant": resultant, "effective_dims": dims, "samples": 512.0}
            run = Run(ALL["byol-1"], 1, [Reading(100, "projector", 128, values, 0.0)], ())
            (read,), (less,) = run.readings, replay.about_mean(run, LEAST_ABOUT_MEAN).readings
            verdicts = [r.collapsed(r.value(one), r.limit(one)) for r, one in ((rule, read), (flat, less))]
            assert verdicts[0] == verdicts[1]
            told.add((dims, verdicts[0]))
    assert {dims for dims, is_told in told if is_told} == {8.9, 9.5, 10.5, 11.9}


def test_best_keeps_false_alarms_bearable_then_finds_most_and_is_the_middle_of_equals():
    rule = CollapseAlert("constant")
    points = [sweep.Point(rule, found, 10, false, 20) for found, false in ((5, 0), (8, 1), (8, 1), (8, 1), (10, 2))]
    assert sweep.best(points) is points[2]
    assert sweep.best([sweep.Point(rule, 9, 10, 8, 20), few := sweep.Point(rule, 1, 10, 3, 20)]) is few


def test_spoilt_loss_is_nan_at_its_step_alone():
    torch.manual_seed(0)
    method = METHODS["siamese"]()
    record.spoil(method, 1)
    z = torch.rand(4, 8)
    assert [bool(method.loss(z, 2 * z, z, z).isnan()) for _ in range(3)] == [False, True, False]


def test_nan_run_ends_as_nonfinite(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.alerting.cases.NAN_FROM", 10)
    task = Task(Case("nan", "", "siamese", "nonfinite", spoilt=True), 0, tmp_path, 50)
    record.record_all([task], processes=0)
    run = record.read(task)
    assert truth.label(run.looks, None) == Label("nonfinite", 20)  # the loss of step 10 is NaN, its outputs are not
    told = replay.told_of(run.readings, [CollapseAlert("nonfinite")])
    assert [one.alert.step for one in told] == [40]
    assert [r.step for r in run.readings] == [look.step for look in run.looks] == list(range(0, 50, EVERY))


def test_command_runs_in_short(capsys):
    command.main(["--tiny"])
    out = capsys.readouterr().out
    assert "| Barlow Twins | healthy | 2 none |" in out
    assert "### The defaults, on the half that judges" in out


def test_other_seeds_are_judged_and_nothing_is_written(capsys, tmp_path, monkeypatch):
    few = [case for case in cases() if case.name in command.TINY]
    monkeypatch.setattr(command, "cases", lambda: few)
    monkeypatch.setattr(command, "Task", lambda case, seed, folder, steps: Task(case, seed, tmp_path, 130))
    monkeypatch.setattr(record, "record_all", partial(record.record_all, processes=0))
    files = [command.PAGE, command.PAGE.with_suffix(".png")]
    before = [file.read_bytes() for file in files]
    command.main(["--seeds", "11", "13"])
    out = capsys.readouterr().out
    assert "| Barlow Twins | healthy | 3 none |" in out
    assert "| 0.75, the default |" in out
    assert {path.name for path in tmp_path.glob("barlow_twins-1*.json")} == {
        f"barlow_twins-1-seed{seed}.json" for seed in (11, 12, 13)
    }
    assert [file.read_bytes() for file in files] == before


def test_page_has_its_part():
    text = command.PAGE.read_text()
    assert page.replaced(text, "alerts", "x") != text
    assert ("(alert_benchmark.png)" in text) == command.PAGE.with_suffix(".png").exists()
    assert len(SEEDS) >= 5
