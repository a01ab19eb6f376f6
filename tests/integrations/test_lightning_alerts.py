"""Alerts of a run: what they do to it, and where they can be read."""

import csv
import logging
import types

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger
from mlflow.tracking import MlflowClient
from test_tensorboard import texts
from trainers import Constant, fit, journal, new

from uniformity_callbacks import Alert, CollapseAlert, CollapseError, LinearDecay, WassersteinLoss
from uniformity_callbacks import Constant as Always
from uniformity_callbacks.integrations.events import to_experiment
from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = pytest.mark.usefixtures("own_place")

RULE = {"kind": "constant", "patience": 3, "warmup_steps": 1}


@pytest.mark.parametrize(("action", "steps"), [("warn", 12), ("stop", 5)])
def test_an_alert_warns_or_stops(action, steps, caplog):
    callback = UniformityCallback(every_n_steps=1, alerts=[CollapseAlert(**RULE, action=action)])
    trainer = fit(new(Constant), [callback], max_steps=12)
    # True of the readings of steps 1, 2 and 3, which is known at the next due step: the fifth.
    assert trainer.global_step == steps
    assert "constant collapse at step 3, since step 1" in caplog.text
    assert [(a.kind, a.step, a.since) for a in journal(callback).alerts] == [("constant", 3, 1)]


def test_an_alert_raises_and_leaves_nothing_behind():
    model, callback = new(Constant), UniformityCallback(every_n_steps=1, alerts=[CollapseAlert(**RULE, action="raise")])
    logger = CSVLogger(".", name="", version="")
    with pytest.raises(CollapseError, match="constant collapse at step 3, since step 1"):
        fit(model, [callback], max_steps=12, logger=logger)
    assert len(model.seen) == 5
    assert [r.step for r in journal(callback).readings] == [0, 1, 2, 3, 4]
    assert not any(module._forward_hooks for module in model.modules())
    with open("metrics.csv") as file:
        published = [int(row["step"]) for row in csv.DictReader(file) if row["uniformity/w2"]]
    assert published == [0, 1, 2, 3, 4]


def test_an_alert_known_at_the_epochs_end_raises_there():
    rules = [CollapseAlert("constant", patience=3, warmup_steps=5, action="raise")]
    model = new(Constant)
    with pytest.raises(CollapseError):
        fit(model, [UniformityCallback(every_n_steps=1, alerts=rules)], max_steps=16)
    assert len(model.seen) == 8


def test_an_alert_of_the_last_reading_raises_at_the_end():
    callback = UniformityCallback(every_n_steps=1, alerts=[CollapseAlert(**RULE, action="raise")])
    with pytest.raises(CollapseError):
        fit(new(Constant), [callback], max_steps=4)


def test_an_error_of_the_users_own_is_not_hidden_by_an_alert():
    class Breaks(Constant):
        def on_train_batch_end(self, *args):
            if self.trainer.global_step == 4:
                raise RuntimeError("user's own")

    callback = UniformityCallback(every_n_steps=1, alerts=[CollapseAlert(**RULE, action="raise")])
    with pytest.raises(RuntimeError, match="user's own"):
        fit(new(Breaks), [callback], max_steps=12)
    assert [a.kind for a in journal(callback).alerts] == ["constant"]


def test_a_function_gets_the_alert():
    got = []
    callback = UniformityCallback(every_n_steps=1, alerts=[CollapseAlert(**RULE, action=got.append)])
    fit(new(Constant), [callback], max_steps=8)
    ((kind, step, since, readings, threshold, message),) = [
        (a.kind, a.step, a.since, a.readings, a.threshold, a.message) for a in got
    ]
    assert (kind, step, since, threshold) == ("constant", 3, 1, 0.95)
    assert readings == pytest.approx([1.0] * 3)
    assert message.startswith("constant collapse at step 3")


