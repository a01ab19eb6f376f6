"""A monitor on several ranks reads what one process with all their rows reads."""

import math

import pytest
import torch
import torch.distributed as dist

from dispatch import Calls
from loops import QUICK, Model, Scripted, idle, step, validate, views
from spread import spread
from uniformity_callbacks import CollapseAlert, UniformityMonitor, WassersteinLoss, read_journal
from uniformity_callbacks.panel import METRICS

ALL = tuple(METRICS)
SUMS = tuple(name for name in METRICS if name != "lu")


def batches(k, sizes):
    """The inputs of both views of each rank at step k."""
    generator = torch.Generator().manual_seed(100 + k)
    pair = torch.randn(2, sum(sizes), 4, generator=generator, dtype=torch.float64)
    return list(zip(*(view.split(sizes) for view in pair), strict=True))


def attached(directory, layer="projector", every_n_steps=1, **arguments):
    torch.manual_seed(0)
    model = Model().double()
    monitor = UniformityMonitor(layer, every_n_steps=every_n_steps, **arguments)
    monitor.attach(model, directory=directory)
    return monitor, model


def watched(rank, steps, directory, arguments):
    monitor, model = attached(directory, **arguments)
    out = []
    for k, sizes in enumerate(steps):
        x0, x1 = batches(k, sizes)[rank]
        if len(x0):
            out += step(monitor, model, k, (x0, x1))
        else:
            out += idle(monitor, k)
    out += monitor.close(together=True)
    return [(o.reading.step, o.reading.values, o.reading.why) for o in out], monitor.journal, monitor.faults.count


STEPS = [[40, 40], [40, 24], [0, 64], [70, 17], [40, 40]]
STEPS_4 = [[20, 20, 20, 20], [31, 1, 0, 40], [20, 60, 20, 20]]


@pytest.mark.parametrize("metrics", [ALL, SUMS])
@pytest.mark.parametrize("steps", [STEPS, STEPS_4])
def test_every_key_is_that_of_all_ranks_rows_together(tmp_path, steps, metrics):
    got = spread(len(steps[0]), watched, steps, tmp_path, {"metrics": metrics})
    expected, _, _ = watched(0, [[sum(sizes)] for sizes in steps], tmp_path / "alone", {"metrics": metrics})
    for outcomes, _, faults in got:
        assert faults == 0
        assert [at for at, _, _ in outcomes] == list(range(len(steps)))
        for (at, values, why), (_, alone, _) in zip(outcomes, expected, strict=True):
            assert values.keys() == alone.keys()
            assert values == pytest.approx(alone, rel=1e-8, abs=1e-8, nan_ok=True), at
            assert ("brought nothing" in why) == (0 in steps[at])
    assert repr(got[0][0]) == repr(got[-1][0])
    (journal,) = {journal for _, journal, _ in got} - {None}
    assert [r.step for r in read_journal(journal).readings] == list(range(len(steps)))


def far_apart(rank, directory):
    """Each rank's outputs are one point, of its own."""
    monitor, model = attached(directory, metrics=ALL)
    with torch.no_grad():
        model.projector.weight.zero_()
        model.projector.bias.copy_(torch.eye(8, dtype=torch.float64)[rank])
    out = [o for k in range(3) for o in step(monitor, model, k, batches(k, [20, 20])[rank])]
    return [o.reading.values for o in out + monitor.close(together=True)]


def test_ranks_that_collapsed_to_different_points_are_not_one_point_together(tmp_path):
    for readings in spread(2, far_apart, tmp_path):
        for values in readings:
            assert values["mean_resultant"] == pytest.approx(math.sqrt(0.5))
            assert values["w2"] == pytest.approx(math.sqrt(2 - 2 * math.sqrt(0.5 / 8)))
            assert values["effective_rank"] == pytest.approx(1.0)
            assert values["samples"] == 80


def validated(rank, sizes, directory, arguments):
    """A step, then a validation epoch of several batches a rank."""
    monitor, model = attached(directory, metrics=ALL, **arguments)
    out = step(monitor, model, 0, batches(0, [20] * len(sizes))[rank])
    model.eval()
    for epoch in range(2):
        own = [batches(50 + epoch * 10 + k, per_rank)[rank] for k, per_rank in enumerate(zip(*sizes, strict=True))]
        out += validate(monitor, model, [batch for batch in own if len(batch[0])])
    out += monitor.close(together=True)
    return [(o.key, o.reading.values, o.reading.why) for o in out], monitor.faults.count


