"""How a callback begins and ends: errors, resumption, copies, several fits."""

import contextlib
import copy
import threading
import time

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from trainers import BEFORE_2_5, Constant, Twin, fit, journal, new, resumed

from uniformity_callbacks import CollapseAlert
from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = pytest.mark.usefixtures("own_place")


def test_a_failing_writer_or_logger_never_reaches_training(caplog):
    class Bad(CSVLogger):
        def log_metrics(self, metrics, step=None):
            if "uniformity/w2" in metrics:
                raise OSError("no space left")
            super().log_metrics(metrics, step)

    def bad(values, step):
        raise RuntimeError("bad writer")

    callback = UniformityCallback(every_n_steps=2, writers=[bad])
    trainer = fit(new(), [callback], logger=Bad("csv"), max_steps=8, log_every_n_steps=2)
    assert trainer.global_step == 8
    assert len(journal(callback).readings) == 4
    assert "writer bad: write at step 0: RuntimeError: bad writer" in caplog.text
    assert "no space left" in caplog.text


TAKES_S = 0.15


class Away(CSVLogger):
    """Its server is away for a while: it raises after as long as that takes."""

    def __init__(self, tries):
        super().__init__("csv")
        self.tries, self.calls, self.got = tries, 0, []

    def log_metrics(self, metrics, step=None):
        if "uniformity/w2" not in metrics:
            return
        self.calls += 1
        if self.calls <= self.tries:
            time.sleep(TAKES_S)
            raise ConnectionError("no answer")
        self.got.append(step)


class Dawdles(Twin):
    def on_train_batch_start(self, batch, batch_idx):
        time.sleep(0.1)


def test_a_logger_that_comes_back_gets_what_waited(caplog):
    callback = UniformityCallback(every_n_steps=1)
    fit(new(Dawdles), [callback], logger=(away := Away(1)), max_steps=50, max_epochs=-1)
    assert away.got == list(range(50))
    assert caplog.text.count("ConnectionError: no answer") == 1


def test_a_logger_that_does_not_come_back_is_left_alone(caplog):
    callback, began = UniformityCallback(every_n_steps=1), time.monotonic()
    fit(new(), [callback], logger=(away := Away(99)), max_steps=100, max_epochs=-1)
    assert 1 <= away.calls <= 1 + (time.monotonic() - began) / (10 * TAKES_S)
    left = f"100 readings were still waiting for Away, which raises; see uniformity sync {callback.monitor.journal}"
    assert left in caplog.text


@pytest.mark.filterwarnings("ignore:Detected KeyboardInterrupt")
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_training_leaves_no_trace_and_no_reading_behind(error):
    class Breaks(Twin):
        def on_train_batch_end(self, *args):
            if self.trainer.global_step == 4:
                raise error("user's own")

    model, got, before = new(Breaks), [], set(threading.enumerate())
    callback = UniformityCallback(every_n_steps=1, auxiliary=0.1, writers=[lambda values, step: got.append(step)])
    # Of an interruption Lightning makes an exit; before 2.4, an end like any other.
    with pytest.raises(error) if error is RuntimeError else contextlib.suppress(SystemExit):
        fit(model, [callback])
    assert [r.step for r in journal(callback).readings] == got == [0, 1, 2, 3]
    assert "training_step" not in vars(model)
    assert not any(module._forward_hooks for module in model.modules())
    assert set(threading.enumerate()) == before


def test_several_fits_go_on_in_one_journal():
    model, callback = new(), UniformityCallback(every_n_steps=4)
    fit(model, [callback], max_steps=8)
    fit(model, [callback], max_steps=8)
    assert [r.step for r in journal(callback).readings] == [0, 4, 0, 4]
    assert len(journal(callback).runs) == 2


def test_another_fit_begins_without_the_values_of_the_one_before():
    class Looks(Twin):
        def on_train_start(self):
            self.keys = list(self.trainer.callback_metrics)

    callback = UniformityCallback(every_n_steps=4)
    fit(new(Looks), [callback], max_steps=5)
    fit(model := new(Looks), [callback], max_steps=5)
    assert model.keys == []


