"""The same on a GPU, where there is one: the loss, steps that are not due, and a ResNet-18's step."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import baselines, page
from benchmarks.loops import Loop
from benchmarks.pairs import ROUNDS, Spread, in_turns, ratio, say
from benchmarks.resnet import ResNet18, contrast
from benchmarks.rows import isotropic
from benchmarks.works import gradient_of
from uniformity_callbacks import functional
from uniformity_callbacks.integrations.pytorch import watch

NOT_MEASURED = "Not measured: this machine has no GPU that torch can use."

EVERY = 50
BATCH = 512


def run(*, tiny: bool = False) -> str:
    """Measure all, and return a table in Markdown; or say that there is nothing to measure on."""
    if not torch.cuda.is_available():
        return NOT_MEASURED
    n, batch, every = (64, 16, 4) if tiny else (512, BATCH, EVERY)
    rows = [*loss_rows("cuda", n, wide=128 if tiny else 2048), _off_step_row(n), *network_rows("cuda", batch, every)]
    return page.table(["on the GPU", "measured (quartiles)", "to reach"], rows)


def loss_rows(device: str, n: int, *, wide: int) -> list[list[str]]:
    """Time the loss, and wider also that of autograd."""
    ours, theirs = gradient_of(functional.wasserstein_uniformity), gradient_of(baselines.eigh_w2)
    z = isotropic(n, 256).to(device)
    seconds = Spread.of(in_turns({"loss": partial(ours, z)}, title="loss")["loss"])
    wider = isotropic(n, wide).to(device)
    times = in_turns({"ours": partial(ours, wider), "theirs": partial(theirs, wider)}, title="against eigh")
    over = page.spread(ratio(times["theirs"], times["ours"]))
    return [
        [f"the loss, value and gradient, {n} x 256", f"{page.spread(seconds.scaled(1e3))} ms", "at most 0.5 ms"],
        [f"autograd through `eigh` against it, {n} x {wide}", f"{over} x", "at least 20 x"],
    ]


def _off_step_row(n: int) -> list[str]:
    """Take steps that are not due while torch raises at whatever waits for the GPU."""
    loop = Loop.of(n // 2, 256, device="cuda")
    with TemporaryDirectory() as folder:
        monitor = _watched(loop, folder, every_n_steps=10**9)
        loop()
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            loop.steps(10)
            found = "none"
        except RuntimeError as error:
            found = str(error).splitlines()[0]
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            monitor.close()
    return ["waits for the GPU in steps that are not due", found, "none"]


def network_rows(device: str, batch: int, every: int, *, rounds: int = 2 * ROUNDS) -> list[list[str]]:
    """Take ``every`` steps of a ResNet-18 in bfloat16, bare, with the monitor and with the loss."""
    say(f"ResNet-18, batch {batch}")
    loops = {name: _resnet_loop(device, batch) for name in ("bare", "monitor", "loss")}
    with TemporaryDirectory() as folder:
        monitors = [
            _watched(loops["monitor"], f"{folder}/monitor", every_n_steps=every),
            _watched(loops["loss"], f"{folder}/loss", every_n_steps=10**9, auxiliary=0.1),
        ]
        for loop in loops.values():
            loop.steps(every)
        times = in_turns({name: partial(loop.steps, every) for name, loop in loops.items()}, rounds=rounds)
        for monitor in monitors:
            monitor.close()
    step = 1e3 * Spread.of(times["bare"]).median / every
    return [
        [f"ResNet-18, 32 x 32, bf16, batch {batch}, {step:.1f} ms a step: {name}", page.longer(over), most]
        for name, over, most in (
            ("the loss", ratio(times["loss"], times["bare"]), "at most 2 %"),
            (f"the monitor, every {every} steps", ratio(times["monitor"], times["bare"]), "at most 0.2 %"),
        )
    ]


def _resnet_loop(device: str, batch: int) -> Loop:
    torch.manual_seed(0)
    model = ResNet18().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    views = torch.randn(2, batch // 2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    return Loop(model, optimizer, list(views), criterion=contrast, autocast=device)


def _watched(loop: Loop, folder: str, **options: Any) -> Any:
    journal = Path(folder) / "uniformity.jsonl"
    journal.parent.mkdir(exist_ok=True)
    loop.monitor = watch(loop.model, optimizer=loop.optimizer, journal=journal, alerts=None, **options)
    return loop.monitor
