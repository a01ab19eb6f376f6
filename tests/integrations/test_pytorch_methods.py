"""The field's methods as plain loops have them: each is read as its author would, left as it is, and regularised."""

import math
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from methods import (
    BYOL,
    EVERY,
    LARS,
    MAE,
    STEPS,
    Backbone,
    BarlowTwins,
    D,
    Method,
    MoCo,
    Model,
    MultiCrop,
    N,
    Run,
    augment,
    crops,
    follow,
    loader,
    mlp,
    sgd,
    sinkhorn,
)
from torch import nn

from uniformity_callbacks import functional, read_journal

pytestmark = pytest.mark.usefixtures("own_place")


def simclr(begin):
    """One forward of both views; mixed precision; a schedule."""
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
    scaler = torch.amp.GradScaler("cpu")
    add = begin(model, optimizer)
    labels = torch.cat([torch.arange(N), torch.arange(N)])
    same, own = labels[:, None] == labels, torch.eye(2 * N, dtype=torch.bool)
    for x in loader():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = model(torch.cat([augment(x), augment(x)])).float()  # or gradients are summed up in half precision
            z = F.normalize(z, dim=1)
            similar = (z @ z.T).masked_fill(own, -math.inf) / 0.2
            loss = F.cross_entropy(similar, (same & ~own).float().argmax(1))
            loss = add(loss)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
    return model


def moco(begin):
    """One view of each image; the loss is a module's; learning rates set by hand."""
    model, criterion = MoCo(), nn.CrossEntropyLoss()
    optimizer = sgd(model.encoder_q)
    add = begin(model, optimizer, criterion)
    for step, x in enumerate(loader()):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * 0.5 * (1 + math.cos(math.pi * step / STEPS))
        output, target = model(augment(x), augment(x))
        loss = add(criterion(output, target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def byol(begin):
    """A target copied in the first forward, a loss that the model returns, gradients of two micro-batches."""
    model = BYOL()
    optimizer = sgd(model)
    add = begin(model, optimizer)
    for x in loader():
        for part in x.chunk(2):
            loss = add(model(augment(part), augment(part))) / 2
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        follow(model.target, model.online)
    return model


def knn(model, x):
    model.eval()
    z = F.normalize(model(x), dim=1)  # the no_grad is forgotten
    nearest = (z @ z.T).topk(3).indices
    model.train()
    return nearest


def simsiam(begin):
    """Clipped gradients, and an evaluation with gradients after each step."""
    encoder, predictor = Backbone(mlp(32, D)), mlp(D, D, hidden=8)
    criterion = nn.CosineSimilarity(dim=1)
    optimizer = sgd(encoder, predictor)
    add = begin(nn.ModuleDict({"encoder": encoder, "predictor": predictor}), optimizer)
    for x in loader():
        z1, z2 = encoder(augment(x)), encoder(augment(x))
        p1, p2 = predictor(z1), predictor(z2)
        loss = -(criterion(p1, z2.detach()).mean() + criterion(p2, z1.detach()).mean()) * 0.5
        loss = add(loss)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 0.5)
        optimizer.step()
        assert knn(encoder, x).shape == (N, 3)
    return nn.ModuleList([encoder, predictor])


def barlow_twins(begin):
    """An optimizer of one's own; the model is not called but its forward."""
    model = BarlowTwins()
    optimizer = LARS(model.parameters(), lr=0.01)
    add = begin(model, optimizer)
    for x in loader():
        optimizer.zero_grad()
        loss = add(model.forward(augment(x), augment(x)))
        loss.backward()
        optimizer.step()
    return model


def vicreg(begin):
    """Epochs, each with a pass over a validation set under no_grad, in eval mode."""
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    add = begin(model, optimizer)
    for x in loader():
        model.train()
        z0, z1 = model(augment(x)), model(augment(x))
        std = sum(F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() for z in (z0, z1)) / 2
        off = sum(z.T.cov().fill_diagonal_(0).square().sum() / D for z in (z0, z1))
        loss = add(25 * F.mse_loss(z0, z1) + 25 * std + off)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        model.eval()
        with torch.no_grad():
            model(x)
    return model


def swav(begin):
    """Two large crops and four small ones, each a forward of its own; prototypes frozen at first."""
    model = Model()
    prototypes = nn.Linear(D, 12, bias=False)
    optimizer = sgd(model, prototypes)
    add = begin(model, optimizer)
    for step, x in enumerate(loader()):
        with torch.no_grad():
            prototypes.weight.copy_(F.normalize(prototypes.weight, dim=1))
        scores = [prototypes(F.normalize(model(crop), dim=1)) for crop in crops(x)]
        codes = [sinkhorn(s) for s in scores[:2]]
        swapped = [(q, s) for i, q in enumerate(codes) for j, s in enumerate(scores) if i != j]
        loss = -sum((q * F.log_softmax(s / 0.1, dim=1)).sum(1).mean() for q, s in swapped) / len(swapped)
        optimizer.zero_grad()
        add(loss).backward()
        if step < 2:
            prototypes.weight.grad = None
        optimizer.step()
    return nn.ModuleList([model, prototypes])


def dino(begin):
    """Student and teacher, of whom the teacher runs with gradients on, but has no parameter that needs them."""
    student, teacher = MultiCrop(), MultiCrop()
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    center = torch.zeros(1, 24)
    networks = nn.ModuleDict({"student": student, "teacher": teacher})
    add = begin(networks, optimizer)
    for step, x in enumerate(loader()):
        images = crops(x)
        targets = teacher(images[:2])
        outputs = student(images).chunk(6)
        probabilities = F.softmax((targets - center) / 0.04, dim=-1).detach().chunk(2)
        pairs = [(q, o) for i, q in enumerate(probabilities) for j, o in enumerate(outputs) if i != j]
        loss = -sum((q * F.log_softmax(o / 0.1, dim=-1)).sum(-1).mean() for q, o in pairs) / len(pairs)
        center = 0.9 * center + 0.1 * targets.mean(0, keepdim=True)
        optimizer.zero_grad()
        add(loss).backward()
        for name, p in student.named_parameters():
            nn.utils.clip_grad_norm_([p], 3.0)
            if "last_layer" in name and step < 2:
                p.grad = None
        optimizer.step()
        follow(teacher, student)
    return networks


def probed(begin):
    """Three optimizers: a predictor has its own, a linear probe is trained on detached features."""
    model, predictor, probe = Model(), mlp(D, D), nn.Linear(32, 10)
    optimizer, fast, online = sgd(model), sgd(predictor), torch.optim.Adam(probe.parameters())
    labels = torch.arange(N) % 10
    add = begin(model, optimizer)
    for x in loader():
        h0, h1 = model.backbone(augment(x)), model.backbone(augment(x))
        z0, z1 = model.projector(h0), model.projector(h1)
        online.zero_grad()
        F.cross_entropy(probe(h0.detach()), labels).backward()
        online.step()
        loss = add(-F.cosine_similarity(predictor(z0), z1.detach()).mean())
        fast.zero_grad()
        optimizer.zero_grad()
        loss.backward()
        fast.step()
        optimizer.step()
    return nn.ModuleList([model, predictor, probe])


def mae(begin):
    """Tokens instead of rows; two batches a step, and a schedule that goes on in the middle of a step."""
    model = MAE()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))
    add = begin(model, optimizer)
    optimizer.zero_grad()
    for k, x in enumerate(loader().flatten(0, 1).chunk(2 * STEPS)):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - k / 2 / STEPS)
        loss = add(model(x)) / 2
        loss.backward()
        if k % 2:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return model


