import pytest
import torch

from uniformity_callbacks.spectrum import nuclear_norm


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
