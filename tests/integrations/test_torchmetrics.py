"""What our torchmetrics say of rows, and how they answer what they can't take."""

import importlib
import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics import CASES, SPECTRAL, D, rows, updated

from reference import VALUES
from uniformity_callbacks import functional, measures
from uniformity_callbacks.integrations import torchmetrics as ours
from uniformity_callbacks.moments import Moments
from uniformity_callbacks.unit_rows import unit_rows


def value(metric, views, sizes=None):
    got = updated(metric, views, sizes).compute()
    assert got.shape == ()
    assert got.dtype == torch.float64
    return got.item()


@pytest.mark.parametrize("name", CASES)
def test_batches_are_as_all_at_once(name):
    case = CASES[name]
    views = rows(views=case.views)
    expected = case.expected(*views)
    for sizes in ([61], [1, 0, 40, 20], [30, 31], [1] * 61):
        assert value(case(), views, sizes) == pytest.approx(expected, rel=1e-11), sizes


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=8), st.integers(0, 2**31), st.data())
def test_any_split(sizes, seed, data):
    last = 2 * D + 1
    n = sum(sizes) + last
    name = data.draw(st.sampled_from(sorted(CASES)))
    case = CASES[name]
    views = rows(n, views=case.views, seed=seed)
    assert value(case(), views, [*sizes, last]) == pytest.approx(case.expected(*views), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n", [16, 2 * D, 2 * D + 1])
def test_few_rows_are_corrected_by_their_sums(n):
    """Of up to 2 d rows the functions look at each."""
    (z,) = rows(n, views=1)
    moments = Moments.of(unit_rows(z))
    for metric, measure, function in (
        (ours.CorrectedWassersteinUniformity, measures.w2_corrected, functional.corrected_wasserstein_uniformity),
        (ours.EffectiveDims, measures.dims_corrected, functional.effective_dims),
    ):
        assert value(metric(D), [z], 7) == pytest.approx(measure(moments).item(), rel=1e-9)
        assert (measure(moments).item() == pytest.approx(function(z).item(), rel=1e-9)) == (n > 2 * D)


@pytest.mark.parametrize("case", VALUES)
def test_reference_values(embeddings, case):
    z = torch.tensor(embeddings[case])
    d, known = z.shape[1], VALUES[case]
    for metric, name, rel in (
        (ours.WassersteinUniformity(d), "w2", 1e-6),
        (ours.EffectiveDims(d, corrected=False), "effective_dims", 1e-6),
        (ours.RankMe(d), "rankme", 1e-5),
        (ours.WangIsolaUniformity(d), "lu", 1e-6),
    ):
        assert value(metric, [z], 100) == pytest.approx(known[name], rel=rel), name
    shifted = value(ours.Alignment(), [z, z.roll(1, 0)], 100)
    assert shifted == pytest.approx(known["official_alignment_with_rolled_rows"], rel=1e-5)


@pytest.mark.parametrize("n", [17, 200])
def test_fewer_rows_than_dimensions(n):
    """Sums have d eigenvalues where rows have n: the others must not count."""
    z = rows(n, views=1, d=64)
    assert value(ours.RankMe(64), z, 9) == pytest.approx(functional.rankme(z[0]).item(), rel=1e-9)
    assert value(ours.WassersteinUniformity(64), z, 9) == pytest.approx(functional.wasserstein_uniformity(z[0]).item())


@pytest.mark.parametrize(("r", "dtype"), [(1, torch.float64), (4, torch.float64), (4, torch.float32)])
def test_rankme_of_few_dimensions_is_as_exact_as_said(r, dtype):
    z = (torch.randn(600, r, dtype=torch.float64) @ torch.randn(r, 128, dtype=torch.float64)).to(dtype)
    assert value(ours.RankMe(128), [z]) == pytest.approx(functional.rankme(z.double()).item(), rel=2e-5)
    assert value(ours.WassersteinUniformity(128), [z]) == pytest.approx(
        functional.wasserstein_uniformity(z.double()).item(), abs=2e-7
    )


@pytest.mark.parametrize(
    ("noise", "dims"), [(1e-2, 1e-8), (1e-3, 1e-6), (1e-4, 5e-4), (1e-5, 2e-2), (1e-6, 0.2), (1e-7, math.nan)]
)
@pytest.mark.parametrize(("n", "d"), [(300, 2), (200, 12), (150, 64), (2000, 256)])
def test_near_one_point_sums_tell_as_much_as_said(n, d, noise, dims):
    """At a distance from the mean of that size, the directions of which differ in size by up to a thousand times."""
    sizes = torch.linspace(0.0, -3.0, d, dtype=torch.float64)
    for wide in (torch.ones(d, dtype=torch.float64), 10**sizes):
        directions = torch.randn(n, d, dtype=torch.float64) * wide
        z = 1.0 / math.sqrt(d) + 1.4 * noise * directions / directions.square().sum(1).mean().sqrt()
        for metric, function in (
            (ours.WassersteinUniformity, functional.wasserstein_uniformity),
            (ours.CorrectedWassersteinUniformity, functional.corrected_wasserstein_uniformity),
        ):
            assert value(metric(d), [z], 60) == pytest.approx(function(z).item(), abs=2e-7)
        assert value(ours.RankMe(d), [z], 60) == pytest.approx(functional.rankme(z).item(), rel=5e-5)
        for corrected in (True, False):
            got = value(ours.EffectiveDims(d, corrected=corrected), [z], 60)
            if math.isnan(dims):
                assert math.isnan(got)
            else:
                assert got == pytest.approx(functional.effective_dims(z, corrected=corrected).item(), rel=dims)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_every_precision_is_measured_in_float64(name, dtype):
    case = CASES[name]
    views = rows(views=case.views, dtype=dtype)
    expected = case.expected(*(view.double() for view in views))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert value(case(), views, 20) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("name", sorted({*CASES} - {"three_views"}))
def test_rows_that_cannot_be_measured_are_left_out(name):
    case = CASES[name]
    views = rows(64, views=case.views)
    views[0][5], views[0][6, 0] = 0.0, math.nan
    views[-1][7, -1], views[-1][8] = math.inf, 0.0
    if name == "alignment":  # the pair is lost with either row
        good = [torch.cat([view[:5], view[9:]]) for view in views]
    else:
        good = [view[view.isfinite().all(1) & view.any(1)] for view in views]
    metric = updated(case(), views, 20)
    with pytest.warns(UserWarning, match="rows with NaN or infinity were left out: 2; the") as told:
        assert metric.compute().item() == pytest.approx(case.expected(*good), rel=1e-11)
    assert len(told) == 1
    metric.compute()  # kept, and not told of again: warnings are errors


@pytest.mark.parametrize("name", CASES)
def test_without_a_finite_row_it_is_nan(name):
    case = CASES[name]
    assert math.isnan(value(case(), [torch.zeros(0, D)] * case.views))
    with pytest.warns(UserWarning, match="compute.* was called before"):
        assert math.isnan(case().compute().item())
    with pytest.warns(UserWarning, match=f"left out: {3 * case.views}; the"):
        assert math.isnan(value(case(), [torch.full((3, D), math.inf)] * case.views))


def test_zero_rows_are_one_point():
    zeros = [torch.zeros(4, D)]
    assert value(ours.WassersteinUniformity(D), zeros) == pytest.approx(math.sqrt(2))
    for metric in (ours.EffectiveDims(D), ours.RankMe(D), ours.WangIsolaUniformity(D)):
        assert math.isnan(value(metric, zeros))


def test_too_few_rows_to_be_corrected():
    a, b = rows(15)[0], rows(40)[1]
    for metric, function in (
        (ours.CorrectedWassersteinUniformity, functional.corrected_wasserstein_uniformity),
        (ours.EffectiveDims, functional.effective_dims),
    ):
        assert math.isnan(value(metric(D), [a]))
        uneven = metric(D, views=2)
        uneven.update(a, b)  # the view that has enough tells
        assert uneven.compute().item() == pytest.approx(function(b).item())


@pytest.mark.parametrize("alpha", [1.0, 0.5, 3])
def test_powers(alpha):
    x, y = rows()
    assert value(ours.Alignment(alpha=alpha), [x, y], 7) == pytest.approx(
        functional.alignment(x, y, alpha=alpha).item()
    )


def test_potential():
    (z,) = rows(views=1)
    expected = functional.wang_isola_uniformity(z, t=0.7).item()
    assert value(ours.WangIsolaUniformity(D, t=0.7), [z], 7) == pytest.approx(expected)


@pytest.mark.parametrize("name", CASES)
def test_no_random_number_is_drawn_and_no_graph_is_kept(name):
    case = CASES[name]
    before = torch.get_rng_state()
    metric = case()
    views = [view.requires_grad_() for view in rows(views=case.views)]
    assert not metric(*views).requires_grad
    metric.update(*views)
    assert not any(state.requires_grad for state in metric.metric_state.values())
    assert not metric.compute().requires_grad
    assert torch.equal(torch.get_rng_state(), before)


def test_directions():
    assert {name: case.new.func.higher_is_better for name, case in SPECTRAL.items()} == {
        "w2": False,
        "w2_corrected": False,
        "dims": None,
        "sample_dims": None,
        "rankme": True,
    }
    assert ours.WangIsolaUniformity.higher_is_better is False
    assert ours.Alignment.higher_is_better is None
    for case in CASES.values():
        assert case().is_differentiable is False
        assert case().full_state_update is False


z = torch.zeros(4, D)


@pytest.mark.parametrize(
    ("views", "error", "message"),
    [
        ((z,), ValueError, r"update must be given 2 views, each \(n, d\), got 1; say how many .*\(\.\.\., views=1\)"),
        ((z, z, z), ValueError, r"update must be given 2 views, each \(n, d\), got 3; .*views=3"),
        ((), ValueError, r"2 views, each \(n, d\), got 0; give them one by one .*, e\.g\. metric\.update\(z0, z1\)"),
        (([z, z],), ValueError, "got 1; give them one by one and without names"),
        (
            (z, z[0]),
            ValueError,
            r"views\[1\] must be \(n, d\), got \(12,\); .*e\.g\. views\[1\]\[None\]",
        ),
        ((z[None], z), ValueError, r"views\[0\] must be \(n, d\), got \(1, 4, 12\); one row a sample"),
        ((z, z.long()), TypeError, r"views\[1\] must be a floating-point tensor, got a tensor of torch.int64"),
        ((z, "z"), TypeError, r"views\[1\] must be a floating-point tensor, got str"),
    ],
)
@pytest.mark.parametrize("name", ["w2", "rankme", "lu", "alignment"])
@pytest.mark.usefixtures("unchecked")
def test_what_update_refuses(name, views, error, message):
    metric = CASES[name]()
    before = {key: state.clone() for key, state in metric.metric_state.items()}
    with pytest.raises(error, match=message):
        metric.update(*views)
    assert all(torch.equal(state, before[key]) for key, state in metric.metric_state.items())


@pytest.mark.parametrize("name", ["w2", "lu"])
def test_another_dimension_is_refused(name):
    with pytest.raises(ValueError, match=r"views\[1\] must be \(n, 12\), got \(4, 9\); num_features is the layer's"):
        CASES[name]().update(z, z[:, :9])


def test_pairs_need_partners():
    with pytest.raises(ValueError, match=r"views must have one shape, got \(4, 12\), \(3, 12\); row i of each is of"):
        ours.Alignment().update(z, z[:3])


@pytest.mark.parametrize(
    ("new", "error", "message"),
    [
        (lambda: ours.WassersteinUniformity(0), ValueError, "num_features must be at least 1, got 0"),
        (lambda: ours.RankMe(8.0), TypeError, r"num_features must be an integer, got 8\.0"),
        (lambda: ours.EffectiveDims(8, views=0), ValueError, "views must be at least 1, got 0"),
        (lambda: ours.WangIsolaUniformity(8, views=True), TypeError, "views must be an integer, got True"),
        (lambda: ours.WangIsolaUniformity(0), ValueError, "num_features must be at least 1, got 0"),
        (lambda: ours.WangIsolaUniformity(8, max_rows=1), ValueError, "max_rows must be at least 2, got 1"),
        (lambda: ours.WangIsolaUniformity(8, max_rows=1e3), TypeError, "max_rows must be an integer, got 1000.0"),
        (lambda: ours.WangIsolaUniformity(8, t=0.0), ValueError, "t must be positive, got 0.0; the usual value is 2"),
        (lambda: ours.Alignment(alpha=-1), ValueError, "alpha must be positive, got -1; the usual value is 2"),
        (lambda: ours.Alignment(views=1), ValueError, "views must be at least 2, got 1"),
        (lambda: ours.RankMe(8, normalise=True), ValueError, "Unexpected keyword arguments: `normalise`"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_constructors_refuse(new, error, message):
    with pytest.raises(error, match=message):
        new()


def test_without_torchmetrics(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    for module in ("torchmetrics", "accumulator"):
        monkeypatch.delitem(sys.modules, f"uniformity_callbacks.integrations.{module}")
    with pytest.raises(ImportError, match=r"need torchmetrics; pip install 'uniformity-callbacks\[torchmetrics\]'"):
        importlib.import_module("uniformity_callbacks.integrations.torchmetrics")
