"""``uniformity sync``: what a store does not have of a run's journal, written to it."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from uniformity_callbacks.integrations.terminal import Failed, Progress, count, line
from uniformity_callbacks.masking import masked
from uniformity_callbacks.names import nearest

if TYPE_CHECKING:
    from uniformity_callbacks.integrations.syncing import Outcome, Store
    from uniformity_callbacks.journal import Journal

_BRIEF = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""How MLflow asks a server that is not there, unless the user's environment says otherwise; by itself it takes minutes,
which is right for a training and wrong for a person who waits."""

_TOLD = 10
"""Points refused that are told one by one."""


@click.command("sync", short_help="Write what a store does not have of a run's journal.")
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
    from uniformity_callbacks.integrations.syncing import SyncError, sync

    told = _read(journal)
    if not (told.readings or told.alerts or told.recoveries):
        click.echo("nothing to write: the journal has no readings yet")
        return
    with _quiet(), Progress("points") as progress:
        try:
            store = _OPEN[kind](place, told, journal, run_id, experiment)
            outcome = sync(told, store, progress)
        except SyncError as error:
            raise Failed(line(str(error), place)) from error
        except Exception as error:  # whatever a store, its driver or the network raise
            what = line(f"{type(error).__name__}: {error}", place)
            raise Failed(f"{masked(target, place)} cannot be read or written: {what}") from error
    click.echo(line(_summary(outcome, store), place))
    for refused in outcome.refused[:_TOLD]:
        click.echo(f"not written: {line(refused, place)}", err=True)
    if outcome.refused:
        raise click.ClickException(f"{count(len(outcome.refused), 'record')} could not be written")


def _parsed(target: str, run_id: str | None, experiment: str | None) -> tuple[str, str]:
    kind, _, place = target.partition(":")
    if kind not in _OPEN:  # what follows may hold a password
        raise Failed(f"--to must be mlflow:URI or tensorboard:DIR, got one of kind {kind!r}; {nearest(kind, _OPEN)}")
    if not place:
        raise Failed(f"--to {kind}: needs a place; such as mlflow:http://localhost:5000 or tensorboard:runs/a")
    if kind != "mlflow" and (run_id or experiment):
        raise click.UsageError("--run-id and --experiment are MLflow's; leave them out")
    if run_id and experiment:
        raise click.UsageError("--run-id names a run that is there; give it without --experiment")
    return kind, place


def _read(path: Path) -> Journal:
    from uniformity_callbacks.journal import read_journal

    try:
        journal = read_journal(path)
    except OSError as error:
        raise Failed(f"{str(path)!r} cannot be read: {error.strerror}; give the .jsonl file of a run") from error
    except ValueError as error:
        raise Failed(line(str(error))) from error
    if journal.unreadable:
        where = ", ".join(str(number) for number in journal.unreadable[:_TOLD])
        more = ", ..." if len(journal.unreadable) > _TOLD else ""
        lines = count(len(journal.unreadable), "line")
        click.echo(f"{lines} of the journal cannot be read, and what was in it is not written: {where}{more}", err=True)
    if journal.abandoned:
        click.echo(f"left out: {count(len(journal.abandoned), 'reading')} of steps that were done again")
    return journal


@contextmanager
def _extra() -> Iterator[None]:
    """What is not installed is told as the modules that need it tell it."""
    from uniformity_callbacks.integrations.syncing import SyncError

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
    there = _and(count(outcome.points_there, "point"), count(outcome.alerts_there, "alert"))
    if not (outcome.points or outcome.alerts):
        return f"nothing to write: {store} has all {there} already" if there else f"nothing was written to {store}"
    points = f"{count(outcome.points, 'point')} of {count(outcome.readings, 'reading')}" if outcome.points else ""
    wrote = f"wrote {_and(points, count(outcome.alerts, 'alert'))} to {store}"
    if there:
        wrote += f"; {there} {'was' if outcome.points_there + outcome.alerts_there == 1 else 'were'} there already"
    if outcome.again:
        wrote += f", {outcome.again:,} of which are written again: TensorBoard shows no step behind a later one"
    return wrote


def _and(*parts: str) -> str:
    return " and ".join(part for part in parts if part)


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
