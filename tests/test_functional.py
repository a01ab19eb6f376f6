import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from reference import CASES, VALUES
from uniformity_callbacks import functional, pairwise


def effective_dims(z, **options):
    return functional.effective_dims(z, corrected=False, **options)


METRICS = {
    "w2": functional.wasserstein_uniformity,
    "effective_dims": effective_dims,
    "mean_resultant": functional.mean_resultant_length,
    "std_ratio": functional.std_ratio,
    "lu": functional.wang_isola_uniformity,
    "rankme": functional.rankme,
    "participation_ratio": functional.participation_ratio,
    "stable_rank": functional.stable_rank,
}
FORMULAS = {
    functional.wasserstein_uniformity: reference.w2_by_svd,
    effective_dims: reference.effective_dims,
    functional.mean_resultant_length: reference.mean_resultant_length,
    functional.std_ratio: reference.std_ratio,
    functional.wang_isola_uniformity: reference.wang_isola_uniformity,
    functional.rankme: reference.rankme,
    functional.effective_rank: reference.effective_rank,
    functional.participation_ratio: reference.participation_ratio,
    functional.stable_rank: reference.stable_rank,
    functional.alpha_req: reference.alpha_req,
}
w2 = functional.wasserstein_uniformity


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("case", CASES)
def test_reference_values(embeddings, case, metric):
    z, expected = torch.tensor(embeddings[case]), VALUES[case][metric]
    assert METRICS[metric](z.double()).item() == pytest.approx(expected, rel=1e-6)
    single = METRICS[metric](z)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=1e-4, abs=2e-4)


@pytest.mark.parametrize("case", [case for case in CASES if "grad_norm" in VALUES[case]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_reference_gradients(embeddings, gradients, case, dtype):
    z = torch.tensor(embeddings[case], dtype=dtype, requires_grad=True)
    w2(z).backward()
    expected = torch.tensor(gradients[case])
    assert (z.grad - expected).norm() <= 1e-4 * expected.norm()
    assert z.grad.double().norm().item() == pytest.approx(VALUES[case]["grad_norm"], rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(1, 24), st.integers(0, 2**31), st.floats(0, 3))
def test_against_other_formulas(n, d, seed, mean):
    z = np.random.default_rng(seed).normal(size=(n, d)) + mean
    for metric, formula in FORMULAS.items():
        got = metric(torch.from_numpy(z)).item()
        assert got == pytest.approx(formula(z), rel=1e-8, abs=2e-7, nan_ok=True), metric.__name__


def test_w2_is_the_distance_between_gaussians(embeddings):
    for case in ("isotropic_512x64", "cone_mean3_256x64", "powerlaw1_384x96"):
        z = embeddings[case]
        assert w2(torch.tensor(z).double()).item() == pytest.approx(reference.w2(z), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 30), st.integers(2, 12), st.integers(0, 2**31))
def test_identities(n, d, seed):
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.normal(size=(n, d)) + 0.5)
    value = w2(z).item()
    rotation = torch.from_numpy(np.linalg.qr(rng.normal(size=(d, d)))[0])
    lengths = torch.from_numpy(rng.uniform(1e-3, 1e3, size=(n, 1)))
    same = {
        "permuted": z[torch.from_numpy(rng.permutation(n))],
        "rotated": z @ rotation,
        "rows scaled": z * lengths,
        "instances cloned": torch.cat([z, z]),
        "zero rows": torch.cat([z, torch.zeros(3, d, dtype=z.dtype)]),
    }
    for what, other in same.items():
        assert w2(other).item() == pytest.approx(value, abs=1e-7), what
    assert w2(torch.cat([z, z], dim=1)).item() > value
    assert w2(torch.cat([z, torch.zeros(n, d, dtype=z.dtype)], dim=1)).item() > value


def test_closed_forms():
    axes = torch.cat([torch.eye(32), -torch.eye(32)]).double()  # mean 0, covariance I/d: the ideal
    assert w2(axes).item() == 0.0
    assert effective_dims(axes).item() == pytest.approx(32.0)
    assert functional.std_ratio(axes).item() == pytest.approx(math.sqrt(64 / 63))
    in_half = torch.cat([axes, torch.zeros_like(axes)], dim=1)  # isotropic in r = d / 2
    assert w2(in_half).item() == pytest.approx(math.sqrt(2 * (1 - math.sqrt(0.5))))
    line = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]).double()  # rank one
    assert w2(line).item() == pytest.approx(1.0)
    assert effective_dims(line).item() == pytest.approx(1.0)
    assert functional.wang_isola_uniformity(line, t=3.0).item() == pytest.approx(-12.0)


