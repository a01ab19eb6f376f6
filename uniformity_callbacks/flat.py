"""Spectra in float32: of rows so many, and so evenly spread, that nothing of its round-off is left in the metrics.

An evaluation reads 10,000 rows of 2048 dimensions, of which products and decompositions in float64 take over a second.
Single precision takes half of that, and knows an eigenvalue to some 4e-7 / sqrt(d) of the largest. Where all are far
above this the errors have either sign and average out. Against float64: W2 is off by 4e-6 of itself at most, the
corrected W2 by 1e-5, alpha by 2e-5 of itself, stable rank by 6e-6, the others by 4e-7 (10,000, 2048 and 1536 rows in
2048 and 1024 dimensions, spectra flat and as i^-1/2, i^-1 and i^-3/2, about zero and a mean as large as the spread).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from uniformity_callbacks import spectrum

LEAST_DIMS = 1024
"""Dimensions below which float64 costs little."""

_ROWS_TO_DIMS = 1.5
"""With fewer rows for each dimension a sample has directions of next to no variance, even of isotropic rows."""

_NOISE = 4 * torch.finfo(torch.float32).eps
"""Of an eigenvalue, in units of the largest over sqrt(d). It is less: 1.4e-9 of the largest was measured at the
smallest of 2048, where this says 1e-8."""

_FELT = 5e-5
"""Share of the sum of the roots that the noise of all eigenvalues, were it of one sign, may have."""


def is_worth(rows: Float[Tensor, "n d"]) -> bool:
    """Whether it is worth a try."""
    n, d = rows.shape
    return d >= LEAST_DIMS and n >= _ROWS_TO_DIMS * d and not rows.requires_grad and spectrum.may_look(rows)


def spectra(
    rows: Float[Tensor, "n d"], mean: Float[Tensor, " d"], count: Tensor
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]] | None:
    """Return the eigenvalues of the covariance and of the second moment about zero; None where float32 is not enough.

    Args:
        rows: float64, zero where not valid.
        mean: of the valid rows.
        count: how many are valid.
    """
    products = spectrum.gram(rows.float())
    raw = torch.linalg.eigvalsh(products)
    if not _is_flat(raw):
        return None
    mean = mean.float()
    centred = torch.linalg.eigvalsh(torch.addr(products, mean, mean, alpha=-float(count)))
    return (centred.double() / count, raw.double() / count) if _is_flat(centred) else None


def _is_flat(values: Float[Tensor, " k"]) -> bool:
    """Whether ascending eigenvalues are far above the noise."""
    if not values[0] > 0:
        return False
    noise = _NOISE * values[-1] / len(values) ** 0.5
    return bool(0.5 * noise * values.rsqrt().sum() < _FELT * values.sqrt().sum())
