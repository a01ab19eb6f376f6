"""Due steps of several ranks that are unlike each other, or unlike the step before: all go on, and know the same."""

from functools import partial

import pytest
import torch
from torch import nn

from dispatch import Calls
from loops import QUICK, Model, Scripted, idle, play, step, views
from spread import spread
from test_joint import FailsOnce
from test_monitor_ranks import attached, batches
from test_monitor_ranks_faults import Planned, fails
from uniformity_callbacks import CollapseAlert, UniformityMonitor, pool
from uniformity_callbacks.reader import Reader

ROWS, SUMS = ["w2", "alignment", "lu"], ["w2", "alignment"]


def watched(rank, directory, metrics, change, ranks=2, **arguments):
    """Five steps of each rank's rows; ``change(rank, k, model)`` returns how many views a step has, or None for two."""
    monitor, model = attached(directory, metrics=metrics, **arguments)
    out = []
    for k in range(5):
        with pytest.MonkeyPatch.context() as patch:
            count = change(rank, k, model, patch) or 2
            z = model.projector.weight
            views = [x.to(z.dtype) for m in range(2) for x in batches(k + 50 * m, [20] * ranks)[rank]][:count]
            monitor.begin(k)
            loss = monitor.add_auxiliary(sum(model(x).square().mean() for x in views))
            monitor.pause()
            loss.backward()
            monitor.end_pass()
            out += monitor.finish()
    out += monitor.close(together=True)
    return [(o.reading.step, o.reading.values, o.reading.why) for o in out], monitor.faults.count


def narrower(rank, k, model, patch):
    if rank == 1 and k == 2:
        forward = model.projector.forward
        patch.setattr(model.projector, "forward", lambda x: forward(x)[:, :5])


@pytest.mark.parametrize("metrics", [ROWS, SUMS])
def test_outputs_of_another_dimension_on_one_rank_cost_one_reading(tmp_path, metrics):
    (first, faults), (second, others) = spread(2, watched, tmp_path, metrics, narrower)
    assert repr(first) == repr(second)
    assert [at for at, _, _ in first] == list(range(5))
    assert ["must be of one dimension" in why for _, _, why in first] == [False, False, True, False, False]
    assert [values["samples"] for _, values, _ in first] == [80, 80, 0, 80, 80]
    assert faults == others == 1


def unjoined(rank, k, model, patch):
    if rank == 0 and k == 2:
        patch.setattr(pool, "_join", fails)
        patch.setattr(pool, "_split", fails)


@pytest.mark.parametrize("metrics", [ROWS, SUMS])
def test_a_reader_that_cannot_join_the_rows_leaves_no_other_rank_waiting(tmp_path, metrics):
    (first, faults), (second, others) = spread(2, watched, tmp_path, metrics, unjoined)
    assert repr(first) == repr(second)
    assert [why for _, _, why in first] == ["", "", "Planned: planned", "", ""]
    assert (faults, others) == (1, 0)


def more_than_agreed(rank, k, model, patch):
    if k == 2 and rank == 1:
        patch.setattr(pool, "unit_rows", FailsOnce(pool.unit_rows))
    return 4 if k == 2 and rank == 0 else 2


def test_a_rank_that_fails_while_another_outgrows_what_was_agreed_brings_nothing(tmp_path):
    (first, faults), (second, others) = spread(2, watched, tmp_path, SUMS, more_than_agreed)
    assert repr(first) == repr(second)
    assert [values["samples"] for _, values, _ in first] == [80, 80, 80, 80, 80]
    assert [why for _, _, why in first] == ["", "", "rank 1 brought nothing: MemoryError: planned", "", ""]
    assert (faults, others) == (0, 1)


def says_much(*args):
    raise Planned("x" * 10**6)


def wordy(place, rank, k, model, patch):
    if rank == 1 and k == 2:
        patch.setattr(place, says_much)


