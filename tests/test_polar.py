"""The nuclear norm by matrix products alone, against numpy's SVD and the path by eigenvectors."""

import math

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dispatch import SYNCHRONISING, Calls
from uniformity_callbacks import polar, spectrum

SHAPES = [(512, 256), (256, 512), (300, 300)]


def _near_resolution(k):
    return np.r_[np.ones(k - k // 2), np.full(k // 4, 1e-5), np.full(k // 2 - k // 4, 1e-7)]


SPECTRA = {
    "isotropic": np.ones,
    "eigenvalues i^-1": lambda k: np.arange(1, k + 1) ** -0.5,
    "eigenvalues i^-2": lambda k: np.arange(1, k + 1) ** -1.0,
    "eigenvalues i^-4": lambda k: np.arange(1, k + 1) ** -2.0,
    "rank 16": lambda k: 1.0 * (np.arange(k) < 16),
    "rank 1": lambda k: 1.0 * (np.arange(k) < 1),
    "five decades": lambda k: np.logspace(0, -5, k),  # finds strong directions that a step takes down to the weakest
    "half near the resolution": _near_resolution,
    "one above the rest": lambda k: np.r_[1.0, np.full(k - 1, 1e-5)],
}


def matrix(shape, singular, dtype=torch.float64):
    """Return a matrix of these singular values, and its left and right singular vectors."""
    left, right = (torch.linalg.qr(torch.randn(side, min(shape), dtype=torch.float64))[0] for side in shape)
    return (left * torch.as_tensor(singular) @ right.T).to(dtype), left, right


def norm_and_polar_factor(c):
    norm, root = polar.nuclear_norm_and_root(spectrum.gram(c))
    return norm, root @ c if c.shape[0] < c.shape[1] else c @ root


def shares(factor, left, right):
    """Return what each direction has of its gradient, and the largest leak from one direction into another."""
    turned = left.T @ factor.double() @ right
    return turned.diagonal(), (turned - turned.diagonal().diag()).abs().max()


def spectral_norm(factor):
    return np.linalg.norm(factor.double().numpy(), 2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spectrum_of", SPECTRA)
def test_value_and_polar_factor(shape, spectrum_of):
    singular = SPECTRA[spectrum_of](min(shape))
    c, left, right = matrix(shape, singular)
    norm, factor = norm_and_polar_factor(c)
    assert norm.item() == pytest.approx(np.linalg.svd(c.numpy(), compute_uv=False).sum(), rel=1e-4)
    assert norm.item() == pytest.approx(spectrum.nuclear_norm(c).item(), rel=1e-4)
    share, leak = shares(factor, left, right)
    resolved = torch.as_tensor(singular > 0.999 * polar.RESOLUTION)
    torch.testing.assert_close(share[resolved], torch.ones_like(share[resolved]), atol=1e-4, rtol=0)
    assert leak < 1e-4
    assert (share[~resolved].abs() < 0.15).all()
    assert spectral_norm(factor) < 1 + 1e-6


def test_same_gradient_as_by_eigenvectors():
    c = matrix((64, 40), np.logspace(0, -4, 40))[0].requires_grad_()
    spectrum.nuclear_norm(c).backward()
    torch.testing.assert_close(norm_and_polar_factor(c.detach())[1], c.grad, atol=1e-4, rtol=0)


def test_weak_directions_get_a_smoothly_smaller_share():
    singular = np.r_[np.ones(30), np.logspace(-4, -9, 70)]
    c, left, right = matrix((120, 100), singular)
    share = shares(norm_and_polar_factor(c)[1], left, right)[0][30:]
    assert (share.diff() < 1e-5).all()
    assert 0.1 < np.interp(-6, np.log10(singular[:29:-1]), share.flip(0)) < 0.9
    assert share.max() < 1 + 1e-6
    assert share[-1].abs() < 1e-3


@pytest.mark.parametrize("shape", [*SHAPES, (1, 3), (3, 1), (2, 5), (5, 2), (3, 3), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_zero_matrix_has_zero_gradient(shape, dtype):
    norm, factor = norm_and_polar_factor(torch.zeros(shape, dtype=dtype))
    assert norm == 0
    assert (factor == 0).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_centring_leaves_of_equal_rows(shape, dtype):
    rows = torch.nn.functional.normalize(torch.randn(1, shape[1], dtype=dtype), dim=1).expand(shape)
    norm, factor = norm_and_polar_factor(rows - rows.sum(0) / shape[0])
    assert 0 <= norm < 1e-4
    assert torch.isfinite(factor).all()
    assert spectral_norm(factor) < 1 + 1e-3


@pytest.mark.parametrize("k", [1, 2, 3])
def test_small_sizes(k):
    c, left, right = matrix((7, k), np.array([3.0, 1.0, 2e-3])[:k])
    norm, factor = norm_and_polar_factor(c)
    assert norm.item() == pytest.approx(np.linalg.svd(c.numpy(), compute_uv=False).sum(), rel=1e-6)
    torch.testing.assert_close(factor, left @ right.T, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [1e-140, 1e-20, 1e20, 1e140])
def test_polar_factor_does_not_depend_on_scale(scale):
    c = matrix((40, 20), np.logspace(0, -4, 20))[0]
    norm, factor = norm_and_polar_factor(c)
    scaled_norm, scaled_factor = norm_and_polar_factor(c * scale)
    assert scaled_norm.item() == pytest.approx(norm.item() * scale)
    torch.testing.assert_close(scaled_factor, factor, atol=1e-6, rtol=0)


def test_negative_eigenvalues_stay_harmless():
    """Ten times what round-off leaves of zero eigenvalues, all negative."""
    c, left, right = matrix((256, 128), 1.0 * (np.arange(128) < 16))
    root = polar.inverse_root(c.T @ c - 2e-14 * torch.eye(128, dtype=torch.float64))
    share, leak = shares(c @ root, left, right)
    torch.testing.assert_close(share, (torch.arange(128) < 16).double(), atol=1e-6, rtol=0)
    assert leak < 1e-4
    assert torch.linalg.matrix_norm(root, 2) < 2e6  # the product of the steps' slopes at zero, 1e6, and not more


@pytest.mark.parametrize("spectrum_of", SPECTRA)
def test_float32_is_finite_and_resolves_one_percent(spectrum_of):
    singular = SPECTRA[spectrum_of](256)
    c, left, right = matrix((256, 512), singular, torch.float32)
    norm, factor = norm_and_polar_factor(c)
    assert norm.item() == pytest.approx(singular.sum(), rel=2e-2)
    resolved = torch.as_tensor(singular >= 1e-2)
    share = shares(factor, left, right)[0][resolved]
    torch.testing.assert_close(share, torch.ones_like(share), atol=5e-3, rtol=0)
    assert spectral_norm(factor) < 1 + 1e-3


def test_schedule_reaches_its_resolution():
    """Follows the interval of singular values through the steps, and sees that each polynomial is the minimax one."""
    steps = (polar._WIDE,) * polar._WIDE_STEPS + polar._CLOSING
    x = np.geomspace(polar.RESOLUTION / polar._SLACK, 1.0, 200_001)
    low = x[0]
    for a, b, c in steps:
        top, bottom = np.sqrt(np.sort(np.roots([5 * c, 3 * b, a])))  # where the slope is zero
        extremes = np.array([max(low, 0.06), top, bottom, 1.0])
        assert (np.diff(extremes) > 0).all()
        # Four errors of equal size and alternating sign (the scale is such that the upper ones are 1): Chebyshev.
        y = extremes * (a + b * extremes**2 + c * extremes**4)
        assert y[1] == pytest.approx(y[3], abs=(1 - y[2]) * 1e-6)
        assert y[0] == pytest.approx(y[2], abs=(1 - y[2]) * 1e-6)
        x = x * (a + b * x**2 + c * x**4)
        assert x.max() < 1 + 1e-12
        low = x.min()
    assert x.min() > 1 - 1e-7
    weak = np.geomspace(1e-12, polar.RESOLUTION / polar._SLACK, 10_001)
    for a, b, c in steps:
        weak = weak * (a + b * weak**2 + c * weak**4)
    assert (np.diff(weak) > 0).all()


@pytest.mark.parametrize(("dtype", "products"), [(torch.float64, 41), (torch.float32, 21)])
def test_products_only(dtype, products):
    gram = torch.eye(5, dtype=dtype)
    with Calls() as calls:
        polar.nuclear_norm_and_root(gram)
    assert not SYNCHRONISING & set(calls.names)
    assert sum(name in ("aten.mm", "aten.addmm") for name in calls.names) == products


def test_exact_path_would_be_seen():
    with Calls() as calls:
        torch.linalg.eigh(torch.eye(3)), torch.ones(1).item()
    assert SYNCHRONISING & set(calls.names) == {"aten._linalg_eigh", "aten._local_scalar_dense"}


def test_no_value_crosses_to_the_host():
    """Meta and fake tensors have no values, and raise where one is asked for."""
    norm, root = polar.nuclear_norm_and_root(torch.empty(8, 8, dtype=torch.float64, device="meta"))
    assert (norm.shape, root.shape) == ((), (8, 8))
    with FakeTensorMode():
        norm, root = polar.nuclear_norm_and_root(torch.empty(8, 8, dtype=torch.float64, device="cuda"))
        assert (norm.device.type, root.device.type) == ("cuda", "cuda")


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_break(unchecked, dynamic):
    gram = spectrum.gram(torch.randn(20, 12, dtype=torch.float64))
    compiled = torch.compile(polar.nuclear_norm_and_root, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for got, expected in zip(compiled(gram), polar.nuclear_norm_and_root(gram), strict=True):
        torch.testing.assert_close(got, expected)


def test_bound_on_the_norm_lies_within_its_slack():
    """The worst case, equal eigenvalues: k = 6561 would be 3, the constant; here as far as a test can go."""
    root = polar.inverse_root(torch.eye(512, dtype=torch.float64))
    torch.testing.assert_close(root, torch.eye(512, dtype=torch.float64), atol=1e-6, rtol=0)
    assert math.isclose(polar._SLACK, 6561 ** (1 / 8))
