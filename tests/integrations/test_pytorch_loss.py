"""The loss that a monitor adds in a plain loop has the gradients of one that is written there by hand."""

import pytest
import torch
from plain import ROWS, Checkpointed, Net, Reentrant, as_it_is, batches, by_hand, made, readings, sgd, train, watched
from torch import nn

from uniformity_callbacks import LinearDecay, WassersteinLoss

pytestmark = pytest.mark.usefixtures("own_place")
SINGLE, DOUBLE = torch.float32, torch.float64

CASES = {
    "plain": {},
    "accumulation": {"parts": 4},
    "clipping": {"clip": 0.05},
    "bf16": {"amp": torch.bfloat16},
    "fp16": {"amp": torch.float16, "scaler": 1024.0},
    "fp16, accumulation, clipping": {"amp": torch.float16, "scaler": 64.0, "parts": 4, "clip": 0.05},
    "checkpointed": {"kind": Checkpointed},
    "reentrant": {"kind": Reentrant},
    "reentrant, accumulation": {"kind": Reentrant, "parts": 4},
}


def gradients(add, case, dtype, auxiliary=None, **arguments):
    case = {"dtype": dtype, **case}
    model = made(case.pop("kind", Net), dtype)
    optimizer = sgd(model)
    if "scaler" in case:
        case["scaler"] = torch.amp.GradScaler("cpu", init_scale=case["scaler"])
    if add is not None:
        return train(model, add, optimizer=optimizer, **case)
    with watched(model, optimizer, auxiliary=auxiliary, **arguments) as monitor:
        used = train(model, lambda loss, *z: monitor.add_auxiliary(loss), optimizer=optimizer, **case)
    assert monitor.monitor.faults.count == 0
    assert readings(monitor) == [(k, 2 * ROWS * case.get("parts", 1)) for k in (0, 2, 4)]
    return used


def flat(gradients):
    return torch.cat([g.flatten().double() for step in gradients for g in step])


def assert_same(got, expected, without, dtype):
    effect = (flat(expected) - flat(without)).norm()
    assert effect > 0.01 * flat(expected).norm()
    assert (flat(got) - flat(expected)).norm() <= {SINGLE: 1e-4, DOUBLE: 1e-8}[dtype] * effect


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_loss_by_hand(name, dtype):
    case = CASES[name]
    if "amp" in case and dtype == DOUBLE:
        dtype = SINGLE  # autocast leaves float64 alone
    expected = gradients(by_hand(0.7), case, dtype)
    without = gradients(as_it_is, case, dtype)
    assert_same(gradients(None, case, dtype, auxiliary=0.7), expected, without, dtype)


def by_svdvals(weight):
    """W2 from its definition, by torch's own gradient: |mu|^2 + 1 + tr S - 2 tr S^(1/2) / sqrt(d)."""

    def add(total, z0, z1):
        z = nn.functional.normalize(torch.cat([z0, z1]).double(), dim=1)
        centred = z - z.mean(0)
        root = torch.linalg.svdvals(centred).sum() / len(z) ** 0.5
        squared = z.mean(0).square().sum() + 1 + centred.square().sum() / len(z) - 2 * root / z.shape[1] ** 0.5
        return total + weight * squared.sqrt().to(total.dtype)

    return add


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
@pytest.mark.parametrize("name", ["plain", "accumulation", "clipping", "reentrant"])
def test_gradients_are_those_of_the_formula(name, dtype):
    expected, without = (gradients(add, CASES[name], dtype) for add in (by_svdvals(0.7), as_it_is))
    assert_same(gradients(None, CASES[name], dtype, auxiliary=0.7), expected, without, dtype)


class Two(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 5)
        self.seen = []

    def forward(self, x):
        z = super().forward(x)
        y = self.head(z)
        self.seen += [z, y]
        return y


@pytest.mark.parametrize("dtype", [SINGLE, DOUBLE])
def test_of_several_layers(dtype):
    loss = WassersteinLoss(0.7)

    def add(total, y0, y1):
        z0, y0, z1, y1 = model.seen[-4:]
        return total + loss(z0, z1) + loss(y0, y1)

    model = made(Two, dtype)
    expected = train(model, add, dtype=dtype)
    without = train(made(Two, dtype), as_it_is, dtype=dtype)
    model = made(Two, dtype)
    with watched(model, optimizer := sgd(model), layer=["projector", "head"], auxiliary=0.7) as monitor:
        got = train(model, lambda t, *z: monitor.add_auxiliary(t), optimizer=optimizer, dtype=dtype)
    assert_same(got, expected, without, dtype)
    assert {"uniformity/projector/aux_loss", "uniformity/head/aux_loss"} < set(monitor.last)


def test_weight_decays_over_the_steps():
    model = made()
    with watched(model, optimizer := sgd(model), auxiliary=LinearDecay(1.0), total_steps=6, every_n_steps=1) as monitor:
        train(model, lambda loss, *z: monitor.add_auxiliary(loss), optimizer=optimizer)
        monitor.collect()
        assert monitor.last["uniformity/aux_weight"] == pytest.approx(1 / 6)


