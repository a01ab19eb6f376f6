"""Callbacks that an entry point adds, by themselves, beside the user's own, and in a list that is used again."""

import shutil

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from trainers import Twin, distance, fit, journal, loader, new

from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = pytest.mark.usefixtures("own_place")


class Added(UniformityCallback):
    added = True


class Counts(Twin):
    """Counts the hooks on its projector in mid-training."""

    def on_train_batch_end(self, *args):
        self.hooks = len(self.projector._forward_hooks)


@pytest.fixture
def by_hand(own_place):
    """Weights of a run without any callback."""
    fit(model := new(weight=0.7))
    return list(model.parameters())


@pytest.fixture
def factory(tmp_path, monkeypatch, by_hand):
    """An installed distribution whose entry point adds a callback to every Trainer."""
    metadata = tmp_path / "site" / "adds-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: adds\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{pl.__name__}.callbacks_factory]\nadds = adds_callbacks:make\n")
    (tmp_path / "site" / "adds_callbacks.py").write_text(
        "from test_lightning_twice import Added\n\n\ndef make():\n    return [Added(every_n_steps=2, auxiliary=0.7)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield
    shutil.rmtree(tmp_path / "site")


def train(model, callbacks, **options):
    """As `fit`, which would pass a copy of the list."""
    torch.manual_seed(3)
    quiet = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"logger": False, "enable_checkpointing": False, "max_steps": 8, **quiet, **options}
    trainer = pl.Trainer(callbacks=callbacks, **options)
    trainer.fit(model, loader())
    return trainer, [each for each in trainer.callbacks if isinstance(each, UniformityCallback)]


@pytest.mark.usefixtures("factory")
def test_an_added_one_acts_where_it_is_alone(by_hand):
    trainer, (added,) = train(model := new(Counts), None)
    assert type(added) is Added
    assert model.hooks == 1
    assert journal(added).series("samples") == ([0, 2, 4, 6], [32.0] * 4)
    assert trainer.callback_metrics["uniformity/samples"] == 32
    assert distance(model.parameters(), by_hand) < 1e-6


@pytest.mark.usefixtures("factory")
@pytest.mark.parametrize("first", [True, False])
def test_it_steps_aside_for_the_users_own(first, by_hand, tmp_path):
    mine = UniformityCallback(every_n_steps=4, auxiliary=0.7)
    trainer, both = train(model := new(Counts), [mine] if first else [Added(), mine])
    (aside, *_) = (each for each in both if each is not mine)
    assert len(both) == (2 if first else 3)
    assert model.hooks == 1
    assert journal(mine).series("samples") == ([0, 4], [32.0] * 2)
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["uniformity.jsonl"]
    assert aside.monitor.journal is None
    assert aside.state_dict() == {}
    assert distance(model.parameters(), by_hand) < 1e-6
    assert trainer.callback_metrics["uniformity/samples"] == 32


@pytest.mark.usefixtures("factory")
@pytest.mark.parametrize("own", [False, True])
def test_of_those_that_a_list_gathers_one_acts(own, by_hand):
    """Lightning extends the list in place: the second Trainer finds the first one's there."""
    callbacks = [UniformityCallback(every_n_steps=2, auxiliary=0.7)] if own else [pl.Callback()]
    train(new(), callbacks)
    trainer, ours = train(model := new(Counts), callbacks)
    assert len(ours) == 2 + own
    assert model.hooks == 1
    assert journal(ours[0]).series("samples") == ([0, 2, 4, 6] * 2, [32.0] * 8)
    assert all(each.monitor.journal is None for each in ours[1:])
    assert distance(model.parameters(), by_hand) < 1e-6
    trainer.save_checkpoint("end.ckpt")
    states = torch.load("end.ckpt", weights_only=True)["callbacks"]
    assert [key for key in states if "Uniformity" in key] == [ours[0].state_key]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # the key is another, the state is found
@pytest.mark.parametrize("kinds", [(Added, UniformityCallback), (UniformityCallback, Added), (Added, Added)])
def test_the_next_one_goes_on_where_another_was(kinds, tmp_path):
    first, second = (kind(every_n_steps=2) for kind in kinds)
    saver = ModelCheckpoint(str(tmp_path), every_n_train_steps=4, filename="four")
    fit(new(), [first, saver], max_steps=4, enable_checkpointing=True)
    fit(new(), [second], max_steps=8, ckpt_path="four.ckpt")
    assert second.monitor.journal == first.monitor.journal
    assert journal(second).series("w2")[0] == [0, 2, 4, 6]
