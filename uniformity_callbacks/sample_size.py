"""What a sample of n rows hides: the floor of W2 under an ideal population, and the population's own spectrum.

A sample's eigenvalues spread around the population's as the Marchenko-Pastur law says, so that W2 of a perfectly
uniform population reads far from 0 until n is many times d. `wasserstein_floor` is how far; `population` undoes it.

With N = n - 1 rows, S their covariance and R = (S + x)^(-1), each x > 0 gives one equation. A row u meets
``q(u) = u^T R u / N``, R taken without it, and what S's eigenvalues l (padded with zeros to N) tell is
``mean x / (l + x) = E 1 / (1 + q)``. Let the part of u in weak directions come times a random factor s of mean 1. Then
q = s Q, an eigenvalue t of the population stands in the mean of R as ``1 / (x + c t)`` with c = E s / (1 + s Q), and

    Q = (d / N) sum_k w_k t_k / (x + c t_k)

is linear in the weights w_k of eigenvalues on a grid t_k: least squares with w >= 0. For s = 1 it is
Silverstein's equation and this is El Karoui's method (2008). Four things are added to it:

1. *Unit rows are not Gaussian*: one that has much of a strong direction has little of all others. For eigenvalues like
   i^-2, n = d / 4, the equations with s = 1 are off by 24 %, and by less than 1 % with s = 1 / |y|^2, y Gaussian, the
   model of rows y / |y|. The distribution of |y|^2 follows from the weights, so the two are found in turn. Networks'
   outputs vary by more: effective dims of a Barlow Twins at n = d / 2 are 6 % too few by the model, and 0.5 % by the
   factors that the rows themselves show, where they are there (`absorption`).
2. *An equation for many rows is off by O(1 / N) for few*: 1.5 % at n = 32. The term (Bai and Silverstein 2004) is a
   function of the left side and its derivatives, and so known. Unit rows add a second one, by how each direction
   covaries with the length; the two nearly cancel where rows are isotropic.
3. *Few rows leave weak eigenvalues open*, and least squares would put them anywhere: a penalty of about the size of the
   noise keeps their weights small and even.
4. *tr S^2 is known best of all*: the mean squared product of two rows, to 2 / n of itself where rows are isotropic. It
   is an equation of its own, without which an isotropic population reads a W2 of 0.07 at n = 64, d = 128, with it 0.05.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

from uniformity_callbacks.absorption import POINTS, by_rows, odds_of

LEAST_ROWS = 16
"""Rows below which nothing is estimated: the noise in the equations is about 1 / n, and 3 rows break them."""

_ROUND_OFF = 1e-28
"""Trace, in units of the rows' squared length, at which they are one point: centring equal rows leaves 1e-32."""

_GRID = np.concatenate([[0.0], np.linspace(1e-7 ** (1 / 5), 1.5 ** (1 / 5), 59) ** 5])
"""Eigenvalues of the grid, in the same unit: even in the fifth root, 8 % apart at the top, where samples tell most, and
a factor of 6 at the bottom, where a direction adds 0.03 % of the top one's share of tr S^(1/2). The population's
largest can be above the sample's: by 40 % at 16 rows."""

_HEAVY = 1e3
"""Weight of the two exact equations, sum w = 1 and the trace, against those good to 1e-2."""

_SECOND = 10.0
"""Weight of the equation for tr S^2 where rows are isotropic; elsewhere less, by the share of dimensions in use, since
few directions and many rows are told by the other equations to a tenth of its noise. From 3 to 30 little changes."""

_SPREAD, _TILT = 0.1, 0.4
"""The penalty on a weight density at eigenvalue t is _SPREAD / N * t^-_TILT: of the size of the noise, and more where a
sample sees less. At n = d / 4 nothing in the sample tells empty directions from weak ones: where 64 of 128 are at a
tenth of the others' variance W2 reads 0.53, truly 0.47; where 64 are empty 0.70, truly 0.77. Less tilt moves both up,
more moves both down. From n = d / 2 on it matters little."""

_SAME_LENGTH = 0.01
"""Part of |y|^2 taken as equal in all rows: in one or two directions E 1 / |y|^2 would be infinite."""

_ROUNDS = 2
"""Times that the weights are found again with the lengths that they imply; a third moves W2 by 0.0003 on average."""

_TAU = np.geomspace(1e-10, 1e4, 70)
_ODDS = np.geomspace(1e-5, 1e6, 60)
"""Nodes of the integrals over rows' lengths, even in the logarithm, where the trapezoid rule is good to 1e-8; and the
values of Q at which they are taken, between which their logarithm is nearly straight."""

_WIDTHS = np.gradient(np.log(_GRID[1:]))
_PENALTY = _SPREAD * _GRID[1:] ** -_TILT / np.sqrt(_WIDTHS)
_PENALTY = np.concatenate([_PENALTY[4:5], _PENALTY])  # at 0 less than right above: empty directions are common


