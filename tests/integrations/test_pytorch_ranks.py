"""Plain loops on two ranks: the numbers and gradients are those of one process with all rows."""

import os

import pytest
import torch
from plain import Checkpointed, by_hand
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from spread import spread
from uniformity_callbacks import CollapseAlert, WassersteinLoss, read_journal
from uniformity_callbacks.integrations.pytorch import watch

STEPS, ROWS = 5, 32
DOUBLE = torch.float64


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.projector = nn.Linear(4, 16), nn.Linear(16, 8)

    def forward(self, x):
        return self.projector(self.encoder(x).relu())


def rows(k, part):
    return torch.randn(2, ROWS, 4, generator=torch.Generator().manual_seed(10 * k + part), dtype=DOUBLE)


def loop(model, optimizer, add, rank=0, size=1, parts=1, sync=None):
    """Gradients that each step used."""
    used = []
    for k in range(STEPS):
        for part in range(parts):
            x0, x1 = rows(k, part).chunk(size, dim=1)[rank]
            z0, z1 = model(x0), model(x1)
            (add((z0 - z1).square().mean(), z0, z1) / parts).backward()
        grads = [p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in model.parameters()]
        used.append(torch.cat([grad.flatten() for grad in grads]).clone())
        optimizer.step()
        optimizer.zero_grad()
    return torch.stack(used)


def made():
    torch.manual_seed(0)
    return Small().to(DOUBLE)


def ddp(model):
    return DistributedDataParallel(model)


def sharded(model):
    mesh = init_device_mesh("cpu", (2,))
    for module in (model.encoder, model.projector, model):
        fully_shard(module, mesh=mesh)
    return model


WRAPS = {"ddp": ddp, "fsdp": sharded}


def on_a_rank(rank, directory, wrap, inside, parts, auxiliary):
    os.chdir(directory)
    bare = made()
    model = WRAPS[wrap](bare)
    optimizer = SGD(model.parameters(), lr=0.3)
    monitor = watch(
        bare if inside else model, "projector", optimizer=optimizer, every_n_steps=2, auxiliary=auxiliary, alerts=None
    )
    assert monitor.layers == ["projector"]
    used = loop(model, optimizer, lambda loss, *z: monitor.add_auxiliary(loss), rank, 2, parts)
    monitor.close(together=True)
    assert monitor.monitor.faults.count == 0
    return used, monitor.last, monitor.journal


