import warnings

import numpy as np
import pytest

from spectra import eigenvalues, plain, unit_gaussians
from uniformity_callbacks.sample_size import LEAST_ROWS, population, wasserstein_floor

# The floor.


@pytest.mark.parametrize(
    ("n", "d", "expected"),
    [(8192, 256, 0.0893), (512, 256, 0.3695), (64, 64, 0.568), (512, 2048, 1.0169), (256, 8192, 1.2842)],
)
def test_floor_of_the_table(n, d, expected):
    assert wasserstein_floor(n, d) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(("n", "d"), [(100, 64), (200, 300), (65, 64), (1000, 100)])
def test_floor_is_what_ideal_samples_read(n, d):
    rng = np.random.default_rng(0)
    reads = [plain(eigenvalues(unit_gaussians(np.ones(d), n, rng)), d)[0] for _ in range(10)]
    assert wasserstein_floor(n, d) == pytest.approx(np.mean(reads), rel=0.02)


def test_floor_limits():
    """Many rows: W2^2 is (d + 4) / (4 n), 1 / n of it the mean's. Hardly any: one point's. Always less with more."""
    assert wasserstein_floor(1_000_000, 100) == pytest.approx(np.sqrt(104 / 4e6), rel=1e-4)
    assert wasserstein_floor(2, 10_000_000) == pytest.approx(np.sqrt(2), abs=1e-3)
    falls = [wasserstein_floor(n, 64) for n in (2, 3, 16, 64, 65, 66, 1000)]
    assert falls == sorted(falls, reverse=True)


@pytest.mark.parametrize(("n", "d"), [(1, 4), (4, 0)])
def test_floor_needs_rows_and_dims(n, d):
    with pytest.raises(ValueError, match=f"n must be >= 2 and d >= 1, got n={n}, d={d}"):
        wasserstein_floor(n, d)


# Identities.


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(6)
    return eigenvalues(unit_gaussians(np.arange(1.0, 65) ** -1.0, 48, rng))


@pytest.mark.parametrize("scale", [1e-9, 3.0, 1e12])
def test_equivariant_to_scaling(sample, scale):
    one, scaled = population(sample, 48, 64), population(scale * sample, 48, 64)
    assert scaled.root_trace == pytest.approx(np.sqrt(scale) * one.root_trace, rel=1e-6)
    assert scaled.effective_dims == pytest.approx(one.effective_dims, rel=1e-6)
    told, scaled = (population(s * sample, 48, 64, mean_square=2.0 * s) for s in (1.0, scale))
    assert scaled.effective_dims == pytest.approx(told.effective_dims, rel=1e-6)


def test_order_zeros_and_round_off_do_not_matter(sample):
    expected = population(sample, 48, 64)
    shuffled = np.random.default_rng(7).permutation(np.concatenate([sample, np.zeros(16)]))
    noisy = np.concatenate([sample[1:], np.full(17, -1e-18)])
    for values in (shuffled, noisy, sample[sample > 1e-12]):
        assert population(values, 48, 64).root_trace == pytest.approx(expected.root_trace, rel=1e-6)


def test_same_again(sample):
    before = sample.copy()
    first, second = (population(sample, 48, 64) for _ in range(2))
    assert (first.eigenvalues == second.eigenvalues).all()
    assert (first.weights == second.weights).all()
    assert (sample == before).all()


@pytest.mark.parametrize(("n", "d"), [(16, 1), (16, 2), (16, 500), (40, 40), (41, 40), (100, 384), (4000, 30)])
@pytest.mark.parametrize("mean_square", [None, 5.0, np.inf])
def test_a_spectrum_whatever_the_shape(n, d, mean_square):
    values = eigenvalues(np.random.default_rng(8).standard_normal((n, d)) / np.sqrt(d))
    estimate = population(values, n, d, mean_square=mean_square)
    assert (estimate.weights >= 0).all()
    assert estimate.weights.sum() == pytest.approx(1, abs=1e-12)
    assert (estimate.eigenvalues >= 0).all()
    assert (np.diff(estimate.eigenvalues) > 0).all()
    assert estimate.trace == pytest.approx(values.sum() * n / (n - 1), rel=1e-9)
    assert estimate.effective_dims == pytest.approx(estimate.root_trace**2 / estimate.trace)
    assert 0.99 < estimate.effective_dims < d + 1e-9
    assert estimate.dims == d


