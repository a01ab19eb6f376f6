"""What rows absorb, each by itself, against the inverse that defines it; what that says of rows of unequal weight."""

import numpy as np
import pytest
import torch

from spectra import eigenvalues
from uniformity_callbacks import functional, measures
from uniformity_callbacks.absorption import POINTS, by_rows, odds_of
from uniformity_callbacks.moments import Moments
from uniformity_callbacks.sample_size import population
from uniformity_callbacks.unit_rows import unit_rows


def decomposed(rows):
    """Squared components as shares, and eigenvalues in units of the largest, of centred rows."""
    u, s, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    k = min(len(rows) - 1, rows.shape[1])
    return u[:, :k] ** 2, (s[:k] / s[0]) ** 2


@pytest.mark.parametrize(("n", "d"), [(24, 40), (40, 24), (17, 17)])
def test_a_row_absorbs_what_the_inverse_without_it_says(n, d):
    rows = np.random.default_rng(0).standard_normal((n, d)) * np.linspace(1, 0.1, d)
    leverage, sample = decomposed(rows)
    c = rows - rows.mean(0)
    scale = (n - 1) * np.linalg.svd(c, compute_uv=False)[0] ** 2 / (n - 1)
    own = []
    for i in range(n):  # a row about the mean of the others, and the covariance of these about theirs
        others = np.delete(rows, i, 0)
        u, rest = rows[i] - others.mean(0), others - others.mean(0)
        inverse = np.linalg.inv(rest.T @ rest / scale + POINTS[:, None, None] * np.eye(d))
        own.append((n - 1) / n * np.einsum("i,pij,j->p", u, inverse, u) / scale)
    kept = POINTS / (sample[:, None] + POINTS)
    entries = ((1 - leverage @ (1 - kept)) - 1 / n) / (1 - 1 / n)
    # 0.2: the mean is that of n rows, not of the others.
    assert 1 / entries - 1 == pytest.approx(np.array(own) * n / (n - 1), rel=0.2)
    q, c = by_rows(leverage, sample, odds_of(sample, n - 1))
    assert (q > 0).all()
    assert ((c > 0) & (c <= 1)).all()


def test_rows_alike_have_the_factor_one():
    n, sample = 32, np.linspace(1.0, 0.01, 16)
    odds = odds_of(sample, n - 1)
    q, c = by_rows(np.full((n, 16), 1 / n), sample, odds)
    assert q == pytest.approx(odds, rel=1e-9)
    assert c == pytest.approx(1 / (1 + odds), rel=1e-9)


def weighted(n, rng, spread, d=128, strong=16):
    """Rows whose part in the weak directions comes times a factor of their own."""
    y = rng.standard_normal((n, d)) * np.where(np.arange(d) < strong, 1.0, 0.1)
    y[:, strong:] *= np.exp(spread * rng.standard_normal((n, 1)))
    return torch.from_numpy(y)


@pytest.mark.parametrize("spread", [0.0, 0.3, 0.5])
def test_rows_of_unequal_weight_are_met_and_were_not(spread):
    rng = np.random.default_rng(0)
    true = functional.effective_dims(weighted(30_000, rng, spread), corrected=False).item()
    samples = [weighted(64, rng, spread) for _ in range(12)]
    own = np.mean([functional.effective_dims(z).item() for z in samples])
    model = np.mean([measures.dims_corrected(Moments.of(unit_rows(z))).item() for z in samples])
    assert own == pytest.approx(true, rel=0.05)
    if spread == 0.5:
        assert model < 0.9 * true
        assert abs(own - true) < 0.5 * abs(model - true)


def test_order_and_scale_of_directions_do_not_matter():
    rows = np.random.default_rng(1).standard_normal((48, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    leverage, sample = decomposed(rows)
    values = eigenvalues(rows)[: sample.size]
    shuffled = np.random.default_rng(2).permutation(sample.size)
    one = population(values, 48, 64, mean_square=1.0, leverage=leverage)
    other = population(7.0 * values[shuffled], 48, 64, mean_square=7.0, leverage=leverage[:, shuffled])
    assert other.root_trace == pytest.approx(np.sqrt(7.0) * one.root_trace, rel=1e-9)


@pytest.mark.parametrize("rows", ["repeated", "on a line", "one point", "two points"])
def test_odd_rows_are_finite(rows):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(32, 32, generator=generator)
    z = {
        "repeated": torch.cat([z[:16], z[:16]]),
        "on a line": z[:, :1] * z[0] + z[1],
        "one point": z[:1].expand(32, 32),
        "two points": z[:2].repeat(16, 1),
    }[rows]
    found = unit_rows(z).population
    assert np.isfinite(found.eigenvalues).all()
    assert 0 <= found.root_trace <= np.sqrt(32) + 1e-9
