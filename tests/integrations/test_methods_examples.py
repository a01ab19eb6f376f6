"""Each method's loss against its definition in NumPy, and what must and must not get gradients."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from examples.digits import data
from examples.methods import METHODS, TITLES, barlow_twins, byol, moco_v2, simclr, simsiam, swav, vicreg, zero_cl
from examples.methods import __main__ as command
from examples.methods.loop import train, wang_isola_loss
from examples.methods.method import Target
from uniformity_callbacks import WassersteinLoss, functional, read_journal

N, D = 12, 5


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)
    z0, z1 = torch.randn(2, N, D, generator=generator, dtype=torch.float64)
    return z0, z0 + 0.5 * z1


def unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def of(views):
    return [view.numpy() for view in views]


def test_nt_xent_is_its_definition(views):
    z = unit(np.concatenate(of(views)))
    s, total = z @ z.T / 0.5, 0.0
    for i in range(2 * N):
        others = [s[i, k] for k in range(2 * N) if k != i]
        total -= math.log(math.exp(s[i, (i + N) % (2 * N)]) / sum(map(math.exp, others)))
    assert simclr.nt_xent(*views, 0.5).item() == pytest.approx(total / (2 * N), rel=1e-12)


def test_nt_xent_where_all_are_one_point():
    z = torch.ones(N, D)
    assert simclr.nt_xent(z, z, 0.5).item() == pytest.approx(math.log(2 * N - 1), rel=1e-6)


def test_info_nce_is_its_definition(views):
    q, k = map(unit, of(views))
    queue = unit(np.random.default_rng(0).normal(size=(7, D)))
    total = 0.0
    for one, key in zip(q, k, strict=True):
        logits = np.exp(np.array([one @ key, *(queue @ one)]) / 0.2)
        total -= math.log(logits[0] / logits.sum())
    value = moco_v2.info_nce(*views, torch.from_numpy(queue), 0.2).item()
    assert value == pytest.approx(total / N, rel=1e-12)


def test_queue_takes_new_keys_and_drops_the_oldest():
    queue = torch.eye(5)
    first = moco_v2.enqueued(queue, 3 * torch.ones(2, 5))
    assert torch.allclose(first, torch.cat([torch.full((2, 5), 5**-0.5), queue[:3]]))
    second = moco_v2.enqueued(first, -torch.ones(2, 5))
    assert torch.equal(second[2:4], first[:2])
    assert torch.equal(second[4], queue[0])


def test_no_key_is_its_own_negative():
    torch.manual_seed(0)
    method = METHODS["moco_v2"](size=64)
    x = torch.rand(16, 1, 8, 8)
    before = method.queue.clone()
    z = method(x)
    keys = F.normalize(method.target(x), dim=1)
    value = method.loss(z, z, x, x)
    assert value.item() == pytest.approx(moco_v2.info_nce(z, keys, before, 0.2).item(), rel=1e-5)
    assert torch.allclose(method.queue[:32], torch.cat([keys, keys]), atol=1e-6)
    assert torch.equal(method.queue[32:], before[:32])


def test_sinkhorn_gives_equal_shares():
    scores = torch.rand(60, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    q = swav.sinkhorn(scores, 0.3, rounds=50)
    assert torch.allclose(q.sum(1), torch.ones(60), atol=1e-6)
    assert torch.allclose(q.sum(0), torch.full((6,), 10.0), atol=1e-3)
    assert not q.requires_grad
    # Of all such codes the one of the form diag(u) exp(scores / epsilon) diag(v): the logarithm's double differences.
    ratio = q.log() - scores.detach() / 0.3
    assert torch.allclose(ratio - ratio[:1] - ratio[:, :1] + ratio[:1, :1], torch.zeros(60, 6), atol=1e-3)


def test_swapped_prediction_is_its_definition(views):
    s0, s1 = of(views)
    q0, q1 = (np.exp(s) / np.exp(s).sum(1, keepdims=True) for s in (s1**2, s0**2))

    def cross(q, s):
        p = np.exp(s / 0.1)
        return -(q * np.log(p / p.sum(1, keepdims=True))).sum(1)

    expected = np.mean(cross(q1, s0) + cross(q0, s1)) / 2
    value = swav.swapped(*views, torch.from_numpy(q0), torch.from_numpy(q1), 0.1)
    assert value.item() == pytest.approx(expected, rel=1e-10)


def test_prototypes_are_brought_to_unit_length():
    torch.manual_seed(0)
    method = METHODS["swav"]()
    x = torch.rand(16, 1, 8, 8)
    z = method(x)
    method.loss(z, z, x, x)
    assert torch.allclose(method.prototypes.weight.norm(dim=1), torch.ones(64), atol=1e-6)


def test_regression_and_negative_cosine_are_distances_of_unit_vectors(views):
    p, t = map(unit, of(views))
    assert byol.regression(*views).item() == pytest.approx(((p - t) ** 2).sum(1).mean(), rel=1e-12)
    assert simsiam.negative_cosine(*views).item() == pytest.approx(-(p * t).sum(1).mean(), rel=1e-12)


def test_redundancy_is_its_definition(views):
    z0, z1 = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in of(views))
    c = np.array([[np.mean(z0[:, i] * z1[:, j]) for j in range(D)] for i in range(D)])
    on = sum((1 - c[i, i]) ** 2 for i in range(D))
    off = sum(c[i, j] ** 2 for i in range(D) for j in range(D) if i != j)
    assert barlow_twins.redundancy(*views, 0.3).item() == pytest.approx(on + 0.3 * off, rel=1e-12)


def test_vicreg_is_its_definition(views):
    z, _ = of(views)
    stds = np.sqrt(z.var(0, ddof=1) + 1e-4)
    assert vicreg.hinge(views[0]).item() == pytest.approx(np.maximum(0, 1 - stds).mean(), rel=1e-12)
    c = np.cov(z.T)
    expected = sum(c[i, j] ** 2 for i in range(D) for j in range(D) if i != j) / D
    assert vicreg.covariances(views[0]).item() == pytest.approx(expected, rel=1e-12)


def test_whitening_makes_the_covariance_the_identity_and_changes_columns_least(views):
    z = views[0]
    h = zero_cl.whitened(z, 0.0)
    assert torch.allclose(h.T @ h / N, torch.eye(D, dtype=torch.float64), atol=1e-4)
    # ZCA is the symmetric root: the cross-covariance of what goes in and what comes out is symmetric and positive.
    x = (z - z.mean(0)) / z.std(0, correction=0)
    cross = x.T @ h / N
    assert torch.allclose(cross, cross.T, atol=1e-4)
    assert torch.linalg.eigvalsh((cross + cross.T) / 2).min() > 0


def test_agreement_is_nothing_for_equal_whitened_views_and_one_for_unrelated_ones():
    generator = torch.Generator().manual_seed(0)
    z, other = torch.randn(2, 20_000, 4, generator=generator)
    assert zero_cl.agreement(z, z, 0.0).item() == pytest.approx(0.0, abs=1e-6)
    assert zero_cl.agreement(z, other, 0.0).item() == pytest.approx(1.0, abs=0.05)


def test_zero_cl_whitens_over_instances_and_over_features(views):
    method = METHODS["zero_cl"]()
    z0, z1 = views
    expected = zero_cl.agreement(z0.T, z1.T, 0.1) + zero_cl.agreement(z0, z1, 0.1)
    assert method.loss(z0, z1, z0, z1).item() == pytest.approx(expected.item(), rel=1e-12)


def gradients(method):
    """Which parts of a method get gradients by its loss: name of a module -> whether any of its weights does."""
    torch.manual_seed(0)
    x0, x1 = torch.rand(2, 16, 1, 8, 8)
    z0, z1 = method(x0), method(x1)
    method.loss(z0, z1, x0, x1).backward()
    return {
        name: any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())
        for name, part in method.named_children()
    }


@pytest.mark.parametrize("name", METHODS)
def test_gradients_go_where_they_should(name):
    method = METHODS[name]()
    got = gradients(method)
    expected = {"encoder": True, "projector": True}
    expected |= {"target": False} if name in ("moco_v2", "byol") else {}
    expected |= {"predictor": True} if name in ("byol", "simsiam") else {}
    expected |= {"prototypes": True} if name == "swav" else {}
    assert got == expected


@pytest.mark.parametrize("stopping", [True, False])
def test_stop_gradient_stops_the_other_side(stopping):
    torch.manual_seed(0)
    method = METHODS["simsiam"](stopping=stopping)
    z0, z1 = torch.randn(2, 16, 128, requires_grad=True).unbind()
    method.predictor = nn.Sequential(nn.Flatten())  # the identity: now what comes by the target's side is easily told
    loss = method.loss(z0, z1, z0, z1)
    (gradient,) = torch.autograd.grad(loss, z0)
    expected = -F.cosine_similarity(z0, z1.detach()).mean() / (2 if stopping else 1)
    assert torch.allclose(gradient, torch.autograd.grad(expected, z0)[0], atol=1e-7)


def test_each_view_is_told_by_the_other_ones_target():
    torch.manual_seed(0)
    x0, x1 = torch.rand(2, 16, 1, 8, 8)
    method = METHODS["byol"](predicting=False)
    t0, t1 = method.target(x0), method.target(x1)
    assert method.loss(t1, t0, x0, x1).item() == pytest.approx(0.0, abs=1e-5)
    assert method.loss(t0, t1, x0, x1).item() > 0.1
    method = METHODS["moco_v2"]()
    k0, k1 = method.target(x0), method.target(x1)
    queue = method.queue.clone()
    expected = (moco_v2.info_nce(k1, k1, queue, 0.2) + moco_v2.info_nce(k0, k0, queue, 0.2)) / 2
    assert method.loss(k1, k0, x0, x1).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["moco_v2", "byol"])
def test_target_follows_by_its_momentum(name):
    torch.manual_seed(0)
    method = METHODS[name]()
    before = [p.clone() for p in method.target.parameters()]
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(1.0)
    for parameter in method.target.parameters():
        parameter.sub_(1.0)  # only the online network has moved
    method.stepped()
    for old, new in zip(before, method.target.parameters(), strict=True):
        assert torch.allclose(new, old + 0.01, atol=1e-6)


def test_target_is_constant_to_the_gradient_and_normalises_by_the_batch():
    torch.manual_seed(0)
    method = METHODS["byol"]()
    x = torch.rand(16, 1, 8, 8)
    outputs = method.target(x)
    assert not outputs.requires_grad
    assert torch.allclose(outputs, method(x), atol=1e-5)
    assert isinstance(method.target, Target)


def test_predictor_and_terms_can_be_taken_away(views):
    assert isinstance(METHODS["byol"](predicting=False).predictor, nn.Identity)
    z0, z1 = views
    c = METHODS["barlow_twins"](off_diagonal=0.0).loss(z0, z1, z0, z1)
    assert c.item() == pytest.approx(0.05 * barlow_twins.redundancy(z0, z1, 0.0).item())
    whole, without = (METHODS["vicreg"](covariance=w).loss(z0, z1, z0, z1) for w in (1.0, 0.0))
    added = 0.04 * (vicreg.covariances(z0) + vicreg.covariances(z1))
    assert (whole - without).item() == pytest.approx(added.item(), rel=1e-9)


def trained(name, folder, **options):
    torch.manual_seed(0)
    method = METHODS[name]()
    batches = data.train_loader(data.load(), steps=6, batch_size=64)
    journal = train(method, batches, every_n_steps=2, journal=folder / "uniformity.jsonl", **options)
    return method, read_journal(journal)


@pytest.mark.parametrize("name", METHODS)
def test_each_trains_and_is_read(name, tmp_path):
    torch.manual_seed(0)
    start = METHODS[name]().state_dict()
    method, journal = trained(name, tmp_path)
    assert all(bool(value.isfinite().all()) for value in method.state_dict().values())
    assert not torch.equal(method.encoder[0][0].weight, start["encoder.0.0.weight"])
    assert [(r.step, r.layer, r.values["samples"]) for r in journal.readings] == [
        (step, "projector", 128) for step in (0, 2, 4)
    ]
    assert name in TITLES


def test_either_loss_is_added(tmp_path):
    plain, _ = trained("byol", tmp_path / "a")
    w2, journal = trained("byol", tmp_path / "b", auxiliary=WassersteinLoss(1.0))
    other, _ = trained("byol", tmp_path / "c", wang_isola=1.0)
    steps, weights = journal.series("aux_weight")
    assert weights == [1.0] * len(steps)
    weights = [method.projector[0].weight for method in (plain, w2, other)]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_wang_isola_loss_is_the_mean_over_views(views):
    expected = sum(functional.wang_isola_uniformity(view) for view in views) / 2
    assert wang_isola_loss(*views).item() == pytest.approx(expected.item())
    assert wang_isola_loss(*(torch.ones(4, 3),) * 2).item() == pytest.approx(0.0, abs=1e-6)


def test_command_prints_readings_and_accuracies(tmp_path, capsys):
    command.main(["simclr", "--steps", "21", "--auxiliary", "0.5", "--folder", str(tmp_path)])
    out = capsys.readouterr().out
    assert "nearest neighbour 0." in out
    assert [line.split()[0] for line in out.splitlines() if " 512 " in line] == ["0", "20"]
