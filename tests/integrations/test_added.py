"""The callback that the entry points add, where things go wrong, and where several Trainers share what they have."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import CSVLogger
from test_factory import launch
from test_tensorboard import read
from trainers import Twin, fit, journal, loader, new

from uniformity_callbacks import read_journal
from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = pytest.mark.usefixtures("own_place")


def ours(trainer):
    return [each for each in trainer.callbacks if isinstance(each, UniformityCallback)]


def test_what_is_wrong_is_said_again_when_fit_is_called_again(asks):
    asks("every_n_steps=2,window=60")
    trainer = pl.Trainer(accelerator="cpu", logger=False, max_steps=2, enable_progress_bar=False)
    for _ in range(2):
        with pytest.raises(ValueError, match="window must be an integer from 1 to every_n_steps"):
            trainer.fit(new(), loader())


@pytest.mark.parametrize("made_first", [False, True])
def test_a_list_of_callbacks_used_again_has_each_trainers_own_keys_and_run(made_first, asks, tmp_path):
    # Lightning adds to the list that it is given.
    callbacks, found = [pl.Callback()], []
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}

    def trainers():
        for text in ("every_n_steps=2", "every_n_steps=1", "every_n_steps=3,prefix=b"):
            asks(text)
            yield pl.Trainer(accelerator="cpu", logger=False, max_steps=4, callbacks=callbacks, **quiet)

    for trainer in list(trainers()) if made_first else trainers():
        trainer.fit(new(), loader())
        (acting,) = [each for each in ours(trainer) if each.acts]
        found.append([r.step for r in journal(acting).readings])
        trainer.save_checkpoint("last.ckpt")
    assert found == [[0, 2], [0, 1, 2, 3], [0, 3]]
    assert sorted(path.name for path in (tmp_path / "uniformity" / "Twin").iterdir()) == ["1", "2", "3"]
    fit(new(), max_steps=8, ckpt_path="last.ckpt")
    assert [r.step for r in journal(acting).readings] == [0, 3, 6]


class Elsewhere(Twin):
    """A later stage of a script, which has one layer by another name."""

    def __init__(self, layer):
        super().__init__()
        self.other = getattr(self, layer)
        delattr(self, layer)

    def embed(self, batch):
        layers = [getattr(self, name, self.other) for name in ("encoder", "projector")]
        return tuple(layers[1](layers[0](batch[0])) for _ in range(2))


def in_the_way(place):
    """Have a directory's name taken by what is none: no user's rights get past that, root's neither."""
    place.write_text("")


def dangling(place):
    """A link to storage that is not mounted."""
    place.symlink_to("/nowhere/at/all")


@pytest.mark.parametrize("block", [in_the_way, dangling])
def test_no_directory_can_be_made(block, asks, tmp_path):
    block(tmp_path / "uniformity")
    asks("every_n_steps=2")
    model = new()
    with pytest.raises(ValueError, match=r"journal .*uniformity.* cannot be written .*; give another path by journal="):
        fit(model)
    assert model.seen == []


def test_curves_that_have_no_place_end_nothing(asks, tmp_path, caplog):
    in_the_way(tmp_path / "uniformity")
    asks("every_n_steps=2,journal=a.jsonl")
    (callback,) = ours(fit(new(), max_steps=4))
    assert [r.step for r in journal(callback).readings] == [0, 2]
    assert "TensorBoardWriter" in caplog.text


def test_two_devices_and_no_directory(tmp_path):
    in_the_way(tmp_path / "uniformity")
    done = launch(tmp_path, "lightning.pytorch", "every_n_steps=50", fails=True, devices=2, strategy="ddp")
    assert "give another path by journal=" in done.stderr


@pytest.mark.parametrize("error", [ImportError("no tensorboard"), TypeError("Descriptors cannot be created directly")])
def test_a_tensorboard_that_cannot_be_imported(error, asks, monkeypatch, caplog):
    def find_spec(name, *_):
        if name == "uniformity_callbacks.integrations.tensorboard":
            raise error

    monkeypatch.delitem(sys.modules, "uniformity_callbacks.integrations.tensorboard", raising=False)
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=find_spec), *sys.meta_path])
    asks("every_n_steps=2")
    (callback,) = ours(fit(new(), max_steps=4))
    assert f"no curves are written: {error}" in caplog.text
    assert [r.step for r in journal(callback).readings] == [0, 2]


