"""When a sequence of readings means collapse, and when it is over: plain logic, readings in, alerts out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from uniformity_callbacks import wording
from uniformity_callbacks.panel import Reading
from uniformity_callbacks.rules import CONSTANT_THRESHOLD, NEEDS, Action, CollapseAlert, NamedAction


@dataclass(frozen=True)
class Alert:
    """A collapse that was found, or that is over.

    Attributes:
        kind: "constant", "dimensional", "nonfinite" or "blind".
        step: the reading that made it certain.
        since: the first reading of the unbroken row that agrees; of a recovery, that of the collapse it ends.
        readings: the watched metric in the last readings of that row, as many as the patience.
        threshold: what the readings were compared with.
        action: "warn", "stop", "raise", or the name of the function that was given.
        layer: dotted path of the layer.
        message: all of it in words, and what people do about it.
        recovered: it is over, rather than found.
    """

    kind: str
    step: int
    since: int
    readings: tuple[float, ...]
    threshold: float
    action: str
    layer: str
    message: str
    recovered: bool = False


class CollapseError(RuntimeError):
    """Raised in the training thread by an alert whose action is "raise".

    Attributes:
        alert: the alert.
    """

    def __init__(self, alert: Alert) -> None:
        super().__init__(alert.message)
        self.alert = alert

    def __reduce__(self) -> tuple[type[CollapseError], tuple[Alert]]:
        return type(self), (self.alert,)  # processes hand it on


@dataclass(frozen=True)
class Watch:
    """What one rule remembers of one layer; `advance` is the pure function from reading to reading.

    Attributes:
        since: step of the first reading of the row under way, or None.
        recent: what was watched in the row's last readings; of a standing alert, in the row that clears it.
        length: readings in the row.
        standing: the alert was raised and is not over.
        limit: the threshold it was raised at.
        level: dimensional: the most dims that the run has held for a patience's readings.
        last: dimensional: dims in the last readings, from which the level comes.
        one_point: the outputs are nearly one point, where dims mean nothing.
    """

    since: int | None = None
    recent: tuple[float, ...] = ()
    length: int = 0
    standing: bool = False
    limit: float | None = None
    level: float | None = None
    last: tuple[float, ...] = ()
    one_point: bool = False

    def advance(self, rule: CollapseAlert, reading: Reading) -> tuple[Watch, Alert | None]:
        """Return the memory after a reading, and the alert if it is this reading that makes it or its end certain."""
        if reading.step < rule.begins:
            return self, None
        now = self._see_point(reading) if rule.kind == "dimensional" else self
        value = rule.value(reading)
        if value is None or now.one_point:
            return now, None
        if rule.kind == "dimensional":
            now = now._see_level(value, rule.count)
        if now.standing:
            return now._clear(rule, reading, value)
        limit = rule.limit(reading, now.level)
        if not rule.collapsed(value, limit):
            return replace(now, since=None, recent=(), length=0), None
        since = reading.step if now.since is None else now.since
        now = replace(now, since=since, recent=(*now.recent, value)[-rule.count :], length=now.length + 1)
        if now.length < rule.count:
            return now, None
        alert = now._alert(rule, reading, limit)
        return replace(now, standing=True, limit=limit, recent=(), length=0), alert

    def _clear(self, rule: CollapseAlert, reading: Reading, value: float) -> tuple[Watch, Alert | None]:
        """Count the readings that are clear of the threshold while an alert stands."""
        assert self.limit is not None, "set when the alert was raised"
        if not rule.recovered(value, self.limit, reading.dims):
            return replace(self, recent=(), length=0), None
        now = replace(self, recent=(*self.recent, value)[-rule.count :], length=self.length + 1)
        if now.length < rule.count:
            return now, None
        alert = now._alert(rule, reading, rule.recovery(self.limit, reading.dims), recovered=True)
        return Watch(level=self.level, last=self.last, one_point=self.one_point), alert

    def _see_point(self, reading: Reading) -> Watch:
        """Outputs are nearly one point from the constant threshold on, until they are clear of it again."""
        constant = CollapseAlert("constant")
        resultant = constant.value(reading)
        if resultant is None:
            return self
        near = constant.collapsed(resultant, CONSTANT_THRESHOLD)
        near |= self.one_point and not constant.recovered(resultant, CONSTANT_THRESHOLD, reading.dims)
        return replace(self, one_point=near)

    def _see_level(self, value: float, patience: int) -> Watch:
        last = (*self.last, value)[-patience:]
        if len(last) < patience:
            return replace(self, last=last)
        held = min(last)
        return replace(self, last=last, level=held if self.level is None else max(self.level, held))

    def _alert(self, rule: CollapseAlert, reading: Reading, limit: float, *, recovered: bool = False) -> Alert:
        assert self.since is not None, "a row has a first reading"
        message = wording.message(
            rule, reading, since=self.since, recent=self.recent, limit=limit, level=self.level, recovered=recovered
        )
        return Alert(
            rule.kind,
            reading.step,
            self.since,
            self.recent,
            limit,
            rule.action_name,
            reading.layer,
            message,
            recovered,
        )


class AlertBook:
    """The rules of a run and what they remember of each layer.

    Args:
        rules: None, "warn", "stop", "raise", a function of the alert, or a list of `CollapseAlert`.

    Raises:
        ValueError: rules is none of these, or names one kind twice.
    """

    def __init__(self, rules: Sequence[CollapseAlert] | Action | None) -> None:
        self.rules = _rules(rules)
        self._watches: dict[tuple[str, str], Watch] = {}

    @property
    def needs(self) -> tuple[str, ...]:
        """Metrics that the rules read."""
        return tuple(dict.fromkeys(name for rule in self.rules for name in NEEDS[rule.kind]))

    def rule(self, kind: str) -> CollapseAlert | None:
        """Return the rule of a kind, if there is one."""
        return next((rule for rule in self.rules if rule.kind == kind), None)

    @property
    def standing(self) -> set[tuple[str, str]]:
        """Layer and kind of the alerts that stand and have a rule to end them."""
        return {(layer, kind) for (layer, kind), watch in self._watches.items() if watch.standing and self.rule(kind)}

    def update(self, reading: Reading) -> list[Alert]:
        """Take in the next reading of its layer and return the alerts it raises or ends."""
        alerts = []
        for rule in self.rules:
            key = (reading.layer, rule.kind)
            self._watches[key], alert = self._watches.get(key, Watch()).advance(rule, reading)
            if alert:
                alerts.append(alert)
        return alerts

    def unused(self, layers: Collection[str]) -> list[str]:
        """Return in words what is remembered of layers that are not among these, and of kinds that have no rule."""
        known = [(layer, kind) for layer, kind in self._watches if layer not in layers or self.rule(kind) is None]
        return [f"alerts of the kind {kind} of {layer}" for layer, kind in known]

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what is remembered as plain lists, dicts, numbers and strings."""
        return [
            {"layer": layer, "kind": kind, **asdict(watch), "recent": list(watch.recent), "last": list(watch.last)}
            for (layer, kind), watch in self._watches.items()
        ]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Take up what `state_dict` returned."""
        watches: dict[tuple[str, str], Watch] = {}
        for entry in state:
            memory: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
            layer, kind = memory.pop("layer"), memory.pop("kind")
            watches[layer, kind] = Watch(**memory)
        self._watches = watches


def _rules(rules: Sequence[CollapseAlert] | Action | None) -> tuple[CollapseAlert, ...]:
    if rules is None:
        return ()
    if callable(rules):
        return tuple(CollapseAlert.defaults(rules))
    for action in get_args(NamedAction):
        if rules == action:
            return tuple(CollapseAlert.defaults(action))
    if isinstance(rules, str) or not all(isinstance(rule, CollapseAlert) for rule in rules):
        names = ", ".join(f'"{name}"' for name in get_args(NamedAction))
        raise ValueError(f"alerts must be None, {names}, a function or a list of CollapseAlert, got {rules!r}")
    kinds = [rule.kind for rule in rules]
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"alerts must name each kind once, got {', '.join(kinds)}")
    return tuple(rules)
