"""Validation epochs of ranks that cannot send what they have: nothing of theirs is read, all else is."""

import pytest
import torch

from dispatch import Calls
from loops import step, validate
from spread import spread
from test_monitor_ranks import attached, batches
from test_monitor_ranks_faults import fails
from uniformity_callbacks import epochs
from uniformity_callbacks.sample import ROWS_SAMPLED, Stream


def validated(rank, directory, trouble, sizes):
    """A step, a validation epoch that has trouble on the second rank, and a step."""
    monitor, model = attached(directory, metrics=["w2", "alignment", "lu"])
    out = step(monitor, model, 0, batches(0, [20, 20])[rank])
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            patch.setattr(epochs, trouble, fails)
        own = batches(50, sizes)[rank]
        out += validate(monitor, model, [own] if len(own[0]) else [])
    out += step(monitor, model, 1, batches(1, [20, 20])[rank]) + monitor.close(together=True)
    return [(o.key, o.reading.values, o.reading.why) for o in out], monitor.faults.count


@pytest.mark.parametrize(("trouble", "sizes"), [("pack", [60, 40]), ("pack", [1100, 1200]), ("_add_up", [1100, 1200])])
def test_a_rank_that_fails_brings_neither_rows_nor_sums(tmp_path, trouble, sizes):
    (first, faults), (second, others) = spread(2, validated, tmp_path, trouble, sizes)
    assert repr(first) == repr(second)
    assert (faults, others) == (0, 1)
    key, values, why = first[1]
    alone, _ = validated(0, tmp_path / "alone", trouble, sizes)
    assert key == "uniformity/val/"
    assert values == pytest.approx(alone[1][1], rel=1e-8)
    assert why == "rank 1 brought nothing: Planned: planned"


def unlike(rank, directory, sizes):
    """A validation epoch of batches whose views have such sizes."""
    monitor, model = attached(directory, metrics=["w2", "alignment"], alerts=None)
    step(monitor, model, 0, batches(0, [20, 20])[rank])
    own = [[torch.randn(n, 4, dtype=torch.float64) for n in batch] for batch in sizes[rank]]
    (outcome,) = validate(monitor, model, own)
    return outcome.reading.values, monitor.faults.count


UNPAIRED = {
    "batches that add up": [[[20, 19], [19, 20]], [[20, 20]]],
    "many, in batches that add up": [[[1100, 1100]], [[1200, 1199], [1199, 1200]]],
    "one view on the first rank": [[[1200]], [[1100, 1100]]],
    "one view on the second rank": [[[1100, 1100]], [[1200]]],
    "few of one view": [[[40]], [[30, 30]]],
}


@pytest.mark.parametrize("case", UNPAIRED)
def test_views_that_are_not_paired_on_every_rank_are_not_aligned(tmp_path, case):
    sizes = UNPAIRED[case]
    samples = sum(sum(batch) for rank in sizes for batch in rank)
    for values, faults in spread(2, unlike, tmp_path, sizes):
        assert values.keys() == {"w2", "samples", "nonfinite"}
        assert values["samples"] == samples
        assert faults == 0


def test_the_sample_of_all_ranks_is_of_the_largest_keys():
    stream = Stream()
    stream.add([torch.arange(300.0)[:, None], -torch.arange(300.0)[:, None]])
    keys, rows = stream.sample
    part_keys, part = epochs._part(stream, 100)
    assert set(part_keys[:, 0].tolist()) == set(sorted(keys.tolist())[200:])
    assert (rows[[keys.tolist().index(key) for key in part_keys[:, 0].tolist()]].flatten(1) == part).all()
    many = [[torch.rand(1500, 1), torch.full((1500, 2), float(k))] for k in range(2)]
    drawn = epochs._draw(many, 2)
    edge = torch.cat([keys for keys, _ in many]).flatten().topk(ROWS_SAMPLED).values[-1]
    assert [len(view) for view in drawn] == [ROWS_SAMPLED] * 2
    assert (drawn[0] == 0).sum() == (many[0][0] >= edge).sum()


def of_two_dimensions(rank, directory):
    monitor, model = attached(directory)
    step(monitor, model, 0, batches(0, [20, 20])[rank])
    forward = model.projector.forward
    model.projector.forward = lambda x: forward(x)[:, : 8 - rank]
    outcomes = validate(monitor, model, [batches(1, [20, 20])[rank]])
    model.projector.forward = forward
    out = step(monitor, model, 1, batches(1, [20, 20])[rank]) + monitor.close(together=True)
    return [o.reading.step for o in outcomes + out], monitor.faults.count


def test_ranks_with_outputs_of_different_dimension_have_no_reading_of_validation(tmp_path):
    assert spread(2, of_two_dimensions, tmp_path) == [([1], 1)] * 2


def local(rank, directory):
    monitor, model = attached(directory, scope="rank")
    step(monitor, model, 0, batches(0, [20, 20])[rank])
    epochs = [validate(monitor, model, [batches(50, [60, 40])[rank]] if k in (0, rank) else []) for k in range(2)]
    return [[o.values["uniformity/val/samples"] for o in outcomes] for outcomes in epochs], monitor.faults.count


def test_scope_rank_reads_the_validation_set_of_the_first_rank(tmp_path):
    """In the second epoch only the other one has rows."""
    assert spread(2, local, tmp_path) == [([[120], []], 0)] * 2


def counted(rank, directory, sizes):
    monitor, model = attached(directory)
    step(monitor, model, 0, batches(0, [20, 20])[rank])
    own = batches(50, sizes)[rank]
    with Calls() as calls:
        (outcome,) = validate(monitor, model, [own])
    return calls.names.count("c10d.allreduce_"), outcome.values["uniformity/val/samples"]


@pytest.mark.parametrize(("sizes", "sums"), [([500, 500], 0), ([600, 600], 1), ([1100, 40], 1)])
def test_ranks_exchange_no_more_rows_than_one_would_keep(tmp_path, sizes, sums):
    assert spread(2, counted, tmp_path, sizes) == [(sums, 2 * sum(sizes))] * 2


@pytest.mark.parametrize("rows", [40, 1200])
def test_there_is_no_reading_where_the_only_rank_with_rows_fails(tmp_path, rows):
    (first, faults), (second, others) = spread(2, validated, tmp_path, "pack", [0, rows])
    assert repr(first) == repr(second)
    assert [key for key, _, _ in first] == ["uniformity/"] * 2
    assert (faults, others) == (0, 1)
