"""A monitor of a plain loop from its first step to its last: alerts, resumption, validation, the end."""

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from plain import ROWS, Net, as_it_is, batches, made, one_step, readings, sgd, train, watched

from uniformity_callbacks import CollapseAlert, CollapseError, functional, read_journal
from uniformity_callbacks.integrations.pytorch import watch
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter

pytestmark = pytest.mark.usefixtures("own_place", "nothing_is_watched")
ROOT = Path(__file__).parents[2]


def collapsing():
    model = made(dropout=0.0)
    with torch.no_grad():
        model.projector[0].weight.mul_(1e-3)
    return model, torch.optim.SGD(model.parameters(), lr=0.0)


def test_stop_and_raise():
    rule = {"patience": 2, "warmup_steps": 0}
    model, optimizer = collapsing()
    with watched(model, optimizer, alerts=[CollapseAlert("constant", **rule, action="stop")]) as monitor:
        while not monitor.should_stop:
            one_step(model, optimizer)
        assert monitor.step == 5
    model, optimizer = collapsing()
    error = [CollapseAlert("constant", **rule, action="raise")]

    def steps(n, after=None):
        with watched(model, optimizer, alerts=error) as monitor:
            monitors.append(monitor)
            for _ in range(n):
                one_step(model, optimizer)
            if after is not None:
                raise after

    monitors = []
    with pytest.raises(CollapseError, match="constant"):
        steps(8)
    assert monitors[0].closed
    assert monitors[0].step == 5
    model, optimizer = collapsing()
    monitor = watched(model, optimizer, alerts=error)
    for _ in range(3):
        one_step(model, optimizer)
    with pytest.raises(CollapseError):
        monitor.close()
    model, optimizer = collapsing()
    with pytest.raises(KeyError, match="the user's"):
        steps(3, KeyError("the user's"))
    monitor = watched(model, optimizer, alerts=error)
    for _ in range(3):
        one_step(model, optimizer)
    with pytest.raises(CollapseError):
        monitor.collect()


def series(journal):
    return [(r.step, r.stage, dict(r.values)) for r in journal.readings]


def told(journal):
    return [(a.kind, a.step, a.since) for a in [*journal.alerts, *journal.recoveries]]


def test_a_resumed_run_goes_on_as_one_that_never_stopped():
    """Steps, alerts, and a loss that is on while an alert stands."""
    from uniformity_callbacks import WassersteinLoss

    rule = CollapseAlert("constant", patience=2, warmup_steps=0)

    def part(model, optimizer, data, state=None, **arguments):
        loss = WassersteinLoss(0.5, when="alert")
        monitor = watched(model, optimizer, alerts=[rule], auxiliary=loss, every_n_steps=3, **arguments)
        if state is not None:
            monitor.load_state_dict(torch.load(io.BytesIO(state), weights_only=True))
        for ((x0, x1),) in data:
            monitor.add_auxiliary((model(x0) - model(x1)).square().mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
        torch.save(monitor.state_dict(), stored := io.BytesIO())
        monitor.close()
        return monitor, stored.getvalue()

    data = batches(31)
    model, _ = collapsing()
    optimizer = sgd(model)
    whole, _ = part(model, optimizer, data, journal="whole.jsonl")
    expected = [p.clone() for p in model.parameters()]

    model, _ = collapsing()
    optimizer = sgd(model)
    _, state = part(model, optimizer, data[:10])
    resumed, _ = part(model, optimizer, data[10:], state)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected, strict=True))
    one, two = read_journal(whole.journal), read_journal(resumed.journal)
    assert Path("uniformity.jsonl").resolve() == Path(resumed.journal).resolve()
    assert len(two.runs) == 2
    assert series(two) == series(one)
    assert told(two) == told(one) != []
    assert any(r.values["aux_weight"] for r in one.readings)
    assert resumed.step == 31


def test_states_that_do_not_fit(caplog):
    model = made()
    optimizer = sgd(model)
    monitor = watched(model, optimizer)
    one_step(model, optimizer)
    with pytest.raises(RuntimeError, match="must come before the first step; call it right after watch"):
        monitor.load_state_dict(monitor.state_dict())
    monitor.close()
    monitor = watched(model, optimizer)
    monitor.load_state_dict({"what": 1})
    assert "state could not be restored" in caplog.text
    one_step(model, optimizer)
    monitor.close()
    assert [step for step, _ in readings(monitor)] == [0]


def test_begins_at_a_step_of_its_own():
    model = made()
    with watched(model, optimizer := sgd(model), first_step=101, every_n_steps=2) as monitor:
        train(model, as_it_is, steps=4, optimizer=optimizer)
    assert readings(monitor) == [(102, 2 * ROWS), (104, 2 * ROWS)]
    assert monitor.step == 105