@pytest.mark.parametrize("closed", [False, True])
def test_a_standard_output_that_takes_no_such_line(closed, asks, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    if closed:
        out.close()
    monkeypatch.setattr(sys, "stdout", out)
    asks("every_n_steps=2")
    (callback,) = ours(fit(new(type("Mödel", (Twin,), {})), max_steps=4))
    assert [r.step for r in journal(callback).readings] == [0, 2]


@pytest.mark.parametrize(("name", "folder"), [("M" * 300, "M" * 100), ("a/b c", "a-b-c"), ("..", "run"), (".a", "a")])
def test_names_of_runs(name, folder, asks, tmp_path):
    asks("every_n_steps=2")
    fit(new(type(name, (Twin,), {})), max_steps=2)
    assert Path(tmp_path, "uniformity", folder, "1", "uniformity.jsonl").is_file()


@pytest.mark.parametrize(
    ("keys", "layer", "message"),
    [
        ("layer=", "projector", "layer=None found no projector"),
        ("layer=encoder", "encoder", "layer 'encoder' is not in the model"),
        ("layer=[projector,encoder]", "encoder", "layer 'encoder' is not in the model"),
    ],
)
def test_a_later_stage_without_the_layer_is_left_alone(keys, layer, message, asks, caplog, tmp_path):
    asks(f"{keys},every_n_steps=2,alerts=null")  # as no other test does
    with pytest.raises(ValueError, match=message):
        fit(new(Elsewhere, layer=layer))
    fit(new(), max_steps=2)
    runs = list(tmp_path.rglob("uniformity.jsonl"))
    trainer = fit(model := new(Elsewhere, layer=layer), max_steps=2)
    assert len(model.seen) == 2
    assert not any(callback.acts for callback in ours(trainer))
    assert f"Elsewhere is not watched: {message}" in caplog.text
    assert list(tmp_path.rglob("uniformity.jsonl")) == runs


def test_a_run_resumed_from_another_place_goes_on_in_its_own(asks, tmp_path, monkeypatch):
    asks("every_n_steps=2")
    fit(new(), max_steps=4, logger=CSVLogger("log", version="v")).save_checkpoint(tmp_path / "four.ckpt")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    fit(new(), max_steps=8, logger=CSVLogger("log", version="v"), ckpt_path=tmp_path / "four.ckpt")
    place = tmp_path / "log" / "lightning_logs" / "v"
    assert [r.step for r in read_journal(place / "uniformity.jsonl").readings] == [0, 2, 4, 6]
    assert [step for step, _ in read(place)["uniformity/w2"]] == [0, 2, 4, 6]


def test_a_run_that_was_moved_begins_anew_where_it_is(asks, tmp_path):
    asks("every_n_steps=2")
    fit(new(), max_steps=4, default_root_dir=tmp_path / "a").save_checkpoint("four.ckpt")
    (tmp_path / "a").rename(tmp_path / "b")
    fit(new(), max_steps=8, default_root_dir=tmp_path / "b", ckpt_path="four.ckpt")
    assert [step for step, _ in read(tmp_path / "b" / "uniformity" / "Twin" / "2")["uniformity/w2"]] == [4, 6]
    assert not (tmp_path / "a").exists()


def test_a_model_that_looks_like_solo_learns_and_is_not(asks, tmp_path):
    asks("every_n_steps=2")
    cfg = {"uniformity": {"every_n_step": 1}, "name": "theirs"}
    (callback,) = ours(fit(new(type("All4One", (Twin,), {"multicrop": True, "cfg": cfg})), max_steps=4))
    assert journal(callback).series("samples") == ([0, 2], [32.0] * 2)
    assert callback.monitor.journal.parent.parent.name == "All4One"
