"""Our torchmetrics by name, each with the function of whole views that it must agree with."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from uniformity_callbacks import functional
from uniformity_callbacks.integrations import torchmetrics as ours

D = 12


def together(function, **options):
    return lambda *views: function(torch.cat(views), **options).item()


def each(function):
    return lambda *views: sum(function(view).item() for view in views) / len(views)


def pairs(*views):
    values = [functional.alignment(a, b).item() for k, a in enumerate(views) for b in views[k + 1 :]]
    return sum(values) / len(values)


@dataclass
class Case:
    new: Any
    expected: Any
    views: int = 2

    def __call__(self, **options):
        return self.new(views=self.views, **options)


CASES = {
    "w2": Case(partial(ours.WassersteinUniformity, D), together(functional.wasserstein_uniformity)),
    "w2_corrected": Case(
        partial(ours.CorrectedWassersteinUniformity, D), each(functional.corrected_wasserstein_uniformity)
    ),
    "dims": Case(partial(ours.EffectiveDims, D), each(functional.effective_dims)),
    "sample_dims": Case(
        partial(ours.EffectiveDims, D, corrected=False), together(functional.effective_dims, corrected=False)
    ),
    "rankme": Case(partial(ours.RankMe, D), together(functional.rankme)),
    "lu": Case(partial(ours.WangIsolaUniformity, D), together(functional.wang_isola_uniformity)),
    "alignment": Case(ours.Alignment, pairs),
    "one_view": Case(partial(ours.WassersteinUniformity, D), together(functional.wasserstein_uniformity), views=1),
    "three_views": Case(ours.Alignment, pairs, views=3),
}
SPECTRAL = {name: CASES[name] for name in ("w2", "w2_corrected", "dims", "sample_dims", "rankme")}


def rows(n=61, views=2, dtype=torch.float64, d=D, seed=0):
    """Views of the same images; off centre and not isotropic, so that nothing is told apart by chance."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.linspace(1.0, 0.2, d) + 0.3
    noise = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(views))
    return [(images + 0.3 * part).to(dtype) for part in noise]


def updated(metric, views, sizes=None):
    """The metric after batches of some sizes; all rows at once if none are given."""
    for batch in zip(*(view.split(sizes or len(view)) for view in views), strict=True):
        metric.update(*batch)
    return metric
