"""A monitor of a plain loop from its first step to its last: errors, resumption, validation, the end."""

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from plain import ROWS, Net, as_it_is, batches, made, readings, sgd, train, watched
from torch import nn

from uniformity_callbacks import CollapseAlert, CollapseError, LinearDecay, functional, read_journal
from uniformity_callbacks.integrations import pytorch
from uniformity_callbacks.integrations.pytorch import watch
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter

pytestmark = pytest.mark.usefixtures("own_place")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nothing_is_watched():
    yield
    for loop in list(pytorch._watching):
        loop.leave()


def one_step(model, optimizer, monitor=None):
    ((x0, x1),) = batches(1)[0:1][0]
    loss = (model(x0) - model(x1)).square().mean()
    (loss if monitor is None else monitor.add_auxiliary(loss)).backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every_n_steps": 0}, ValueError, "every_n_steps must be"),
        ({"layer": "projektor"}, ValueError, "did you mean projector"),
        ({"first_step": -1}, ValueError, "first_step must be an integer >= 0, got -1"),
        ({"first_step": True}, ValueError, "first_step must be"),
        ({"auxiliary": LinearDecay(1.0)}, ValueError, "total_steps must be given"),
        ({"criterion": nn.MSELoss()}, ValueError, "there is none; give auxiliary"),
        ({"criterion": nn.functional.mse_loss, "auxiliary": 0.1}, TypeError, r"monitor.add_auxiliary\(loss\) instead"),
    ],
)
def test_bad_arguments(arguments, error, message, unchecked):
    model = made()
    optimizer = sgd(model)
    with pytest.raises(error, match=message):
        watch(model, optimizer=optimizer, **arguments)
    assert not optimizer._optimizer_step_post_hooks
    assert not model.projector._forward_hooks
    assert not Path("uniformity.jsonl").exists()


@pytest.mark.parametrize("optimizer", [None, "adam", [sgd(made())]])
def test_no_optimizer(optimizer, unchecked):
    with pytest.raises(TypeError, match=r"optimizer must be a torch.optim.Optimizer.*the one whose steps"):
        watch(made(), optimizer=optimizer)


def test_no_model(unchecked):
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got 'model'"):
        watch("model", optimizer=sgd(made()))


class Holder(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_a_model_is_not_watched_twice_in_silence():
    model = made()
    optimizer = sgd(model)
    first = watched(model, optimizer)
    for again in (model, torch.compile(model), Holder(model)):
        with pytest.raises(ValueError, match=r"watched already, under the prefix 'uniformity', every 2 steps; close"):
            watched(again, optimizer)
    with watched(model, optimizer, prefix="other", journal="other.jsonl") as second:
        one_step(model, optimizer)
    first.close()
    assert readings(first) == readings(second) == [(0, 2 * ROWS)]
    with watched(model, optimizer):
        pass
    with watched(made(), optimizer), watched(made(), optimizer):  # other models: the keys are their own business
        pass


def test_errors_of_the_first_step(unchecked):
    model = made()
    optimizer = sgd(model)
    monitor = watched(model, optimizer, auxiliary=0.1)
    with pytest.raises(ValueError, match=r"add_auxiliary was not called in this step: write loss = monitor.add_aux"):
        one_step(model, optimizer)
    monitor.close()
    monitor = watched(model, optimizer, auxiliary=0.1)
    with pytest.raises(ValueError, match="needs the outputs of 'projector', but projector was not called"):
        monitor.add_auxiliary(torch.zeros(()))
    with pytest.raises(TypeError, match=r"loss must be a tensor, got 1.0"):
        monitor.add_auxiliary(1.0)
    ((x0, x1),) = batches(1)[0]
    loss = monitor.add_auxiliary((model(x0) - model(x1)).square().mean())
    with pytest.raises(ValueError, match=r"add_auxiliary was called twice in one pass: call it once, on the sum"):
        monitor.add_auxiliary(loss)
    monitor.close()
    monitor = watched(model, optimizer, output="z")
    with pytest.raises(ValueError, match="output='z' failed on a Tensor"):
        one_step(model, optimizer)


class BYOL(nn.Module):
    """A symmetric loss is two calls of the criterion."""

    def forward(self, p, z):
        return 2 - 2 * nn.functional.cosine_similarity(p, z.detach()).mean()


def test_a_criterion_called_twice_before_one_backward_is_an_error_that_shows_the_line():
    model, criterion = made(), BYOL()
    optimizer = sgd(model)
    monitor = watched(model, optimizer, auxiliary=0.1, criterion=criterion)
    ((x0, x1),) = batches(1)[0]
    z0, z1 = model(x0), model(x1)
    criterion(z0, z1)
    with pytest.raises(ValueError, match=r"twice before one backward.*write loss = monitor.add_auxiliary\(loss\) befo"):
        criterion(z1, z0)
    monitor.close()


def test_a_criterion_that_returns_no_loss_or_is_not_called():
    model = made()
    optimizer = sgd(model)
    criterion = nn.Identity()
    monitor = watched(model, optimizer, auxiliary=0.1, criterion=criterion)
    z = model(batches(1)[0][0][0])
    with pytest.raises(ValueError, match=r'a mapping with one under "loss", got tuple; leave it out'):
        criterion((z, z))
    z.sum().backward()
    with pytest.raises(ValueError, match=r"the criterion, Identity, was not called in this step; leave it out and"):
        optimizer.step()
    monitor.close()


def test_after_the_first_step_nothing_raises(caplog):
    model, criterion = made(), BYOL()
    optimizer = sgd(model)
    monitor = watched(model, optimizer, auxiliary=0.1, criterion=criterion, every_n_steps=1)
    for k, ((x0, x1),) in enumerate(batches(3)):
        z0, z1 = model(x0), model(x1)
        loss = criterion(z0, z1)
        if k:
            loss = loss + criterion(z1, z0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model(x0).sum().backward()
    optimizer.step()
    monitor.close()
    assert monitor.step == 4
    assert monitor.monitor.faults.count == 3
    assert "twice before one backward" in caplog.text
    assert [step for step, _ in readings(monitor)] == [0, 1, 2, 3]


@pytest.mark.parametrize("method", ["pause", "end_pass", "begin", "finish", "take", "alert"])
def test_errors_of_ours_never_reach_the_loop(method, monkeypatch):
    model = made()
    optimizer = sgd(model)
    with watched(model, optimizer, auxiliary=0.1, every_n_steps=1) as monitor:
        one_step(model, optimizer, monitor)
        collector = monitor.monitor._collector
        target = collector if hasattr(collector, method) else monitor.monitor._desk.reader

        def broken(*args, **kwargs):
            raise RuntimeError("broken")

        with monkeypatch.context() as patch:
            patch.setattr(target, {"finish": "settle"}.get(method, method), broken)
            for _ in range(3):
                one_step(model, optimizer, monitor)
        for _ in range(2):
            one_step(model, optimizer, monitor)
    assert monitor.step == 6
    assert monitor.monitor.faults.count >= 3
    assert readings(monitor)[-1] == (5, 2 * ROWS)


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
