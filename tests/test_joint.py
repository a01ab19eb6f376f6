"""The loss of all ranks' rows together: its value, and the gradient that data parallel training makes of it."""

import pytest
import torch
from torch import nn

from spread import spread
from uniformity_callbacks import WassersteinLoss
from uniformity_callbacks.joint import JointLoss
from uniformity_callbacks.ranks import Ranks


def rows_of(sizes, d, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    scale = torch.arange(1, d + 1, dtype=torch.float64).rsqrt()
    whole = torch.randn(sum(sizes), d, generator=generator, dtype=torch.float64) * scale + 0.3
    return list(whole.to(dtype).split(sizes))


def gradients(rank, steps, d, dtype):
    """The term and own gradients of each step, and the collectives of each."""
    joint = JointLoss(WassersteinLoss(0.7), Ranks.of(nn.Linear(2, 2)))
    out = []
    for sizes in steps:
        own = rows_of(sizes, d, dtype)[rank].requires_grad_()
        (term,) = joint.terms([own if len(own) else None])
        if len(own):
            term.backward()
        out.append((term.detach(), None if own.grad is None else own.grad / len(sizes)))
    return out


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("d", [8, 96])  # sums, rows
@pytest.mark.parametrize("steps", [[[12, 12]] * 3, [[12, 7], [20, 3], [0, 30]], [[9, 9, 3, 11], [0, 20, 0, 1]]])
def test_term_and_gradient_are_those_of_one_process_with_all_rows(steps, d, dtype, tolerance):
    got = spread(len(steps[0]), gradients, steps, d, dtype)
    for k, sizes in enumerate(steps):
        whole = torch.cat(rows_of(sizes, d, dtype)).requires_grad_()
        term = WassersteinLoss(0.7)(whole)
        term.backward()
        scale = whole.grad.norm()
        for (value, gradient), expected in zip([rank[k] for rank in got], whole.grad.split(sizes), strict=True):
            assert value.item() == pytest.approx(term.item(), rel=tolerance)
            assert value.dtype == term.dtype
            if gradient is not None:
                assert (gradient - expected).norm() <= tolerance * scale