def test_no_gradient_at_the_ideal():
    axes = torch.cat([torch.eye(32), -torch.eye(32)]).double().requires_grad_()
    w2(axes).backward()
    assert (axes.grad == 0).all()


def test_one_point():
    z = torch.randn(1, 16).expand(40, 16)
    assert w2(z).item() == pytest.approx(math.sqrt(2.0))
    assert functional.mean_resultant_length(z).item() == pytest.approx(1.0)
    assert functional.std_ratio(z).item() == 0.0
    assert functional.wang_isola_uniformity(z).item() == pytest.approx(0.0, abs=1e-12)
    for metric in (effective_dims, functional.effective_rank, functional.participation_ratio, functional.stable_rank):
        assert math.isnan(metric(z).item())
    assert functional.rankme(z).item() == pytest.approx(1.0, abs=1e-3)
    assert math.isnan(functional.alpha_req(z).item())


DEGENERATE = {
    "constant": torch.ones(20, 8),
    "rank one": torch.randn(20, 1, generator=torch.Generator().manual_seed(1)) * torch.ones(8),
    "n < d": torch.randn(5, 30, generator=torch.Generator().manual_seed(2)),
    "n = 2": torch.randn(2, 8, generator=torch.Generator().manual_seed(3)),
    "d = 1": torch.randn(9, 1, generator=torch.Generator().manual_seed(4)),
    "some zero rows": torch.randn(9, 4, generator=torch.Generator().manual_seed(5))
    * (torch.arange(9) % 3 > 0)[:, None],
    "all zero rows": torch.zeros(6, 4),
    "tiny": torch.full((4, 3), 1e-40).cumsum(0) * torch.tensor([1.0, -1.0, 2.0]),
    "huge": torch.randn(6, 3, generator=torch.Generator().manual_seed(6)) * 1e38,
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_rows_have_finite_value_and_gradient(case, dtype):
    if dtype == torch.float16 and case in ("tiny", "huge"):
        return  # not in its range
    z = DEGENERATE[case].to(dtype, copy=True).requires_grad_()
    value = w2(z)
    value.backward()
    assert 0.0 <= value.item() <= math.sqrt(2.0) + 1e-6
    assert z.grad.isfinite().all()
    for metric in (functional.mean_resultant_length, functional.std_ratio):
        z.grad = None
        assert metric(z).isfinite()
        metric(z).backward()
        assert z.grad.isfinite().all()


def test_zero_rows_get_no_gradient():
    z = torch.randn(8, 4)
    z[3] = 0.0
    z.requires_grad_()
    w2(z).backward()
    assert (z.grad[3] == 0).all()
    assert (z.grad[2] != 0).any()


def test_all_zero_rows_read_as_one_point():
    assert w2(torch.zeros(6, 4)).item() == pytest.approx(math.sqrt(2.0))
    assert functional.mean_resultant_length(torch.zeros(6, 4)).item() == 1.0
    assert math.isnan(functional.wang_isola_uniformity(torch.zeros(6, 4)).item())


@pytest.mark.parametrize("shape", [(20, 6), (6, 20), (8, 8)])
def test_gradient_by_finite_differences(shape):
    z = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(w2, (z,), atol=1e-7)
    raw = (0.2 * torch.randn(shape, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: w2(x, normalize=False), (raw,), atol=1e-7)


def test_a_weak_direction_is_brought_back():
    """Its singular value is 1e-5 of the others: a float32 Gram matrix would lose it."""
    z = torch.randn(256, 16)
    z[:, 0] *= 1e-5
    z.requires_grad_()
    w2(z).backward()
    pull = -(z.grad[:, 0] * z.detach()[:, 0]).sum() / (z.grad[:, 0].norm() * z.detach()[:, 0].norm())
    assert pull > 0.9  # descent makes the feature larger


def test_not_normalised_rows_are_taken_as_they_are():
    z = torch.randn(4000, 8, dtype=torch.float64) / math.sqrt(8)  # a sample of N(0, I/d) itself
    assert w2(z, normalize=False).item() < 0.06
    assert w2(2 * z, normalize=False).item() == pytest.approx(1.0, abs=0.06)  # N(0, 4 I/d) is 1 away


def test_pairs_in_blocks_are_all_pairs(monkeypatch):
    z = torch.randn(101, 7)
    whole = functional.wang_isola_uniformity(z)
    monkeypatch.setattr(pairwise, "_PAIRS_AT_ONCE", 500)
    monkeypatch.setattr(pairwise, "_ON_THE_DIAGONAL", 20)
    monkeypatch.setattr(pairwise, "_ROWS_AT_ONCE", 30)
    assert functional.wang_isola_uniformity(z).item() == pytest.approx(whole.item(), rel=1e-6)


@pytest.mark.parametrize("metric", [*FORMULAS, functional.corrected_wasserstein_uniformity, functional.effective_dims])
def test_autocast_has_no_effect(metric):
    z = torch.randn(64, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = metric(z)
    assert inside.item() == metric(z).item()


@pytest.mark.parametrize(
    ("z", "error", "message"),
    [
        (torch.zeros(3), ValueError, r"z must be \(n, d\), got \(3,\).*z\[None\]"),
        (torch.zeros(2, 3, 4), ValueError, r"z must be \(n, d\), got \(2, 3, 4\).*flatten\(1\)"),
        (torch.zeros(1, 4), ValueError, r"n >= 2 and d >= 1, got \(1, 4\); collect more samples"),
        (torch.zeros(4, 0), ValueError, r"n >= 2 and d >= 1, got \(4, 0\)"),
        (torch.zeros(4, 4, dtype=torch.int64), TypeError, r"got a tensor of torch.int64; convert it, e.g. z.float\(\)"),
        (np.zeros((4, 4)), TypeError, "got ndarray; convert it"),
        (torch.tensor([[1.0, math.nan], [1.0, 2.0]]), ValueError, "1 of 2 rows with NaN or infinity; leave them out"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(z, error, message):
    for metric in [*FORMULAS, functional.corrected_wasserstein_uniformity, functional.effective_dims]:
        with pytest.raises(error, match=message):
            metric(z)
    with pytest.raises(error, match=message):
        functional.population_spectrum(z)


@pytest.mark.parametrize("t", [0.0, -1.0, math.nan])
def test_bad_t(t):
    with pytest.raises(ValueError, match="t must be positive"):
        functional.wang_isola_uniformity(torch.randn(4, 2), t=t)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_alignment(embeddings, alpha):
    for case, z in embeddings.items():
        x, y = torch.tensor(z).double(), torch.tensor(z).double().roll(1, 0)
        if (z == 0).all(1).any():
            continue
        assert functional.alignment(x, y, alpha=alpha).item() == pytest.approx(reference.alignment(x, y, alpha))
        official = VALUES[case]["official_alignment_with_rolled_rows"]
        assert functional.alignment(x, y).item() == pytest.approx(official, rel=1e-6, abs=2e-7)
    assert functional.alignment(x, 3 * x, alpha=alpha).item() == 0.0


def test_zero_rows_are_no_pairs():
    x, y = torch.randn(8, 4), torch.randn(8, 4)
    expected = functional.alignment(x[2:], y[2:]).item()
    x[0], y[1] = 0.0, 0.0
    assert functional.alignment(x, y).item() == pytest.approx(expected)
    assert math.isnan(functional.alignment(x, torch.zeros(8, 4)).item())


@pytest.mark.parametrize("metric", [metric for metric in FORMULAS if metric is not functional.alpha_req])
def test_gradients_are_finite_at_equal_eigenvalues_and_low_rank(metric):
    for z in (torch.cat([torch.eye(8), -torch.eye(8)]), torch.randn(20, 3) @ torch.randn(3, 10)):
        z.requires_grad_()
        metric(z).backward()
        assert z.grad.isfinite().all()


@pytest.mark.parametrize("metric", list(FORMULAS))
def test_gradients_by_finite_differences(metric):
    z = torch.randn(14, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(metric, (z,), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("metric", [*FORMULAS, functional.corrected_wasserstein_uniformity, functional.effective_dims])
def test_half_precision_input_is_read_as_it_is(metric, dtype):
    """The arithmetic is float64's: the value is that of the same rounded rows in float64."""
    z = torch.randn(64, 12).to(dtype)
    value = metric(z)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(metric(z.double()).item(), rel=1e-6)


def test_the_rank_metrics_do_not_mind_row_lengths_or_rotation():
    z = torch.randn(50, 12, dtype=torch.float64) * torch.linspace(1, 0.1, 12, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64))[0]
    for metric in (
        functional.rankme,
        functional.effective_rank,
        functional.participation_ratio,
        functional.stable_rank,
    ):
        assert metric(z @ rotation * torch.rand(50, 1, dtype=torch.float64)).item() == pytest.approx(metric(z).item())
