import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformity_callbacks import functional
from uniformity_callbacks.panel import DEFAULT_METRICS, measure
from uniformity_callbacks.sample import StepSample, Stream, Views
from uniformity_callbacks.unit_rows import UnitRows, unit_rows


def test_rows_that_cannot_be_measured_are_masked():
    z = torch.randn(6, 3)
    z[1], z[2, 0], z[4, 2] = 0.0, float("nan"), float("inf")
    unit = unit_rows(z)
    assert unit.valid.tolist() == [True, False, False, True, False, True]
    assert unit.count == 3
    assert (unit.rows[[1, 2, 4]] == 0).all()
    assert unit.rows.dtype == torch.float64
    torch.testing.assert_close(unit.rows[unit.valid].norm(dim=1), torch.ones(3, dtype=torch.float64))


@settings(max_examples=50, deadline=None)
@given(st.integers(-290, 290))
def test_lengths_beyond_the_square_root_of_float64(exponent):
    z = torch.tensor([[3.0, 4.0]], dtype=torch.float64) * 10.0**exponent
    torch.testing.assert_close(unit_rows(z).rows, torch.tensor([[0.6, 0.8]], dtype=torch.float64))


def test_zero_rows_count_where_rows_are_taken_as_they_are():
    assert unit_rows(torch.zeros(4, 2), normalize=False).count == 4


def test_passes_are_joined_view_by_view():
    a, b, c, d = (torch.full((n, 2), float(n)) for n in (1, 2, 3, 4))
    views = StepSample.of([[a, b], [c, d]]).views()
    assert [view.dims for view in views.each] == [2, 2]
    assert [view.count for view in views.each] == [4, 6]
    assert views.whole.count == 10


def test_a_pass_may_have_fewer_views():
    a, b, c = (torch.zeros(n, 2) for n in (1, 2, 3))
    assert [len(view) for view in StepSample.of([[a, b], [c]]).raw] == [4, 2]
    assert StepSample.of([[b, b], [c, c]]).paired
    assert not StepSample.of([[b, b], [c]]).paired


def streamed(batches, **options):
    stream = Stream(**options)
    for views in batches:
        stream.add(views)
    return stream.views()


METRICS = [*DEFAULT_METRICS, "norm_cv", "effective_rank"]


@pytest.mark.parametrize(("n", "d"), [(3000, 16), (1100, 40), (60, 100)], ids=["folded", "folded once", "kept whole"])
def test_a_stream_reads_the_whole_set(n, d):
    """Everything but the metrics of pairs is exact, and those are too while the set is no larger than the sample."""
    z = torch.randn(2, n, d) + 0.2
    sizes = [*range(0, n, 64), n]
    batches = [[z[0, a:b], z[1, a:b]] for a, b in itertools.pairwise(sizes)]
    expected = measure(Views.of([z[0], z[1]]), METRICS)
    got = measure(streamed(batches, sampled=n), METRICS)
    assert got == pytest.approx(expected, rel=1e-6)
    assert got["samples"] == 2 * n


def test_a_streams_sample_is_bounded_paired_and_drawn_from_all():
    n = 6000
    x = torch.nn.functional.normalize(torch.randn(n, 8), dim=1) * torch.linspace(1, 2, n)[:, None]
    batches = [[x[k : k + 100], x[k : k + 100]] for k in range(0, n, 100)]
    views = streamed(batches, sampled=500)
    assert [len(view.rows) for view in views.rows] == [500, 500]
    assert measure(views, ["alignment"])["alignment"] == 0.0  # row i of both is of one image
    places = (views.rows[0].lengths - 1) * n  # where in the set each row stood
    assert [((a <= places) & (places < a + n / 4)).sum().item() for a in range(0, n, n // 4)] == pytest.approx(
        [125] * 4, abs=45
    )  # 4.6 standard deviations
    whole = functional.wang_isola_uniformity(x).item()
    assert measure(views, ["lu"])["lu"] == pytest.approx(whole, abs=0.05)


def test_a_stream_draws_no_random_number_of_the_runs():
    state = torch.get_rng_state()
    streamed([[torch.ones(8, 2)]] * 3)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "sizes", [[(700, 700), (700, 300)], [(700, 300), (700, 700)], [(700, 700), (700,)], [(700,), (700, 700)]]
)
def test_a_stream_whose_views_cannot_be_paired_has_no_metrics_of_pairs(sizes):
    values = measure(streamed([[torch.randn(n, 4) for n in views] for views in sizes]))
    assert {"alignment", "lu"} & values.keys() == set()
    assert values["samples"] == sum(map(sum, sizes))


