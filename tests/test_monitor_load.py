"""Readings that take longer than the time between two due steps, in real monitors: many rows, many dimensions."""

import logging
import time

import pytest
import torch
from torch import nn

from loops import idle, validate
from uniformity_callbacks import CollapseAlert, UniformityMonitor, read_journal
from uniformity_callbacks.integrations.pytorch import watch

ROWS, DIMS = 512, 768


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.projector = nn.Linear(2, DIMS)

    def forward(self, x):
        return self.projector(x)


def rows_of(n=ROWS):
    generator = torch.Generator().manual_seed(n)
    x0 = torch.randn(n, 2, generator=generator)
    return x0, x0 + 0.1 * torch.randn(n, 2, generator=generator)


def watching(tmp_path, **arguments):
    model = Wide()
    monitor = UniformityMonitor(every_n_steps=1, journal=tmp_path / "j.jsonl", **arguments)
    monitor.attach(model, directory=tmp_path)
    return monitor, model


def load_of(monitor):
    return monitor._desk.reader._load


def go(monitor, model, start, until, n=ROWS):
    """Steps of a training whose own part is short, until something is so; returns the next step."""
    x0, x1 = rows_of(n)
    for k in range(start, start + 20_000):
        if until(k):
            return k
        monitor.begin(k)
        z = model(x0), model(x1)
        monitor.pause()
        (z[0] - z[1]).square().mean().backward()
        monitor.end_pass()
        monitor.finish()
    raise AssertionError("it never is")


def read(monitor):
    """Rows of each reading of the training so far, by step."""
    if not monitor.journal.exists():
        return {}
    return {r.step: int(r.values["samples"]) for r in read_journal(monitor.journal).readings if r.stage == "train"}


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [r.getMessage() for r in caplog.records if "one is due every" in r.getMessage()]


def test_due_steps_are_passed_over_and_that_is_told(tmp_path, told):
    monitor, model = watching(tmp_path)
    waiting = []

    def enough(k):
        waiting.append(len(monitor._desk.reader._worker._items))
        return len(read(monitor)) >= 8

    end = go(monitor, model, 0, enough)
    every = load_of(monitor).every
    assert every > 1
    monitor.close()
    steps = read(monitor)
    assert steps[0] == 2 * ROWS
    assert len(steps) < end / 2
    assert set(steps.values()) == {2 * ROWS}
    assert max(waiting) <= 1
    assert monitor.faults.count == 0
    assert any(f"one of {every} due steps is read now; choose" in said for said in told())


def test_passed_over_steps_are_not_blind(tmp_path, caplog):
    rules = [CollapseAlert("blind", patience=1, warmup_steps=0), CollapseAlert("constant", patience=3, warmup_steps=0)]
    monitor, model = watching(tmp_path, alerts=rules)
    with torch.no_grad():
        model.projector.weight.mul_(1e-4)  # one point
    end = go(monitor, model, 0, lambda k: len(read(monitor)) >= 5)
    monitor.collect(30.0)
    (constant,) = read_journal(monitor.journal).alerts
    assert constant.kind == "constant"
    steps = sorted(read(monitor))
    assert constant.step == steps[2]  # the patience counts readings that were made
    idle(monitor, end)
    monitor.collect(30.0)
    assert read(monitor)[end] == 0
    assert [alert.kind for alert in read_journal(monitor.journal).alerts] == ["constant", "blind"]
    go(monitor, model, end + 1, lambda k: k == end + 2)
    monitor.collect(30.0)
    (over,) = read_journal(monitor.journal).recoveries
    assert (over.kind, over.step) == ("blind", end + 1)
    monitor.close()


def test_a_validation_epoch_is_always_read(tmp_path):
    monitor, model = watching(tmp_path)
    k = go(monitor, model, 0, lambda k: k and load_of(monitor).every > 1)
    validated = []
    for _ in range(3):
        validate(monitor, model, [rows_of()])
        validated.append(k - 1)
        k = go(monitor, model, k, lambda now, last=k: now == last + 1)
    monitor.close()
    assert [r.step for r in read_journal(monitor.journal).readings if r.stage == "val"] == validated


def test_rows_are_left_out_pairs_stay_pairs_and_samples_says_how_many(tmp_path, told):
    monitor, model = watching(tmp_path, overload="subsample")
    go(monitor, model, 0, lambda k: k and load_of(monitor).thinning > 1 and load_of(monitor)._took)
    thinning = load_of(monitor).thinning
    monitor.close()
    assert thinning > 1
    steps = read(monitor)
    assert steps[0] == 2 * ROWS
    assert 2 * len(range(0, ROWS, thinning)) in steps.values()
    assert f"one of {thinning} rows of it; choose" in told()[-1]
    series = read_journal(monitor.journal).series("alignment")[1]
    assert series[-1] == pytest.approx(series[0], rel=0.5)  # of rows that are no pairs it is a hundred times that


def test_it_recovers_and_says_so(tmp_path, told):
    monitor, model = watching(tmp_path)
    k = go(monitor, model, 0, lambda k: k and load_of(monitor).every > 1)
    slower = lambda k: time.sleep(0.005) or load_of(monitor).every == 1  # noqa: E731
    go(monitor, model, k, slower, n=20)
    monitor.close()
    assert told()[-1].endswith("every due step is read now")


def test_a_loop_is_told_which_other_there_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = Wide()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer=optimizer, overload="subsample") as monitor:
        assert monitor.monitor.overload == "subsample"
    with pytest.raises(ValueError, match=r'overload must be "skip" .* or "subsample" .*, got \'drop\''):
        watch(model, optimizer=optimizer, overload="drop")
    assert UniformityMonitor().overload == "skip"
