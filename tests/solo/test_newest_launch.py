"""solo-learn's own `main_pretrain.py`: watched, regularised and stopped by configuration keys alone."""

import struct
from pathlib import Path

import pytest
import torch
from launches import BATCH, STEPS, VALIDATED, launch, prepare, said
from test_tensorboard import read, texts

from uniformity_callbacks import read_journal

CONSTANT = "+uniformity.alerts=[{kind:constant,warmup_steps:0,patience:1,threshold:0.01}]"  # true of any run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    prepare(folder := tmp_path_factory.mktemp("digits"))
    return folder


def steps(journal, stage="train"):
    return [reading.step for reading in read_journal(journal).readings if reading.stage == stage]


@pytest.fixture(scope="module")
def first(root, tmp_path_factory):
    """The launch of the documentation: place, standard output and standard error."""
    place = tmp_path_factory.mktemp("first")
    keys = ["+uniformity.every_n_steps=2", "+uniformity.auxiliary=linear:0.5:0", "+uniformity.alerts=stop"]
    return place, *launch(place, root, *keys)


def test_readings_and_loss_are_in_the_trainers_tensorboard_and_in_the_journal(first):
    place, out, _ = first
    folder = place / "lightning_logs" / "version_0"
    journal = read_journal(folder / "uniformity.jsonl")
    assert steps(folder / "uniformity.jsonl") == [0, 2, 4]
    assert steps(folder / "uniformity.jsonl", "val") == [STEPS - 1]
    assert journal.runs[0]["layers"] == ["projector"]
    assert journal.series("samples") == ([0, 2, 4], [2.0 * BATCH] * 3)
    assert journal.series("samples", stage="val")[1] == [VALIDATED]
    # It decays over the training, whose length the Trainer knows.
    assert journal.series("aux_weight")[1] == pytest.approx([0.5, 0.5 * 4 / 6, 0.5 * 2 / 6])
    assert read(folder)["uniformity/w2"] == [(s, pytest.approx(v)) for s, v in zip(*journal.series("w2"), strict=True)]
    assert said(out) == [
        "uniformity: projector is read every 2 steps, and WassersteinLoss(weight=LinearDecay(start=0.5, end=0.0), "
        "when='always') added to the loss",
        "uniformity: journal lightning_logs/version_0/uniformity.jsonl",
        "uniformity: curves by: tensorboard --logdir lightning_logs/version_0",
    ]
    assert not (place / "uniformity").exists()


def test_it_resumes_from_solo_learns_checkpoint(first, root):
    place, _, _ = first
    (checkpoint,) = place.rglob("*ep=0.ckpt")
    states = torch.load(checkpoint, weights_only=True)["callbacks"]
    assert [key for key in states if "Uniformity" in key] == ["UniformityCallback[uniformity].added"]
    keys = ["+uniformity.every_n_steps=2", f"+resume_from_checkpoint='{checkpoint}'", "max_epochs=2"]
    out, error = launch(place, root, *keys)
    journal = place / "lightning_logs" / "version_0" / "uniformity.jsonl"
    assert f"uniformity: journal {journal.relative_to(place)}" in out
    assert "Be aware that when using `ckpt_path`" not in error
    assert steps(journal) == [0, 2, 4, 6, 8, 10]
    assert steps(journal, "val") == [STEPS - 1, 2 * STEPS - 1]
    assert len(read_journal(journal).runs) == 2


