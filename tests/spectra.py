"""Samples of populations of a given spectrum, and what is read of them without a correction."""

import numpy as np


def w2(root_trace, d):
    return np.sqrt(max(2 - 2 * root_trace / np.sqrt(d), 0.0))


def eigenvalues(rows):
    """Of the centred covariance, divided by n; those of the smaller Gram matrix."""
    c = rows - rows.mean(0)
    gram = c @ c.T if c.shape[0] < c.shape[1] else c.T @ c
    return np.linalg.eigvalsh(gram).clip(min=0) / len(c)


def unit_gaussians(variances, n, rng, mean=0.0):
    """Unit rows; directions without variance are left out, which leaves the eigenvalues as they are."""
    z = mean + rng.standard_normal((n, np.count_nonzero(variances))) * np.sqrt(variances[variances > 0])
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def plain(values, d):
    """W2 and effective dims without a correction, round-off of zeros left out."""
    root = np.sqrt(values[values > 1e-13 * values.max()]).sum()
    return w2(root, d), root**2 / values.sum()
