"""Every metric as a pure function of embeddings ``(n, d)``.

All functions take finite floating-point embeddings of any precision, work in float64 with autocast without effect,
normalise the rows to unit length (``normalize=False`` takes them as they are), leave zero rows out, and return a
0-dimensional tensor: float64 for float64 input, float32 otherwise. They are differentiable, except for those corrected
for sample size.
"""

from uniformity_callbacks.functional.rank import (
    alpha_req,
    effective_dims,
    effective_rank,
    participation_ratio,
    population_spectrum,
    rankme,
    stable_rank,
)
from uniformity_callbacks.functional.spread import alignment, mean_resultant_length, std_ratio, wang_isola_uniformity
from uniformity_callbacks.functional.wasserstein import (
    corrected_wasserstein_uniformity,
    wasserstein_floor,
    wasserstein_uniformity,
)

__all__ = [
    "alignment",
    "alpha_req",
    "corrected_wasserstein_uniformity",
    "effective_dims",
    "effective_rank",
    "mean_resultant_length",
    "participation_ratio",
    "population_spectrum",
    "rankme",
    "stable_rank",
    "std_ratio",
    "wang_isola_uniformity",
    "wasserstein_floor",
    "wasserstein_uniformity",
]
