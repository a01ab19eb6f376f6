"""Loops of Fabric and of Accelerate: the same call, the same numbers as the plain loop's."""

import os

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from lightning.fabric import Fabric
from plain import ROWS, batches, by_hand, made, readings, sgd, train
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spread import spread
from uniformity_callbacks import read_journal
from uniformity_callbacks.integrations.pytorch import watch

pytestmark = pytest.mark.usefixtures("own_place")
DOUBLE = torch.float64
STEPS = 6


@pytest.fixture(autouse=True)
def _accelerate_anew():
    """Accelerate keeps its first settings for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def fabric_loop(parts=1, precision="32-true", given="wrapped", compiled=False, **arguments):
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    fabric.launch()
    bare = made()
    inner = sgd(bare)
    model, optimizer = fabric.setup(torch.compile(bare, backend="eager") if compiled else bare, inner)
    chosen = {"wrapped": (model, optimizer), "bare": (bare, inner)}[given]
    with watch(chosen[0], optimizer=chosen[1], every_n_steps=2, alerts=None, **arguments) as monitor:
        for micro in batches(STEPS, parts=parts):
            for part, (x0, x1) in enumerate(micro):
                with fabric.no_backward_sync(model, enabled=part < parts - 1):
                    loss = (model(x0) - model(x1)).square().mean()
                    fabric.backward(monitor.add_auxiliary(loss) / parts)
            optimizer.step()
            optimizer.zero_grad()
    assert monitor.monitor.faults.count == 0
    return bare, monitor


def accelerate_loop(parts=1, precision="no", given="wrapped", **arguments):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=parts, mixed_precision=precision)
    bare = made()
    inner = sgd(bare)
    model, optimizer = accelerator.prepare(bare, inner)
    chosen = {"wrapped": (model, optimizer), "bare": (bare, inner)}[given]
    with watch(chosen[0], optimizer=chosen[1], every_n_steps=2, alerts=None, **arguments) as monitor:
        for x0, x1 in (views for micro in batches(STEPS, parts=parts) for views in micro):
            with accelerator.accumulate(model):
                loss = (model(x0) - model(x1)).square().mean()
                accelerator.backward(monitor.add_auxiliary(loss))
                optimizer.step()
                optimizer.zero_grad()
    assert monitor.monitor.faults.count == 0
    return bare, monitor


LOOPS = [fabric_loop, accelerate_loop]


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("given", ["wrapped", "bare"])
@pytest.mark.parametrize("loop", LOOPS)
def test_trains_as_the_plain_loop_with_the_loss_by_hand(loop, given, parts):
    model, monitor = loop(parts, given=given, auxiliary=0.7)
    expected = made()
    train(expected, by_hand(0.7), STEPS, parts=parts)
    without = made()
    train(without, by_hand(0.0), STEPS, parts=parts)
    effect = sum((a - b).norm() for a, b in zip(expected.parameters(), without.parameters(), strict=True))
    apart = sum((a - b).norm() for a, b in zip(expected.parameters(), model.parameters(), strict=True))
    assert apart <= 1e-4 * effect
    assert readings(monitor) == [(k, 2 * ROWS * parts) for k in range(0, STEPS, 2)]
    assert monitor.step == STEPS


@pytest.mark.parametrize(("loop", "precision"), [(fabric_loop, "bf16-mixed"), (accelerate_loop, "bf16")])
def test_mixed_precision_and_accumulation(loop, precision):
    model, monitor = loop(2, precision, auxiliary=0.7)
    expected = made()
    train(expected, by_hand(0.7), STEPS, parts=2, amp=torch.bfloat16)
    for mine, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0.02, atol=2e-3)
    assert readings(monitor) == [(k, 4 * ROWS) for k in range(0, STEPS, 2)]


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_compiled_and_wrapped_by_fabric():
    _, monitor = fabric_loop(2, compiled=True)
    assert readings(monitor) == [(k, 4 * ROWS) for k in range(0, STEPS, 2)]


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.projector = nn.Linear(6, 16), nn.Linear(16, 8)

    def forward(self, x):
        return self.projector(self.encoder(x).relu())


def data():
    return torch.randn(64, 6, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)


def small():
    torch.manual_seed(0)
    return Small().to(DOUBLE)


def one_process(directory):
    model = small()
    optimizer = sgd(model)
    with watch(
        model, optimizer=optimizer, every_n_steps=2, alerts=None, auxiliary=0.7, journal=directory / "one.jsonl"
    ) as monitor:
        for x in data().split(16):
            monitor.add_auxiliary((model(x) - model(x.flip(1))).square().mean()).backward()
            optimizer.step()
            optimizer.zero_grad()
    return [p.detach() for p in model.parameters()], read_journal(monitor.journal)


def on_two(rank, directory, by):
    os.chdir(directory)
    os.environ |= {"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    bare = small()
    # Dealt out in turn, batch by batch: each rank has every other row of what one process has.
    rows = DataLoader(TensorDataset(data()[rank::2]), batch_size=8)
    if by == "fabric":
        wrapper = Fabric(accelerator="cpu", devices=2, strategy="ddp")
        wrapper.launch()
        model, optimizer = wrapper.setup(bare, sgd(bare))
    else:
        wrapper = Accelerator(cpu=True)
        model, optimizer = wrapper.prepare(bare, sgd(bare))
    assert isinstance(getattr(model, "_forward_module", model), nn.parallel.DistributedDataParallel)
    monitor = watch(model, "projector", optimizer=optimizer, every_n_steps=2, alerts=None, auxiliary=0.7)
    for (x,) in rows:
        loss = monitor.add_auxiliary((model(x) - model(x.flip(1))).square().mean())
        wrapper.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    monitor.close(together=True)
    assert monitor.monitor.faults.count == 0
    return [p.detach() for p in bare.parameters()], monitor.layers


@pytest.mark.parametrize("by", ["fabric", "accelerate"])
def test_two_processes_are_one(tmp_path, by):
    expected, alone = one_process(tmp_path)
    for weights, _ in spread(2, on_two, tmp_path, by):
        for mine, its in zip(weights, expected, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-8, atol=1e-10)
    both = read_journal(tmp_path / "uniformity.jsonl")
    assert [r.step for r in both.readings] == [0, 2]
    for mine, its in zip(both.readings, alone.readings, strict=True):
        assert mine.values == pytest.approx(its.values, rel=1e-8)
