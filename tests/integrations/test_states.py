"""Checkpoints that are not those of the same monitor, and runs that want one journal: each resumes, and says how."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from trainers import Constant, distance, fit, journal, new

from uniformity_callbacks import CollapseAlert, UniformityMonitor, WassersteinLoss, read_journal, recording
from uniformity_callbacks.integrations.lightning import UniformityCallback

HERE = Path(__file__).parent
KEY = "UniformityCallback[uniformity]"
RULES = [CollapseAlert("constant", patience=2, warmup_steps=0)]


@pytest.fixture
def checkpoints(tmp_path_factory):
    """Of four steps with the callback, whose alert stands, and without."""
    paths = []
    for name, callbacks in {"with": [UniformityCallback(every_n_steps=1, alerts=RULES)], "without": []}.items():
        folder = tmp_path_factory.mktemp(name)
        saver = ModelCheckpoint(str(folder), every_n_train_steps=4, filename="four")
        options = {"max_steps": 4, "enable_checkpointing": True, "default_root_dir": folder}
        fit(new(Constant), [*callbacks, saver], **options)
        paths.append(folder / "four.ckpt")
    return paths


def changed(path, folder, change):
    """The checkpoint with another state of ours."""
    whole = torch.load(path, weights_only=True)
    whole["callbacks"][KEY] = change(copy.deepcopy(whole["callbacks"][KEY]))
    torch.save(whole, folder / "changed.ckpt")
    return folder / "changed.ckpt"


def goes_on(path, **arguments):
    """The callback after eight steps from a checkpoint; weights are compared with those without it."""
    callback = UniformityCallback(every_n_steps=1, **arguments)
    trainer = fit(model := new(Constant), [callback], ckpt_path=path)
    assert trainer.global_step == 8
    fit(bare := new(Constant), ckpt_path=path)
    assert distance(model.parameters(), bare.parameters()) == 0.0
    return callback


pytestmark = [
    pytest.mark.usefixtures("own_place"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


def test_the_same(checkpoints, caplog):
    callback = goes_on(checkpoints[0], alerts=RULES)
    assert [r.step for r in journal(callback).readings] == list(range(8))
    assert [(a.step, a.since) for a in journal(callback).alerts] == [(1, 0)]
    assert "uniformity: " not in caplog.text.replace("uniformity: collapse", "")


@pytest.mark.parametrize("change", [None, lambda state: None, lambda state: {}])
def test_added(change, checkpoints, tmp_path, caplog):
    path = checkpoints[1] if change is None else changed(checkpoints[0], tmp_path, change)
    callback = goes_on(path, alerts=RULES)
    assert [r.step for r in journal(callback).readings] == list(range(4, 8))
    assert "training goes on without a state of the monitor: alerts begin anew" in caplog.text


def test_removed(checkpoints):
    assert fit(new(Constant), ckpt_path=checkpoints[0]).global_step == 8


@pytest.mark.parametrize("version", [0, 2, "2.1", None])
def test_of_another_version(version, checkpoints, tmp_path, caplog):
    path = changed(checkpoints[0], tmp_path, lambda state: {**state, "version": version, "of it": [1]})
    callback = goes_on(path, alerts=RULES)
    assert f"its state is of version {version}, this release's is 1" in caplog.text
    assert [(a.step, a.since) for a in journal(callback).alerts] == [(1, 0)]
    assert callback.monitor.faults.count == 0


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda state: [1, 2], ["alerts", "journal and writers"]),
        (lambda state: {"version": 1}, ["alerts", "journal and writers"]),
        (lambda state: "state", ["alerts", "journal and writers"]),
        (lambda state: {**state, "alerts": 3}, ["alerts"]),
        (lambda state: {**state, "alerts": [{"layer": "a"}]}, ["alerts"]),
        (lambda state: {**state, "waiting": [{"reading": 1}]}, ["alerts"]),
        (lambda state: {**state, "standing": 7}, ["alerts"]),
        (lambda state: {**state, "last": torch.zeros(3)}, ["alerts"]),
        (lambda state: {**state, "journal": 5}, ["journal and writers"]),
        (lambda state: {**state, "writers": 5}, ["journal and writers"]),
    ],
)
def test_corrupt(change, lost, checkpoints, tmp_path, caplog):
    callback = goes_on(changed(checkpoints[0], tmp_path, change), alerts=RULES)
    for part in ("alerts", "journal and writers"):
        assert (f"its state could not be restored, {part} begin anew" in caplog.text) == (part in lost)
    assert [r.step for r in journal(callback).readings][-4:] == list(range(4, 8))


def test_a_file_that_a_checkpoint_names_and_that_is_no_journal_stays_as_it_is(checkpoints, tmp_path, caplog):
    (tmp_path / "notes.txt").write_bytes(b"mine\n\x00\xff")
    path = changed(checkpoints[0], tmp_path, lambda state: {**state, "journal": str(tmp_path / "notes.txt")})
    callback = goes_on(path, alerts=RULES)
    assert (tmp_path / "notes.txt").read_bytes() == b"mine\n\x00\xff"
    assert "notes.txt' is no journal" in caplog.text
    assert [r.step for r in journal(callback).readings] == list(range(4, 8))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layer": "encoder", "alerts": RULES}, "what was known has no use: alerts of the kind constant of projector"),
        ({"alerts": None}, "what was known has no use: alerts of the kind constant of projector"),
        ({"alerts": [CollapseAlert("blind")]}, "what was known has no use: alerts of the kind constant of projector"),
        ({"alerts": RULES, "metrics": ["w2"]}, None),
        ({"alerts": RULES, "auxiliary": WassersteinLoss(0.0)}, None),
    ],
)
def test_with_other_arguments(arguments, said, checkpoints, caplog):
    callback = goes_on(checkpoints[0], **arguments)
    assert [r.step for r in journal(callback).readings] == list(range(8))
    assert said is None or said in caplog.text
    assert ("resumed with other arguments" in caplog.text) == (said is not None)


def test_a_journal_that_another_run_has_open(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(recording, "_LINGER_S", 0.2)
    first = UniformityMonitor("projector")
    first.attach(new(), directory=tmp_path)
    second = UniformityMonitor("projector")
    second.load_state_dict(first.state_dict())
    second.attach(new(), directory=tmp_path)
    assert second.journal == tmp_path / "uniformity-2.jsonl"
    assert f"another run writes to the journal {first.journal}; this one gets a file of its own" in caplog.text
    second.close()
    first.close()


def test_two_processes_and_one_journal(tmp_path):
    path = os.pathsep.join([str(HERE), *sys.path])
    command = [sys.executable, str(HERE / "signalled.py"), "exit", str(tmp_path), "watched"]
    environment = {**os.environ, "PYTHONPATH": path}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [each.wait(60) for each in both] == [5, 5]
    for name in ("a.jsonl", "a-2.jsonl"):
        whole = read_journal(tmp_path / name)
        assert len(whole.runs) == 1
        assert [r.step for r in whole.readings][:15] == list(range(0, 30, 2))
        lines = (tmp_path / name).read_bytes().split(b"\n")
        torn = len(lines) if lines[-1] else None  # the last one, where the process went in mid-write
        assert whole.unreadable in ([], [torn])