@pytest.mark.parametrize("sizes", [[[60, 40], [60, 11]], [[700, 200], [600, 400]], [[300, 900], [0, 0]]])
def test_a_validation_epoch_is_that_of_all_ranks(tmp_path, sizes):
    """Kept whole; added up on all ranks; on one rank only."""
    got = spread(2, validated, sizes, tmp_path, {})
    together = [[sum(batch) for batch in zip(*sizes, strict=True)]]
    (alone, _) = validated(0, together, tmp_path / "alone", {})
    alone = [reading for reading in alone if reading[0] == "uniformity/val/"]
    for outcomes, faults in got:
        assert faults == 0
        outcomes = [outcome for outcome in outcomes if outcome[0] == "uniformity/val/"]
        assert len(outcomes) == len(alone) == 2
        for (_, values, why), (_, expected, _) in zip(outcomes, alone, strict=True):
            assert values == pytest.approx(expected, rel=1e-8, abs=1e-8, nan_ok=True)
            assert why == ("rank 1 brought nothing: no rows" if sizes[1] == [0, 0] else "")


def test_a_large_validation_set_is_sampled_over_all_ranks(tmp_path):
    """2500 and 1500 rows: sums are exact, pairs of rows are estimated from 2048 of them, in proportion."""
    sizes = [[1250, 1250], [750, 750]]
    got = spread(2, validated, sizes, tmp_path, {})
    whole, _ = validated(0, [[2000, 2000]], tmp_path / "alone", {})
    for (_, values, _), (_, expected, _) in zip(got[1][0][1:], whole[1:], strict=True):
        pairs = {name: values.pop(name) for name in ("lu", "alignment")}
        for name, value in pairs.items():
            assert value == pytest.approx(expected.pop(name), rel=0.05), name
        assert values == pytest.approx(expected, rel=1e-8, abs=1e-8, nan_ok=True)


def local(rank, directory):
    monitor, model = attached(directory, scope="rank", auxiliary=0.5)
    grads = []
    for k in range(3):
        model.zero_grad()
        step(monitor, model, k, batches(k, [30, 10])[rank])
        grads.append(model.projector.weight.grad.clone())
    out = monitor.close(together=True)
    return monitor.last, grads, len(out)


def test_scope_rank_keeps_all_local_but_the_word_of_the_first(tmp_path):
    (first, grads, _), (second, other, _) = spread(2, local, tmp_path)
    assert first == second
    assert first["uniformity/samples"] == 60
    for rank, got in enumerate((grads, other)):
        monitor, model = attached(tmp_path / f"alone{rank}", auxiliary=0.5)
        for k in range(3):
            model.zero_grad()
            step(monitor, model, k, batches(k, [30, 10])[rank])
            torch.testing.assert_close(model.projector.weight.grad, got[k])
        monitor.close()  # no thread may run while ranks are forked


def counted(rank, directory, arguments):
    monitor, model = attached(directory, every_n_steps=3, **arguments)
    counts = []
    for k in range(10):
        with Calls() as calls:
            step(monitor, model, k, *[batches(k + 50 * m, [20, 20])[rank] for m in range(2)])
        counts.append([name for name in calls.names if name.startswith("c10d.")])
    return counts


@pytest.mark.parametrize(("metrics", "reading"), [(ALL, "c10d.allgather_"), (SUMS, "c10d.allreduce_")])
@pytest.mark.parametrize("auxiliary", [None, 0.5])
def test_one_exchange_a_due_step_and_one_a_pass_with_the_loss(tmp_path, metrics, reading, auxiliary):
    for counts in spread(2, counted, tmp_path, {"metrics": metrics, "auxiliary": auxiliary}):
        loss = ["c10d.allreduce_"] * 2 if auxiliary else []
        for k, names in enumerate(counts[1:], start=1):  # in the first step they agree, and it is told at once
            assert names == loss + ([reading] if k % 3 == 0 else []), k


def layers(rank, directory):
    """Several layers, one found by itself; the last rank never calls the model."""
    monitor, model = attached(directory, layer=["encoder", None], auxiliary=0.3)
    for k in range(3):
        if rank < 2:
            step(monitor, model, k, batches(k, [20, 20, 0])[rank])
        else:
            monitor.begin(k)
            assert monitor.add_auxiliary(torch.zeros(())) == 0
            monitor.pause()
            monitor.end_pass()
            monitor.finish()
    monitor.close(together=True)
    return monitor.last, monitor.faults.count


