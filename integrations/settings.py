"""`UniformityCallback`'s arguments from plain values: keys of a configuration file, or a line of text."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

import yaml

from uniformity_callbacks.baseline import threshold_from
from uniformity_callbacks.integrations.lightning import UniformityCallback
from uniformity_callbacks.loss import WassersteinLoss
from uniformity_callbacks.names import nearest
from uniformity_callbacks.rules import CollapseAlert, Kind, NamedAction
from uniformity_callbacks.schedules import Constant, CosineDecay, LinearDecay, Schedule

KEYS = tuple(inspect.signature(UniformityCallback).parameters)
"""The keys: the arguments of `UniformityCallback`, spelt alike."""

SCHEDULES: dict[str, Callable[..., Schedule]] = {"constant": Constant, "linear": LinearDecay, "cosine": CosineDecay}
"""How schedules are named, their numbers after colons: ``linear:30:0``."""

_OPENING, _CLOSING = "[{", "]}"


def keys_of(text: str) -> dict[str, Any]:
    """Return the keys that a line such as ``layer=projector,every_n_steps=50,alerts=stop`` gives.

    Values are written as in YAML, without tags and anchors; commas inside of brackets belong to a value:
    ``metrics=[w2,rankme]``.

    Raises:
        ValueError: a part is not ``key=value``, a key is given twice, or a value cannot be read.
    """
    keys: dict[str, Any] = {}
    for part in _split(text):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not name or not equals:
            raise ValueError(f"{part.strip()!r} is not key=value; e.g. every_n_steps=50,alerts=stop")
        if name in keys:
            raise ValueError(f"{name} is given twice")
        try:
            keys[name] = yaml.load(value, _Plain)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ValueError(f"{name}: {value!r} cannot be read as a value of YAML: {error}") from error
    return keys


def arguments(keys: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the arguments of `UniformityCallback` that keys with plain values mean; None takes an argument's default.

    Beside numbers, names and lists these are: schedules (``linear:30:0``, ``published:byol``), rules
    (``{kind: constant, action: stop}``, ``{kind: dimensional, threshold: good.jsonl}``; None for no alert), a loss
    (``{weight: 0.1, when: alert}``) and writers (``tensorboard:DIR``, ``mlflow:URI``, ``mlflow``).

    Raises:
        ValueError: a key or name is not known; the nearest ones are given.
        TypeError: a value is of another kind.
        ImportError: a writer's package is missing.
    """
    _check("UniformityCallback has no argument", keys, KEYS)
    given = {name: value for name, value in keys.items() if value is not None or name == "alerts"}
    return {name: _CONVERT[name](value) if name in _CONVERT else value for name, value in given.items()}


