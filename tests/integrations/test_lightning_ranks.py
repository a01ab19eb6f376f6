"""Through real Trainers on two ranks: what one Trainer reads and trains with all the rows."""

import csv

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler
from trainers import fit, loader, new

from spread import spread
from uniformity_callbacks import LinearDecay, WassersteinLoss, read_journal
from uniformity_callbacks.integrations.lightning import UniformityCallback

ROWS = 16


def shared(n, batch_size):
    """Rows dealt out to the ranks in turn and in order: Lightning's own sampler would shuffle those of training."""
    data = loader(n, dtype=torch.float64).dataset
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    sampler = DistributedSampler(data, shuffle=False) if ranks > 1 else None
    return DataLoader(data, batch_size=batch_size // ranks, sampler=sampler)


class Plain(pl.LightningModule):
    """No randomness and no BatchNorm, so that ranks can be compared with one process; two views by a flip."""

    def __init__(self, manual=False):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 16), nn.Tanh())
        self.projector = nn.Linear(16, 8)
        self.automatic_optimization = not manual

    def loss(self, batch):
        z0, z1 = (self.projector(self.encoder(x)) for x in (batch[0], batch[0].flip(1)))
        return (z0 - z1).square().mean()

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("train/loss", loss)
        if self.automatic_optimization:
            return loss
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return None

    def validation_step(self, batch, batch_idx):
        self.loss(batch)

    def val_dataloader(self):
        return shared(100, 20)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.2)


def trained(rank, ranks, folder, case, module=Plain):
    """Fit on some ranks; returns weights, what callbacks see, the journal and the callback's faults."""
    case = dict(case)
    callback = UniformityCallback(**{"every_n_steps": 3, **case.pop("callback", {})})
    options = {"max_epochs": 2, "max_steps": -1, "log_every_n_steps": 1, "default_root_dir": folder, **case}
    manual = options.pop("manual", False)
    if ranks > 1:
        options |= {"devices": ranks, "use_distributed_sampler": False, "strategy": options.pop("strategy", "ddp")}
    options["logger"] = CSVLogger(folder, name="csv", version="")
    model = new(module, manual=manual).double()
    trainer = fit(model, [callback, *options.pop("callbacks", ())], data=shared(256, ROWS), **options)
    ours = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("uniformity")}
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return weights, ours, callback.monitor.journal, callback.monitor.faults.count, trainer.global_step


CASES = {
    "loss": {"callback": {"auxiliary": 0.7}},
    "accumulated": {"callback": {"auxiliary": 0.7}, "accumulate_grad_batches": 2},
    "manual": {"callback": {"auxiliary": 0.7}, "manual": True},
    "decaying": {"callback": {"auxiliary": WassersteinLoss(LinearDecay(2.0))}, "gradient_clip_val": 0.1},
    "unused": {"callback": {"auxiliary": 0.7}, "strategy": "ddp_find_unused_parameters_true"},
    "moments": {"callback": {"metrics": ["w2", "alignment", "rankme"]}},
}


def fit_data(journal):
    return [(r.step, r.stage, r.values) for r in read_journal(journal).readings]


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_are_one_process_with_all_rows(tmp_path, case):
    alone = trained(0, 1, tmp_path / "alone", CASES[case] | {"strategy": "auto"})
    expected = fit_data(alone[2])
    got = spread(2, trained, 2, tmp_path / "ranks", CASES[case])
    (journal,) = {journal for _, _, journal, _, _ in got} - {None}
    readings = fit_data(journal)
    assert [reading[:2] for reading in readings] == [reading[:2] for reading in expected]
    assert len(readings) == (8 if "accumulate_grad_batches" in CASES[case] else 13)
    for (*at, values), (_, _, theirs) in zip(readings, expected, strict=True):
        assert values == pytest.approx(theirs, rel=1e-8, abs=1e-8), at
    for weights, ours, _, faults, steps in got:
        assert faults == 0
        assert steps == alone[4]
        assert (weights - alone[0]).norm() <= 1e-10 * alone[0].norm()
        assert ours == pytest.approx(alone[1], rel=1e-8, abs=1e-8)
    with (tmp_path / "ranks" / "csv" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["uniformity/w2"]]
    assert [int(row["step"]) for row in rows] == [step for step, stage, _ in readings if stage == "train"]
