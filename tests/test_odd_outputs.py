"""Outputs that no healthy layer has, from the second step on: never an error, and each reading says what it was."""

import math

import pytest
import torch
from torch import nn

from uniformity_callbacks import CollapseAlert, UniformityMonitor, read_journal
from uniformity_callbacks.panel import METRICS

ODD = {
    "NaN": lambda z: z * math.nan,
    "a NaN": lambda z: torch.cat([z[:1] * math.nan, z[1:]]),
    "inf": lambda z: z * math.inf,
    "float16 overflow": lambda z: (z * 1e5).half(),
    "float16": lambda z: z.half(),
    "bfloat16": lambda z: z.bfloat16(),
    "1e300": lambda z: z.double() * 1e300,
    "denormal": lambda z: z * 1e-42,
    "zeros": lambda z: z * 0,
    "ones": lambda z: z * 0 + 1,
    "a zero row": lambda z: torch.cat([z[:1] * 0, z[1:]]),
    "no rows": lambda z: z[:0],
    "one row": lambda z: z[:1],
    "two rows": lambda z: z[:2],
    "fewer rows than dimensions": lambda z: z[:5],
    "no dimensions": lambda z: z[:, :0],
    "one dimension": lambda z: z[:, :1],
    "a number": lambda z: z.sum(),
    "a vector": lambda z: z[:, 0],
    "maps": lambda z: z.reshape(4, 2, 4, 8),
    "integers": lambda z: z.round().long(),
    "booleans": lambda z: z > 0,
    "complex": lambda z: z.to(torch.complex64),
    "not contiguous": lambda z: z.t().contiguous().t(),
    "sparse": lambda z: z.to_sparse(),
    "a tuple": lambda z: (z, z),
    "None": lambda z: None,
}
NO_SAMPLE = {"a number", "a vector", "maps", "integers", "booleans", "complex", "sparse", "a tuple", "None"}
NO_SAMPLE |= {"no dimensions"}
"""The reading says why it has no values."""

NO_ROWS = {"NaN", "inf", "no rows"}
"""Its values are NaN."""

ONE_POINT = {"zeros", "ones", "denormal"}


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.projector = Turns(4, 8)


class Turns(nn.Linear):
    turn = None

    def forward(self, x):
        z = super().forward(x)
        return z if self.turn is None else self.turn(z)


def trained(turn, monitor, folder):
    """Weights, and the random state, after six steps; the odd outputs of the third and fourth go nowhere."""
    torch.manual_seed(0)
    model = Odd()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if monitor is not None:
        monitor.attach(model, directory=folder)
    for k in range(6):
        if monitor is not None:
            monitor.begin(k)
        batch = torch.randn(2, 32, 4)
        model.projector.turn = turn if k in (2, 3) else None
        odd = [model.projector(x) for x in batch]
        model.projector.turn = None
        z0, z1 = odd if k not in (2, 3) else (nn.functional.linear(x, model.projector.weight) for x in batch)
        loss = (z0 - z1).square().mean()
        if monitor is not None:
            loss = monitor.add_auxiliary(loss)
            monitor.pause()
        optimizer.zero_grad()
        loss.backward()
        if monitor is not None:
            monitor.end_pass()
        optimizer.step()
        if monitor is not None:
            monitor.finish()
    if monitor is not None:
        monitor.close()
    return [p.detach() for p in model.parameters()], torch.get_rng_state()


@pytest.mark.parametrize("name", ODD)
def test_an_odd_output(name, tmp_path):
    got = []
    monitor = UniformityMonitor(
        "projector",
        every_n_steps=1,
        metrics=list(METRICS),
        alerts=[CollapseAlert("blind", warmup_steps=0)],
        writers=[lambda values, step: got.append((step, values))],
    )
    weights, random = trained(ODD[name], monitor, tmp_path)
    bare, as_before = trained(ODD[name], None, tmp_path)
    assert all(map(torch.equal, weights, bare))
    assert torch.equal(random, as_before)
    readings = read_journal(monitor.journal).readings
    assert [r.step for r in readings] == [step for step, _ in got] == list(range(6))
    odd = readings[2:4]
    for reading in odd:
        if name in NO_SAMPLE:
            assert set(reading.values) == {"samples", "nonfinite"}
            assert "projector: output=None gives" in reading.why
        elif name in NO_ROWS:
            assert math.isnan(reading.values["w2"])
            assert reading.values["samples"] == 0
        elif name in ONE_POINT:
            assert reading.values["w2"] == pytest.approx(math.sqrt(2))
        else:
            assert 0 < reading.values["w2"] < math.sqrt(2)
            assert reading.why is None or reading.why == ""
        assert (reading.values["nonfinite"] > 0) == (name in {"NaN", "a NaN", "inf", "float16 overflow"})
    assert [a.kind for a in read_journal(monitor.journal).alerts] == (["blind"] if name in NO_SAMPLE else [])
    assert math.isfinite(readings[5].values["w2"])
