"""Moments added up are those of the rows together."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformity_callbacks import functional, measures, pairwise
from uniformity_callbacks.moments import Moments
from uniformity_callbacks.unit_rows import UnitRows, unit_rows

SPECTRAL = [
    *(measures.w2, measures.w2_corrected, measures.dims_corrected, measures.dims, measures.resultant),
    *(measures.deviation, measures.rankme, measures.effective_rank, measures.participation_ratio),
    *(measures.stable_rank, measures.alpha, measures.norm_mean, measures.norm_cv, measures.floor),
]


def batches(sizes, d, seed, mean=0.3):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(1.0, 0.1, d)
    return [torch.randn(n, d, generator=generator) * scale + mean for n in sizes]


@pytest.mark.parametrize("metric", SPECTRAL, ids=lambda metric: metric.__name__)
@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(2, 20), st.integers(0, 2**31))
def test_moments_of_batches_are_those_of_all_rows(metric, sizes, d, seed):
    # Few rows are corrected by themselves, which moments are without.
    first = 2 * d + 1 if metric in (measures.w2_corrected, measures.dims_corrected) else d
    parts = batches([first, *sizes], d, seed)
    moments = Moments.of(unit_rows(parts[0]))
    for part in parts[1:]:
        moments = moments + Moments.of(unit_rows(part))
    rows = unit_rows(torch.cat(parts))
    # Where n is about d there is a direction that rounds to zero; its root is known to 3e-8 only.
    assert metric(moments).item() == pytest.approx(metric(rows).item(), rel=1e-6, abs=1e-6, nan_ok=True)


def test_order_does_not_matter():
    a, b, c = (Moments.of(unit_rows(z)) for z in batches([30, 20, 10], 8, 0))
    assert measures.w2(a + b + c).item() == pytest.approx(measures.w2(c + (b + a)).item(), rel=1e-13)


def test_rows_that_cannot_be_measured_are_counted_alike():
    z = torch.randn(12, 4)
    z[2], z[5, 1], z[7, 0] = 0.0, math.nan, math.inf
    rows, moments = unit_rows(z), Moments.of(unit_rows(z))
    for s in (rows, moments):
        assert (s.count, s.nonfinite, s.dims) == (9, 2, 4)
        good = z[[k for k in range(12) if k not in (5, 7)]].double().norm(dim=1)
        assert s.norms[0].item() == pytest.approx(good.mean().item())
        assert measures.norm_cv(s).item() == pytest.approx((good.std(correction=0) / good.mean()).item())


@pytest.mark.parametrize("of", [lambda u: u, Moments.of], ids=["rows", "moments"])
def test_one_point(of):
    s = of(unit_rows(torch.randn(1, 16).expand(40, 16)))
    assert s.is_one_point
    assert measures.w2(s).item() == pytest.approx(math.sqrt(2), rel=1e-6)
    assert measures.resultant(s).item() == pytest.approx(1.0)
    assert measures.deviation(s).item() == 0.0
    for metric in (measures.dims, measures.dims_corrected, measures.effective_rank, measures.stable_rank):
        assert math.isnan(metric(s).item())


@pytest.mark.parametrize("of", [lambda u: u, Moments.of], ids=["rows", "moments"])
@pytest.mark.parametrize("value", [0.0, math.nan])
def test_nothing_valid(of, value):
    s = of(unit_rows(torch.full((6, 3), value)))
    assert measures.w2(s).item() == pytest.approx(math.sqrt(2))
    assert measures.resultant(s).item() == 1.0
    for metric in (measures.rankme, measures.dims, measures.w2_corrected, measures.floor, measures.alpha):
        assert math.isnan(metric(s).item())
    assert math.isnan(measures.norm_mean(s).item()) == math.isnan(value)


def test_near_one_point_moments_keep_what_float64_can():
    """Noise of 1e-4 around a point: the covariance is 1e-8 of the second moment, and known to 1e-8 of itself.

    Rows of unit length vary along their mean by 1e-8 only; that direction is lost, and with it 2e-5 of the dims.
    """
    z = torch.ones(200, 8) + 1e-4 * torch.randn(200, 8)
    rows, moments = unit_rows(z), Moments.of(unit_rows(z))
    assert measures.dims(moments).item() == pytest.approx(measures.dims(rows).item(), rel=1e-4)
    assert measures.w2(moments).item() == pytest.approx(measures.w2(rows).item(), rel=1e-9)


def test_joined_rows():
    a, b = (unit_rows(z) for z in batches([5, 7], 3, 1))
    joined = UnitRows.join([a, b])
    assert joined.count == 12
    assert torch.equal(joined.rows, torch.cat([a.rows, b.rows]))
    assert UnitRows.join([a]) is a


def test_moments_carry_no_graph():
    z = torch.randn(8, 3, requires_grad=True)
    assert not Moments.of(unit_rows(z)).products.requires_grad


@pytest.mark.parametrize("of", [lambda u: u, Moments.of], ids=["rows", "moments"])
def test_few_rows(of):
    few, enough, two = (of(unit_rows(torch.randn(n, 4))) for n in (15, 16, 2))
    for metric in (measures.w2_corrected, measures.dims_corrected):
        assert math.isnan(metric(few).item())
        assert metric(enough).isfinite()
    assert measures.floor(two).item() == functional.wasserstein_floor(2, 4).item()


def test_joined_rows_are_still_as_they_were_taken():
    parts = [unit_rows(torch.randn(5, 3), normalize=False) for _ in range(2)]
    assert not UnitRows.join(parts).unit


def test_a_line_near_one_point_is_one_dimension_to_moments():
    """Its variance is 1e-10 of the rows' length, whose round-off would count as many more directions."""
    q = torch.linalg.qr(torch.randn(64, 2, dtype=torch.float64))[0]
    z = q[:, 0] + 1e-5 * torch.randn(200, 1, dtype=torch.float64) * q[:, 1]
    assert measures.dims(Moments.of(unit_rows(z))).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("n", [1, 3, 9])