def test_several_layers_in_one_exchange_and_a_rank_without_any(tmp_path):
    for last, faults in spread(3, layers, tmp_path):
        assert faults == 0
        assert last["uniformity/encoder/samples"] == last["uniformity/projector/samples"] == 80
        assert last["uniformity/projector/aux_loss"] == pytest.approx(0.3 * last["uniformity/projector/w2"])


def stopped(rank, directory):
    model, monitor = Scripted(range(4, 99)), UniformityMonitor("projector", every_n_steps=1, alerts=rules())
    monitor.attach(model, directory=directory)
    for k in range(20):
        model.k = k
        step(monitor, model, k, views())
        if monitor.should_stop:
            break
    state = monitor.state_dict()
    monitor.close(together=True)
    return k, state["alerts"], state["standing"]


def rules():
    return [CollapseAlert("constant", action="stop", **QUICK)]


def test_stop_comes_at_one_step_on_all_ranks_and_all_remember_the_same(tmp_path, caplog):
    got = spread(3, stopped, tmp_path)
    assert got[0] == got[1] == got[2]
    assert got[0][0] == 6  # collapsed from 4 on, certain at 5, told at the due step after it
    assert got[0][2] == [["projector", "constant"]]


def called(rank, directory):
    told = []
    rules = [CollapseAlert("constant", action=lambda alert: told.append(alert.step), **QUICK)]
    model, monitor = Scripted(range(2, 99)), UniformityMonitor("projector", every_n_steps=1, alerts=rules)
    spoken = []
    monitor.announce_by(spoken.append)
    monitor.attach(model, directory=directory)
    for k in range(6):
        model.k = k
        step(monitor, model, k, views())
    monitor.close(together=True)
    return told, len(spoken)


def test_a_function_is_called_on_every_rank_and_one_speaks(tmp_path):
    assert spread(2, called, tmp_path) == [([3], 1), ([3], 0)]


def resumed_on_one(rank, directory):
    """A plain loop that loads its state on the first rank alone; a loss waits for the alert that stood there."""
    rules = [CollapseAlert("constant", **QUICK)]
    loss = WassersteinLoss(0.5, when="alert")
    model, monitor = Scripted(range(99)), UniformityMonitor("projector", every_n_steps=1, alerts=rules, auxiliary=loss)
    monitor.attach(model, directory=directory)
    for k in range(4):
        model.k = k
        step(monitor, model, k, views())
    state = monitor.state_dict()
    monitor.close(together=True)
    loss = WassersteinLoss(0.5, when="alert")
    monitor = UniformityMonitor("projector", every_n_steps=4, alerts=rules, auxiliary=loss)
    if rank == 0:
        monitor.load_state_dict(state)
    monitor.attach(model, directory=directory)
    out = [o for k in range(4, 9) for o in step(monitor, model, k, views())] + monitor.close(together=True)
    return [(o.reading.step, o.reading.values.get("aux_weight"), len(o.alerts)) for o in out]


def test_all_ranks_resume_what_the_first_remembers(tmp_path):
    first, second = spread(2, resumed_on_one, tmp_path)
    assert first == second
    assert (4, 0.5, 0) in first  # the loss is on from the first step, on both ranks


def by_itself(rank, directory):
    """Ranks that each train a model of their own, and as many steps as they like."""
    model = Model().double()
    monitor = UniformityMonitor("projector", every_n_steps=1, auxiliary=0.5)
    monitor.attach(model, directory=directory / str(rank), together=False)
    for k in range(2 + rank):
        step(monitor, model, k, batches(k, [20, 20])[rank])
    monitor.close()
    return [r.values["samples"] for r in read_journal(monitor.journal).readings]


def test_ranks_that_do_not_train_together_are_left_alone(tmp_path):
    assert spread(2, by_itself, tmp_path) == [[40] * 2, [40] * 3]


def of_a_group(rank, directory):
    """Two pairs of ranks, each pair training a model together."""
    groups = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    monitor = UniformityMonitor("projector", every_n_steps=1, auxiliary=0.5)
    model = Model().double()
    monitor.attach(model, directory=directory / str(rank % 2), group=groups[rank % 2])
    for k in range(2 + rank % 2):
        step(monitor, model, k, batches(k, [10, 20, 30, 40])[rank])
    monitor.close(together=True)
    return monitor.journal is not None, monitor.last["uniformity/samples"]


def test_a_group_of_ranks(tmp_path):
    assert spread(4, of_a_group, tmp_path) == [(True, 80), (True, 120), (False, 80), (False, 120)]
