"""What the metrics are computed from, whether rows are there or their moments alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from uniformity_callbacks import spectrum
from uniformity_callbacks.sample_size import Population, population


class Statistics(ABC):
    """First and second moments of unit rows, in float64; what several metrics need is computed once and kept."""

    round_off: ClassVar[float]
    """Total variance of unit rows at and below which they are one point: what round-off leaves of equal rows."""

    unit: bool = True
    """Whether rows were normalised, rather than taken as they are."""

    @property
    @abstractmethod
    def dims(self) -> int:
        """d, the number of features."""

    @property
    @abstractmethod
    def count(self) -> Float[Tensor, ""]:
        """How many rows are valid: finite, and not zero."""

    @property
    @abstractmethod
    def nonfinite(self) -> Float[Tensor, ""]:
        """How many rows were not finite."""

    @property
    @abstractmethod
    def mean(self) -> Float[Tensor, " d"]:
        """The mean of the valid rows, zero if there are none."""

    @property
    @abstractmethod
    def square(self) -> Float[Tensor, ""]:
        """The mean squared length of the valid rows: 1 if they are unit rows; 1 if there are none."""

    @property
    @abstractmethod
    def scatter(self) -> Float[Tensor, " d"]:
        """The sum of squared deviations of each feature."""

    @property
    @abstractmethod
    def eigenvalues(self) -> Float[Tensor, " k"]:
        """Eigenvalues of the centred covariance (divided by n), ascending; the min(n, d) that need not be zero."""

    @property
    @abstractmethod
    def raw_eigenvalues(self) -> Float[Tensor, " k"]:
        """The same of the second moment about zero."""

    @property
    @abstractmethod
    def norms(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Mean and mean square of the lengths before normalising, over all finite rows; NaN if there are none."""

    @property
    def trace_root(self) -> Float[Tensor, ""]:
        """``tr S^(1/2)``, S the centred covariance."""
        return spectrum.root(self.eigenvalues).sum()

    @property
    def is_one_point(self) -> Bool[Tensor, ""]:
        """Whether all valid rows are equal but for round-off; true if there are none."""
        return self.scatter.sum() <= self.round_off * self.count

    @cached_property
    def population(self) -> Population:
        """The spectrum of the population that the rows are a sample of; at least 2 valid rows."""
        square, values, leverage = 1.0 if self.unit else math.inf, *self.directions()
        return population(values, int(self.count), self.dims, mean_square=square, leverage=leverage)

    def directions(self) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "n k"] | None]:
        """Return `eigenvalues`, and the rows' squared components along each as shares of it, where rows are there."""
        return self.eigenvalues.detach().cpu().numpy(), None
