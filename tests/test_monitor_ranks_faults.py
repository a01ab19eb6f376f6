"""What goes wrong on one rank only: nobody hangs, the reading is marked on all ranks alike, training goes on."""

import math
import time

import pytest
import torch.distributed as dist
from torch import nn

from loops import QUICK, Scripted, step, views
from spread import spread
from test_monitor_ranks import attached, batches
from uniformity_callbacks import CollapseAlert, CollapseError, UniformityMonitor, pool, reader, tap
from uniformity_callbacks.collector import Collector
from uniformity_callbacks.tap import Tap

STEPS = 5
BAD = 2


class Planned(RuntimeError):
    pass


def fails(*args, **kwargs):
    raise Planned("planned")


def trained(rank, directory, trouble, arguments):
    """Steps of which one has trouble on the last rank; returns what each rank was told, gradients and faults."""
    monitor, model = attached(directory, **arguments)
    out = []
    for k in range(STEPS):
        with pytest.MonkeyPatch.context() as patch:
            ill = k == BAD and rank == dist.get_world_size() - 1
            if ill and trouble != "no capture":
                patch.setattr(*TROUBLES[trouble], fails)
            model.zero_grad()
            batch = batches(k, [20, 20])[rank]
            out += step(monitor, nn.Linear(4, 8).double() if ill and trouble == "no capture" else model, k, batch)
    out += monitor.close(together=True)
    grads = [p.grad for p in model.parameters()]
    assert all(g.isfinite().all() for g in grads)
    return [(o.reading.step, o.reading.values, o.reading.why) for o in out], grads, monitor.faults.count


TROUBLES = {
    "tap": (tap, "pick"),
    "begin": (Tap, "start"),
    "views": (Tap, "views"),
    "take": (Collector, "take"),
    "pause": (Collector, "pause"),
    "end_pass": (Collector, "end_pass"),
    "pack": (pool, "pack"),
    "sums": (pool, "unit_rows"),
}


@pytest.mark.parametrize("metrics", [["w2", "lu"], ["w2"]])
@pytest.mark.parametrize("auxiliary", [None, 0.5])
@pytest.mark.parametrize("trouble", ["no capture", *TROUBLES])
def test_an_error_or_no_capture_on_one_rank(tmp_path, trouble, auxiliary, metrics):
    got = spread(2, trained, tmp_path, trouble, {"auxiliary": auxiliary, "metrics": metrics})
    for outcomes, _, _ in got:
        assert repr(outcomes) == repr(got[0][0])
        assert [at for at, _, _ in outcomes] == list(range(STEPS))
        told = {at: (values["samples"], why) for at, values, why in outcomes}
        whole = {at for at, (samples, why) in told.items() if samples == 80 and not why}
        assert whole >= set(range(STEPS)) - {BAD, BAD + 1}  # a tap left open or shut is felt once more
        if BAD not in whole:
            assert told[BAD][0] == 40
            assert told[BAD][1].startswith("rank 1 brought nothing: ")
            assert (got[1][2] > 0) == (trouble != "no capture")
    assert got[0][2] == 0


def nan_rows(rank, directory):
    monitor, model = attached(directory, auxiliary=0.5, alerts=None)
    out = []
    for k in range(3):
        x0, x1 = batches(k, [20, 20])[rank]
        if k == 1 and rank == 1:
            x0[:7] = math.nan
        model.zero_grad()
        out += step(monitor, model, k, (x0, x1), loss=lambda z0, z1: (z0 - z1).nan_to_num().square().mean())
    out += monitor.close(together=True)
    return [o.reading.values for o in out], monitor.faults.count


def test_nan_on_one_rank_is_counted_on_all(tmp_path):
    for readings, faults in spread(2, nan_rows, tmp_path):
        assert faults == 0
        assert [values["nonfinite"] for values in readings] == [0, 7, 0]
        assert [values["samples"] for values in readings] == [80, 73, 80]
        assert all(math.isfinite(values[name]) for values in readings for name in ("w2", "lu", "aux_loss"))


def slow(rank, directory):
    """The reading of step 1 takes 10 s on the rank that reads."""
    measure = reader.measure

    def measured(views, metrics):
        if views.whole.count == 2 * 7 * 2:
            time.sleep(10)
        return measure(views, metrics)

    reader.measure = measured
    monitor, model = attached(directory)
    out, times = [], []
    for k in range(5):
        before = time.monotonic()
        out.append([o.reading.step for o in step(monitor, model, k, batches(k, [7, 7] if k == 1 else [20, 20])[rank])])
        times.append(time.monotonic() - before)
    out.append([o.reading.step for o in monitor.close(together=True)])
    return out, sum(times[2:]), monitor.faults.count