@pytest.mark.parametrize("place", ["Tap.views", "pick"])
def test_of_an_error_of_a_million_characters_the_others_are_told_some(tmp_path, place):
    (first, _), (second, _) = spread(2, watched, tmp_path, SUMS, partial(wordy, f"uniformity_callbacks.tap.{place}"))
    assert repr(first) == repr(second)
    (why,) = {why for _, _, why in first if why}
    assert why.startswith("rank 1 brought nothing: ")
    assert "xxx" in why
    assert len(why) < 2000


def fewer(rank, k, model, patch):
    return (4, 2, 1, 3, 4)[k]


def as_singles(rank, k, model, patch):
    if k == 3:
        model.float()
    return fewer(rank, k, model, patch)


@pytest.mark.parametrize("change", [fewer, as_singles])
@pytest.mark.parametrize("metrics", [ROWS, SUMS])
def test_views_that_are_no_longer_there_are_not_read_and_types_may_change_on_all(tmp_path, metrics, change):
    (first, faults), (second, others) = spread(2, watched, tmp_path, metrics, change)
    alone, _ = watched(0, tmp_path / "alone", metrics, change, ranks=1)
    assert faults == others == 0
    assert repr(first) == repr(second)
    assert [values["samples"] for _, values, _ in first] == [2 * values["samples"] for _, values, _ in alone]
    assert [values.keys() for _, values, _ in first] == [values.keys() for _, values, _ in alone]
    assert "alignment" not in first[2][1]
    assert all(torch.tensor(list(values.values())).isfinite().all() for _, values, _ in first)


def unlike(rank, directory, metrics, sizes, **arguments):
    """Steps of views of such sizes, after one of two views of 20 rows."""
    monitor, model = attached(directory, metrics=metrics, **arguments)
    out = []
    for k, step_sizes in enumerate(([20, 20], sizes[rank], sizes[rank])):
        monitor.begin(k)
        for n in step_sizes:
            model(torch.randn(n, 4, dtype=torch.float64)).square().mean().backward()
        monitor.pause()
        monitor.end_pass()
        out += monitor.finish()
    out += monitor.close(together=True)
    return [(o.reading.values, o.reading.why) for o in out], monitor.faults.count


UNPAIRED = {
    "one view on one rank": [[20, 20], [20]],
    "views of different sizes": [[20, 20], [20, 19]],
    "sizes that add up": [[20, 19], [19, 20]],
}


@pytest.mark.parametrize("metrics", [ROWS, SUMS])
@pytest.mark.parametrize("case", UNPAIRED)
def test_views_that_are_not_paired_on_every_rank_are_not_aligned(tmp_path, metrics, case):
    sizes = UNPAIRED[case]
    (first, faults), (second, _) = spread(2, unlike, tmp_path, metrics, sizes)
    assert repr(first) == repr(second)
    assert ["alignment" in values for values, _ in first] == [True, False, False]
    assert [values["samples"] for values, _ in first] == [80] + [sum(map(sum, sizes))] * 2
    assert faults == 0


@pytest.mark.parametrize(("scope", "samples"), [("global", [80, 40, 40]), ("rank", [40, 0, 0])])
def test_a_layer_that_the_first_rank_does_not_call(tmp_path, scope, samples):
    with_why = "rank 0 brought nothing: projector was not called" if scope == "global" else "projector was not called"
    for readings, faults in spread(2, partial(unlike, scope=scope), tmp_path, ROWS, [[], [20, 20]]):
        assert [values["samples"] for values, _ in readings] == samples
        assert [why for _, why in readings] == ["", with_why, with_why]
        assert faults == 0


def ill_then_idle(rank, directory):
    monitor, model = attached(directory)
    out = []
    for k in range(3):
        with pytest.MonkeyPatch.context() as patch:
            if k == rank == 1:
                patch.setattr("uniformity_callbacks.tap.Tap.views", fails)
            out += idle(monitor, k) if k == 2 and rank == 1 else step(monitor, model, k, batches(k, [20, 20])[rank])
    return [o.reading.why for o in out + monitor.close(together=True)]


def test_what_went_wrong_on_a_rank_is_told_once(tmp_path):
    whys = ["", "rank 1 brought nothing: Planned: planned", "rank 1 brought nothing: projector was not called"]
    assert spread(2, ill_then_idle, tmp_path) == [whys] * 2