@pytest.mark.usefixtures("own_mlflow")  # MLFlowLogger sets the tracking URI of the whole process
def test_the_trainers_own_loggers_get_the_alert_too(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    loggers = [TensorBoardLogger(tmp_path, name="tb", version=""), CSVLogger(tmp_path, name="csv", version="")]
    loggers.append(MLFlowLogger("alerts", tracking_uri=uri, artifact_location=(tmp_path / "artifacts").as_uri()))
    callback = UniformityCallback(every_n_steps=1, alerts=[CollapseAlert(**RULE)])
    fit(new(Constant), [callback], logger=loggers, max_steps=8)
    assert callback.monitor.faults.count == 0
    ((step, text),) = texts(tmp_path / "tb")["uniformity/alerts/constant"]
    assert step == 3
    (alert,) = journal(callback).alerts
    assert [line.strip() for line in text.splitlines()] == [line.strip() for line in alert.message.splitlines()]
    run = MlflowClient(uri).get_run(loggers[2].run_id)
    assert run.data.tags["uniformity/alerts/constant"] == "found at step 3, since step 1"
    (artifact,) = (tmp_path / "artifacts").rglob("constant-3-found.txt")
    assert artifact.read_text() == alert.message + "\n"
    assert artifact.parent.parts[-2:] == ("uniformity", "alerts")


def test_of_several_layers_the_alert_names_the_one(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    callback = UniformityCallback(["encoder.0", "projector"], every_n_steps=1, alerts=[CollapseAlert(**RULE)])
    fit(new(Constant), [callback], logger=logger, max_steps=8)
    assert texts(tmp_path).keys() == {"uniformity/projector/alerts/constant"}


def test_a_logger_that_takes_no_texts_gets_none():
    alert = Alert("constant", 50, 10, (0.99,), 0.95, "warn", "projector", "constant collapse")
    refuse = types.SimpleNamespace(log_text=pytest.fail, set_tag=pytest.fail)
    to_experiment(refuse, None, alert, "uniformity/")  # another's experiment, without MLflow's run
    to_experiment(None, "a run", alert, "uniformity/")


def test_the_weight_follows_the_trainers_length():
    callback = UniformityCallback(every_n_steps=1, auxiliary=WassersteinLoss(LinearDecay(1.0)))
    fit(new(Constant), [callback], max_epochs=2, max_steps=-1, accumulate_grad_batches=2)  # 8 steps
    assert journal(callback).series("aux_weight") == (list(range(8)), pytest.approx([1 - k / 8 for k in range(8)]))


def test_a_given_length_comes_before_the_trainers():
    callback = UniformityCallback(every_n_steps=1, auxiliary=WassersteinLoss(LinearDecay(1.0)), total_steps=4)
    fit(new(Constant), [callback], max_epochs=-1, max_steps=6)
    assert journal(callback).series("aux_weight")[1] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0, 0.0])


@pytest.mark.filterwarnings("ignore:.*max_epochs")
def test_a_decaying_weight_in_a_training_without_end_is_an_error_before_its_first_step():
    model = new(Constant)
    callback = UniformityCallback(auxiliary=WassersteinLoss(LinearDecay(1.0)))
    with pytest.raises(ValueError, match="total_steps must be given"):
        fit(model, [callback], max_epochs=-1, max_steps=-1)
    assert model.seen == []


def test_the_trainers_length_is_asked_for_only_where_a_weight_depends_on_it(monkeypatch):
    """The estimate may have to load the data."""
    monkeypatch.setattr(pl.Trainer, "estimated_stepping_batches", property(lambda trainer: pytest.fail("asked")))
    fit(new(Constant), [UniformityCallback(auxiliary=1.0)], max_steps=2)
    fit(new(Constant), [UniformityCallback(auxiliary=LinearDecay(1.0), total_steps=9)], max_steps=2)


@pytest.mark.filterwarnings("ignore:.*max_epochs")
def test_a_constant_weight_needs_no_length():
    class Ends(Constant):
        def on_train_epoch_end(self):
            self.trainer.should_stop = True

    trainer = fit(new(Ends), [UniformityCallback(auxiliary=Always(1.0))], max_epochs=-1, max_steps=-1)
    assert trainer.global_step == 8


def test_a_loss_that_waits_for_alerts_needs_some():
    with pytest.raises(ValueError, match='auxiliary with when="alert" waits for an alert of constant or dimensional'):
        UniformityCallback(auxiliary=WassersteinLoss(when="alert"), alerts=None)
    with pytest.raises(ValueError, match='give alerts="warn"'):
        UniformityCallback(auxiliary=WassersteinLoss(when="alert"), alerts=[CollapseAlert("blind")])


@pytest.fixture
def configured(monkeypatch):
    """Python's logging as Hydra leaves it in solo-learn's scripts."""
    log = logging.getLogger("uniformity_callbacks")
    monkeypatch.setattr(log, "disabled", True)
    monkeypatch.setattr(log, "level", logging.NOTSET)
    monkeypatch.setattr(logging.getLogger(), "level", logging.ERROR)
    log.manager._clear_cache()
    yield log
    monkeypatch.undo()
    log.manager._clear_cache()


def test_an_alert_is_heard_where_logging_was_configured_with_others_in_mind(configured, caplog):
    fit(new(Constant), [UniformityCallback(every_n_steps=1, alerts=[CollapseAlert(**RULE)])], max_steps=6)
    assert "constant collapse at step 3, since step 1" in caplog.text


def test_a_level_that_our_logger_was_given_stays(configured, caplog):
    configured.setLevel(logging.CRITICAL)
    fit(new(Constant), [UniformityCallback(every_n_steps=1, alerts=[CollapseAlert(**RULE)])], max_steps=6)
    assert "collapse" not in caplog.text
