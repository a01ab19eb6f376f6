"""From a user's embeddings to prepared rows, and back to a tensor of the user's precision."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from uniformity_callbacks.sample import REPEATS_TOLD, repeats
from uniformity_callbacks.sample_size import LEAST_ROWS
from uniformity_callbacks.unit_rows import UnitRows, unit_rows


def check_embeddings(z: Tensor, name: str = "z", *, least: int = 2) -> None:
    """Raise unless ``z`` is a floating-point tensor (n, d) with n >= least and d >= 1; values are not looked at."""
    if not isinstance(z, Tensor) or not z.is_floating_point():
        got = f"a tensor of {z.dtype}" if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {got}; convert it, e.g. {name}.float()")
    shape = tuple(z.shape)
    if z.ndim != 2:
        mend = f"{name}.flatten(1)" if z.ndim > 2 else f"{name}[None]"
        raise ValueError(f"{name} must be (n, d), got {shape}; one row a sample, e.g. {mend}")
    if shape[0] < least or shape[1] < 1:
        raise ValueError(f"{name} must be (n, d) with n >= {least} and d >= 1, got {shape}; collect more samples")


def check_whole(name: str, value: int, least: int) -> int:
    """Return an argument that is an integer of at least ``least``; raise TypeError or ValueError if it is not."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def check_positive(name: str, value: float) -> float:
    """Return an argument that is positive, of which 2 is the usual value; raise ValueError if it is not."""
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}; the usual value is 2.0")
    return value


def prepare(z: Tensor, normalize: bool, name: str = "z") -> UnitRows:
    """Return the rows of checked embeddings, ready to measure.

    Raises:
        ValueError: z is not (n, d) with n >= 2, or not finite.
        TypeError: z is not a floating-point tensor.
    """
    check_finite(z, name)
    return unit_rows(z, normalize=normalize)


def check_finite(z: Tensor, name: str = "z") -> None:
    """Raise unless ``z`` is a finite floating-point tensor (n, d) with n >= 2 and d >= 1."""
    check_embeddings(z, name)
    z = z.detach()
    if math.isfinite(z.sum().item()):  # one pass over them; of NaN or infinity it is neither
        return
    finite = torch.isfinite(z).all(dim=1)
    if not finite.all():
        bad, n = int((~finite).sum()), z.shape[0]
        raise ValueError(
            f"{name} must be finite, got {bad} of {n} rows with NaN or infinity; leave them out first, e.g. "
            f"{name}[{name}.isfinite().all(1)]"
        )


def prepare_sample(z: Tensor, normalize: bool) -> UnitRows:
    """Return the rows of checked embeddings that are to tell of their population.

    Raises:
        ValueError: as `prepare`; or fewer than `LEAST_ROWS` rows are not zero.
        TypeError: z is not a floating-point tensor.

    Warns:
        UserWarning: more than `REPEATS_TOLD` of the rows repeat another.
    """
    u = prepare(z, normalize)
    n = int(u.count)
    if n < LEAST_ROWS:
        raise ValueError(
            f"z must have at least {LEAST_ROWS} rows that are not zero to be corrected for sample size, got {n}; "
            "collect more samples, or use the uncorrected metric"
        )
    repeated = repeats(u)
    if repeated > REPEATS_TOLD * n and not u.is_one_point:
        warnings.warn(
            f"z has {repeated} of {n} rows that repeat another; the correction for sample size takes rows for "
            "independent and reads too high a W2 and too few dims; leave repeats out, e.g. z.unique(dim=0)",
            stacklevel=3,
        )
    return u


def result(z: Tensor, value: Tensor) -> Tensor:
    """Return a float64 value in float64 for float64 embeddings, else in float32, on their device."""
    return value.to(device=z.device, dtype=torch.float64 if z.dtype == torch.float64 else torch.float32)