def test_moments_of_few_rows_have_no_more_eigenvalues_than_rows(n):
    """RankMe adds something to each; the row that is masked counts, as among rows."""
    z = torch.randn(n, 64)
    z[0, 0] = math.nan if n > 1 else 1.0
    rows, moments = unit_rows(z), Moments.of(unit_rows(z))
    assert len(moments.raw_eigenvalues) == len(rows.raw_eigenvalues) == n
    assert measures.rankme(moments).item() == pytest.approx(measures.rankme(rows).item(), rel=1e-9)


@pytest.mark.parametrize("d", [4, 16])
def test_rows_may_stand_for_several(d):
    """Without the pairs that a row makes with its own copies."""
    z = torch.randn(6, d, dtype=torch.float64)
    z[4] = math.inf
    counts = torch.tensor([1.0, 5.0, 2.0, 1.0, 7.0, 3.0], dtype=torch.float64)
    many = z[[0, 1, 1, 1, 1, 1, 2, 2, 3, 5, 5, 5]]
    unit = many / many.norm(dim=1, keepdim=True)
    squares = torch.cdist(unit, unit).square()[torch.cdist(many, many) > 0]
    expected = torch.exp(-3.0 * squares).mean().log().item()
    assert pairwise.potential(unit_rows(z), t=3.0, counts=counts).item() == pytest.approx(expected)


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (1.0, 1e-3), (0.0, 30.0), (1e3, 1.0)])
@pytest.mark.parametrize("normalize", [True, False])
def test_pairs_of_wide_rows_by_their_products_are_those_of_the_rows(mean, scale, normalize):
    """With a gradient pairs are taken from the rows. In float64 both are good to 1e-10 of the logarithm."""
    z = mean + scale * torch.randn(24, 60, dtype=torch.float64)
    z[3], z[7], z[9] = z[2], 0.0, math.nan
    by_products = pairwise.potential(unit_rows(z, normalize=normalize))
    by_rows = pairwise.potential(unit_rows(z.clone().requires_grad_(), normalize=normalize))
    assert by_rows.requires_grad
    assert by_products.item() == pytest.approx(by_rows.item(), rel=1e-10, abs=1e-14)
    one = unit_rows(z[7:9], normalize=True)
    assert pairwise.potential(one).isnan()


@pytest.mark.parametrize(("n", "d"), [(600, 30), (50, 700), (2000, 300)])
def test_deviations_are_summed_in_parts(n, d):
    z = torch.randn(n, d, dtype=torch.float64)
    z[1] = math.inf
    z[:, 2] = 5.0
    rows = unit_rows(z, normalize=False)
    expected = z[torch.arange(n) != 1].var(0, correction=0) * (n - 1)
    assert torch.allclose(rows.scatter, expected, rtol=1e-12)
    assert rows.scatter[2] == 0.0
