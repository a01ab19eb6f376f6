"""The entry points: what they add to a Trainer, and scripts that are watched without an edit of them."""

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from test_tensorboard import read
from trainers import Twin, Validated, distance, fit, journal, loader, new

from uniformity_callbacks import read_journal
from uniformity_callbacks.integrations.added import AddedCallback
from uniformity_callbacks.integrations.factory import VARIABLE, callbacks
from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = pytest.mark.usefixtures("own_place")


def ours(trainer):
    return [each for each in trainer.callbacks if isinstance(each, UniformityCallback)]


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_both_packages_have_the_entry_point(package):
    (entry,) = entry_points(group=f"{package}.callbacks_factory", name="uniformity-callbacks")
    assert entry.load() is callbacks


@pytest.mark.parametrize("text", [None, "", " ", "off", "0", "False"])
def test_nothing_is_added_unless_it_is_asked_for(text, asks):
    if text is not None:
        asks(text)
    assert callbacks() == []
    assert ours(fit(new(), max_steps=1)) == []


@pytest.mark.parametrize("text", ["on", "1", "True"])
def test_on_means_every_default(text, asks):
    asks(text)
    trainer = fit(new(), max_steps=3)
    (added,) = ours(trainer)
    assert type(added) is AddedCallback
    assert [r.step for r in journal(added).readings] == [0]
    assert trainer.callback_metrics["uniformity/samples"] == 32
    assert added.monitor.every_n_steps == 50


def test_keys_are_the_arguments(asks, tmp_path, capsys):
    asks("layer=projector,every_n_steps=2,auxiliary=linear:2:0,alerts=null,writers=tensorboard:tb,journal=a/b.jsonl")
    fit(new(weight=0.0), max_steps=8)
    read_back = read_journal(tmp_path / "a" / "b.jsonl")
    assert read_back.series("aux_weight") == ([0, 2, 4, 6], [2.0, 1.5, 1.0, 0.5])
    assert [step for step, _ in read(tmp_path / "tb")["uniformity/w2"]] == [0, 2, 4, 6]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "tb"}
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "uniformity: projector is read every 2 steps, and WassersteinLoss(weight=LinearDecay(start=2.0, end=0.0), "
        "when='always') added to the loss",
        "uniformity: journal a/b.jsonl",
    ]


def test_the_loss_that_is_added_is_that_of_the_users_own_callback(asks):
    fit(by_hand := new(weight=0.7))
    asks("auxiliary=0.7")
    fit(added := new())
    fit(plain := new(), [])
    assert distance(added.parameters(), by_hand.parameters()) < 1e-6
    assert distance(plain.parameters(), by_hand.parameters()) < 1e-6  # the variable acts on every Trainer


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "every_n_step=5",
            ValueError,
            "UNIFORMITY_CALLBACKS: UniformityCallback has no argument 'every_n_step'; did",
        ),
        ("projector", ValueError, "UNIFORMITY_CALLBACKS: 'projector' is not key=value"),
        ("auxiliary=lin:1:0", ValueError, "UNIFORMITY_CALLBACKS: auxiliary: 'lin:1:0' .* did you mean linear"),
        ("writers=[3]", TypeError, "UNIFORMITY_CALLBACKS: writers must be names"),
        ("every_n_steps=0", ValueError, "UniformityCallback: every_n_steps must be an integer >= 1, got 0"),
        ("metrics=w3", ValueError, "UniformityCallback: metrics has no 'w3'; did you mean w2"),
        ("layer=projectr", ValueError, "layer 'projectr' is not in the model; did you mean projector"),
        ("calls=second", ValueError, "calls must be None"),
    ],
)
def test_what_is_wrong_is_said_before_training(text, error, message, asks, tmp_path):
    asks(text)
    model = new()
    with pytest.raises(error, match=message):
        fit(model)
    assert model.seen == []
    assert list(tmp_path.rglob("*.jsonl")) == []