def test_validation_is_read_over_the_whole_set():
    model = made()
    optimizer = sgd(model)
    held_out = [torch.randn(n, 6) for n in (40, 40, 7)]
    with watched(model, optimizer, every_n_steps=2, auxiliary=0.1) as monitor:
        for _ in range(3):
            for _ in range(2):
                one_step(model, optimizer, monitor)
            model.eval()
            with torch.no_grad():
                seen = [model(x) for x in monitor.validation(held_out)]
            model.train()
        with torch.no_grad():
            for _ in monitor.validation(held_out):
                model(held_out[0])
                break
        one_step(model, optimizer, monitor)
    journal = read_journal(monitor.journal)
    assert [r.step for r in journal.readings if r.stage == "val"] == [2, 4, 6, 6]
    assert [r.values["samples"] for r in journal.readings if r.stage == "val"] == [87, 87, 87, 40]
    assert [r.values["samples"] for r in journal.readings if r.stage == "train"] == [2 * ROWS] * 4
    value = journal.series("w2", stage="val")[1][2]
    assert value == pytest.approx(functional.wasserstein_uniformity(torch.cat(seen)).item(), rel=1e-6)
    assert list(monitor.validation([1, 2])) == [1, 2]  # closed
    assert monitor.monitor.faults.count == 0


@pytest.mark.parametrize("auxiliary", [None, 0.5])
def test_a_loss_without_gradients_stays_as_it_is(auxiliary):
    """One function of the loss serves training and evaluation."""
    model = made()
    with watched(model, optimizer := sgd(model), auxiliary=auxiliary, every_n_steps=1) as monitor:
        for ((x0, x1),) in batches(3):
            for evaluates in (True, False):
                with torch.set_grad_enabled(not evaluates):
                    loss = (model(x0) - model(x1)).square().mean()
                    added = monitor.add_auxiliary(loss)
                assert (added is loss) == (evaluates or auxiliary is None)
            added.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(3)]
    assert monitor.monitor.faults.count == 0


def test_values_are_there_when_asked_for():
    model = made()
    with watched(model, optimizer := sgd(model), every_n_steps=2) as monitor:
        assert monitor.last == {}
        assert monitor.layers == ["projector"]
        assert monitor.journal is None
        train(model, as_it_is, steps=3, optimizer=optimizer)
        values = monitor.collect()
        assert values["uniformity/samples"] == 2 * ROWS
        assert values == monitor.last
    assert monitor.journal == Path("uniformity.jsonl")


SCRIPT = """
import torch
from plain import Net, as_it_is, sgd, train
from uniformity_callbacks.integrations.pytorch import watch
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter
model = Net()
optimizer = sgd(model)
monitor = watch(model, optimizer=optimizer, every_n_steps=2, writers=[TensorBoardWriter("runs")], alerts=None)
train(model, as_it_is, steps=5, optimizer=optimizer)
{end}
"""


ENDS = {"": 0, "raise SystemExit(3)": 3, "1 / 0": 1, "del monitor, model": 0}


@pytest.mark.parametrize(("end", "code"), ENDS.items())
def test_nothing_is_lost_where_nobody_closes(tmp_path, end, code):
    script = textwrap.dedent(SCRIPT).format(end=end)
    paths = ":".join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "integrations")))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert [r.step for r in read_journal("uniformity.jsonl").readings] == [0, 2, 4]
    from test_tensorboard import read

    assert [step for step, _ in read("runs")["uniformity/w2"]] == [0, 2, 4]


def test_a_bar_of_tqdm_keeps_its_line(capsys):
    from tqdm import tqdm

    model, optimizer = collapsing()
    rule = CollapseAlert("constant", patience=2, warmup_steps=0)
    with watched(model, optimizer, alerts=[rule]) as monitor:
        for _ in tqdm(range(8), mininterval=0, file=sys.stdout):
            one_step(model, optimizer)
    assert len(read_journal(monitor.journal).alerts) == 1


def test_the_layer_by_position_and_writers():
    model = made(Net)
    seen = []
    writers = [TensorBoardWriter("runs/a"), lambda values, step: seen.append((step, values["uniformity/w2"]))]
    with watched(model, optimizer := sgd(model), writers=writers, layer="encoder") as monitor:
        train(model, as_it_is, steps=4, optimizer=optimizer)
    assert [step for step, _ in seen] == [0, 2]
    assert list(Path("runs/a").glob("events*"))
    assert monitor.layers == []
    assert watch(model, "encoder.0", optimizer=optimizer).layers == ["encoder.0"]
