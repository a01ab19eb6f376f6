"""The spectrum that each reading keeps, for a picture of it over the run."""

import math

import numpy as np
import pytest
import torch

from loops import run
from uniformity_callbacks import read_journal
from uniformity_callbacks.panel import measure, spectrum, spectrum_ranks
from uniformity_callbacks.reader import Outcome
from uniformity_callbacks.sample import Views

D = 48


def views(seed=0, n=64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return Views.of([torch.randn(n, D, generator=generator) * scale for _ in range(2)])


def reference(views):
    rows = np.concatenate([view.rows.numpy() for view in views.rows])
    return np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2 / len(rows) * rows.shape[1]


@pytest.mark.parametrize("d", [1, 2, 31, 32, 33, 128, 8192, 2**63 - 1])
def test_ranks_rise_from_first_to_last(d):
    ranks = spectrum_ranks(d)
    assert ranks == sorted(set(ranks))
    assert ranks[0] == 1
    assert math.isclose(ranks[-1], d)
    assert len(ranks) == d if d <= 32 else 16 < len(ranks) <= 32


def test_values_are_the_samples_eigenvalues_times_d():
    some = views()
    expected = reference(some)[[rank - 1 for rank in spectrum_ranks(D)]]
    assert spectrum(some, ["w2"]) == pytest.approx(expected, rel=1e-3)


def test_ranks_that_the_sample_cannot_have_are_zero():
    few = Views.of([torch.randn(5, D, generator=torch.Generator().manual_seed(1))])
    kept = dict(zip(spectrum_ranks(D), spectrum(few, ["w2"]), strict=True))
    assert all(value > 1.0 for rank, value in kept.items() if rank <= 4)
    assert all(value < 1e-9 for rank, value in kept.items() if rank >= 5)


def test_one_point_is_zero_throughout():
    point = Views.of([torch.ones(64, D)])
    assert max(spectrum(point, ["w2"])) < 1e-9


@pytest.mark.parametrize("metrics", [["lu"], ["mean_resultant", "std_ratio"], ["w2_corrected"]])
def test_it_is_not_computed_for_its_own_sake(metrics):
    some = views()
    measure(some, metrics)
    assert spectrum(some, metrics) == ()
    assert "eigenvalues" not in vars(some.whole)


@pytest.mark.parametrize("rows", [torch.zeros(20, D), torch.full((20, D), math.nan)])
def test_it_is_empty_without_a_valid_row(rows):
    assert spectrum(Views.of([rows]), ["w2"]) == ()


def test_the_journal_and_the_state_bring_it_back(tmp_path):
    monitor, outcomes = run(tmp_path, 3, every_n_steps=1)
    back = read_journal(monitor.journal).readings
    assert back == [outcome.reading for outcome in outcomes]
    assert [len(reading.spectrum) for reading in back] == [len(spectrum_ranks(8))] * 3
    for outcome in outcomes:
        assert Outcome.from_plain(outcome.to_plain()) == outcome
