"""Keys with plain values, of a file or a line of text, and the arguments that they mean."""

import importlib.resources
import inspect

import pytest
import yaml
from trainers import fit, new

from journals import write
from uniformity_callbacks import CollapseAlert, Constant, CosineDecay, LinearDecay, WassersteinLoss
from uniformity_callbacks.integrations.lightning import UniformityCallback
from uniformity_callbacks.integrations.mlflow import MLflowWriter
from uniformity_callbacks.integrations.settings import KEYS, arguments, keys_of
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter
from uniformity_callbacks.monitor import UniformityMonitor
from uniformity_callbacks.panel import DEFAULT_METRICS

SHIPPED = importlib.resources.files("uniformity_callbacks.integrations") / "uniformity" / "default.yaml"


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", {}),
        (
            "layer=projector,every_n_steps=50,alerts=stop",
            {"layer": "projector", "every_n_steps": 50, "alerts": "stop"},
        ),
        (" prefix = a/b , window=2 ,", {"prefix": "a/b", "window": 2}),
        ("metrics=[w2, rankme],views=2", {"metrics": ["w2", "rankme"], "views": 2}),
        ("prefix=a],views=2", {"prefix": "a]", "views": 2}),
        ("writers=mlflow:http://host/?a=b,layer=", {"writers": "mlflow:http://host/?a=b", "layer": None}),
        ("writers=mlflow:sqlite:///a.db,journal=null", {"writers": "mlflow:sqlite:///a.db", "journal": None}),
        (
            "writers=[tensorboard:runs/a, mlflow:http://host:5000],auxiliary=linear:30:0",
            {"writers": ["tensorboard:runs/a", "mlflow:http://host:5000"], "auxiliary": "linear:30:0"},
        ),
        (
            "alerts=[{kind: constant, patience: 5}, blind],auxiliary={weight: 0.1, when: alert}",
            {"alerts": [{"kind": "constant", "patience": 5}, "blind"], "auxiliary": {"weight": 0.1, "when": "alert"}},
        ),
    ],
)
def test_keys_of_a_line(text, keys):
    assert keys_of(text) == keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("projector", "'projector' is not key=value; e.g. every_n_steps=50,alerts=stop"),
        ("=3", "'=3' is not key=value"),
        ("layer=a,,views=2", "'' is not key=value"),
        ("layer=a,layer=b", "layer is given twice"),
        ("metrics=[w2", r"metrics: '\[w2' cannot be read as a value of YAML"),
    ],
)
def test_a_line_that_is_no_keys(text, message):
    with pytest.raises(ValueError, match=message):
        keys_of(text)


def test_the_keys_are_the_arguments_of_callback_and_monitor():
    assert tuple(inspect.signature(UniformityCallback).parameters) == KEYS
    assert tuple(inspect.signature(UniformityMonitor).parameters) == KEYS


def test_what_needs_no_word_of_its_own_stays():
    keys = {
        "layer": ["a", "b"],
        "every_n_steps": 7,
        "output": 0,
        "calls": "first:2",
        "overload": "subsample",
        "prefix": "x",
        "journal": "a.jsonl",
        "durable": True,
        "close_timeout": 2.5,
    }
    assert arguments(keys) == keys
    assert UniformityCallback(**arguments(keys)).monitor.overload == "subsample"


def test_what_yaml_takes_for_a_number_is_a_path():
    assert arguments({"layer": 0}) == {"layer": "0"}
    assert arguments({"layer": [0, "1.10", "a"]}) == {"layer": ["0", "1.10", "a"]}


@pytest.mark.parametrize(
    ("value", "schedule"),
    [
        (0.1, Constant(0.1)),
        (2, Constant(2.0)),
        ("1e-3", Constant(0.001)),
        ("constant:0.2", Constant(0.2)),
        ("linear:30:0", LinearDecay(30.0)),
        ("linear:30", LinearDecay(30.0)),
        ("cosine:1:0.1", CosineDecay(1.0, 0.1)),
        ("published:byol", Constant(0.2)),
        ("published:barlow_twins", LinearDecay(30.0)),
        ({"weight": "linear:1:0.5"}, LinearDecay(1.0, 0.5)),
        ({}, Constant(0.1)),
    ],
)
def test_losses(value, schedule):
    loss = arguments({"auxiliary": value})["auxiliary"]
    assert isinstance(loss, WassersteinLoss)
    assert (loss.schedule, loss.when) == (schedule, "always")


def test_a_loss_that_waits():
    for weight, schedule in ((0.5, Constant(0.5)), ("published:mocov2", Constant(1.0))):
        loss = arguments({"auxiliary": {"weight": weight, "when": "alert"}})["auxiliary"]
        assert (loss.schedule, loss.when) == (schedule, "alert")


def test_null_takes_the_default_and_no_alert():
    assert arguments(dict.fromkeys(KEYS)) == {"alerts": None}
    assert arguments({"auxiliary": False, "alerts": False}) == {"auxiliary": None, "alerts": None}


@pytest.mark.parametrize(
    ("value", "alerts"),
    [
        ("warn", "warn"),
        ("stop", "stop"),
        ("raise", "raise"),
        (True, "warn"),
        ("constant", [CollapseAlert("constant")]),
        (["constant", {"kind": "nonfinite"}], [CollapseAlert("constant"), CollapseAlert("nonfinite")]),
        (
            {"kind": "dimensional", "threshold": 16, "action": "stop"},
            [CollapseAlert("dimensional", threshold=16, action="stop")],
        ),
    ],
)
def test_alerts(value, alerts):
    assert arguments({"alerts": value})["alerts"] == alerts


