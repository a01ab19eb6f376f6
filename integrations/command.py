"""The command line, ``uniformity`` or ``python -m uniformity_callbacks``."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from uniformity_callbacks.integrations.syncing import Outcome, Store, SyncError, sync
from uniformity_callbacks.journal import Journal, read_journal
from uniformity_callbacks.masking import masked
from uniformity_callbacks.names import nearest

_BRIEF = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""How MLflow asks a server that is not there, unless the user's environment says otherwise; by itself it takes minutes,
which is right for a training and wrong for a person who waits."""

_TOLD = 10
"""Points refused that are told one by one."""

_LONG_S = 2.0
"""What takes longer shows how far it is."""

_LINE = 400
"""Letters of an error that are told: some stores answer with a page."""


class _Failed(click.ClickException):
    """Bad input, or a store that does not answer: one line and no traceback."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="uniformity-callbacks")
def main() -> None:
    """What uniformity_callbacks recorded of a run, after the run."""


@main.command("sync", short_help="Write what a store does not have of a run's journal.")
@click.argument("journal", type=click.Path(path_type=Path))
@click.option("--to", "target", required=True, metavar="KIND:PLACE", help="mlflow:URI or tensorboard:DIR.")
@click.option("--run-id", help="MLflow: the run to write to.")
@click.option("--experiment", help="MLflow: of a new run, made if it is not there.  [default: Default]")
def sync_command(journal: Path, target: str, run_id: str | None, experiment: str | None) -> None:
    """Write to a store what it does not have of the JOURNAL, the .jsonl file of a run.

    Each reading and alert is in the store afterwards, by key and step. What is there already is left as it is, so that
    the command can be given again: a second time adds nothing. Of steps that were done again after a resumption it is
    the later that count.

    \b
    Examples:
      uniformity sync logs/uniformity.jsonl --to mlflow:http://localhost:5000
      uniformity sync logs/uniformity.jsonl --to mlflow:sqlite:///mlflow.db
      uniformity sync logs/uniformity.jsonl --to tensorboard:runs/a

    In MLflow the run is that of --run-id, else the one that the journal names, else the one that has its id as the tag
    uniformity.journal, else a new one.
    """  # noqa: D301 - the backspace keeps click from filling the lines that follow
    kind, place = _parsed(target, run_id, experiment)
    told = _read(journal)
    if not (told.readings or told.alerts or told.recoveries):
        click.echo("nothing to write: the journal has no readings yet")
        return
    with _quiet(), _Progress() as progress:
        try:
            store = _OPEN[kind](place, told, journal, run_id, experiment)
            outcome = sync(told, store, progress)
        except SyncError as error:
            raise _Failed(_line(str(error), place)) from error
        except Exception as error:  # whatever a store, its driver or the network raise
            what = _line(f"{type(error).__name__}: {error}", place)
            raise _Failed(f"{masked(target, place)} cannot be read or written: {what}") from error
    click.echo(_line(_summary(outcome, store), place))
    for refused in outcome.refused[:_TOLD]:
        click.echo(f"not written: {_line(refused, place)}", err=True)
    if outcome.refused:
        raise click.ClickException(f"{_count(len(outcome.refused), 'record')} could not be written")


def _parsed(target: str, run_id: str | None, experiment: str | None) -> tuple[str, str]:
    kind, _, place = target.partition(":")
    if kind not in _OPEN:  # what follows may hold a password
        raise _Failed(f"--to must be mlflow:URI or tensorboard:DIR, got one of kind {kind!r}; {nearest(kind, _OPEN)}")
    if not place:
        raise _Failed(f"--to {kind}: needs a place; such as mlflow:http://localhost:5000 or tensorboard:runs/a")
    if kind != "mlflow" and (run_id or experiment):
        raise click.UsageError("--run-id and --experiment are MLflow's; leave them out")
    if run_id and experiment:
        raise click.UsageError("--run-id names a run that is there; give it without --experiment")
    return kind, place


def _read(path: Path) -> Journal:
    try:
        journal = read_journal(path)
    except OSError as error:
        raise _Failed(f"{str(path)!r} cannot be read: {error.strerror}; give the .jsonl file of a run") from error
    except ValueError as error:
        raise _Failed(_line(str(error))) from error
    if journal.unreadable:
        where = ", ".join(str(number) for number in journal.unreadable[:_TOLD])
        more = ", ..." if len(journal.unreadable) > _TOLD else ""
        lines = _count(len(journal.unreadable), "line")
        click.echo(f"{lines} of the journal cannot be read, and what was in it is not written: {where}{more}", err=True)
    if journal.abandoned:
        click.echo(f"left out: {_count(len(journal.abandoned), 'reading')} of steps that were done again")
    return journal


@contextmanager
def _extra() -> Iterator[None]:
    """What is not installed is told as the modules that need it tell it."""
    try:
        yield
    except ImportError as error:
        raise SyncError(str(error)) from error


def _mlflow(uri: str, journal: Journal, path: Path, run_id: str | None, experiment: str | None) -> Store:
    with _extra():
        from uniformity_callbacks.integrations.sync_mlflow import MLflowRun
    return MLflowRun(uri, journal, run_id=run_id, experiment=experiment, name=path.stem)


def _tensorboard(directory: str, journal: Journal, path: Path, run_id: str | None, experiment: str | None) -> Store:
    with _extra():
        from uniformity_callbacks.integrations.sync_tensorboard import EventFiles
    return EventFiles(directory)


_OPEN: dict[str, Callable[[str, Journal, Path, str | None, str | None], Store]] = {
    "mlflow": _mlflow,
    "tensorboard": _tensorboard,
}
"""Kind of store -> what opens one; each imports what it needs, which the user may not have."""


def _summary(outcome: Outcome, store: Store) -> str:
    there = _and(_count(outcome.points_there, "point"), _count(outcome.alerts_there, "alert"))
    if not (outcome.points or outcome.alerts):
        return f"nothing to write: {store} has all {there} already" if there else f"nothing was written to {store}"
    points = f"{_count(outcome.points, 'point')} of {_count(outcome.readings, 'reading')}" if outcome.points else ""
    wrote = f"wrote {_and(points, _count(outcome.alerts, 'alert'))} to {store}"
    if there:
        wrote += f"; {there} {'was' if outcome.points_there + outcome.alerts_there == 1 else 'were'} there already"
    if outcome.again:
        wrote += f", {outcome.again:,} of which are written again: TensorBoard shows no step behind a later one"
    return wrote


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}" if number else ""


def _and(*parts: str) -> str:
    return " and ".join(part for part in parts if part)


def _line(text: str, uri: str = "") -> str:
    """Return a text as one line without credentials."""
    line = masked(" ".join(text.split()), uri)
    return line if len(line) <= _LINE else line[:_LINE] + "..."


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow's words and patience are for trainings; what is to be told is told here."""
    ours = {name: value for name, value in _BRIEF.items() if name not in os.environ}
    os.environ.update(ours)
    disabled = logging.root.manager.disable
    logging.disable()  # not by levels: MLflow sets its own when it is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(disabled)
            for name in ours:
                os.environ.pop(name, None)


class _Progress:
    """A bar on a terminal, for what takes long."""

    def __init__(self) -> None:
        self._began, self._done = time.monotonic(), 0
        self._stack = ExitStack()
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __call__(self, done: int, of: int) -> None:
        if self._bar is None and sys.stderr.isatty() and time.monotonic() - self._began > _LONG_S:
            self._bar = self._stack.enter_context(click.progressbar(length=of, label="points", file=sys.stderr))
            self._done = 0
        if self._bar is not None:
            self._bar.update(done - self._done)
            self._done = done