def wasserstein_floor(n: int, d: int) -> float:
    """Return the W2 that a sample of n unit rows of an ideal population in d dimensions is expected to read.

    ``floor^2 = 2 (1 - sqrt(N / n) E sqrt(l))``, N = n - 1 and l under the Marchenko-Pastur law of ratio d / N and unit
    variance, zeros included.

    Args:
        n: rows, >= 2.
        d: dimensions, >= 1.

    Returns:
        A number in (0, sqrt(2)]: small where n is many times d, ``sqrt(2)`` as n / d goes to 0.

    Raises:
        ValueError: n < 2 or d < 1.

    Source:
        Marchenko and Pastur, Distribution of eigenvalues for some sets of random matrices, 1967.

    Example:
        >>> round(wasserstein_floor(512, 256), 4), round(wasserstein_floor(256, 8192), 4)
        (0.3695, 1.2842)
    """
    if n < 2 or d < 1:
        raise ValueError(f"n must be >= 2 and d >= 1, got n={n}, d={d}")
    ratio = d / (n - 1)
    # On l = 1 + g - 2 sqrt(g) cos a the density times sqrt(l) is smooth and periodic in a, so the trapezoid rule
    # converges fast; at g = 1 alone the root has a kink at a = 0, hence that many points.
    angle = np.linspace(0.0, math.pi, 2049)[1:-1]
    values = 1.0 + ratio - 2.0 * math.sqrt(ratio) * np.cos(angle)
    root = float((2.0 * np.sin(angle) ** 2 / np.sqrt(values)).sum() / 2048)
    return math.sqrt(max(2.0 * (1.0 - math.sqrt((n - 1) / n) * root), 0.0))


@dataclass(frozen=True)
class Population:
    """A population's spectrum.

    Attributes:
        eigenvalues: of the covariance, (m,), ascending.
        weights: the share of the d dimensions at each, (m,), >= 0, sum 1.
        dims: d.
    """

    eigenvalues: Float[np.ndarray, " m"]
    weights: Float[np.ndarray, " m"]
    dims: int

    @property
    def root_trace(self) -> float:
        """``tr S^(1/2)``."""
        return self.dims * float(self.weights @ np.sqrt(self.eigenvalues))

    @property
    def trace(self) -> float:
        """``tr S``."""
        return self.dims * float(self.weights @ self.eigenvalues)

    @property
    def effective_dims(self) -> float:
        """``(tr S^(1/2))^2 / tr S``, in [1, d]; NaN where the trace is 0."""
        return self.root_trace**2 / self.trace if self.trace > 0 else math.nan


def population(
    eigenvalues: Float[np.ndarray, " k"],
    n: int,
    d: int,
    *,
    mean_square: float | None = None,
    leverage: Float[np.ndarray, "n k"] | None = None,
) -> Population:
    """Return the spectrum of the population whose sample has these eigenvalues.

    Deterministic, and equivariant to scaling; the trace is the unbiased ``sum(eigenvalues) n / (n - 1)``. Never raises
    on finite eigenvalues; all zero, or round-off of equal rows, gives the spectrum of one point. It takes milliseconds.

    Args:
        eigenvalues: of the sample's centred covariance (divided by n), in any order; zeros may be left out.
        n: rows, distinct and independent. Below `LEAST_ROWS` the spectrum is the sample's own, not an estimate.
        d: dimensions, at least as many as the eigenvalues above 0.
        mean_square: the mean squared length of the rows before centring, if they all have about the same: 1 for unit
            rows; ``math.inf`` where lengths are free, as those of a Gaussian. None is the trace, right for rows of one
            length whose mean is near 0.
        leverage: the squared components of the rows along the centred sample's directions, in the order of the
            eigenvalues, as shares of each: their columns add up to 1. With it the factors s are those of the rows
            themselves, instead of the model's.

    Source:
        El Karoui, Spectrum estimation for large dimensional covariance matrices using random matrix theory, Annals of
        Statistics 36(6), 2008; Bai and Silverstein, CLT for linear spectral statistics of large-dimensional sample
        covariance matrices, Annals of Probability 32(1A), 2004.

    Example:
        >>> rows = np.random.default_rng(0).standard_normal((64, 128))
        >>> rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        >>> plain = np.linalg.eigvalsh(np.cov(rows, bias=True, rowvar=False)).clip(min=0)
        >>> round(np.sqrt(plain).sum() ** 2 / plain.sum()), population(plain, 64, 128).effective_dims > 120
        (55, True)
    """
    rows = max(n - 1, 1)
    values = np.asarray(eigenvalues, dtype=np.float64).clip(min=0.0)
    order = np.argsort(values)[::-1][: min(rows, d)]
    sample = values[order] * (n / rows)
    top, trace = float(sample.max(initial=0.0)), float(sample.sum())
    square = trace if mean_square is None else max(mean_square, trace)
    if top < np.finfo(np.float64).tiny or (math.isfinite(square) and trace <= _ROUND_OFF * square):
        return Population(np.zeros(1), np.ones(1), d)
    if n < LEAST_ROWS:
        above = sample[sample > 0][::-1]
        shares = np.append(1.0 - above.size / d, np.full(above.size, 1.0 / d))
        return Population(np.append(0.0, above), shares, d)
    sample, trace, square = sample / top, trace / top, square / top

    x, t = POINTS, _GRID
    odds = odds_of(sample, rows)
    second = _second_moment(sample, rows, d, trace / square)
    moments = np.stack([np.ones_like(t), t * (d / trace), t**2 * (d / second)])
    by = np.array([_HEAVY, _HEAVY, _SECOND * trace**2 / (d * second)])
    penalty = np.diag(_PENALTY / rows)
    right = np.concatenate([np.ones_like(x), by, np.zeros_like(t)])
    rounds = _ROUNDS if leverage is None and math.isfinite(square) else 0
    q, one = (odds, 1.0 / (1.0 + odds)) if leverage is None else by_rows(leverage[:, order], sample, odds)
    c = np.broadcast_to(one[:, None], (x.size, t.size))
    for once_more in reversed(range(rounds + 1)):
        terms = (d / rows) * t / (x[:, None] + c * t)
        weights, _ = nnls(
            np.concatenate([terms / q[:, None], by[:, None] * moments, penalty]), right, maxiter=100 * t.size
        )
        weights /= weights.sum()
        if once_more:
            lean = 2.0 / square * (terms @ (weights * t)) / (terms @ weights)
            q, c = _with_lengths(odds, q, lean, t / square, d * weights)
    held = weights > 0
    t, weights = t[held], weights[held]
    return Population(t * (top * trace / d / float(weights @ t)), weights, d)