# Degenerate input.


@pytest.mark.parametrize("values", [[], [0.0] * 8, [-1e-33] * 8, [1e-320] * 8])
@pytest.mark.parametrize("n", [0, 1, 2, 16, 1000])
def test_one_point(values, n):
    estimate = population(np.array(values), n, 8)
    assert estimate.root_trace == 0
    assert estimate.trace == 0
    assert np.isnan(estimate.effective_dims)
    assert estimate.weights.sum() == 1


def test_round_off_of_unit_rows_is_one_point():
    noise = np.random.default_rng(9).random(8) * 1e-32
    assert population(noise, 64, 8, mean_square=1.0).root_trace == 0
    assert population(noise, 64, 8).root_trace < 1e-15


@pytest.mark.parametrize("n", [LEAST_ROWS, 60, 1000, 1_000_000])
@pytest.mark.parametrize("d", [2, 128])
def test_one_eigenvalue(n, d):
    """All rows on a line: two of them are enough to know."""
    estimate = population(np.array([0.5]), n, d)
    assert estimate.effective_dims == pytest.approx(1, rel=0.12 if n < 100 else 0.02)


@pytest.mark.parametrize("rank", [1, 2, 3, 8])
def test_few_directions_and_few_rows(rank):
    z = np.random.default_rng(10).standard_normal((LEAST_ROWS, rank))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    assert population(eigenvalues(z), LEAST_ROWS, 128).effective_dims == pytest.approx(rank, rel=0.12)


@pytest.mark.parametrize("d", [1, 2, 8, 64])
def test_plain_where_rows_are_many(d):
    variances = 1 / np.arange(1.0, d + 1)
    values = eigenvalues(unit_gaussians(variances, 1000 * d, np.random.default_rng(11)))
    estimate = population(values, 1000 * d, d)
    root, dims = np.sqrt(values).sum(), np.sqrt(values).sum() ** 2 / values.sum()
    assert estimate.root_trace == pytest.approx(root, rel=3e-3)
    assert estimate.effective_dims == pytest.approx(dims, rel=6e-3)


@pytest.mark.parametrize("n", [2, 3, LEAST_ROWS - 1])
def test_the_sample_itself_where_rows_are_too_few(n):
    values = np.array([0.3, 0.0, 0.6, 1e-3])[:n]
    estimate = population(values, n, 8)
    assert estimate.root_trace == pytest.approx(np.sqrt(values * n / (n - 1)).sum())
    assert estimate.trace == pytest.approx(values.sum() * n / (n - 1))
    assert estimate.weights.sum() == pytest.approx(1)


def test_nothing_raises_or_warns():
    """Any eigenvalues over many decades, shapes and lengths; the estimate is a spectrum, not far above the sample's."""
    rng = np.random.default_rng(12)
    with warnings.catch_warnings(), np.errstate(divide="raise", invalid="raise", over="raise"):
        warnings.simplefilter("error")
        for _ in range(400):
            n, d = (int(np.exp(rng.uniform(np.log(low), np.log(3000)))) for low in (2, 1))
            values = np.exp(rng.normal(size=min(n - 1, d)) * rng.uniform(0, 8)) * 10.0 ** rng.integers(-30, 30)
            square = [None, float(values.sum()) * float(np.exp(rng.uniform(0, 5))), np.inf][rng.integers(3)]
            estimate = population(values, n, d, mean_square=square)
            assert np.isfinite(estimate.eigenvalues).all()
            assert estimate.trace == pytest.approx(values.sum() * n / (n - 1), rel=1e-9)
            assert 0.95 < estimate.effective_dims < d + 1e-6
            assert estimate.eigenvalues.max() < 1.6 * values.max() * n / (n - 1)