def test_a_reading_that_takes_ten_seconds(tmp_path):
    (told, held, faults), other = spread(2, slow, tmp_path)
    assert told == other[0] == [[0], [], [], [], [], [1]]  # the due steps meanwhile are passed over
    assert faults == other[2] == 0
    assert max(held, other[1]) < 2  # the first of them gives it a second, the others nothing


def cannot_begin(rank, directory):
    """The journal's place is taken by a file, on the rank that writes it."""
    (directory / "taken").touch()
    with pytest.raises((ValueError, RuntimeError)) as info:
        attached(directory / "taken")
    monitor, model = attached(directory)  # nothing is left of the attempt
    step(monitor, model, 0, batches(0, [20, 20])[rank])
    monitor.close(together=True)
    return type(info.value).__name__, str(info.value)


def test_an_error_before_the_first_step_on_one_rank_ends_the_run_on_all(tmp_path):
    (first, message), (second, other) = spread(2, cannot_begin, tmp_path)
    assert (first, second) == ("ValueError", "RuntimeError")
    assert other == f"UniformityMonitor on rank 0: ValueError: {message}"


def fails_at_once(rank, directory, trouble, arguments, error):
    monitor, model = attached(directory, **arguments)
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            patch.setattr(*TROUBLES[trouble], fails)
        with pytest.raises(error if rank == 1 else RuntimeError) as info:
            step(monitor, model, 0, batches(0, [20, 20, 20])[rank])
    monitor.close()
    return str(info.value)


@pytest.mark.parametrize(
    ("trouble", "auxiliary"), [("take", None), ("views", 0.5), ("begin", 0.5), ("pause", None), ("pack", None)]
)
def test_an_error_in_the_first_step_on_one_rank_ends_the_run_on_all(tmp_path, trouble, auxiliary):
    got = spread(3, fails_at_once, tmp_path, trouble, {"auxiliary": auxiliary}, Planned)
    assert got == [
        "UniformityMonitor on rank 1: Planned: planned",
        "planned",
        "UniformityMonitor on rank 1: Planned: planned",
    ]


def fails_at_once_in_a_resumed_run(rank, directory):
    monitor, model = attached(directory, every_n_steps=5)
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            patch.setattr(Collector, "pause", fails)
        with pytest.raises(RuntimeError, match="planned"):
            step(monitor, model, 3, batches(0, [20, 20])[rank])
    monitor.close()


def test_also_where_the_first_step_is_not_due(tmp_path):
    spread(2, fails_at_once_in_a_resumed_run, tmp_path)


def blind_loss(rank, directory):
    monitor, _ = attached(directory, auxiliary=0.5)
    with pytest.raises(ValueError, match="the auxiliary loss needs the outputs of 'projector', but projector was not"):
        step(monitor, nn.Linear(4, 8).double(), 0, batches(0, [20, 20])[rank])
    monitor.close()


def test_a_loss_that_no_rank_can_compute_is_an_error_of_the_first_step(tmp_path):
    spread(2, blind_loss, tmp_path)


def of_two_dimensions(rank, directory, arguments):
    monitor, model = attached(directory, **arguments)
    model.projector = nn.Linear(16, 4 + rank).double()
    monitor.close()
    monitor.attach(model, directory=directory)
    with pytest.raises((ValueError, RuntimeError), match="must be of one dimension and type on all ranks"):
        step(monitor, model, 0, batches(0, [20, 20])[rank])


@pytest.mark.parametrize("auxiliary", [None, 0.5])
def test_ranks_with_outputs_of_different_dimension(tmp_path, auxiliary):
    spread(2, of_two_dimensions, tmp_path, {"auxiliary": auxiliary})


def raised(rank, directory):
    model, monitor = (
        Scripted(range(4, 99)),
        UniformityMonitor("projector", every_n_steps=1, alerts=[CollapseAlert("constant", action="raise", **QUICK)]),
    )
    monitor.attach(model, directory=directory)
    for k in range(20):
        model.k = k
        step(monitor, model, k, views())
        try:
            monitor.enforce()
        except CollapseError as error:
            return k, error.alert.step
    return None


def test_raise_comes_at_one_step_on_all_ranks(tmp_path):
    assert spread(2, raised, tmp_path) == [(6, 5)] * 2
