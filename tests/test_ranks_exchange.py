"""What ranks exchange, message by message: of any length, from any rank, and never one rank alone."""

import math
import threading
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from dispatch import Calls
from loops import QUICK, Model, Scripted, play, step, validate, views
from spread import spread
from test_monitor_ranks import batches
from test_monitor_ranks_faults import fails
from uniformity_callbacks import CollapseAlert, UniformityMonitor, WassersteinLoss, read_journal
from uniformity_callbacks.ranks import Channel, Ranks, _decode, _encode, _held
from uniformity_callbacks.shapes import Shape, pack, unpack


def told(rank):
    """Messages that outgrow the room, now of one rank and now of the other, by one byte more each time."""
    out = []
    for k in range(4):
        rows_of, sums_of = (Channel(Ranks.of(nn.Linear(2, 2))) for _ in range(2))
        for longest in (0, 1):
            message = {"text": "x" * (3000 * (1 + longest) + k if rank == longest else k)}
            rows = torch.full((3 + rank, 5), 0.5 + rank, dtype=torch.float64)
            shapes = [Shape(3 + rank, 5, "float64") for rank in range(2)]
            packed = pack([(Shape.of(rows), rows)], torch.device("cpu"))
            rows_of.gather({}, packed)  # then there is room for the rows
            messages, bodies = rows_of.gather(message, packed)
            got = [unpack(body, [shape])[0] for body, shape in zip(bodies, shapes, strict=True)]
            others, total = sums_of.total(message, rows[0])
            assert others == messages
            lengths = [len(told["text"]) for told in messages]
            out.append((lengths, [(z.shape, z.unique().tolist()) for z in got], total.tolist()))
    return out


def test_messages_of_any_length_from_any_rank_with_rows_behind_them():
    rows = [((3, 5), [0.5]), ((4, 5), [1.5])]
    expected = [(lengths, rows, [2.0] * 5) for k in range(4) for lengths in ([3000 + k, k], [k, 6000 + k])]
    assert spread(2, told) == [expected] * 2


def lent(rank, tells):
    """What is held after exchanges, and after it was waited for; with a torch that tells who holds a tensor, or not."""
    own = Ranks.of(nn.Linear(2, 2))
    with pytest.MonkeyPatch.context() as patch:
        if not tells:
            patch.setattr("uniformity_callbacks.ranks._uses", None)
        got = [[int(z) for z in own.gather(torch.tensor([rank + k]))] for k in range(5)]
        got.append(int(own.total(torch.tensor([1 + rank]))))
        kept = own._lent[0]  # as one that gloo is still to drop
        held = kept.view(1)  # a view holds what it is of
        begin = time.monotonic()
        own.let_go()
        waited = time.monotonic() - begin
        del held
        own.let_go()
        return got, waited > 0.9, bool(_held(own._lent))


@pytest.mark.parametrize("tells", [True, False])
def test_what_is_lent_is_waited_for_a_second_at_most(tells):
    got = [[k, 1 + k] for k in range(5)] + [3]
    assert spread(2, lent, tells) == [(got, tells, False)] * 2


def places(rank, backend):
    """Where collectives are, of a model that is moved, in part and whole, to the device that needs no GPU."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "get_backend", lambda group: backend)
        ranks = Ranks.of(model)
    out = [ranks.device.type]
    for part in (model[1], model):
        part.to("meta")
        out.append(ranks.device.type)
    return out, ranks.answers_at_once


@pytest.mark.parametrize(("backend", "there"), [("gloo", "cpu"), ("nccl", "meta")])
def test_collectives_are_where_the_model_is_moved_unless_their_backend_stays_on_the_cpu(backend, there):
    assert spread(2, places, backend) == [(["cpu", there, there], there == "cpu")] * 2


def found(rank):
    return Ranks.of(nn.Linear(2, 2)) is None


def test_one_rank_alone_exchanges_nothing():
    assert spread(1, found) == [True]


def numpy_numbers(rank, directory):
    rule = CollapseAlert("constant", threshold=np.float32(0.95), **QUICK)
    model, monitor = Scripted(range(2, 99)), UniformityMonitor("projector", every_n_steps=1, alerts=[rule])
    monitor.attach(model, directory=directory)
    monitor.start(np.int64(0))
    validate(monitor, model, [views()])
    told = play(monitor, model, np.arange(6))
    monitor.close(together=True)
    outcomes = [(int(at), o.reading.step, [a.threshold for a in o.alerts]) for at, o in told]
    return outcomes, monitor.faults.count, monitor.journal


def test_numbers_of_numpy_are_told_and_recorded_like_others(tmp_path):
    first, second = spread(2, numpy_numbers, tmp_path)
    assert first[:2] == second[:2]
    assert first[0] == [(0, 0, [])] + [(k + 1, k, [float(np.float32(0.95))] if k == 3 else []) for k in range(1, 5)]
    assert first[1] == 0
    journal = read_journal(first[2])
    assert [r.step for r in journal.readings] == [0, *range(6)]
    assert [a.step for a in journal.alerts] == [3]


def remembered(rank, directory):
    model, monitor = Scripted([2, 3]), UniformityMonitor("projector", every_n_steps=1)
    monitor.attach(model, directory=directory)
    play(monitor, model, range(5))
    reads = "uniformity-reader" in [thread.name for thread in threading.enumerate()]
    monitor.close(together=True)
    return monitor.state_dict()["alerts"], reads


def test_all_ranks_remember_what_the_first_alone_has_read(tmp_path):
    (first, reads), (second, others) = spread(2, remembered, tmp_path)
    assert repr(first) == repr(second)
    assert reads
    assert not others
    assert {entry["kind"] for entry in first} == {"constant", "dimensional", "nonfinite", "blind"}


def attached_again(rank, directory):
    model, monitor = Scripted([]), UniformityMonitor("projector", every_n_steps=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uniformity_callbacks.records.JournalWriter", fails)
        with pytest.raises(RuntimeError, match="planned"):
            monitor.attach(model, directory=directory)
    hooks = len(model.projector._forward_hooks)
    monitor.attach(model, directory=directory)
    play(monitor, model, range(2))
    monitor.close(together=True)
    return hooks, monitor.last["uniformity/samples"]


def test_where_the_first_rank_cannot_attach_none_does(tmp_path):
    assert spread(2, attached_again, tmp_path) == [(1, 128.0)] * 2  # one hook is the model's own


def test_a_message_is_made_of_whatever_is_in_it():
    strange = {"value": np.float32(0.5), "rows": np.zeros(3), "text": "\udc80 \u2028"}
    assert _decode(_encode(strange)) == {**strange, "value": 0.5, "rows": "array([0., 0., 0.])"}
    assert repr(_decode(_encode({"x": [math.nan, math.inf]}))) == "{'x': [nan, inf]}"


def idle_loss(rank, directory):
    """A plain loop whose loss waits for an alert that does not come."""
    loss = WassersteinLoss(0.5, when="alert")
    model, monitor = Model().double(), UniformityMonitor("projector", every_n_steps=5, auxiliary=loss)
    monitor.attach(model, directory=directory)
    counts = []
    for k in range(4):
        with Calls() as calls:
            step(monitor, model, k, batches(k, [20, 20])[rank])
        counts.append(sum(name.startswith("c10d.") for name in calls.names))
    monitor.close(together=True)
    return counts[1:]


def test_a_loss_that_waits_for_an_alert_costs_no_exchange(tmp_path):
    assert spread(2, idle_loss, tmp_path) == [[0, 0, 0]] * 2