@pytest.mark.parametrize("of", [StepSample.of, streamed], ids=["step", "stream"])
@pytest.mark.parametrize("sizes", [[(20, 12), (12, 20)], [(20, 20), (20,), (20,)]])
def test_views_of_equal_size_by_chance_are_not_paired(of, sizes):
    passes = [[torch.randn(n, 4) for n in views] for views in sizes]
    sample = of(passes)
    values = measure(sample if isinstance(sample, Views) else sample.views())
    assert "alignment" not in values
    assert "lu" in values


def test_three_views_are_aligned_pair_by_pair():
    a, b, c = torch.randn(3, 20, 4)
    expected = sum(functional.alignment(x, y).item() for x, y in ((a, b), (a, c), (b, c))) / 3
    assert measure(Views.of([a, b, c]), ["alignment"])["alignment"] == pytest.approx(expected, rel=1e-6)


def test_a_stream_of_fewer_rows_than_features_is_kept_whole():
    assert isinstance(streamed([[torch.randn(400, 1300)]] * 3).whole, UnitRows)


def test_a_streams_memory_does_not_grow():
    stream = Stream()
    for _ in range(40):
        stream.add([torch.randn(512, 32)])
        kept = sum(map(len, stream._waiting[0])) + (0 if stream._kept is None else len(stream._kept))
        assert kept <= 1024 + 2048


def test_a_streams_rows_that_are_not_finite_are_counted():
    z = torch.randn(2000, 4)
    z[100, 2] = float("nan")
    values = measure(streamed([[part] for part in z.split(100)]))
    assert (values["samples"], values["nonfinite"]) == (1999, 1)
    assert 0 < values["w2"] < 0.1


def test_repeated_rows_are_counted_view_by_view():
    a = torch.randn(20, 4)
    assert Views.of([a, a]).repeated == (0, 40)
    assert Views.of([torch.cat([a, 2 * a[:5]]), a]).repeated == (5, 45)  # at unit length
    assert Views.of([torch.cat([a, torch.zeros(3, 4)])]).repeated == (0, 20)  # zero rows are none


def test_of_views_of_different_sizes_those_that_can_tell_are_corrected():
    a, b = torch.randn(20, 4), torch.randn(10, 4)
    values = measure(Views.of([a, b]), ["w2_corrected"])
    assert values["w2_corrected"] == pytest.approx(functional.corrected_wasserstein_uniformity(a).item(), rel=1e-6)


@pytest.mark.parametrize(("by", "kept"), [(2, [0, 2, 4, 6]), (3, [0, 3, 6]), (7, [0]), (1, list(range(7)))])
def test_thinned_to_the_same_rows_of_each_view(by, kept):
    a, b = torch.randn(7, 3), torch.randn(7, 3)
    thinned = StepSample((a, b)).thinned(by)
    assert all(torch.equal(got, raw[kept]) for got, raw in zip(thinned.raw, (a, b), strict=True))
    assert thinned.paired
    uneven = StepSample((a, b[:5]), paired=False).thinned(by)
    assert [len(view) for view in uneven.raw] == [len(range(0, 7, by)), len(range(0, 5, by))]
    assert not uneven.paired
