import re
from pathlib import Path

import torch

from examples.digits import data, models, networks
from uniformity_callbacks import read_journal

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_python_blocks_run_as_they_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    digits = data.load()
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len(blocks) == 3
    model, loader = models.Siamese(), data.train_loader(digits, steps=45, batch_size=64)
    space = {"model": model, "loader": loader, "optimizer": torch.optim.Adam(model.parameters())}
    space |= {"criterion": networks.distance, "batches": [views for views, _ in loader]}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), space)
    assert space["steps"] == list(range(0, 100, 20))
    assert len(space["w2"]) == 5
    assert "0 " in capsys.readouterr().out
    assert (tmp_path / "runs" / "a").is_dir()
    assert (tmp_path / "mlflow.db").is_file()
    assert list((tmp_path / "runs" / "b").glob("events*"))
    space["monitor"].close()
    assert space["monitor"].step == 45
    assert read_journal(tmp_path / "uniformity.jsonl").series("aux_weight") == ([0], [0.1])


def test_shell_commands_are_the_two_and_the_install():
    commands = re.findall(r"```sh\n(.*?)\n```", README, flags=re.S)
    assert commands == ["make demo", 'pip install -c constraints.txt ".[lightning,tensorboard,mlflow]"', "make test"]


def test_is_one_page():
    assert len(README.splitlines()) <= 120


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_metric_keys_are_those_of_a_reading():
    from uniformity_callbacks.panel import COUNTS, METRICS

    rows = re.findall(r"^\| (`.*?`) \|", README, flags=re.M) + re.findall(
        r"^On request,.*?\.\n\n", README, flags=re.M | re.S
    )
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert listed == {*METRICS, *COUNTS, "aux_loss", "aux_weight"}