def test_a_checkpoint_holds_plain_values_and_resumes(tmp_path):
    rules = [CollapseAlert("constant", patience=3, warmup_steps=0)]
    options = {"enable_checkpointing": True, "max_steps": 2}
    saver = ModelCheckpoint(str(tmp_path), every_n_train_steps=2, filename="two")  # 2.1 saves a Path as one
    first = UniformityCallback(every_n_steps=1, alerts=rules)
    fit(new(Constant), [first, saver], **options)
    assert journal(first).alerts == []
    state = torch.load(tmp_path / "two.ckpt", weights_only=True)["callbacks"]["UniformityCallback[uniformity]"]
    assert state.keys() == {"version", "alerts", "journal", "last", "standing", "waiting", "writers"}
    assert state["journal"] == str(first.monitor.journal)
    assert state["last"]["uniformity/samples"] == 32
    second = UniformityCallback(every_n_steps=1, alerts=rules)
    fit(new(Constant), [second, copy.deepcopy(saver)], **{**options, "max_steps": 4}, ckpt_path=tmp_path / "two.ckpt")
    assert second.monitor.journal == first.monitor.journal
    read = journal(second)
    assert [r.step for r in read.readings] == [*range(resumed(2)), resumed(2), resumed(3)]
    assert [r.step for r in read.abandoned] == [1] * BEFORE_2_5  # Lightning has it twice, as if it was done again
    assert [(a.step, a.since) for a in read.alerts] == [(resumed(2), 0)]


def test_keys_are_there_from_the_start_of_a_resumed_run(tmp_path):
    """Its first due step may come after the epoch's end, where EarlyStopping raises on a key that is not there."""
    saver = ModelCheckpoint(str(tmp_path), every_n_train_steps=8, filename="eight")
    fit(new(), [UniformityCallback(every_n_steps=50), saver], max_steps=8, enable_checkpointing=True)
    early = EarlyStopping("uniformity/w2", mode="min", patience=50)
    callbacks = [early, UniformityCallback(every_n_steps=50), copy.deepcopy(saver)]
    options = {"max_steps": -1, "max_epochs": 3, "enable_checkpointing": True, "ckpt_path": tmp_path / "eight.ckpt"}
    trainer = fit(new(), callbacks, **options)
    assert trainer.global_step == 24 + BEFORE_2_5  # one more in the epoch that had ended
    assert early.best_score.item() == pytest.approx(journal(callbacks[1]).readings[0].values["w2"])


def test_fast_dev_run_writes_nothing(tmp_path):
    callback = UniformityCallback(writers=[lambda values, step: pytest.fail("written to")])
    fit(new(), [callback], fast_dev_run=3)
    assert callback.monitor.journal is None
    assert list(tmp_path.iterdir()) == []


def test_two_callbacks_of_different_prefix():
    two = [UniformityCallback("encoder", prefix="enc"), UniformityCallback("projector")]
    trainer = fit(new(), two, max_steps=2)
    assert {"enc/w2", "uniformity/w2"} <= trainer.callback_metrics.keys()
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        fit(new(), [UniformityCallback(), UniformityCallback()])


def test_a_deep_copy_taken_during_training_is_neither_tapped_nor_in_the_way():
    class Copies(Twin):
        def on_train_batch_end(self, *args):
            self.__dict__["twin"] = copy.deepcopy(self.projector)
            self.twin(torch.zeros(2, 16))

    callback = UniformityCallback(every_n_steps=1)
    fit(new(Copies), [callback], max_steps=3)
    assert [r.values["samples"] for r in journal(callback).readings] == [32, 32, 32]


@pytest.mark.usefixtures("unchecked")  # its Trainer is not the one that annotations name
def test_the_other_lightning_package():
    import pytorch_lightning

    class Other(pytorch_lightning.LightningModule):
        training_step, embed, distance, term = Twin.training_step, Twin.embed, Twin.distance, Twin.term
        configure_optimizers = Twin.configure_optimizers

    Other.__init__ = lambda self: (pytorch_lightning.LightningModule.__init__(self), _build(self))[0]

    def _build(self):
        self.encoder, self.projector = nn.Linear(6, 16), nn.Linear(16, 8)
        self.by_hand, self.as_dict, self.seen = None, False, []

    callback = UniformityCallback(every_n_steps=2, auxiliary=0.1)
    fit(Other(), [callback], trainer=pytorch_lightning.Trainer, max_steps=5)
    assert [r.step for r in journal(callback).readings] == [0, 2, 4]


def test_a_wrong_layer_is_an_error_before_the_first_step():
    model = new()
    with pytest.raises(ValueError, match="layer 'projektor' is not in the model; did you mean projector"):
        fit(model, [UniformityCallback("projektor")])
    assert model.seen == []


def test_bad_arguments_raise_at_once():
    with pytest.raises(ValueError, match="metrics has no 'w3'"):
        UniformityCallback(metrics=["w3"])
