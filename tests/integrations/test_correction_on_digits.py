"""The correction for sample size on what real encoders put out: n = d rows against all augmented rows."""

import pytest
import torch
import torch.nn.functional as F

from examples.digits import data, models, networks
from examples.digits.evaluate import projector_outputs
from uniformity_callbacks import WassersteinLoss, functional

STEPS = 150
D = networks.OUTPUTS


def nt_xent(z0, z1, temperature=0.2):
    """SimCLR's loss: each row's other view against all other rows (Chen et al., arXiv 2002.05709, equation 1)."""
    z = F.normalize(torch.cat([z0, z1]), dim=1)
    similarity = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarity, torch.arange(len(z)).roll(len(z0)))


def siamese_with_w2(z0, z1):
    return (F.normalize(z0, dim=1) - F.normalize(z1, dim=1)).square().sum(1).mean() + WassersteinLoss(1.0)(z0, z1)


@pytest.fixture(scope="module", params=[nt_xent, siamese_with_w2])
def population(request):
    """Outputs, in eval mode, of a trained encoder for many views of all training images."""
    torch.manual_seed(0)
    digits, model = data.load(), models.Siamese()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for (x0, x1), _ in data.train_loader(digits, steps=STEPS, batch_size=128):
        loss = request.param(model(x0), model(x1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    generator, augment = torch.Generator().manual_seed(1), data.Augment()
    views = [projector_outputs(model, augment(digits.train_images, generator)) for _ in range(24)]
    return torch.cat(views)  # 31,128 rows


def test_n_equal_to_d_tells_of_all_rows(population):
    w2 = functional.wasserstein_uniformity(population).item()
    dims = functional.effective_dims(population, corrected=False).item()
    assert functional.corrected_wasserstein_uniformity(population).item() == pytest.approx(w2, rel=0.01)
    generator = torch.Generator().manual_seed(2)
    draws = [population[torch.randperm(len(population), generator=generator)[:D]] for _ in range(5)]
    plain = [functional.wasserstein_uniformity(z).item() for z in draws]
    corrected = [functional.corrected_wasserstein_uniformity(z).item() for z in draws]
    assert corrected == pytest.approx([w2] * 5, rel=0.05)
    bias, plain_bias = (abs(sum(values) / 5 - w2) for values in (corrected, plain))
    assert plain_bias > 0.02
    assert bias < plain_bias / 4
    found = [functional.effective_dims(z).item() for z in draws]
    assert sum(found) / 5 == pytest.approx(dims, rel=0.12)