def test_a_journal_sets_the_threshold_of_dimensional_alerts(tmp_path):
    good = write(tmp_path / "good.jsonl", range(0, 200, 10), effective_dims=24.5)
    short = write(tmp_path / "short.jsonl", range(0, 50, 10), effective_dims=24.5)
    keys = keys_of(f"alerts=[constant,{{kind: dimensional, threshold: {good}}}]")
    assert arguments(keys)["alerts"] == [CollapseAlert("constant"), CollapseAlert("dimensional", threshold=12.25)]
    for path, said in (
        (tmp_path / "no.jsonl", "no.jsonl' is no number and no journal: No such file"),
        (tmp_path, "is no number and no journal: Is a directory"),
        (short, "sets no threshold"),
    ):
        with pytest.raises(ValueError, match=said):
            arguments({"alerts": {"kind": "dimensional", "threshold": str(path)}})


def test_metrics_by_themselves_and_in_a_list():
    assert arguments({"metrics": "w2"}) == {"metrics": ["w2"]}
    assert arguments({"metrics": ("w2", "lu")}) == {"metrics": ["w2", "lu"]}


@pytest.mark.usefixtures("own_place", "own_mlflow")
def test_writers(tmp_path):
    named = f"mlflow:sqlite:///{tmp_path}/a.db"
    writers = arguments({"writers": ["tensorboard:runs/a", named, "mlflow"]})["writers"]
    assert [type(writer) for writer in writers] == [TensorBoardWriter, MLflowWriter, MLflowWriter]
    fit(new(), [UniformityCallback(writers=[*writers[:2], *arguments({"writers": "tensorboard:b"})["writers"]])])
    assert len(list((tmp_path / "runs" / "a").glob("events*"))) == len(list((tmp_path / "b").glob("events*"))) == 1
    assert (tmp_path / "a.db").is_file()
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"every_n_step": 5}, ValueError, "no argument 'every_n_step'; did you mean every_n_steps"),
        ({"auxilary": 1}, ValueError, "no argument 'auxilary'; did you mean auxiliary"),
        ({1: 1}, ValueError, "no argument 1; known are layer, every_n_steps"),
        ({"auxiliary": "linaer:1:0"}, ValueError, "auxiliary: 'linaer:1:0' is no number .*; did you mean linear"),
        ({"auxiliary": "linear:a"}, ValueError, "auxiliary: 'linear:a' is no schedule .*; write linear:30:0"),
        ({"auxiliary": "linear:1:2:3"}, ValueError, "auxiliary: 'linear:1:2:3' is no schedule"),
        ({"auxiliary": "linear"}, ValueError, "auxiliary: 'linear' is no schedule"),
        ({"auxiliary": "linear:-1:0"}, ValueError, "start must be finite and >= 0"),
        ({"auxiliary": "published:byoll"}, ValueError, "did you mean byol"),
        ({"auxiliary": {"wieght": 1}}, ValueError, "WassersteinLoss has no argument 'wieght'; did you mean weight"),
        ({"auxiliary": {"when": "alarm"}}, ValueError, 'when must be "always" or "alert"'),
        ({"auxiliary": True}, TypeError, "weight must be a number, got True"),
        ({"auxiliary": [1]}, TypeError, "weight must be a number, got"),
        ({"alerts": "sotp"}, ValueError, "alerts: 'sotp' is no kind of alert and no action; did you mean stop"),
        ({"alerts": [{"kind": "constent"}]}, ValueError, "kind must be one of constant"),
        ({"alerts": [{"knd": "constant"}]}, ValueError, "CollapseAlert has no argument 'knd'; did you mean kind"),
        ({"alerts": [{"patience": 5}]}, ValueError, r"alerts: \{'patience': 5\} names no kind; e.g. \{kind: constant"),
        ({"alerts": [3]}, TypeError, r'alerts must be "warn", .* got 3'),
        ({"layer": {"a": 1}}, TypeError, r"layer must be a dotted path, .* got \{'a': 1\}"),
        ({"layer": 1.1}, TypeError, "layer must be a dotted path, in quotes if it is a number, .* got 1.1"),
        ({"layer": [True]}, TypeError, "layer must be a dotted path, .* got True"),
        ({"journal": 5}, TypeError, "journal must be a path, got 5"),
        ({"writers": "tensorbord:runs"}, ValueError, "no writer is called 'tensorbord'; did you mean tensorboard"),
        ({"writers": "tensorboard"}, ValueError, "tensorboard needs a directory; e.g. tensorboard:runs/a"),
        ({"writers": [{"mlflow": 1}]}, TypeError, r"writers must be names .* got \{'mlflow': 1\}"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_misspelt_is_answered_with_the_nearest(keys, error, message):
    with pytest.raises(error, match=message):
        arguments(keys)


def test_the_file_that_ships_has_every_key_with_its_default():
    keys = yaml.safe_load(SHIPPED.read_text())
    assert tuple(keys) == KEYS
    given = arguments(keys)
    defaults = {name: p.default for name, p in inspect.signature(UniformityCallback).parameters.items()}
    assert tuple(given.pop("metrics")) == DEFAULT_METRICS
    assert given == {name: defaults[name] for name in given}
    assert all(defaults[name] is None or name == "writers" for name in KEYS if keys[name] is None)
