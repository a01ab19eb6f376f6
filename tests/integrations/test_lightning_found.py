"""Without a name: small models built as the libraries build theirs, in a real Trainer; the right rows, all of them."""

import copy

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from trainers import fit, journal, new

from uniformity_callbacks import functional
from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = pytest.mark.usefixtures("own_place")
DUE = [0, 3, 6]


def mlp(n_in, n_out=8):
    return nn.Sequential(nn.Linear(n_in, 16), nn.ReLU(), nn.Linear(16, n_out))


def without_gradients(module):
    """A copy that follows at a distance, as momentum encoders do."""
    return copy.deepcopy(module).requires_grad_(False)


class Method(pl.LightningModule):
    """Keeps what its loss sees, to compare; `views` of a batch are noisy copies."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(6, 12)
        self.rows = []

    def views(self, batch, count=2):
        return [batch[0] + 0.1 * torch.randn_like(batch[0]) for _ in range(count)]

    def training_step(self, batch, batch_idx):
        embeddings, loss = self.learn(batch)
        self.rows.append(torch.cat(embeddings).detach())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class MoCo(Method):
    """solo-learn's layout: `projector` beside `momentum_projector`."""

    def __init__(self):
        super().__init__()
        self.projector = mlp(12)
        self.momentum_backbone = without_gradients(self.backbone)
        self.momentum_projector = without_gradients(self.projector)

    def learn(self, batch):
        x0, x1 = self.views(batch)
        z = [self.projector(self.backbone(x)) for x in (x0, x1)]
        with torch.no_grad():
            keys = [self.momentum_projector(self.momentum_backbone(x)) for x in (x1, x0)]
        return z, sum((a - b).square().mean() for a, b in zip(z, keys, strict=True))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.projector = nn.Linear(6, 12), mlp(12)

    def forward(self, x):
        return self.projector(self.encoder(x))


class BYOL(Method):
    """The bolts' layout: one class twice, the target without gradients though its parameters have them."""

    def __init__(self):
        super().__init__()
        self.online_network, self.predictor = Network(), mlp(8)
        self.target_network = copy.deepcopy(self.online_network)
        self.predicted = []

    def learn(self, batch):
        x0, x1 = self.views(batch)
        with torch.no_grad():
            targets = [self.target_network(x) for x in (x1, x0)]
        z = [self.online_network(x) for x in (x0, x1)]
        predictions = [self.predictor(a) for a in z]
        self.predicted.append(torch.cat(predictions).detach())
        return z, sum((a - b).square().mean() for a, b in zip(predictions, targets, strict=True))


class DINOHead(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body
        self.add_module(body, mlp(12))
        self.last_layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(8, 32, bias=False))

    def forward(self, x):
        self.embeddings = getattr(self, self.body)(x)
        return self.last_layer(nn.functional.normalize(self.embeddings))


class DINO(Method):
    """A student and a teacher; the teacher sees the two large crops, the student two small ones as well."""

    body, student, teacher = "mlp", "head", "momentum_head"

    def __init__(self):
        super().__init__()
        self.add_module(self.student, DINOHead(self.body))
        self.teacher_backbone = without_gradients(self.backbone)
        self.add_module(self.teacher, DINOHead(self.body))

    def learn(self, batch):
        student, teacher = getattr(self, self.student), getattr(self, self.teacher)
        crops, embeddings, logits = self.views(batch, 4), [], []
        with torch.no_grad():
            targets = [teacher(self.teacher_backbone(x)).softmax(1) for x in crops[:2]]
        for x in crops:
            logits.append(student(self.backbone(x)).log_softmax(1))
            embeddings.append(student.embeddings)
        return embeddings, -sum((t * s).sum(1).mean() for t in targets for s in logits)


class LightlyDINO(DINO):
    body, student, teacher = "layers", "student_head", "teacher_head"


class NamedDINO(DINO):
    body, student, teacher = "layers", "projection_head", "teacher_projection_head"


class SimCLR(Method):
    """lightly's names, and both views in one call."""

    def __init__(self):
        super().__init__()
        self.projection_head = mlp(12)

    def learn(self, batch):
        z = self.projection_head(self.backbone(torch.cat(self.views(batch))))
        z0, z1 = z.chunk(2)
        return [z0, z1], (z0 - z1).square().mean()


def check(readings, rows):
    assert [r.step for r in readings] == DUE
    for reading in readings:
        z = rows[reading.step]
        assert reading.values["samples"] == len(z)
        assert reading.values["w2"] == pytest.approx(functional.wasserstein_uniformity(z).item(), rel=1e-5)
        assert reading.values["norm_mean"] == pytest.approx(z.norm(dim=1).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "layer", "samples"),
    [
        (MoCo, "projector", 32),
        (BYOL, "online_network.projector", 32),
        (DINO, "head.mlp", 64),
        (LightlyDINO, "student_head.layers", 64),
        (NamedDINO, "projection_head.layers", 64),
    ],
)
@pytest.mark.parametrize("auxiliary", [None, 0.1])
def test_the_trained_projector_is_found(kind, layer, samples, auxiliary):
    model = new(kind)
    callback = UniformityCallback(every_n_steps=3, auxiliary=auxiliary)
    fit(model, [callback])
    readings = journal(callback).readings
    check(readings, model.rows)
    assert {r.layer for r in readings} == {layer}
    assert {len(rows) for rows in model.rows} == {samples}
    assert callback.monitor.faults.count == 0


def test_both_views_in_one_call():
    model = new(SimCLR)
    callback = UniformityCallback(every_n_steps=3, views=2)
    fit(model, [callback])
    readings = journal(callback).readings
    check(readings, model.rows)
    for reading in readings:
        z0, z1 = model.rows[reading.step].chunk(2)
        assert reading.values["alignment"] == pytest.approx(functional.alignment(z0, z1).item(), rel=1e-5)


def test_several_layers_by_list():
    model = new(BYOL)
    callback = UniformityCallback(["online_network.projector", "predictor"], every_n_steps=3)
    fit(model, [callback])
    readings = journal(callback).readings
    assert len(readings) == 2 * len(DUE)
    check([r for r in readings if r.layer == "online_network.projector"], model.rows)
    check([r for r in readings if r.layer == "predictor"], model.predicted)