def test_two_processes(root, tmp_path):
    keys = ["+uniformity.every_n_steps=1", "+uniformity.auxiliary=0.5", "+uniformity.alerts=stop"]
    out, _ = launch(tmp_path, root, *keys, "devices='2'", "strategy=ddp")
    (journal,) = tmp_path.rglob("uniformity.jsonl")
    assert steps(journal) == list(range(STEPS // 2))
    assert read_journal(journal).series("samples")[1] == [4.0 * BATCH] * (STEPS // 2)
    assert read_journal(journal).series("aux_weight")[1] == [0.5] * (STEPS // 2)
    assert len(said(out)) == 3  # rank zero alone says it


def test_the_file_that_ships_is_composed(root, tmp_path):
    search = "hydra.searchpath=[pkg://uniformity_callbacks.integrations]"
    keys = ["+uniformity=default", "uniformity.every_n_steps=3", "uniformity.metrics=[w2,rankme]"]
    out, _ = launch(tmp_path, root, search, *keys, "uniformity.writers=[tensorboard:tb]", "checkpoint.enabled=False")
    (journal,) = tmp_path.rglob("uniformity.jsonl")
    assert steps(journal) == [0, 3]
    assert "effective_dims" in read_journal(journal).readings[0].values  # alerts: warn, the default, needs it
    assert "lu" not in read_journal(journal).readings[0].values
    assert [step for step, _ in read(tmp_path / "tb")["uniformity/rankme"]] == [0, 3]
    assert said(out)[0] == "uniformity: projector is read every 3 steps"


def test_without_a_key_nothing_is_there(root, tmp_path):
    out, error = launch(tmp_path, root)
    assert "niformity" not in out + error
    assert not [path for path in tmp_path.rglob("*") if "uniformity" in path.name]
    (checkpoint,) = tmp_path.rglob("*ep=0.ckpt")
    assert not [key for key in torch.load(checkpoint, weights_only=True)["callbacks"] if "niformity" in key]
    assert not [tag for tag in read(tmp_path / "lightning_logs" / "version_0") if "uniformity" in tag]


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("+uniformity.every_n_step=2", "'every_n_step'; did you mean every_n_steps?"),
        ("+uniformty.every_n_steps=2", "'uniformty' holds keys of ours; did you mean uniformity?"),
    ],
)
def test_what_is_misspelt_is_answered_before_training(key, answer, root, tmp_path):
    _, error = launch(tmp_path, root, key, fails=True)
    assert answer in error
    assert not list(tmp_path.rglob("*.jsonl")) + list(tmp_path.rglob("*.ckpt"))


def test_an_alert_is_heard_though_hydra_has_logging_disabled(root, tmp_path):
    keys = ["+uniformity.every_n_steps=1", CONSTANT.replace("constant", "constant,action:stop")]
    _, error = launch(tmp_path, root, *keys)
    assert "constant collapse at step 0, since step 0" in error
    assert "training stops, as alerts asked" in error
    (journal,) = tmp_path.rglob("uniformity.jsonl")
    assert steps(journal) == [0]
    assert texts(journal.parent)["uniformity/alerts/constant"][0][0] == 0


def test_linear_evaluation_is_not_watched(first, root, tmp_path):
    place, _, _ = first
    (checkpoint,) = place.rglob("*ep=0.ckpt")
    config = (root / "simclr.yaml").read_text()
    config = config.replace("method: simclr", "method: linear\npretrain_method: simclr")
    (root / "linear.yaml").write_text(config)
    keys = [f"+pretrained_feature_extractor='{checkpoint}'", "+finetune=False", "checkpoint.enabled=False"]
    options = {"script": "main_linear.py", "config": "linear.yaml", "UNIFORMITY_CALLBACKS": "every_n_steps=2"}
    out, error = launch(tmp_path, root, *keys, **options)
    assert said(out) == []
    assert "uniformity: LinearModel trains no representation; nothing is watched" in error
    assert not list(tmp_path.rglob("*.jsonl"))


def records(path):
    """Return what W&B keeps of an offline run: a log of blocks, as LevelDB's, of its own messages."""
    from wandb.proto import wandb_internal_pb2 as messages

    data, position, whole, found = path.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        left = 2**15 - position % 2**15
        if left < 7:
            position += left
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + 7])
        whole += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a whole one, or the last part of one
            found.append(messages.Record.FromString(whole))
            whole = b""
    return found


def test_with_wandb_values_and_alerts_go_there_too(root, tmp_path):
    wandb = "+wandb={enabled:True,offline:True,entity:null,project:digits}"
    out, _ = launch(tmp_path, root, wandb, "+uniformity.every_n_steps=2", CONSTANT)
    folder = tmp_path / "uniformity" / "simclr-digits" / "1"
    assert steps(folder / "uniformity.jsonl") == [0, 2, 4]
    assert [step for step, _ in read(folder)["uniformity/w2"]] == [0, 2, 4]
    assert said(out)[1:] == [
        "uniformity: journal uniformity/simclr-digits/1/uniformity.jsonl",
        "uniformity: curves by: tensorboard --logdir uniformity/simclr-digits/1",
    ]
    (kept,) = Path(tmp_path, "wandb").glob("offline-run-*/*.wandb")
    kinds = records(kept)
    history = [{".".join(i.nested_key): i.value_json for i in record.history.item} for record in kinds]
    values = [float(row["uniformity/w2"]) for row in history if "uniformity/w2" in row]
    assert values == pytest.approx(read_journal(folder / "uniformity.jsonl").series("w2")[1])
    assert any("uniformity/val/w2" in row for row in history)
    (alert,) = [record.alert for record in kinds if record.WhichOneof("record_type") == "alert"]
    assert alert.title == "uniformity: constant found at step 0"
    assert "constant collapse at step 0, since step 0" in alert.text
    assert alert.level == "WARN"
