"""What a sample's resolvents absorb of its rows: of all on average, and of each by itself.

With N = n - 1 rows, S their covariance and R = (S + x)^(-1) taken without row u, the row's absorption is
``q = u^T R u / N``, and ``1 / (1 + q)`` is the row's own entry of ``x (K + x)^(-1)``, K the rows' products over N.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

POINTS = np.geomspace(1e-6, 10.0, 50)
"""Points x, in units of the sample's largest eigenvalue. From 1e-4 on, eigenvalues like i^-2 in 2048 dimensions read
10 % too few dims at n = d / 2 and 2 d alike; below 1e-6 or above 10 little is gained, by more points nothing."""

_NEWTON = 8
"""Steps at most to the factor by which the rows' mean agrees with the eigenvalues'."""


def odds_of(sample: Float[np.ndarray, " k"], rows: int) -> Float[np.ndarray, " p"]:
    """Return Q at each point as if s were 1: the odds of what R absorbs of a row, less their O(1 / N) bias.

    Args:
        sample: eigenvalues of S, in units of the largest; zeros may be left out.
        rows: N.
    """
    x, zeros = POINTS, rows - sample.size
    inverse = 1.0 / (sample + x[:, None])
    v, v1, v2 = (((inverse**k).sum(1) + zeros / x**k) / rows for k in (1, 2, 3))  # and -v', v'' / 2
    absorbed = (inverse @ sample) / rows
    bias = (1.0 / v - v2 / v1**2) / rows  # of 1 / v; never above 0
    odds: Float[np.ndarray, " p"] = absorbed / (x * v) - bias / x
    return odds


def by_rows(
    leverage: Float[np.ndarray, "n k"], sample: Float[np.ndarray, " k"], odds: Float[np.ndarray, " p"]
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Return Q and c = E s / (1 + s Q) with the factors s, of mean 1, that the rows themselves have at each point.

    A row's absorption q is s Q but for noise: a Gaussian row's varies about it by twice ``tr (S R S R) / (tr S R)^2``,
    which what rows have in common tells, the entries of ``x (K + x)^(-1)`` beside the diagonal. That much of the
    variance of log q is taken out.

    Args:
        leverage: squared components along the directions of ``sample``, as shares of each.
        sample: eigenvalues of S, in units of the largest.
        odds: those of `odds_of`.
    """
    n, rows = len(leverage), len(leverage) - 1
    kept = POINTS / (sample[:, None] + POINTS)  # (k, p)
    # By torch: NumPy's own library would compute it on more threads, which slows the training's (see `threads`).
    absorbed = (torch.from_numpy(leverage) @ torch.from_numpy(1.0 - kept)).numpy()
    entries = 1.0 - absorbed - 1.0 / n  # of x (K + x)^-1, on its diagonal, where centring left 1 / n
    entries = np.clip(entries / (1.0 - 1.0 / n), 1e-12, 1.0 - 1e-12)
    q = 1.0 / entries - 1.0
    beside = (kept**2).sum(0) + (rows - sample.size) - (entries**2).sum(0) * rows / n
    pairs = (entries**2 * q).sum(0) ** 2 - (entries**4 * q**2).sum(0)
    noise = 2.0 * np.clip(beside / np.maximum(pairs, np.finfo(np.float64).tiny), 0.0, None)
    logs = np.log(q)
    spread = np.maximum(logs.var(0, ddof=1), np.finfo(np.float64).tiny)
    s = np.exp(np.sqrt(np.clip(1.0 - noise / spread, 0.0, 1.0)) * (logs - logs.mean(0)))
    wanted, q = 1.0 / (1.0 + odds), odds
    for _ in range(_NEWTON):  # E 1 / (1 + s q) = wanted: convex and falling in q
        share = 1.0 / (1.0 + s * q)
        step = (share.mean(0) - wanted) / (s * share**2).mean(0)
        q = np.maximum(q + step, 0.05 * q)
        if np.all(np.abs(step) <= 1e-9 * q):
            break
    mean = s.mean(0)
    return mean * q, (s / (1.0 + s * q)).mean(0) / mean