@pytest.mark.parametrize("auxiliary", [None, 0.7])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(("wrap", "inside"), [("ddp", False), ("ddp", True), ("fsdp", False)])
def test_is_exact_over_all_rows(tmp_path, monkeypatch, wrap, inside, parts, auxiliary):
    monkeypatch.chdir(tmp_path)
    model = made()
    optimizer = SGD(model.parameters(), lr=0.3)
    with watch(model, optimizer=optimizer, every_n_steps=2, alerts=None, journal="alone.jsonl") as monitor:
        expected = loop(model, optimizer, by_hand(auxiliary or 0.0), parts=parts)
    alone = read_journal(monitor.journal)
    (used, last, journal), (other, other_last, nowhere) = spread(2, on_a_rank, tmp_path, wrap, inside, parts, auxiliary)
    torch.testing.assert_close(used, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(other, expected, rtol=1e-9, atol=1e-12)
    assert last == other_last
    assert nowhere is None
    both = read_journal(journal)
    assert [r.step for r in both.readings] == [0, 2, 4]
    for mine, its in zip(both.readings, alone.readings, strict=True):
        assert mine.values["samples"] == 2 * ROWS * parts
        assert {k: v for k, v in mine.values.items() if k in its.values} == pytest.approx(its.values, rel=1e-9)


def stops(rank, directory):
    os.chdir(directory)
    torch.manual_seed(0)
    model = Small()
    with torch.no_grad():
        model.projector.weight.mul_(1e-3)  # one point
    model = ddp(model)
    optimizer = SGD(model.parameters(), lr=0.0)
    rule = CollapseAlert("constant", patience=2, warmup_steps=0, action="stop")
    monitor = watch(model, optimizer=optimizer, every_n_steps=2, alerts=[rule], auxiliary=WassersteinLoss(when="alert"))
    for k in range(20):
        x0, x1 = rows(k, 0).float()
        monitor.add_auxiliary((model(x0) - model(x1)).square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        if monitor.should_stop:
            break
    monitor.close()
    return k


def test_ranks_stop_at_one_step(tmp_path):
    assert spread(2, stops, tmp_path) == [4, 4]
    (alert,) = read_journal(tmp_path / "uniformity.jsonl").alerts
    assert alert.kind == "constant"


def skips(rank, directory):
    """One rank's gradient overflows, and with it that of all."""
    os.chdir(directory)
    torch.manual_seed(0)
    model = ddp(Small())
    optimizer = SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    monitor = watch(model, optimizer=optimizer, every_n_steps=1, alerts=None)
    for k in range(4):
        x0, x1 = rows(k, 0).float().chunk(2, dim=1)[rank]
        with torch.autocast("cpu", dtype=torch.float16):
            loss = (model(x0) - model(x1)).square().mean()
        scaler.scale(loss * (float("inf") if k == 1 and rank == 1 else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    monitor.close()
    return monitor.step


def test_a_skipped_step_is_skipped_on_all(tmp_path):
    assert spread(2, skips, tmp_path) == [3, 3]
    readings = read_journal(tmp_path / "uniformity.jsonl").readings
    assert [(r.step, r.values["samples"]) for r in readings] == [(k, 2 * ROWS) for k in range(3)]


def forgets(rank, directory, forgetful):
    os.chdir(directory)
    model = ddp(Small())
    optimizer = SGD(model.parameters(), lr=0.1)
    monitor = watch(model, optimizer=optimizer, auxiliary=0.1)
    x0, x1 = rows(0, 0).float()
    loss = (model(x0) - model(x1)).square().mean()
    (loss if forgetful else monitor.add_auxiliary(loss)).backward()
    try:
        optimizer.step()
    except (ValueError, RuntimeError) as error:
        return str(error)
    return ""


def test_a_forgotten_loss_is_an_error_on_all_ranks(tmp_path):
    for message in spread(2, forgets, tmp_path, True):
        assert "add_auxiliary was not called in this step" in message


def resumes(rank, directory, first):
    os.chdir(directory)
    torch.manual_seed(0)
    model = ddp(Small().to(DOUBLE))
    optimizer = SGD(model.parameters(), lr=0.1)
    monitor = watch(model, optimizer=optimizer, every_n_steps=2, auxiliary=0.1)
    if not first:
        monitor.load_state_dict(torch.load(f"state-{rank}.pt", weights_only=True))
    loop(model, optimizer, lambda loss, *z: monitor.add_auxiliary(loss), rank, 2)
    torch.save(monitor.state_dict(), f"state-{rank}.pt")
    monitor.close(together=True)
    return monitor.step


def test_both_ranks_resume(tmp_path):
    assert spread(2, resumes, tmp_path, True) == [5, 5]
    assert spread(2, resumes, tmp_path, False) == [10, 10]
    journal = read_journal(tmp_path / "uniformity.jsonl")
    assert [r.step for r in journal.readings] == [0, 2, 4, 6, 8]


def checkpointed(rank, directory):
    os.chdir(directory)
    torch.manual_seed(0)
    bare = Checkpointed(dropout=0.0)
    model = DistributedDataParallel(bare, static_graph=True)
    optimizer = SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer=optimizer, every_n_steps=1, alerts=None) as monitor:
        for k in range(3):
            x0, x1 = torch.randn(2, ROWS, 6, generator=torch.Generator().manual_seed(k)).chunk(2, dim=1)[rank]
            (model(x0) - model(x1)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    return monitor.monitor.faults.count


def test_checkpointed_layers_are_seen_once(tmp_path):
    assert spread(2, checkpointed, tmp_path) == [0, 0]
    readings = read_journal(tmp_path / "uniformity.jsonl").readings
    assert [(r.step, r.values["samples"]) for r in readings] == [(k, 2 * ROWS) for k in range(3)]