def _second_moment(sample: Float[np.ndarray, " k"], rows: int, d: int, share: float) -> float:
    """Return ``tr S^2`` of the population, which is at least ``(tr S)^2 / d``.

    A row's product with itself is in the sample's and must be left out: ``(tr S)^2`` for rows of one length about 0,
    ``2 tr S^2`` more for Gaussian ones, and in between where the trace is but a share of the squared length.
    """
    trace = float(sample.sum())
    own = 1.0 / rows
    second = (float((sample**2).sum()) - own * trace**2) / (1.0 - own + 2.0 * own * (1.0 - share))
    return max(second, trace**2 / d)


def _with_lengths(
    odds: Float[np.ndarray, " p"],
    q: Float[np.ndarray, " p"],
    lean: Float[np.ndarray, " p"],
    t: Float[np.ndarray, " m"],
    counts: Float[np.ndarray, " m"],
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, "p m"]]:
    """Return Q and c for rows y / |y|, y Gaussian about a mean, with the eigenvalues that the last round found.

    Args:
        odds: of a row's absorption, as measured.
        q: Q of the last round.
        lean: how much q(u) covaries with the squared length, 2 / square * sum t^2 R / sum t R.
        t: eigenvalues of the grid, for rows of mean square 1.
        counts: directions at each.
    """
    total = float(counts @ t)
    centre = max(1.0 - total, 0.0) + _SAME_LENGTH  # |mean|^2
    wanted = t
    for _ in range(4):  # from the variances of y / |y| to those of y
        variances = wanted
        falls = 1.0 / (1.0 + 2.0 * np.outer(_TAU, variances))
        # E exp(-tau |y|^2), times the step: its integral is E 1 / |y|^2, and so on.
        laplace = np.exp(0.5 * np.log(falls) @ counts - centre * _TAU) * _TAU * math.log(_TAU[1] / _TAU[0])
        wanted = t / (laplace @ falls)
        wanted = wanted * (total / float(counts @ wanted))
    decay = np.exp(-np.outer(_ODDS, _TAU)) @ np.stack([laplace, laplace * (falls @ (counts * variances) + centre)], 1)
    absorbed, kept = _ODDS * decay[:, 0], decay[:, 1]  # E s Q / (1 + s Q) and E 1 / (1 + s Q), s not yet of mean 1
    measured, share = np.log(absorbed / kept), 1.0 / (1.0 + odds)

    # Directions' covariances with the length, to second order in them: they change E 1 / (1 + q) and c.
    first, second = q / (1.0 + q) ** 2, q**2 / (1.0 + q) ** 3
    share = np.clip(share + 2.0 * lean * second, 1e-9, 1.0 - 1e-9)
    odds = (1.0 - share) / share
    q = odds * np.exp(np.interp(np.log(odds), measured, np.log(_ODDS * laplace.sum()) - measured))
    c = (1.0 - share) / q + lean * first - 2.0 * lean * second
    # Below 0 only where a few rows are no sample of anything, and second order no approximation.
    return q, (c[:, None] + 2.0 * np.outer(first, t)).clip(min=0.0)
