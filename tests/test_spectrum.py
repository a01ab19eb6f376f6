import pytest
import torch

from dispatch import SYNCHRONISING, Calls
from uniformity_callbacks import WassersteinLoss, functional, spectrum
from uniformity_callbacks.panel import METRICS, measure
from uniformity_callbacks.sample import Views
from uniformity_callbacks.spectrum import gram, nuclear_norm, refined_eigenvalues


@pytest.mark.parametrize("shape", [(30, 10), (10, 30), (12, 12)])
@pytest.mark.parametrize("rank", [3, None])
def test_value_and_polar_factor(shape, rank):
    c = torch.randn(shape, dtype=torch.float64)
    if rank is not None:
        c = torch.randn(shape[0], rank, dtype=torch.float64) @ torch.randn(rank, shape[1], dtype=torch.float64)
    c.requires_grad_()
    norm = nuclear_norm(c)
    norm.backward()
    left, singular, right = torch.linalg.svd(c.detach(), full_matrices=False)
    kept = singular > 1e-7 * singular[0]
    assert norm.item() == pytest.approx(singular.sum().item(), rel=1e-7)
    torch.testing.assert_close(c.grad, left[:, kept] @ right[kept], atol=1e-6, rtol=0)
    assert torch.linalg.matrix_norm(c.grad, 2) < 1 + 1e-6


def test_zero_matrix_has_zero_gradient():
    c = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    nuclear_norm(c).backward()
    assert (c.grad == 0).all()


def test_weak_directions_get_their_gradient():
    """Singular values from 1 to 1e-6: each direction's share of the gradient is 1, not what float32 would leave."""
    left, right = (torch.linalg.qr(torch.randn(40, 8, dtype=torch.float64))[0] for _ in range(2))
    c = (left * torch.logspace(0, -6, 8, dtype=torch.float64)) @ right.T
    c.requires_grad_()
    nuclear_norm(c).backward()
    torch.testing.assert_close((left * (c.grad @ right)).sum(0), torch.ones(8, dtype=torch.float64), atol=1e-3, rtol=0)


def test_a_direction_at_1e_5_gets_its_whole_gradient():
    """Its share of the polar factor is 1, to 1e-4: descent on W2 pulls it as hard as the strongest."""
    left, right = (torch.linalg.qr(torch.randn(60, 12, dtype=torch.float64))[0] for _ in range(2))
    singular = torch.ones(12, dtype=torch.float64)
    singular[5:] = 1e-5
    c = ((left * singular) @ right.T).requires_grad_()
    nuclear_norm(c).backward()
    shares = (left * (c.grad @ right)).sum(0)
    torch.testing.assert_close(shares, torch.ones(12, dtype=torch.float64), atol=1e-4, rtol=0)
    assert torch.linalg.matrix_norm(c.grad, 2) < 1 + 1e-6


@pytest.mark.parametrize("shape", [(64, 32), (32, 64)])
def test_off_the_cpu_only_products(shape):
    """The meta device has no values: what asks for one raises, and eigh would be seen among the calls."""
    c = torch.empty(shape, dtype=torch.float64, device="meta", requires_grad=True)
    z = torch.empty(shape, device="meta", requires_grad=True)
    with Calls() as calls:
        nuclear_norm(c.detach())
        nuclear_norm(c).backward()
        WassersteinLoss(0.1)(z, z).backward()
    assert c.grad.shape == z.grad.shape == shape
    assert not SYNCHRONISING & set(calls.names)
    assert "aten.mm" in calls.names


def test_on_the_cpu_by_eigenvectors():
    c = torch.randn(8, 4, dtype=torch.float64, requires_grad=True)
    with Calls() as calls:
        nuclear_norm(c).backward()
    assert "aten._linalg_eigh" in calls.names


@pytest.mark.parametrize("case", ["isotropic_512x64", "near_constant_200x48", "powerlaw1_384x96", "wide_64x256"])
def test_w2_and_its_gradient_by_products(embeddings, case, monkeypatch):
    def both():
        z = torch.tensor(embeddings[case], requires_grad=True)
        value = functional.wasserstein_uniformity(z)
        value.backward()
        return value.item(), z.grad

    exact, gradient = both()
    monkeypatch.setattr(spectrum, "by_products", lambda c: True)
    value, grad = both()
    assert value == pytest.approx(exact, rel=1e-4)
    assert (grad - gradient).norm() <= 1e-4 * gradient.norm()
    assert not torch.equal(grad, gradient)  # it was another path


@pytest.mark.parametrize("shape", [(30, 10), (10, 30), (12, 12)])
def test_weak_eigenvalues_are_known_as_well_as_strong_ones(shape):
    k = min(shape)
    left, right = (torch.linalg.qr(torch.randn(n, k, dtype=torch.float64))[0] for n in shape)
    singular = torch.logspace(-8, 0, k, dtype=torch.float64)
    c = (left * singular) @ right.T
    torch.testing.assert_close(refined_eigenvalues(c, gram(c)), singular.square(), rtol=1e-3, atol=0)


def test_training_keeps_what_autocast_has_cached(monkeypatch):
    """It is one cache for all threads: a reading beside a forward pass must not empty it."""
    cleared = []
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: cleared.append(1))
    z = torch.randn(40, 8, requires_grad=True)
    views = Views.of([torch.randn(40, 8), torch.randn(40, 8)])
    measure(views, tuple(METRICS))
    WassersteinLoss(0.1)(z).backward()
    assert not cleared
    with torch.autocast("cpu", dtype=torch.bfloat16):
        measure(views, tuple(METRICS))
        WassersteinLoss(0.1)(z).backward()
        functional.wang_isola_uniformity(z)
        assert not cleared
    assert cleared  # torch's own, at the end