def blind(rank, directory):
    monitor, model = attached(directory)
    step(monitor, model, 0, batches(0, [20, 20])[rank])
    return [o.reading.step for k in range(1, 3) for o in idle(monitor, k)]


def test_that_no_rank_has_rows_is_told_at_once(tmp_path):
    assert spread(2, blind, tmp_path) == [[1, 2]] * 2


class Twofold(Model):
    """Two that are named like a projector, of which one is trained."""

    def __init__(self):
        super().__init__()
        self.teacher = Model()

    def forward(self, x):
        with torch.no_grad():
            self.teacher(x)
        return super().forward(x)


def found(rank, directory):
    monitor, model = UniformityMonitor(every_n_steps=1), Twofold()
    monitor.attach(model, directory=directory)
    out = []
    for k in range(3):
        out += step(monitor, model, k, views()) if rank else idle(monitor, k)
    heard = len(model.teacher.projector._forward_hooks)
    out += monitor.close(together=True)
    return [o.reading.layer for o in out], heard


def test_a_layer_that_another_rank_has_found_is_named(tmp_path):
    assert spread(2, found, tmp_path) == [(["projector"] * 3, 0)] * 2


def unheard(rank, directory):
    rules = [CollapseAlert("constant", action="stop", **QUICK)]
    model, monitor = Scripted(range(2, 99)), UniformityMonitor("projector", every_n_steps=1, alerts=rules)
    monitor.announce_by(fails)
    monitor.attach(model, directory=directory)
    play(monitor, model, range(5))
    return monitor.should_stop, monitor.faults.count


def test_an_alert_that_cannot_be_announced_still_stops_all_ranks(tmp_path):
    assert spread(2, unheard, tmp_path) == [(True, 1), (True, 0)]


ILL = {"begin": "tap.Tap.start", "terms": "spectrum.norm_and_root", "repeat": "collector.Collector.end_pass"}


def wanting(rank, directory, trouble):
    """Whether the loss is still to be added, which decides who exchanges, after each call of a step with trouble."""
    monitor, model = attached(directory, auxiliary=0.5)
    x0, x1 = batches(0, [20, 20])[rank]
    step(monitor, model, 0, (x0, x1))
    wants = []
    calls = {
        "begin": lambda: monitor.begin(1),
        "terms": lambda: monitor.add_auxiliary((model(x0) - model(x1)).square().mean()),
        "pause": monitor.pause,
        "repeat": monitor.repeat,
    }
    for name, call in calls.items():
        with pytest.MonkeyPatch.context() as patch:
            if rank == 1 and name == trouble:
                patch.setattr(f"uniformity_callbacks.{ILL[name]}", fails)
            call()
        wants.append(monitor.wants_auxiliary)
    return wants, monitor.faults.count > 0


@pytest.mark.parametrize("trouble", ILL)
def test_ranks_agree_on_whether_the_loss_is_to_be_added_whatever_fails_on_one(tmp_path, trouble):
    assert spread(2, wanting, tmp_path, trouble) == [([True, False, False, True], rank == 1) for rank in range(2)]


def fails_as_it_ends(rank, directory):
    monitor, model = attached(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reader, "submit", fails)
        with pytest.raises(RuntimeError if rank else Planned, match="planned"):
            step(monitor, model, 0, batches(0, [20, 20])[rank])
    monitor.close()


def test_an_error_at_the_end_of_the_first_step_ends_the_run_on_all(tmp_path):
    spread(2, fails_as_it_ends, tmp_path)


def counted(rank, directory, arguments):
    monitor, model = attached(directory, every_n_steps=2, **arguments)
    counts = []
    for k in range(5):
        with Calls() as calls:
            step(monitor, model if rank or k < 3 else nn.Linear(4, 8).double(), k, batches(k, [20, 20])[rank])
        counts.append(sum(name.startswith("c10d.") for name in calls.names))
    return counts


def test_one_exchange_a_due_step_where_ranks_keep_their_rows(tmp_path):
    assert [counts[1:] for counts in spread(2, counted, tmp_path, {"scope": "rank"})] == [[0, 1, 0, 2]] * 2
