"""The metrics in NumPy float64, each by another formula than the package's, and reference values to match."""

import json
from pathlib import Path

import numpy as np
from scipy.linalg import sqrtm
from scipy.spatial.distance import pdist

DATA = Path(__file__).parent / "data"
VALUES = json.loads((DATA / "values.json").read_text())
CASES = sorted(VALUES)


def arrays(name):
    """The arrays of an archive, by case."""
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as archive:
        return {case: archive[case] for case in archive.files}


def unit(z):
    z = np.asarray(z, dtype=np.float64)
    z = z[np.abs(z).max(axis=1) > 0]
    return z / np.sqrt((z * z).sum(axis=1, keepdims=True))


def w2(z):
    """Bures' formula with matrix square roots, against N(0, I/d)."""
    u = unit(z)
    d = u.shape[1]
    mean, covariance = u.mean(0), np.cov(u.T, bias=True).reshape(d, d)
    ideal = np.eye(d) / d
    cross = sqrtm(sqrtm(ideal) @ covariance @ sqrtm(ideal))
    return np.sqrt(max(mean @ mean + np.trace(covariance + ideal - 2 * cross.real), 0.0))


def w2_by_svd(z):
    """The same where the covariance is singular, which sqrtm cannot do."""
    u = unit(z)
    n, d = u.shape
    singular = np.linalg.svd(u - u.mean(0), compute_uv=False)
    return np.sqrt(max(2 - 2 * singular.sum() / np.sqrt(n * d), 0.0))


def effective_dims(z):
    u = unit(z)
    values = np.linalg.svd(u - u.mean(0), compute_uv=False)
    return values.sum() ** 2 / (values**2).sum() if values.max() > 1e-14 else np.nan


def centred_eigenvalues(z):
    """By the general solver on the covariance itself, descending."""
    u = unit(z)
    covariance = np.cov(u.T, bias=True).reshape(u.shape[1], u.shape[1])
    return np.sort(np.linalg.eigvals(covariance).real.clip(0))[::-1]


def rankme(z):
    s = np.linalg.svd(unit(z), compute_uv=False)
    p = s / s.sum() + 1e-7
    return np.prod(p**-p)


def effective_rank(z):
    values = centred_eigenvalues(z)
    p = values[values > 1e-14] / values.sum()
    return np.exp((p * np.log(1 / p)).sum()) if values.sum() > 1e-14 else np.nan


def participation_ratio(z):
    """From the covariance's entries, without a decomposition."""
    u = unit(z)
    covariance = np.cov(u.T, bias=True).reshape(u.shape[1], u.shape[1])
    squares = (covariance**2).sum()
    return np.trace(covariance) ** 2 / squares if squares > 1e-28 else np.nan


def stable_rank(z):
    c = unit(z) - unit(z).mean(0)
    top = np.linalg.norm(c, 2)
    return (np.linalg.norm(c, "fro") / top) ** 2 if top > 1e-14 else np.nan


def alpha_req(z):
    values = centred_eigenvalues(z)[5:100]
    ranks = np.arange(6, 6 + len(values))
    ranks, values = ranks[values > 1e-14], values[values > 1e-14]
    if len(values) < 3:
        return np.nan
    return -np.polyfit(np.log(ranks), np.log(values), 1, w=ranks**-0.5)[0]  # polyfit squares its weights


def alignment(x, y, alpha=2.0):
    return np.mean([np.sqrt(((a - b) ** 2).sum()) ** alpha for a, b in zip(unit(x), unit(y), strict=True)])


def mean_resultant_length(z):
    """From the mean over all pairs of cosines."""
    u = unit(z)
    return np.sqrt(max((u @ u.T).mean(), 0.0))


def std_ratio(z):
    u = unit(z)
    return np.sqrt(u.shape[1]) * np.std(u, axis=0, ddof=1).mean()


def wang_isola_uniformity(z, t=2.0):
    return np.log(np.exp(-t * pdist(unit(z), "sqeuclidean")).mean())
