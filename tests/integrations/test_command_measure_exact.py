"""What is read of a file in blocks is what the functions say of the whole array."""

import math

import numpy as np
import pytest
import torch
from embedded import FORMATS, write

import reference
from uniformity_callbacks import functional
from uniformity_callbacks.integrations import measuring
from uniformity_callbacks.integrations.arrays import find
from uniformity_callbacks.integrations.measuring import measure

WHOLE = {
    "w2": (functional.wasserstein_uniformity, 2e-7),
    "w2_corrected": (functional.corrected_wasserstein_uniformity, 2e-7),
    "effective_dims": (functional.effective_dims, 1e-5),
    "mean_resultant": (functional.mean_resultant_length, 1e-9),
    "std_ratio": (functional.std_ratio, 1e-9),
    "rankme": (functional.rankme, 1e-4),
    "effective_rank": (functional.effective_rank, 1e-6),
    "participation_ratio": (functional.participation_ratio, 1e-6),
    "stable_rank": (functional.stable_rank, 1e-6),
    "alpha": (functional.alpha_req, 1e-6),
}
"""Function of the whole array in float64, and how close the sums over blocks come to it."""


def embeddings(n, d, dtype=torch.float64, *, mean=0.3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(n, d, generator=draw, dtype=torch.float64) * torch.arange(1, d + 1) ** -0.5 + mean
    return z.to(dtype)


def check(measured, z):
    values, z = measured.reading.values, z.detach().to(torch.float64)
    for name, (function, close) in WHOLE.items():
        assert values[name] == pytest.approx(function(z).item(), rel=close, abs=close), name
    lengths = z.norm(dim=1)
    assert values["norm_mean"] == pytest.approx(lengths.mean().item(), rel=1e-9)
    assert values["norm_cv"] == pytest.approx((lengths.std(correction=0) / lengths.mean()).item(), rel=1e-6)
    assert values["floor"] == functional.wasserstein_floor(*z.shape).item()
    assert (values["samples"], values["nonfinite"], measured.zero, measured.repeated) == (len(z), 0, 0, 0)
    assert measured.rows == len(z)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(measuring, "_NUMBERS", 7001)


@pytest.mark.parametrize("n", [3001, 700, 40])  # summed; kept, since they are less than 1024; fewer than dimensions
@pytest.mark.parametrize("form", FORMATS)
def test_every_format(tmp_path, form, n):
    z = embeddings(n, 48, torch.float32)
    measured = measure([find(str(write(tmp_path, form, z)))])
    check(measured, z)
    full = functional.wang_isola_uniformity(z.detach()).item()
    assert measured.reading.values["lu"] == pytest.approx(full, abs=1e-5 if n <= 2048 else 0.02)
    assert measured.sampled == (2048 if n > 2048 else None)


PRECISIONS = ("float16", "bfloat16", "float32", "float64")
HELD = [(form, dtype) for form in FORMATS for dtype in PRECISIONS if dtype != "bfloat16" or not form.startswith("np")]


@pytest.mark.parametrize(("form", "dtype"), HELD)  # NumPy has no bfloat16
def test_every_precision(tmp_path, form, dtype):
    z = embeddings(1500, 24, getattr(torch, dtype))
    found = find(str(write(tmp_path, form, z)))
    assert (found.shape, found.dtype) == ((1500, 24), dtype)
    assert torch.equal(torch.cat([*found.blocks(400)]), z)
    check(measure([found]), z)


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_another_order_of_bytes(tmp_path, form):
    z = embeddings(1500, 24, torch.float32)
    if form == "npy":
        np.save(tmp_path / "z.npy", z.numpy().astype(">f4"))
    else:
        np.savez(tmp_path / "z.npz", z=z.numpy().astype(">f4"))
    check(measure([find(str(tmp_path / f"z.{form}"))]), z)


@pytest.mark.parametrize("n", [2500, 200])
def test_against_numpy_by_other_formulas(tmp_path, n):
    z = embeddings(n, 12)
    values = measure([find(str(write(tmp_path, "npy", z)))]).reading.values
    for name, function in {
        "w2": reference.w2_by_svd,
        "mean_resultant": reference.mean_resultant_length,
        "std_ratio": reference.std_ratio,
        "rankme": reference.rankme,
        "effective_rank": reference.effective_rank,
        "participation_ratio": reference.participation_ratio,
        "stable_rank": reference.stable_rank,
        "alpha": reference.alpha_req,
    }.items():
        assert values[name] == pytest.approx(function(z.numpy()), rel=1e-5), name
    lu = reference.wang_isola_uniformity(z.numpy())
    assert values["lu"] == pytest.approx(lu, abs=1e-9 if n <= 2048 else 0.02)


@pytest.mark.parametrize("n", [3001, 700, 20])
def test_two_views(tmp_path, n):
    x, y = embeddings(n, 24), embeddings(n, 24) + 0.1 * embeddings(n, 24, seed=1)
    (tmp_path / "a").mkdir()
    arrays = [find(str(write(tmp_path / "a", "npy", x))), find(str(write(tmp_path, "safetensors", y)))]
    measured = measure(arrays)
    values = measured.reading.values
    assert values["alignment"] == pytest.approx(functional.alignment(x, y).item(), rel=1e-12)  # of all rows
    assert values["alignment"] == pytest.approx(reference.alignment(x.numpy(), y.numpy()), rel=1e-9)
    assert values["w2"] == pytest.approx(functional.wasserstein_uniformity(torch.cat([x, y])).item(), abs=2e-7)
    for name in ("w2_corrected", "effective_dims"):
        function, close = WHOLE[name]
        assert values[name] == pytest.approx((function(x) + function(y)).item() / 2, rel=close)
    assert (measured.rows, values["samples"]) == (n, 2 * n)


def test_alignment_leaves_out_pairs_without_two_directions(tmp_path):
    x, y = embeddings(2000, 24), embeddings(2000, 24, seed=1)
    x[3], y[7], y[9] = 0.0, math.nan, math.inf
    (tmp_path / "a").mkdir()
    measured = measure([find(str(write(tmp_path / "a", "npy", x))), find(str(write(tmp_path, "npy", y)))])
    kept = [k for k in range(2000) if k not in (3, 7, 9)]
    values = measured.reading.values
    assert values["alignment"] == pytest.approx(functional.alignment(x[kept], y[kept]).item(), rel=1e-12)
    assert (values["samples"], values["nonfinite"], measured.zero) == (3997, 2, 1)


@pytest.mark.parametrize("n", [2500, 300])
def test_rows_that_cannot_be_measured_are_left_out(tmp_path, n):
    z = embeddings(n, 16, torch.float32)
    z[::10], z[5::10] = 0.0, math.nan
    z[7, 3], z[8] = -math.inf, 1e-42  # a subnormal row counts as zero
    measured = measure([find(str(write(tmp_path, "npy", z)))])
    good = torch.tensor([k for k in range(n) if k % 5 and k not in (7, 8)])
    values = measured.reading.values
    assert (values["samples"], values["nonfinite"]) == (len(good), n // 10 + 1)
    assert (measured.zero, measured.repeated) == (n // 10 + 1, 0)
    w2 = functional.wasserstein_uniformity(z[good].double()).item()
    assert values["w2"] == pytest.approx(w2, abs=2e-7)


@pytest.mark.parametrize(("different", "copies"), [(1500, 2), (100, 7), (1, 900)])
def test_repeated_rows_are_counted_across_blocks(tmp_path, different, copies):
    z = embeddings(different, 16, torch.float32).repeat(copies, 1)
    two = z[:2].clone() if different > 1 else z[:1].repeat(2, 1)
    two[0] = two[1]
    two[0, 0], two[1, 0] = 0.0, -0.0  # equal, and unlike the others
    measured = measure([find(str(write(tmp_path, "npy", torch.cat([z, two]))))])
    assert measured.repeated == different * (copies - 1) + 1


def test_repeats_are_estimated_where_more_rows_differ_than_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "_COUNTED", 1000)
    z = embeddings(6000, 8, torch.float32)
    z = torch.cat([z, z[:2000]])
    measured = measure([find(str(write(tmp_path, "npy", z)))])
    assert measured.repeated == pytest.approx(2000, rel=0.15)


def test_what_is_measured_does_not_depend_on_the_blocks(tmp_path, monkeypatch):
    z = embeddings(2500, 16)
    found = find(str(write(tmp_path, "npy", z)))
    few = measure([found]).reading.values
    monkeypatch.setattr(measuring, "_NUMBERS", 1 << 21)
    assert measure([found]).reading.values == pytest.approx(few, rel=1e-9)
