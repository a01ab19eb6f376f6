"""Validation epochs of ranks that cannot send what they have: nothing of theirs is read, all else is."""

import pytest

from dispatch import Calls
from loops import step, validate
from spread import spread
from test_monitor_ranks import attached, batches
from test_monitor_ranks_faults import fails
from uniformity_callbacks import epochs


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
