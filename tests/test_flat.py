"""Spectra of many rows in float32, against those of the same rows in float64."""

import pytest
import torch

from uniformity_callbacks import flat, spectrum
from uniformity_callbacks.panel import METRICS, measure
from uniformity_callbacks.sample import Views, repeats
from uniformity_callbacks.unit_rows import unit_rows

N, D = 1600, 1024
SPECTRAL = ("w2", "w2_corrected", "effective_dims", "rankme", "effective_rank", "participation_ratio", "alpha")


def rows(power=0.0, mean=0.0, strong=None):
    scale = torch.arange(1, D + 1).pow(-power / 2)
    if strong is not None:
        scale[strong:] = 1e-4
    return torch.randn(N, D) * scale + mean * scale.norm() / D**0.5


@pytest.mark.parametrize(("power", "mean"), [(0, 0), (0.5, 0), (1, 0), (1.5, 0), (0, 1), (1, 1)])
def test_what_is_flat_reads_as_in_float64(power, mean):
    z = rows(power, mean)
    single, double = Views.of([z]), Views.of([z.double()])
    assert single.whole._flat is not None
    assert double.whole._flat is None
    values, expected = measure(single, SPECTRAL), measure(double, SPECTRAL)
    assert values != expected, "they were not done in float32"
    assert values == pytest.approx(expected, rel=2e-5, abs=1e-5)


@pytest.mark.parametrize("z", [rows(strong=16), rows(2), rows(4), rows(1, 3)], ids=["16 dims", "i^-2", "i^-4", "mean"])
def test_what_is_not_flat_is_done_in_float64(z):
    views = Views.of([z])
    assert flat.is_worth(views.whole.rows)
    assert views.whole._flat is None
    assert measure(views, SPECTRAL) == pytest.approx(measure(Views.of([z.double()]), SPECTRAL), rel=1e-9)


@pytest.mark.parametrize("z", [torch.ones(N, D), torch.zeros(N, D), torch.full((N, D), torch.nan)])
def test_rows_without_a_spectrum(z):
    values, expected = measure(Views.of([z]), tuple(METRICS)), measure(Views.of([z.double()]), tuple(METRICS))
    assert values == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)


def test_rows_left_out():
    z = rows()
    good = measure(Views.of([z]), SPECTRAL)
    bad = torch.cat([z[:700], torch.full((3, D), torch.inf), torch.zeros(2, D), z[700:]])
    views = Views.of([bad])
    assert views.whole._flat is not None
    assert measure(views, SPECTRAL) == pytest.approx(good | {"nonfinite": 3}, rel=1e-6, abs=1e-5)


def test_few_rows_and_gradients_are_done_in_float64():
    assert not flat.is_worth(torch.zeros(D, D))
    assert not flat.is_worth(torch.zeros(2 * D, D // 2))
    assert not flat.is_worth(torch.zeros(N, D, requires_grad=True))
    assert not flat.is_worth(torch.zeros(N, D, device="meta"))


@pytest.mark.parametrize("shape", [(700, 600), (600, 700), (2000, 1100)])
def test_gram_matrix_in_blocks(shape):
    c = torch.randn(shape, dtype=torch.float64)
    expected = c.T @ c if shape[0] >= shape[1] else c @ c.T
    torch.testing.assert_close(spectrum.gram(c), expected, rtol=1e-12, atol=1e-10)
    made = spectrum.gram(c)  # within a block, products of several threads differ in the last bit
    torch.testing.assert_close(made, made.T, rtol=0.0, atol=1e-11)


@pytest.mark.parametrize("normalize", [True, False])
def test_rows_prepared_in_parts_are_those_prepared_at_once(normalize):
    z = torch.randn(1500, 300) * torch.rand(1500, 1)
    z[17], z[903], z[1499, 5] = 0.0, torch.inf, torch.nan
    whole, parts = unit_rows(z, normalize=normalize), [unit_rows(part, normalize=normalize) for part in z.split(101)]
    assert torch.equal(whole.rows, torch.cat([part.rows for part in parts]))
    assert torch.equal(whole.valid, torch.cat([part.valid for part in parts]))
    torch.testing.assert_close(
        whole.lengths, torch.cat([part.lengths for part in parts]), rtol=0, atol=0, equal_nan=True
    )


def test_repeats_are_counted():
    z = torch.randn(50, 8)
    z[40:] = z[:10]
    z[30] = 0.0  # left out
    assert repeats(unit_rows(z)) == 10
    z[40:42] = -z[40:42]
    assert repeats(unit_rows(z)) == 8
    assert repeats(unit_rows(torch.zeros(5, 8))) == 0
    assert repeats(unit_rows(torch.randn(0, 8))) == 0
    zero = torch.tensor([[0.0, 1.0], [-0.0, 1.0]])
    assert repeats(unit_rows(zero)) == 1
