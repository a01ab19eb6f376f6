"""The blocks of docs/loops.md run as they are printed."""

import re
from pathlib import Path

import torch
from torch import nn

from examples.digits import networks
from uniformity_callbacks import read_journal

PAGE = Path(__file__).parents[2] / "docs" / "loops.md"


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.projection_head = networks.encoder(), networks.projector()

    def forward(self, x):
        return self.projection_head(self.encoder(x))


def test_python_blocks_run_as_they_are_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, validate, keep = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    save, resume = keep.split("...\n")
    model = Model()
    space = {"torch": torch, "model": model, "criterion": networks.distance}
    space["optimizer"] = torch.optim.Adam(model.parameters())
    space["loader"] = torch.randn(60, 2, 32, 1, 8, 8)
    space["validation_loader"] = [(x, None) for x in torch.randn(3, 20, 1, 8, 8)]
    run = lambda block: exec(compile(block, "loops.md", "exec"), space)  # noqa: E731
    run(train)
    run(validate)
    run(save)
    space["monitor"].close()  # the end of the process; another takes the run up
    run(resume)
    run("for x0, x1 in loader:\n    criterion(model(x0), model(x1)).backward()\n    optimizer.step()")
    space["monitor"].close()
    journal = read_journal("uniformity.jsonl")
    assert journal.series("w2")[0] == [0, 50, 100]
    assert journal.series("aux_loss")[0] == [0, 50]
    (validated,) = (reading for reading in journal.readings if reading.stage == "val")
    assert validated.values["samples"] == 60
    assert list((tmp_path / "runs" / "a").glob("events*"))


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target
