"""The metrics corrected for sample size, as a user calls them."""

import math

import pytest
import torch

from uniformity_callbacks import functional

corrected = functional.corrected_wasserstein_uniformity
CORRECTED = [corrected, functional.effective_dims, functional.population_spectrum]


@pytest.mark.parametrize(("n", "d"), [(64, 128), (128, 128), (512, 128), (256, 512)])
def test_a_uniform_population(n, d):
    draws = [torch.randn(n, d) for _ in range(3)]
    assert sum(corrected(z).item() for z in draws) / 3 < 0.12
    assert sum(functional.effective_dims(z).item() for z in draws) / 3 == pytest.approx(d, rel=0.05)
    floor = functional.wasserstein_floor(n, d).item()
    assert floor > 0.25
    assert sum(functional.wasserstein_uniformity(z).item() for z in draws) / 3 == pytest.approx(floor, rel=0.02)


def test_rows_that_are_not_normalised_are_taken_for_gaussian():
    """Their lengths vary freely, which the equations must know: as unit rows they would read 8 % too many dims."""
    variances = torch.arange(1, 129, dtype=torch.float64) ** -2
    dims = (variances.sqrt().sum() ** 2 / variances.sum()).item()
    draws = [torch.randn(32, 128, dtype=torch.float64) * variances.sqrt() for _ in range(12)]
    read = [functional.effective_dims(z, normalize=False).item() for z in draws]
    assert sum(read) / 12 == pytest.approx(dims, rel=0.1)
    z = 3.0 * torch.randn(400, 16, dtype=torch.float64)
    assert corrected(z, normalize=False).item() == pytest.approx(3 * 4 - 1, rel=0.05)  # N(0, 9 I) from N(0, I / 16)


@pytest.mark.parametrize("metric", [corrected, functional.effective_dims])
def test_it_does_not_matter_how_rows_are_turned_scaled_or_ordered(metric):
    z = torch.randn(100, 24, dtype=torch.float64) * torch.linspace(1, 0.2, 24, dtype=torch.float64)
    value = metric(z).item()
    rotation = torch.linalg.qr(torch.randn(24, 24, dtype=torch.float64))[0]
    for other in (z @ rotation, z.flip(0), z * (1 + torch.rand(100, 1, dtype=torch.float64))):
        assert metric(other).item() == pytest.approx(value, rel=1e-6)


def test_the_population_of_many_rows_is_the_sample():
    z = torch.randn(20_000, 16) * torch.linspace(1, 0.1, 16)
    assert corrected(z).item() == pytest.approx(functional.wasserstein_uniformity(z).item(), rel=0.01)
    plain = functional.effective_dims(z, corrected=False).item()
    assert functional.effective_dims(z).item() == pytest.approx(plain, rel=0.01)


def test_one_point():
    z = torch.randn(1, 16).expand(40, 16)
    assert corrected(z).item() == pytest.approx(math.sqrt(2))
    assert math.isnan(functional.effective_dims(z).item())
    eigenvalues, weights = functional.population_spectrum(z)
    assert (eigenvalues * weights).sum() == pytest.approx(0.0, abs=1e-20)


def test_the_spectrum_is_one():
    z = torch.randn(64, 96)
    z[:, 48:] = 0.0
    eigenvalues, weights = functional.population_spectrum(z)
    assert eigenvalues.dtype == weights.dtype == torch.float64
    assert (eigenvalues.diff() > 0).all()
    assert (weights > 0).all()
    assert weights.sum().item() == pytest.approx(1.0)
    mean = functional.mean_resultant_length(z.double()).item()
    # Variances add up to one less the squared mean, of which the sample has seen n - 1 of n parts.
    assert 96 * (eigenvalues * weights).sum().item() == pytest.approx((1 - mean**2) * 64 / 63, rel=0.02)
    assert weights[eigenvalues > 1e-3].sum().item() == pytest.approx(0.5, abs=0.1)


def test_cloning_instances_is_given_up_and_pointed_out():
    """Plain W2 does not feel it."""
    z = torch.randn(256, 128)
    alone = corrected(z).item()
    with pytest.warns(UserWarning, match="z has 256 of 512 rows that repeat another.*leave repeats out"):
        cloned = corrected(torch.cat([z, z])).item()
    assert alone < 0.1
    assert cloned > 0.2
    plain = functional.wasserstein_uniformity(z).item()
    assert functional.wasserstein_uniformity(torch.cat([z, z])).item() == pytest.approx(plain, rel=1e-6)


def test_a_few_repeats_are_not_worth_a_word():
    z = torch.randn(200, 32)
    assert corrected(torch.cat([z, z[:2]])).item() == pytest.approx(corrected(z).item(), abs=0.03)


@pytest.mark.parametrize("metric", CORRECTED)
@pytest.mark.usefixtures("unchecked")
def test_too_few_rows(metric):
    metric(torch.randn(16, 4))
    z = torch.cat([torch.randn(15, 4), torch.zeros(5, 4)])
    with pytest.raises(ValueError, match=r"z must have at least 16 rows that are not zero .* got 15; collect more"):
        metric(z)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1, 8), ValueError, "n must be at least 2, got 1"),
        ((8, 0), ValueError, "d must be at least 1, got 0"),
        ((8.0, 8), TypeError, r"n must be an integer, got 8\.0"),
        ((True, 8), TypeError, "n must be an integer, got True"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_floor(arguments, error, message):
    with pytest.raises(error, match=message):
        functional.wasserstein_floor(*arguments)


@pytest.mark.parametrize(
    ("other", "alpha", "error", "message"),
    [
        (torch.randn(9, 4), 2.0, ValueError, r"x and y must have one shape, got \(8, 4\) and \(9, 4\); row i of both"),
        (torch.randn(8, 3), 2.0, ValueError, r"x and y must have one shape"),
        (torch.randn(8, 4), 0.0, ValueError, "alpha must be positive, got 0.0"),
        (torch.full((8, 4), math.nan), 2.0, ValueError, "y must be finite, got 8 of 8 rows.*y.isfinite"),
        (torch.zeros(8), 2.0, ValueError, r"y must be \(n, d\), got \(8,\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_alignment(other, alpha, error, message):
    with pytest.raises(error, match=message):
        functional.alignment(torch.randn(8, 4), other, alpha=alpha)
