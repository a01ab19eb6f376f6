"""What must hold of any input whatever; hypothesis draws it in `make test`, atheris in `make fuzz`."""

import math
from inspect import signature

from uniformity_callbacks import Alert, Reading, read_journal
from uniformity_callbacks.integrations.syncing import identity, notices_of, points_of
from uniformity_callbacks.journal import readings_from
from uniformity_callbacks.report.page import started, tables_of
from uniformity_callbacks.report.series import heat_map, line
from uniformity_callbacks.report.story import Story

BOUND = 2**63


def check_journal(path, data):
    """Read bytes as a journal, do with it what others do, and return it; None if it is none."""
    path.write_bytes(data)
    lines, back, said = lines_of(data), None, ""
    try:
        back = read_journal(path)
    except ValueError as error:
        said = str(error)
    if back is None:
        assert f"is no journal: none of its {lines} lines is a record" in said
        assert list(readings_from(path, 0, len(data))) == []
        return None
    readings, alerts = [*back.readings, *back.abandoned], [*back.alerts, *back.recoveries, *back.abandoned_alerts]
    assert len(back.runs) + len(readings) + len(alerts) + len(back.stores) + len(back.unreadable) == lines
    for reading in readings:
        _check_reading(reading)
    for alert in alerts:
        _check_alert(alert)
    assert len(list(readings_from(path, 0, len(data)))) == len(readings)
    assert isinstance(back.id, str)
    assert identity(back).isascii()
    assert all(point.key.encode() and math.isfinite(point.time) for point in points_of(back))
    assert len(notices_of(back)) <= len(alerts)
    for reading in back.readings:
        assert len(back.keyed(reading)) == len(reading.values)
        assert reading.step in back.series(next(iter(reading.values), ""), stage=reading.stage)[0] or not reading.values
    _check_story(Story("a", back))
    return back


def _check_story(story):
    """What the report says and draws of it, but for the drawing itself."""
    assert story.headline
    assert all(
        isinstance(text, str) for text in [started(story), *story.sentences, *story.notes, *sum(story.facts, ())]
    )
    assert len(story.episodes) <= len(story.journal.readings) + len(story.journal.alerts)
    for layer in story.layers:
        assert len(line(story, "w2", layer).thinned(4).steps) <= 8
        heat = heat_map(story, layer)
        assert heat is None or {len(column) for column in heat.columns} == {len(heat.ranks)}
    assert all(len(row) == len(table.heads) for table in tables_of(story) for row in table.cells)


def lines_of(data):
    """Return how many lines there are, the last of which may have no end."""
    return data.count(b"\n") + (data[-1:] not in (b"\n", b""))


def _check_reading(reading):
    assert isinstance(reading, Reading)
    assert {type(text) for text in (reading.layer, reading.stage, reading.why, *reading.values)} == {str}
    assert type(reading.step) is type(reading.dims) is int
    assert 0 <= reading.step < BOUND
    assert 0 <= reading.time < BOUND / 1000
    assert all(type(value) is float for value in reading.values.values())


def _check_alert(alert):
    assert isinstance(alert, Alert)
    assert {type(text) for text in (alert.kind, alert.action, alert.layer, alert.message)} == {str}
    assert type(alert.step) is type(alert.since) is int
    assert 0 <= alert.step < BOUND
    assert {type(value) for value in (*alert.readings, alert.threshold)} == {float}
    assert type(alert.recovered) is bool


def check_key(key):
    """Name a key for MLflow, have MLflow's own validation take the name, and return it."""
    from mlflow.utils.validation import _validate_metric_name, _validate_tag_name

    from uniformity_callbacks.integrations.keys import mlflow_key

    name = mlflow_key(key)
    _validate_metric_name(name)
    _validate_tag_name(name)
    assert 0 < len(name) <= 250
    assert "\n" not in name  # which MLflow's own pattern lets through at the end
    assert mlflow_key(name) == name == mlflow_key(key)
    assert name == key or name[-13] == "-"  # and twelve digits of the key's own
    return name


def check_line(text):
    """Read a line of options, and see to what they mean; None where an error says what is wrong."""
    from uniformity_callbacks.integrations.settings import keys_of

    keys, said = None, ""
    try:
        keys = keys_of(text)
    except ValueError as error:
        said = str(error)
    assert said or all(isinstance(name, str) for name in keys)
    return None if keys is None else check_keys(keys)


def check_keys(keys):
    """Mean some keys and make the monitor that they ask for; None where an error names the option that is wrong."""
    from uniformity_callbacks import CollapseAlert, UniformityMonitor
    from uniformity_callbacks.integrations.settings import KEYS, arguments

    assert is_plain(keys)
    known = (*KEYS, *signature(CollapseAlert).parameters, "weight", "when", "start", "end", "method")
    monitor, said = None, ""
    try:
        monitor = UniformityMonitor(**arguments(keys))
    except (ValueError, TypeError) as error:
        said = str(error)
    assert monitor or any(name in said for name in (*known, "UniformityCallback")), said
    return monitor


def is_plain(value):
    """Whether a value is data: of YAML's types, and nothing that could do anything."""
    if isinstance(value, dict):
        return all(is_plain(item) for pair in value.items() for item in pair)
    if isinstance(value, (list, tuple, set)):
        return all(is_plain(item) for item in value)
    return type(value).__module__ in ("builtins", "datetime") and not callable(value)
