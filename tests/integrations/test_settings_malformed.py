"""Options of anything: an error that names the option, or a monitor; a text is only ever a text."""

import base64
import json
import math
import pickle
import time

import hypothesis.strategies as st
import pytest
from click.testing import CliRunner
from hypothesis import given, settings

from malformed import check_keys, check_line
from uniformity_callbacks.integrations.command import main
from uniformity_callbacks.integrations.settings import KEYS, arguments, keys_of

pytestmark = pytest.mark.usefixtures("unchecked")  # or it is jaxtyping that answers
MANY = settings(max_examples=2000, deadline=None)
WORDS = """[ ] { } : , ! !!int &a *a ' " | > % @ ` # = == ~ null true on 0x_ 0b1 1:60 2024-02-30 1e400 .inf .nan -1 0
    w2 stop constant kind action threshold fall patience hysteresis warmup_steps weight when alert linear:1:0
    published:byol tensorboard: mlflow: x first:2"""
SPACED = (": ", ", ", "- ", "? ", "<<: ", " ", "\n", "\t", "\\", "\0", "\x85", "\ud800", "9" * 400, "9" * 5000)
PIECES = (*WORDS.split(), *SPACED, *KEYS)
ODD = (
    None,
    True,
    0,
    -1,
    1.5,
    10**400,
    math.nan,
    math.inf,
    "",
    "x",
    "stop",
    "constant",
    "w2",
    "1:2",
    "\ud800",
    b"x",
    (),
)
NAMES = ("kind", "threshold", "fall", "patience", "warmup_steps", "hysteresis", "action", "weight", "when", "odd")
RANDOM = st.randoms(use_true_random=True)


def line(random):
    """Return some options, most of which have a name of ours, and values of pieces of YAML."""
    parts = ["".join(random.choices(PIECES, k=random.randint(0, 6))) for _ in range(random.randint(0, 3))]
    return ",".join(f"{random.choice([*KEYS, 'x'])}={part}" if random.random() < 0.9 else part for part in parts)


def value(random, depth=2):
    """Return a value of any kind, a rule with the right names among them."""
    kind = random.randrange(5) if depth else 0
    if kind == 1:
        return [value(random, depth - 1) for _ in range(random.randrange(3))]
    if kind == 2:
        return {random.choice([*NAMES, *ODD]): value(random, depth - 1) for _ in range(random.randrange(3))}
    if kind == 3:
        names = random.sample(NAMES, random.randrange(4))
        return {"kind": random.choice(("constant", "dimensional", "blind"))} | {
            name: random.choice(ODD) for name in names
        }
    return random.choice(ODD)


def keys(random):
    """Return keys as a configuration file may have them."""
    names = random.sample([*KEYS, "odd"], random.randint(1, 3))
    return {name: value(random) for name in names}


@MANY
@given(st.one_of(st.text(max_size=60), RANDOM.map(line)))
def test_any_line_means_a_monitor_or_an_error_that_says_why(text):
    check_line(text)


@MANY
@given(RANDOM.map(keys))
def test_any_keys_mean_a_monitor_or_an_error_that_names_the_option(keys):
    check_keys(keys)


@MANY
@given(
    st.one_of(st.text(max_size=60), RANDOM.map(line)), st.sampled_from([(), ("--run-id", "a"), ("--experiment", "a")])
)
def test_any_target_of_the_command_is_told_in_one_line(nowhere, text, options):
    for start in ("", "mlflow:", "tensorboard:"):
        result = CliRunner().invoke(main, ["sync", nowhere, f"--to={start}{text}", *options])
        assert result.exit_code == 2, result.output
        assert isinstance(result.exception, SystemExit)
        assert "Error: " in result.output


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory):
    """A journal that is not there: nothing is to be opened."""
    return str(tmp_path_factory.mktemp("nowhere") / "a.jsonl")


class Harmful:
    """What runs a command when it is unpickled."""

    def __reduce__(self):
        return open, ("ran", "w")


CODE = (
    "__import__('os').system('touch ran')",
    "os.system",
    "${oc.env:HOME}",
    "${eval:1+1}",
    "$(touch ran)",
    "`touch ran`",
    "{class_path: os.system, init_args: {command: touch ran}}",
    "_target_: os.system",
    "lambda: open('ran', 'w')",
    base64.b64encode(pickle.dumps(Harmful())).decode(),
    pickle.dumps(Harmful(), protocol=0).decode(),
)


@pytest.mark.usefixtures("own_place")
@pytest.mark.parametrize("text", CODE)
def test_a_text_stays_a_text(tmp_path, text):
    for name in KEYS:
        assert keys_of(f"{name}=[{json.dumps(text)}]") == {name: [text]}
        for each in (text, [text], {"weight": text}, {"kind": text}, {"kind": "constant", "action": text}):
            check_keys({name: each})
        check_line(f"{name}={text}")
        check_line(f"{text}={name}")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.usefixtures("own_place")
@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch ran']",
        "!!python/name:os.system",
        "!!python/object/new:os.system [touch ran]",
        "!!binary aGk=",
        "!!timestamp x",
        "!!bool x",
        "&a [*a]",
        "{a: &a [x, x], b: &b [*a, *a]}",
        "2024-02-30",
        "9" * 5000,
        "[" * 5000,
        "- " * 5000,
    ],
)
def test_what_is_no_plain_value_of_yaml(tmp_path, value):
    began = time.process_time()
    with pytest.raises(ValueError, match=r"prefix: .* cannot be read as a value of YAML"):
        keys_of(f"prefix={value}")
    assert time.process_time() - began < 10
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"auxiliary": 10**400}, ValueError, "weight must be finite and >= 0"),
        ({"alerts": {"kind": "constant", "threshold": "x"}}, ValueError, "threshold of constant is a number, got 'x'"),
        ({"alerts": {"kind": "dimensional", "fall": [1]}}, TypeError, r"fall must be a number or None, got \[1\]"),
        (
            {"alerts": {"kind": "constant", "hysteresis": True}},
            TypeError,
            "hysteresis must be a number or None, got True",
        ),
        ({"alerts": {"kind": "constant", "hysteresis": 10**400}}, ValueError, "hysteresis must be >= 0"),
        ({"alerts": {"kind": "nonfinite", "threshold": 10**400}}, ValueError, "threshold must be a positive number"),
        ({"metrics": [["w2"]]}, ValueError, r"metrics has no \['w2'\]; did you mean w2"),
        ({"metrics": {"w2": 1}}, ValueError, r"metrics has no \{'w2': 1\}; known are w2, "),
    ],
)
def test_numbers_and_names_that_are_none(keys, error, message):
    from uniformity_callbacks import UniformityMonitor

    with pytest.raises(error, match=message):
        UniformityMonitor(**arguments(keys))