def test_beside_the_users_own_it_steps_aside_whatever_its_prefix(asks, caplog, tmp_path, capsys):
    asks("every_n_steps=1,prefix=other")
    mine = UniformityCallback(every_n_steps=4)
    trainer = fit(new(), [mine])
    assert [type(each) for each in ours(trainer)] == [UniformityCallback, AddedCallback]
    assert journal(mine).series("samples") == ([0, 4], [32.0] * 2)
    assert [path.name for path in tmp_path.iterdir()] == ["uniformity.jsonl"]
    assert "the script has a UniformityCallback of its own; keys given elsewhere are not used" in caplog.text
    assert not any(key.startswith("other") for key in trainer.callback_metrics)
    assert "uniformity: " not in capsys.readouterr().out


def test_a_trainer_that_only_validates_is_left_alone(asks, tmp_path):
    asks("every_n_step=misspelt")
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.validate(new(Validated))
    assert not any(key.startswith("uniformity") for key in trainer.callback_metrics)
    assert list(tmp_path.iterdir()) == []


def test_runs_without_a_directory_of_their_own_get_one_each(asks, tmp_path, capsys):
    asks("every_n_steps=2")
    for k in (1, 2):
        fit(new(Validated), max_steps=-1, max_epochs=1, limit_train_batches=4)
        folder = tmp_path / "uniformity" / "Validated" / str(k)
        assert [r.step for r in read_journal(folder / "uniformity.jsonl").readings] == [0, 2, 3]
        assert [step for step, _ in read(folder)["uniformity/w2"]] == [0, 2]
        assert f"uniformity: curves by: tensorboard --logdir uniformity/Validated/{k}" in capsys.readouterr().out
    assert not (tmp_path / "uniformity" / "Validated" / "3").exists()


@pytest.mark.parametrize(("kind", "files"), [(TensorBoardLogger, 1), (CSVLogger, 1)])
def test_a_loggers_directory_is_the_runs(kind, files, asks, tmp_path, capsys):
    asks("every_n_steps=2")
    fit(new(), max_steps=4, logger=kind(str(tmp_path), name="log", version="v"))
    place = tmp_path / "log" / "v"
    assert [r.step for r in read_journal(place / "uniformity.jsonl").readings] == [0, 2]
    assert len(list(place.glob("events*"))) == files  # the logger's own, or ours
    assert [step for step, _ in read(place)["uniformity/w2"]] == [0, 2]
    assert "curves by: tensorboard --logdir log/v" in capsys.readouterr().out
    assert not (tmp_path / "uniformity").exists()


def test_fast_dev_run_leaves_nothing(asks, tmp_path):
    asks("on")
    fit(new(), max_steps=-1, fast_dev_run=True)
    assert list(tmp_path.iterdir()) == []


def test_without_tensorboard_it_says_so_and_goes_on(asks, monkeypatch, caplog, capsys):
    monkeypatch.setitem(sys.modules, "uniformity_callbacks.integrations.tensorboard", None)
    asks("every_n_steps=2")
    (added,) = ours(fit(new(), max_steps=4))
    assert "no curves are written: " in caplog.text
    assert "curves by" not in capsys.readouterr().out
    assert [r.step for r in journal(added).readings] == [0, 2]


def test_a_resumed_run_goes_on_in_its_places(asks, tmp_path):
    asks("every_n_steps=2")
    first = fit(new(), max_steps=4)
    first.save_checkpoint("four.ckpt")
    fit(new(), max_steps=8, ckpt_path="four.ckpt")
    assert [path.name for path in (tmp_path / "uniformity" / "Twin").iterdir()] == ["1"]
    folder = tmp_path / "uniformity" / "Twin" / "1"
    assert [r.step for r in read_journal(folder / "uniformity.jsonl").readings] == [0, 2, 4, 6]
    assert [step for step, _ in read(folder)["uniformity/w2"]] == [0, 2, 4, 6]
    (folder / "uniformity.jsonl").unlink()
    for events in folder.glob("events*"):
        events.unlink()
    folder.rmdir()
    fit(new(), max_steps=8, ckpt_path="four.ckpt")  # where the files did not come along
    assert [r.step for r in read_journal(folder / "uniformity.jsonl").readings] == [4, 6]