def halves(calls):
    return calls[0][: 2 * N].chunk(2)


METHODS = {
    "SimCLR": Method(simclr, "projector", halves, options={"views": 2}),
    "MoCo v2": Method(moco, "encoder_q.fc", many=1, options={"layer": "encoder_q.fc"}),
    "BYOL": Method(byol, "online.projector"),
    "SimSiam": Method(simsiam, "encoder.fc", options={"layer": "encoder.fc"}),
    "Barlow Twins": Method(barlow_twins, "projector"),
    "VICReg": Method(vicreg, "projector"),
    "SwAV": Method(swav, "projector", lambda calls: calls[:2], options={"calls": "first:2"}),
    "DINO": Method(dino, "student.head.mlp", halves, options={"views": 2, "output": lambda z: z[: 2 * N]}),
    "a probe beside": Method(probed, "projector"),
    "MAE": Method(mae, "norm", lambda c: [c[0].mean(1)], 1, {"layer": "norm", "output": lambda z: z.mean(1)}),
}


@pytest.mark.parametrize("line", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_it_is_read_as_it_is_and_not_changed(name, line):
    method = METHODS[name]
    plain, run = Run(method), Run(method, watched=True, line=line)
    readings = read_journal(run.monitor.journal).readings
    assert [reading.step for reading in readings] == list(range(0, STEPS, EVERY))
    for reading in readings:
        views, got = run.views[reading.step], reading.values
        assert got["samples"] == method.many * N == sum(map(len, views))
        assert got["w2"] == pytest.approx(functional.wasserstein_uniformity(torch.cat(views)).item(), rel=1e-5)
        pairs = [functional.alignment(a, b).item() for a, b in combinations(views, 2)]
        assert ("alignment" in got) == bool(pairs)
        assert not pairs or got["alignment"] == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(run.state, plain.state, strict=True))
    assert torch.equal(run.random, plain.random)


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_is_as_by_hand(name):
    method = METHODS[name]
    plain, by_hand, run = Run(method), Run(method, auxiliary=0.5), Run(method, watched=True, auxiliary=0.5)
    effect = (by_hand.weights - plain.weights).norm()
    assert effect > 5e-3
    assert (run.weights - by_hand.weights).norm() <= 1e-4 * effect
    steps, terms = read_journal(run.monitor.journal).series("aux_loss")
    assert steps == list(range(0, STEPS, EVERY))
    assert terms == pytest.approx([0.5 * run.terms[k] for k in steps], rel=1e-5)
