"""Where the metrics' arithmetic would lose its digits, and the ends of their ranges."""

import pytest
import torch

import reference
from uniformity_callbacks import functional


def test_one_row_that_is_not_zero_has_a_finite_gradient():
    z = torch.cat([torch.ones(1, 4), torch.zeros(3, 4)]).requires_grad_()
    assert functional.std_ratio(z).item() == 0.0
    functional.std_ratio(z).backward()
    assert z.grad.isfinite().all()


def test_the_power_law_is_fitted_up_to_rank_100():
    z = torch.randn(300, 128, dtype=torch.float64) * torch.linspace(1, 0.1, 128, dtype=torch.float64)
    assert functional.alpha_req(z).item() == pytest.approx(reference.alpha_req(z.numpy()), rel=1e-8)


def test_near_one_point_pairs_keep_their_gradient():
    """Distances of 1e-9 between rows of length 2 would be lost in the difference of their squares."""
    z = (1.0 + 1e-9 * torch.randn(50, 4, dtype=torch.float64)).requires_grad_()
    functional.wang_isola_uniformity(z, normalize=False).backward()
    expected = -8.0 / 49 * (z - z.mean(0)).detach()  # of exp(-2 |zi - zj|^2) where all are near 1
    assert (z.grad - expected).norm() <= 1e-5 * expected.norm()


def test_turned_axes_are_the_ideal_too():
    for d in range(3, 20):
        q = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))[0]
        assert functional.wasserstein_uniformity(torch.cat([q, -q])).item() == 0.0
