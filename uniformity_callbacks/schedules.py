"""Weights of the auxiliary loss over the training: functions of the fraction of it that is done, 0 to 1."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields

Schedule = Callable[[float], float]
"""From the fraction of training done, 0 to 1, to the weight."""


@dataclass(frozen=True)
class _Checked:
    """Raises unless every field is a finite number >= 0."""

    def __post_init__(self) -> None:
        for field in fields(self):
            check_weight(getattr(self, field.name), field.name)


@dataclass(frozen=True)
class Constant(_Checked):
    """The same weight throughout.

    Args:
        weight: a number >= 0.

    Raises:
        ValueError: weight is negative or not finite.
        TypeError: weight is not a number.

    Example:
        >>> Constant(0.2)(0.7)
        0.2
    """

    weight: float

    def __call__(self, fraction: float) -> float:
        """Return the weight."""
        return self.weight


@dataclass(frozen=True)
class LinearDecay(_Checked):
    """A straight line from ``start`` at the beginning of training to ``end`` at its end.

    Args:
        start: a number >= 0.
        end: a number >= 0; above start it rises.

    Raises:
        ValueError: start or end is negative or not finite.
        TypeError: start or end is not a number.

    Example:
        >>> LinearDecay(30.0)(0.5)
        15.0
    """

    start: float
    end: float = 0.0

    def __call__(self, fraction: float) -> float:
        """Return the weight at a fraction of training done, 0 to 1."""
        return self.start + (self.end - self.start) * fraction


@dataclass(frozen=True)
class CosineDecay(_Checked):
    """Half a cosine from ``start`` to ``end``: flat at both, steepest in the middle.

    Args:
        start: a number >= 0.
        end: a number >= 0; above start it rises.

    Raises:
        ValueError: start or end is negative or not finite.
        TypeError: start or end is not a number.

    Source:
        Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, equation 5, arXiv 1608.03983.

    Example:
        >>> CosineDecay(1.0)(0.25)
        0.8535533905932737
    """

    start: float
    end: float = 0.0

    def __call__(self, fraction: float) -> float:
        """Return the weight at a fraction of training done, 0 to 1."""
        return self.end + (self.start - self.end) * (1.0 + math.cos(math.pi * fraction)) / 2.0


def check_weight(weight: object, name: str = "weight") -> float:
    """Return a weight as a float.

    Raises:
        ValueError: it is negative or not finite.
        TypeError: it is not a number.
    """
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise TypeError(f"{name} must be a number, got {weight!r}; e.g. 0.1")
    if not 0 <= weight <= sys.float_info.max:  # an integer may be beyond what is a float
        raise ValueError(f"{name} must be finite and >= 0, got {weight}; published settings are 0.2 to 30")
    return float(weight)