class _Plain(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Data alone: a tag asks for another type than what is written looks like, and an anchor may refer to itself."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse what is not there to be a value, else do as ever."""
        event = self.peek_event()
        if event.anchor or event.tag:
            raise ValueError("it has a tag, an anchor or an alias")
        return super().compose_node(parent, index)


def _split(text: str) -> Iterator[str]:
    """Yield the parts between commas that are not inside of brackets."""
    part, depth = "", 0
    for character in text:
        depth = max(0, depth + (character in _OPENING) - (character in _CLOSING))
        if character == "," and depth == 0:
            yield part
            part = ""
        else:
            part += character
    if part.strip():
        yield part


def _check(complaint: str, names: Mapping[Any, Any], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{complaint} {name!r}; {nearest(str(name), known)}")


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _layers(value: Any) -> Any:
    return [_path(each) for each in value] if isinstance(value, (list, tuple)) else _path(value)


def _path(value: Any) -> str | None:
    # YAML takes that of a Sequential's part for a number; of 1.10 it would be another part's.
    if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
        raise TypeError(f"layer must be a dotted path, in quotes if it is a number, or a list of them, got {value!r}")
    return None if value is None else str(value)


def _journal(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"journal must be a path, got {value!r}")
    return value


def _metrics(value: Any) -> Any:
    return _several(value)  # else a name by itself would be taken for a list of letters


def _alerts(value: Any) -> Any:
    if value is None or isinstance(value, bool):  # YAML reads on and off so
        return "warn" if value else None
    if isinstance(value, str) and value in get_args(NamedAction):
        return value
    return [_rule(each) for each in _several(value)]


def _rule(value: Any) -> CollapseAlert:
    if isinstance(value, Mapping):
        _check("alerts: CollapseAlert has no argument", value, tuple(inspect.signature(CollapseAlert).parameters))
        if "kind" not in value:
            raise ValueError(f"alerts: {dict(value)!r} names no kind; e.g. {{kind: constant, action: stop}}")
        return CollapseAlert(**{**value, **_threshold(value)})
    if isinstance(value, str):
        names = (*get_args(NamedAction), *get_args(Kind))
        if value not in names:
            raise ValueError(f"alerts: {value!r} is no kind of alert and no action; {nearest(value, names)}")
        return CollapseAlert(value)  # type: ignore[arg-type]  # an action within a list it answers itself
    raise TypeError(f'alerts must be "warn", "stop", "raise", null or rules such as {{kind: constant}}, got {value!r}')


def _threshold(rule: Mapping[str, Any]) -> dict[str, float]:
    """Return the threshold that a run sets whose journal is named in place of a number."""
    path = rule.get("threshold")
    if not isinstance(path, str):
        return {}
    if rule["kind"] != "dimensional":
        raise ValueError(f"alerts: the threshold of {rule['kind']} is a number, got {path!r}; journals set dimensional")
    try:
        return {"threshold": threshold_from(path)}
    except OSError as error:
        raise ValueError(f"alerts: the threshold {path!r} is no number and no journal: {error.strerror}") from error


def _auxiliary(value: Any) -> WassersteinLoss | None:
    if value is False:
        return None
    if not isinstance(value, Mapping):
        value = {"weight": value}
    _check("auxiliary: WassersteinLoss has no argument", value, ("weight", "when"))
    options = {"when": value["when"]} if "when" in value else {}
    weight = value.get("weight", 0.1)
    if isinstance(weight, str) and weight.startswith("published:"):
        return WassersteinLoss.published(weight.partition(":")[2], **options)
    return WassersteinLoss(_weight(weight), **options)


def _weight(value: Any) -> Any:
    """Return a number or a schedule."""
    if not isinstance(value, str):
        return value
    name, *numbers = value.split(":")
    try:
        return float(value)  # YAML takes 1e-3 for a word
    except ValueError:
        pass
    if name not in SCHEDULES:
        raise ValueError(
            f"auxiliary: {value!r} is no number and no schedule; {nearest(name, (*SCHEDULES, 'published'))}"
        )
    try:
        return SCHEDULES[name](*map(float, numbers))
    except (TypeError, ValueError) as error:
        raise ValueError(f"auxiliary: {value!r} is no schedule ({error}); write linear:30:0, cosine:1:0.1") from error


def _writers(value: Any) -> list[Any]:
    return [_writer(each) for each in _several(value)]


def _writer(value: Any) -> Any:
    if not isinstance(value, str):
        raise TypeError(f"writers must be names such as tensorboard:DIR or mlflow:URI, got {value!r}")
    name, _, place = value.partition(":")
    if name not in _WRITERS:
        raise ValueError(f"writers: no writer is called {name!r}; {nearest(name, _WRITERS)}")
    return _WRITERS[name](place)


def _tensorboard(directory: str) -> Any:
    from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter

    if not directory:
        raise ValueError("writers: tensorboard needs a directory; e.g. tensorboard:runs/a")
    return TensorBoardWriter(directory)


def _mlflow(uri: str) -> Any:
    from uniformity_callbacks.integrations.mlflow import MLflowWriter

    return MLflowWriter(uri or None)


_WRITERS: dict[str, Callable[[str], Any]] = {"tensorboard": _tensorboard, "mlflow": _mlflow}
_CONVERT: dict[str, Callable[[Any], Any]] = {
    "layer": _layers,
    "journal": _journal,
    "metrics": _metrics,
    "alerts": _alerts,
    "auxiliary": _auxiliary,
    "writers": _writers,
}
