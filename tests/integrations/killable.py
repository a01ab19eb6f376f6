"""Trainings on digits in processes of their own that end as they should not, and are resumed."""

import logging
import multiprocessing
import os
import random
import signal
from pathlib import Path

import torch
from mlflow.tracking import MlflowClient
from sklearn.datasets import load_digits
from torch import nn

from uniformity_callbacks import CollapseAlert, WassersteinLoss, load, read_journal
from uniformity_callbacks.integrations.mlflow import MLflowWriter
from uniformity_callbacks.integrations.pytorch import watch
from uniformity_callbacks.integrations.sync_mlflow import MLflowRun
from uniformity_callbacks.integrations.syncing import sync
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter

CONTEXT = multiprocessing.get_context("forkserver")
STEPS, EVERY, SAVES = 90, 3, 10
MOMENTS = ("before backward", "after the step", "after the checkpoint")


class Siamese(nn.Module):
    """With no loss but the distance of its views it collapses within some steps."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())
        self.projector = nn.Linear(64, 16)

    def forward(self, x):
        return self.projector(self.encoder(x))


def digits():
    return torch.tensor(load_digits().data, dtype=torch.float32) / 16


def train(folder, kill=None, writers="tensorboard mlflow"):
    """Train to the end, from the checkpoint if there is one, or until the process kills itself at (step, moment)."""
    load.SHORT_S = (
        60.0  # on a machine that is busy with other things due steps would be passed over, differently each time
    )
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder, x = Path(folder), digits()
    logging.basicConfig(filename=folder / "log.txt", format="%(message)s")
    model = Siamese()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    wanted = {
        "tensorboard": lambda: TensorBoardWriter(folder / "events"),
        "mlflow": lambda: MLflowWriter(f"sqlite:///{folder}/mlflow.db", flush_secs=0.2),
    }
    monitor = watch(
        model,
        optimizer=optimizer,
        every_n_steps=EVERY,
        alerts=[CollapseAlert("constant", patience=2, warmup_steps=0)],
        auxiliary=WassersteinLoss(1.0, when="alert"),
        writers=[wanted[name]() for name in writers.split()],
        journal=folder / "journal.jsonl",
    )
    first, checkpoint = 0, folder / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        monitor.load_state_dict(state["monitor"])
        torch.set_rng_state(state["random"])
        first = state["step"]
    for k in range(first, STEPS):
        batch = x[torch.randint(len(x), (128,))]
        optimizer.zero_grad()
        z0, z1 = (model(batch + 0.1 * torch.randn_like(batch)) for _ in range(2))
        loss = monitor.add_auxiliary((z0 - z1).square().sum(1).mean())
        end(kill, k, "before backward")
        loss.backward()
        optimizer.step()
        end(kill, k, "after the step")
        if (k + 1) % SAVES == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "monitor": monitor.state_dict()}
            torch.save(state | {"random": torch.get_rng_state(), "step": k + 1}, folder / "new.pt")
            os.replace(folder / "new.pt", checkpoint)
            end(kill, k, "after the checkpoint")
    monitor.close()
    torch.save([p.detach() for p in model.parameters()], folder / "weights.pt")


def end(kill, step, moment):
    if kill == (step, moment):
        os.kill(os.getpid(), signal.SIGKILL)


def run(target, *args, timeout=120):
    """Run a function in a process and return its exit code."""
    process = CONTEXT.Process(target=target, args=args)
    process.start()
    process.join(timeout)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def killed(folder, rounds, seed=0):
    """Train with so many kills at random steps and moments, each but the last followed by a resumption."""
    chance = random.Random(seed)
    for number in range(rounds):
        checkpoint = folder / "checkpoint.pt"
        first = torch.load(checkpoint, weights_only=True)["step"] if checkpoint.exists() else 0
        least = first + 1 if first else SAVES  # without a checkpoint it would be another run, with a journal of its own
        step = chance.randrange(least, max(least + 1, min(first + 2 * (STEPS - first) // (rounds - number), STEPS - 1)))
        moment = chance.choice(MOMENTS[:2] if (step + 1) % SAVES else MOMENTS)
        assert run(train, folder, (step, moment)) == -signal.SIGKILL, (step, moment)
    assert run(train, folder) == 0


def compare(whole, broken, rounds):
    """See that a training that was killed so often is the one that was not; return how many readings were abandoned."""
    assert all(map(torch.equal, torch.load(whole / "weights.pt"), torch.load(broken / "weights.pt")))
    expected, journal = read_journal(whole / "journal.jsonl"), read_journal(broken / "journal.jsonl")
    assert len(expected.alerts) > 0
    assert {0.0, 1.0} <= set(expected.series("aux_weight")[1])
    assert values(journal) == values(expected)
    assert journal.series("w2")[0] == list(range(0, STEPS, EVERY))
    assert journal.alerts == expected.alerts
    assert journal.recoveries == expected.recoveries
    assert len(journal.runs) == rounds + 1
    assert sorted(path.name for path in broken.glob("*.jsonl")) == ["journal.jsonl"]
    uri = f"sqlite:///{broken}/mlflow.db"
    client = MlflowClient(uri)
    sync(journal, MLflowRun(uri, journal))
    assert sync(journal, MLflowRun(uri, journal)).points == 0
    (there,) = client.search_runs(["0"])  # one, for all of it
    history = client.get_metric_history(there.info.run_id, "uniformity/w2")
    assert {m.step: m.value for m in history} == dict(zip(*journal.series("w2"), strict=True))
    return len(journal.abandoned)


def values(journal):
    """All of a journal's readings but for their times, NaN as None."""
    return [(r.step, r.layer, {k: None if v != v else v for k, v in r.values.items()}) for r in journal.readings]