def test_micro_batches_whose_losses_are_summed_before_one_backward():
    def run(add):
        model = made(dtype=DOUBLE)
        used = []
        with watched(model, optimizer := sgd(model), auxiliary=None if add else 0.7) as monitor:
            add = add or (lambda loss, *z: monitor.add_auxiliary(loss))
            for micro in batches(3, parts=3, dtype=DOUBLE):
                total = 0.0
                for x0, x1 in micro:
                    z0, z1 = model(x0), model(x1)
                    total = total + add(distance_of(z0, z1), z0, z1)
                total.backward()
                used.append([p.grad.clone() for p in model.parameters()])
                optimizer.step()
                optimizer.zero_grad()
        return used, readings(monitor)

    def distance_of(z0, z1):
        return (z0 - z1).square().mean()

    expected, _ = run(by_hand(0.7))
    without, _ = run(as_it_is)
    got, seen = run(None)
    assert_same(got, expected, without, DOUBLE)
    assert seen == [(0, 6 * ROWS), (2, 6 * ROWS)]


def test_a_skipped_step_starts_a_clean_collection():
    """A gradient that overflows: GradScaler skips the step, and what was collected for it is thrown away."""
    model = made(dropout=0.0)
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=10**6)
    seen, lengths = [], []
    with watched(model, optimizer, every_n_steps=1) as monitor:
        for k, ((x0, x1),) in enumerate(batches(8)):
            with torch.autocast("cpu", dtype=torch.float16):
                z0, z1 = model(x0), model(x1)
                loss = (z0 - z1).square().mean() * (float("inf") if k in (0, 3, 4) else 1.0)
            optimizer.zero_grad()  # before or after: both are usual
            scaler.scale(loss).backward()
            before = monitor.step
            scaler.step(optimizer)
            scaler.update()
            if monitor.step > before:
                lengths.append(torch.cat([z0, z1]).float().norm(dim=1).mean().item())
            seen.append(monitor.step)
    assert seen == [0, 1, 2, 2, 2, 3, 4, 5]
    assert readings(monitor) == [(k, 2 * ROWS) for k in range(5)]
    from uniformity_callbacks import read_journal

    _, read = read_journal(monitor.journal).series("norm_mean")
    assert read == pytest.approx(lengths, rel=1e-6)


def test_lbfgs_has_the_loss_in_each_evaluation_and_the_reading_of_the_first():
    def run(add):
        model = made(dropout=0.0, dtype=DOUBLE)
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
        first = []
        with watched(model, optimizer, every_n_steps=1, auxiliary=None if add else 0.7) as monitor:
            add = add or (lambda loss, *z: monitor.add_auxiliary(loss))
            for ((x0, x1),) in batches(3, dtype=DOUBLE):
                norms = []

                def closure(x0=x0, x1=x1, norms=norms):
                    optimizer.zero_grad()
                    z0, z1 = model(x0), model(x1)
                    norms.append(torch.cat([z0, z1]).norm(dim=1).mean().item())
                    loss = add((z0 - z1).square().mean(), z0, z1)
                    loss.backward()
                    return loss

                optimizer.step(closure)
                assert len(norms) > 2
                first.append(norms[0])
        from uniformity_callbacks import read_journal

        assert read_journal(monitor.journal).series("norm_mean")[1] == pytest.approx(first, rel=1e-12)
        assert readings(monitor) == [(k, 2 * ROWS) for k in range(3)]
        return [[p.detach() for p in model.parameters()]]

    got = run(None)
    assert_same(got, run(by_hand(0.7)), run(as_it_is), DOUBLE)


class Distance(nn.Module):
    def __init__(self, wrap=None):
        super().__init__()
        self.wrap = wrap

    def forward(self, z0, z1):
        loss = (z0 - z1).square().mean()
        return loss if self.wrap is None else self.wrap(loss)


@pytest.mark.parametrize("wrap", [None, lambda loss: {"loss": loss, "other": 1}])
def test_a_criterion_named_needs_no_edit_of_the_loop(wrap):
    def run(weight, by_criterion):
        model, criterion = made(dtype=DOUBLE), Distance(wrap)
        optimizer = sgd(model)
        monitor = None
        if by_criterion:
            monitor = watched(model, optimizer, criterion=criterion, auxiliary=weight)
        used = []
        for micro in batches(4, parts=2, dtype=DOUBLE):
            for x0, x1 in micro:
                z0, z1 = model(x0), model(x1)
                loss = criterion(z0, z1)
                loss = loss if wrap is None else loss["loss"]
                (loss if by_criterion else by_hand(weight)(loss, z0, z1)).backward()
            used.append([p.grad.clone() for p in model.parameters()])
            with torch.no_grad():
                model.eval()
                z = model(x0)
                assert criterion(z, z) == 0.0 if wrap is None else criterion(z, z)["loss"] == 0.0
                model.train()
            assert (criterion(z, z) if wrap is None else criterion(z, z)["loss"]) == 0.0  # no gradient to add to
            optimizer.step()
            optimizer.zero_grad()
        if by_criterion:
            monitor.close()
            assert monitor.monitor.faults.count == 0
        return used

    assert_same(run(0.7, True), run(0.7, False), run(0.0, False), DOUBLE)
