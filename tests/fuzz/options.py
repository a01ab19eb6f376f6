"""A line of options, keys of a configuration, and where the command line is to write; none may run anything."""

import json
import sys
from contextlib import suppress

import click

from malformed import check_keys, check_line
from uniformity_callbacks.integrations import command_sync

LENGTH = 300
SEEDS = [
    b"layer=projector,every_n_steps=50,alerts=stop",
    b"metrics=[w2, rankme],views=2,auxiliary=linear:30:0",
    b"alerts=[{kind: constant, patience: 5}, blind],auxiliary={weight: 0.1, when: alert}",
    b"writers=[tensorboard:runs/a, mlflow:http://host:5000]",
    b"prefix='a\"b',journal=!!x &a *a",
    b'{"alerts": {"kind": "dimensional", "threshold": 9, "fall": 0.3, "hysteresis": 1}, "metrics": ["w2"]}',
    b'{"auxiliary": {"weight": "cosine:1:0.1", "when": "alert"}, "layer": ["a", 0], "total_steps": 100}',
    b"mlflow:sqlite:///mlflow.db",
    b"tensorboard:runs/a",
]


def check(data):
    _guard["inside"] = True
    try:
        _check(data.decode("utf-8", "surrogateescape"))
    finally:
        _guard["inside"] = False


def _check(text):
    check_line(text)
    with suppress(click.ClickException):
        kind, place = command_sync._parsed(text, None, None)
        assert text == f"{kind}:{place}"
    if text.startswith("{"):
        with suppress(ValueError, RecursionError):
            check_keys(json.loads(text))


class Ran(BaseException):
    """Something was run, opened or imported."""


def warm():
    """Have that be a crash from now on: the seeds have been in, which import what they need."""
    sys.addaudithook(_refuse)


def _refuse(event, arguments):
    if _guard["inside"] and event in _EVENTS:
        raise Ran(event, *arguments)


_guard = {"inside": False}
_EVENTS = {"exec", "compile", "import", "pickle.find_class", "open", "socket.connect", "subprocess.Popen"} | {
    f"os.{name}" for name in ("system", "exec", "fork", "posix_spawn", "mkdir", "remove", "rename")
}