def test_the_same_trainer_fits_again(asks, tmp_path):
    asks("every_n_steps=2")
    trainer = fit(new(), max_steps=4)
    trainer.fit_loop.epoch_loop.max_steps = 8
    trainer.fit(new(), loader())
    (added,) = ours(trainer)
    assert journal(added).series("w2")[0] == [0, 2, 4, 6]
    assert [step for step, _ in read(tmp_path / "uniformity" / "Twin" / "1")["uniformity/w2"]] == [0, 2, 4, 6]


SCRIPT = """
import {package} as pl
import torch
from torch import nn

class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder, self.projector = nn.Linear(6, 16), nn.Linear(16, 8)
        nn.init.zeros_(self.projector.weight)
        self.projector.weight.requires_grad_(False)

    def training_step(self, batch, batch_idx):
        return sum(self.projector(self.encoder(batch + k)).square().mean() for k in range(2))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)

if __name__ == "__main__":
    options = dict(accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, logger=False)
    trainer = pl.Trainer(max_steps=400, max_epochs=-1, enable_checkpointing=False, **options, **{options})
    trainer.fit(Model(), torch.utils.data.DataLoader(torch.randn(64, 6), batch_size=16))
    import sys
    print([name for name in ("lightning.pytorch", "pytorch_lightning") if name in sys.modules])
    print(f"steps {{trainer.global_step}}\\n", end="")  # at once: of two processes one writes into the other's line
"""


def launch(tmp_path, package, text, *, fails=False, **options):
    (tmp_path / "train.py").write_text(SCRIPT.format(package=package, options=repr(options)))
    environment = {**os.environ, VARIABLE: text, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_a_script_is_watched_and_stopped_without_an_edit(package, tmp_path):
    done = launch(tmp_path, package, "layer=projector,every_n_steps=50,alerts=stop")
    # Collapsed from the start: three readings after the warm-up, told at the end of the epoch, of four steps.
    assert "steps 204" in done.stdout
    assert f"[{package!r}]" in done.stdout  # the other one, which takes seconds, is not imported beside it
    assert "constant collapse at step 200, since step 100" in done.stderr
    (found,) = tmp_path.rglob("uniformity.jsonl")
    assert found.parent == Path(tmp_path, "uniformity", "Model", "1")
    assert [alert.action for alert in read_journal(found).alerts if alert.kind == "constant"] == ["stop"]


def test_a_script_on_two_devices_has_it_in_both(tmp_path):
    done = launch(tmp_path, "lightning.pytorch", "every_n_steps=50,alerts=stop", devices=2, strategy="ddp")
    assert done.stdout.count("steps 202") == 2  # each process its own
    (found,) = tmp_path.rglob("uniformity.jsonl")
    assert read_journal(found).series("samples")[1] == [64.0] * 5
    assert [path.name for path in Path(tmp_path, "uniformity", "Model").iterdir()] == ["1"]
    assert done.stdout.count("uniformity: journal") == done.stdout.count("is read every") == 1


def test_an_inert_one_costs_little_and_a_misspelt_variable_is_an_error_in_a_script(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT.format(package="lightning.pytorch", options="{}"))
    environment = {**os.environ, VARIABLE: "every_n_step=50"}
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "did you mean every_n_steps?" in done.stderr


def test_the_factory_imports_no_more_than_it_must():
    code = """
import sys
from uniformity_callbacks.integrations.factory import callbacks
assert callbacks() == []
print(sorted(set("lightning pytorch_lightning yaml tensorboard mlflow".split()) & set(sys.modules)))
"""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_watching_by_the_variable_changes_nothing(asks):
    fit(bare := new(Twin))
    asks("every_n_steps=2,alerts=null")
    fit(watched := new(Twin))
    assert all(torch.equal(a, b) for a, b in zip(bare.parameters(), watched.parameters(), strict=True))
    assert bare.seen == watched.seen
