"""Under DistributedDataParallel and FSDP the parameter gradients are those of one process with all rows."""

import contextlib

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from loops import Model
from spread import spread
from uniformity_callbacks import LinearDecay, UniformityMonitor, WassersteinLoss

ROWS = 12
STEPS = 4


class Partly(Model):
    """With parameters that no step uses."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(4, 4)


class Checkpointed(Model):
    def forward(self, x):
        return self.projector(checkpoint(self.encoder, x, use_reentrant=False))


class Step(nn.Module):
    """What Lightning has DistributedDataParallel wrap: the whole training step."""

    def __init__(self, model, add):
        super().__init__()
        self.model, self.add = model, add

    def forward(self, x0, x1):
        z0, z1 = self.model(x0), self.model(x1)
        return self.add((z0 - z1).square().mean(), z0, z1)


def gradients(model, step, case, directory, share):
    """Gradients after each of some steps, each of one or more accumulated batches."""
    monitor = UniformityMonitor("projector", every_n_steps=2, auxiliary=case.get("auxiliary", 0.7), scope=case["scope"])
    monitor.attach(model, directory=directory, total_steps=STEPS)
    inside, accumulate, out = case.get("inside", True), case.get("accumulate", 1), []
    step = step(Step(model, lambda loss, z0, z1: monitor.add_auxiliary(loss) if inside else loss))
    for k in range(STEPS):
        model.zero_grad(set_to_none=True)
        for part in range(accumulate):
            # static_graph fails within torch where its very first backward is not synchronised.
            synced = part == accumulate - 1 or (k == 0 and case.get("ddp", {}).get("static_graph"))
            generator = torch.Generator().manual_seed(10 * k + part)
            x = torch.randn(2, ROWS, 4, generator=generator, dtype=torch.float64).to(case["dtype"])
            with contextlib.nullcontext() if synced else step.no_sync():
                monitor.begin(k)
                loss = step(*share(x))
                loss = loss if inside else monitor.add_auxiliary(loss)
                monitor.pause()
                (loss / accumulate).backward()
                monitor.end_pass()
        monitor.finish()
        out.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()])
        with torch.no_grad():
            for p, grad in zip(model.parameters(), out[-1], strict=True):
                p -= 0.3 * grad
    monitor.close(together=True)
    assert monitor.faults.count == 0
    return out


def built(case):
    torch.manual_seed(0)
    return case.get("kind", Model)().to(case["dtype"])


def parallel(rank, size, directory, case):
    return gradients(
        built(case),
        lambda step: DistributedDataParallel(step, **case.get("ddp", {})),
        case,
        directory,
        lambda x: x.chunk(size, dim=1)[rank],
    )


class Alone(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, *args):
        return self.step(*args)

    no_sync = contextlib.nullcontext


CASES = {
    "plain": {},
    "outside": {"inside": False},
    "accumulate": {"accumulate": 2},
    "accumulate 4, outside": {"accumulate": 4, "inside": False},
    "unused": {"kind": Partly, "ddp": {"find_unused_parameters": True}, "accumulate": 2},
    "static graph": {"ddp": {"static_graph": True}},
    "static graph, accumulate": {"ddp": {"static_graph": True}, "accumulate": 2},
    "bucket views": {"ddp": {"gradient_as_bucket_view": True, "bucket_cap_mb": 1e-4}, "accumulate": 2},
    "checkpointed": {"kind": Checkpointed, "ddp": {"static_graph": True}},
    "schedule": {"auxiliary": WassersteinLoss(LinearDecay(2.0, 0.5))},
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_one_process_with_all_rows(tmp_path, case, dtype, tolerance):
    case = {**CASES[case], "dtype": dtype, "scope": "global"}
    expected = gradients(built(case), Alone, case, tmp_path / "alone", tuple)
    without = gradients(built(case), Alone, {**case, "auxiliary": 0.0}, tmp_path / "without", tuple)
    for got in spread(2, parallel, 2, tmp_path, case):
        for mine, theirs, plain in zip(got, expected, without, strict=True):
            scale = torch.cat([g.flatten() for g in theirs]).norm()
            assert all((a - b).norm() <= tolerance * scale for a, b in zip(mine, theirs, strict=True))
            assert any((a - b).norm() > 0.01 * scale for a, b in zip(plain, theirs, strict=True))


def test_scope_rank_averages_the_losses_of_the_ranks(tmp_path):
    case = {"dtype": torch.float64, "scope": "rank"}
    alone = [
        gradients(built(case), Alone, case, tmp_path / str(rank), lambda x, rank=rank: x.chunk(2, dim=1)[rank])[0]
        for rank in range(2)
    ]
    for got in spread(2, parallel, 2, tmp_path, case):
        for mine, a, b in zip(got[0], *alone, strict=True):
            torch.testing.assert_close(mine, (a + b) / 2)


def sharded(rank, size, directory):
    """The same under FSDP's second version, which averages gradients too; one forward pass for both views."""
    model = built({"dtype": torch.float64})
    if size > 1:
        mesh = init_device_mesh("cpu", (size,))
        for module in (model.encoder, model.projector, model):
            fully_shard(module, mesh=mesh)
    monitor = UniformityMonitor("projector", views=2, every_n_steps=1, auxiliary=0.7)
    monitor.attach(model, directory=directory)
    x = torch.randn(2, ROWS, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    monitor.begin(0)
    z0, z1 = model(x.chunk(size, dim=1)[rank].flatten(0, 1)).chunk(2)
    loss = monitor.add_auxiliary((z0 - z1).square().mean())
    monitor.pause()
    loss.backward()
    monitor.end_pass()
    monitor.finish()
    monitor.close(together=True)
    return [p.grad.full_tensor() if size > 1 else p.grad for p in model.parameters()], monitor.last


def test_sharded_parameters(tmp_path):
    expected, last = sharded(0, 1, tmp_path / "alone")
    for gradients, values in spread(2, sharded, 2, tmp_path):
        assert values == pytest.approx(last, rel=1e-10)
        for mine, theirs in zip(gradients, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
