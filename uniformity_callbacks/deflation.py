"""Weak directions, which a Gram matrix in float32 does not know, taken apart from the strong and done in float64."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from uniformity_callbacks.spectrum import RESOLUTION


class Weak(NamedTuple):
    """The part of centred rows that lies in weak directions.

    Attributes:
        norm: the sum of its singular values, float64.
        left: (n, s), orthonormal, and
        right: (s, d), likewise, both float32: their product is its polar factor.
    """

    norm: Float[Tensor, ""]
    left: Float[Tensor, "n s"]
    right: Float[Tensor, "s d"]


def weak_part(c: Float[Tensor, "n d"], vectors: Float[Tensor, "k k"], values: Float[Tensor, " k"], s: int) -> Weak:
    """Return the part of centred rows in the s weakest directions.

    Eigenvectors in float32 have some 1e-7 of the strongest direction in them, which is more than all of a weak one. It
    is found by what the exact matrix makes of them, and taken out; what is left is decomposed on its own.

    Args:
        c: (n, d), float64.
        vectors: eigenvectors of the smaller Gram matrix of ``c``, float32, the weakest first.
        values: its eigenvalues, ascending; those of the others well above round-off.
        s: how many directions are weak, at least 1.
    """
    m = c.T if c.shape[0] <= c.shape[1] else c  # (., k)
    whole = vectors.to(torch.float64)
    weak, strong = whole[:, :s], whole[:, s:]
    coupling = strong.T @ (m.T @ (m @ weak))
    basis, _ = torch.linalg.qr(weak - strong @ (coupling / values[s:, None].to(torch.float64)))
    part = m @ basis
    squares, turn = torch.linalg.eigh(part.T @ part)
    singular = squares.clamp(min=0.0).sqrt()
    kept = singular > RESOLUTION * values[-1].to(torch.float64).sqrt()
    outer = (part @ turn * torch.where(kept, 1.0 / torch.where(kept, singular, 1.0), 0.0)).to(torch.float32)
    inner = (basis @ turn).to(torch.float32)
    left, right = (inner, outer) if c.shape[0] <= c.shape[1] else (outer, inner)
    return Weak(singular.sum(), left, right.T)
