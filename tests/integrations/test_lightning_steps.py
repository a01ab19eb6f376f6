"""The step is that of Lightning's own curves, whatever Lightning makes of it."""

import csv
import types

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger
from manual import Manual, Predicts, Raw
from mlflow.tracking import MlflowClient
from test_tensorboard import read
from trainers import BEFORE_2_5, Twin, fit, journal, new, resumed

from uniformity_callbacks import LinearDecay
from uniformity_callbacks.integrations.lightning import UniformityCallback
from uniformity_callbacks.integrations.steps import curve_step

pytestmark = pytest.mark.usefixtures("own_place")


def curves(folder, run_id, key):
    """The points of one curve in TensorBoard, in the CSV file and in MLflow."""
    with open(folder / "csv" / "metrics.csv") as file:
        table = [(int(row["step"]), float(row[key])) for row in csv.DictReader(file) if row[key]]
    history = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").get_metric_history(run_id, key)
    return read(folder / "tb")[key], table, [(m.step, m.value) for m in history]


@pytest.mark.usefixtures("own_mlflow")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Twin, {"max_steps": 5}),
        (Twin, {"max_steps": 5, "accumulate_grad_batches": 2}),
        (Twin, {"max_steps": 5, "accumulate_grad_batches": 4}),
        (Twin, {"max_epochs": 3, "max_steps": -1, "accumulate_grad_batches": 3}),
        (Manual, {"max_steps": 5}),
        (Predicts, {"max_steps": 10}),
        (Raw, {"max_epochs": 1, "max_steps": -1}),
    ],
)
def test_our_points_lie_under_those_of_the_models_own_curve(tmp_path, kind, options):
    """This fails where Lightning gives up the private count that `curve_step` asks."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    loggers = [TensorBoardLogger(tmp_path, name="tb", version=""), CSVLogger(tmp_path, name="csv", version="")]
    loggers.append(MLFlowLogger("steps", tracking_uri=uri))
    model, callback = new(kind), UniformityCallback(every_n_steps=1)
    fit(model, [callback], logger=loggers, log_every_n_steps=1, **options)
    recorded = journal(callback).series("w2")[0]
    assert len(recorded) >= 5
    for ours, own in zip(
        *(curves(tmp_path, loggers[2].run_id, key) for key in ("uniformity/w2", "train/loss")), strict=True
    ):
        assert [step for step, _ in ours] == [step for step, _ in own] == recorded
        assert len(set(recorded)) == len(recorded)


def test_so_they_do_in_a_run_that_is_resumed(tmp_path):
    for steps, start in ((3, None), (7, "three.ckpt")):
        saver = ModelCheckpoint(str(tmp_path), every_n_train_steps=3, save_top_k=-1, filename="three")
        logger = TensorBoardLogger(tmp_path, name="tb", version="")
        callbacks = [UniformityCallback(every_n_steps=1), saver]
        options = {"logger": logger, "log_every_n_steps": 1, "enable_checkpointing": True, "max_steps": steps}
        fit(new(), callbacks, ckpt_path=start and tmp_path / start, **options)
    events = read(tmp_path / "tb")
    steps = [*range(3), *range(resumed(3), resumed(7))]
    assert [step for step, _ in events["train/loss"]] == steps
    read_back = journal(callbacks[0])
    assert read_back.series("w2")[0] == list(dict.fromkeys(steps))
    assert [r.step for r in read_back.abandoned] == [2] * BEFORE_2_5  # Lightning has it twice, as if it was done again
    # What the state held that was not handed out yet is handed out by both runs.
    assert list(dict(events["uniformity/w2"])) == list(dict.fromkeys(steps))


def test_without_that_count_the_step_is_the_trainers():
    trainer = types.SimpleNamespace(fit_loop=types.SimpleNamespace(epoch_loop=object()), global_step=7)
    assert curve_step(trainer) == 7


@pytest.mark.parametrize(
    ("kind", "options", "steps"),
    [
        (Predicts, {"max_steps": 12}, 6),  # two optimizers' steps a batch
        (Predicts, {"max_epochs": 1, "max_steps": 1000}, 8),
        (Predicts, {"max_epochs": 1}, 8),
        (Manual, {"max_steps": 6}, 6),
    ],
)
def test_a_weight_follows_the_length_in_the_same_steps(kind, options, steps):
    callback = UniformityCallback(every_n_steps=1, auxiliary=LinearDecay(1.0))
    fit(new(kind), [callback], **{"max_steps": -1, **options})
    expected = [1 - k / steps for k in range(steps)]
    assert journal(callback).series("aux_weight") == (list(range(steps)), pytest.approx(expected))
