"""Where `uniformity sync` writes an MLflow run."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

try:
    import sqlalchemy
    from mlflow.entities import Metric, Run
    from mlflow.store.db.db_types import DATABASE_ENGINES
    from mlflow.tracking import MlflowClient
except ImportError as error:
    raise ImportError("--to mlflow needs mlflow; pip install 'uniformity-callbacks[mlflow]'") from error

from uniformity_callbacks.integrations.events import mlflow_artifact, tag_mlflow, to_mlflow
from uniformity_callbacks.integrations.keys import mlflow_key
from uniformity_callbacks.integrations.mlflow import DEFAULT_EXPERIMENT, active_run, log_metrics
from uniformity_callbacks.integrations.syncing import Notice, Point, SyncError, identity
from uniformity_callbacks.journal import Journal

TAG = "uniformity.journal"
"""The tag of a run that has a journal's readings: the journal's id."""

_MANY = 100
"""Points refused in a batch, one by one, until it is seen that it is not the points."""


class MLflowRun:
    """The run of a journal.

    That is ``run_id`` if given, else the last that the journal names and that the store has, else the one that is
    tagged with the journal's id, else a new one, made when there is something to write.

    Args:
        uri: of the store.
        journal: what is to be written.
        run_id: of a run that is there.
        experiment: name of a new run's experiment, made if it is not there; None for "Default".
        name: of a new run.

    Raises:
        SyncError: the store does not have the run that was given.

    Attributes:
        run_id: None as long as there is no run.
    """

    ordered = False

    def __init__(
        self,
        uri: str,
        journal: Journal,
        *,
        run_id: str | None = None,
        experiment: str | None = None,
        name: str | None = None,
    ) -> None:
        _reach(uri)
        self._client = MlflowClient(tracking_uri=uri)
        self._journal, self._identity = journal, identity(journal)
        self._experiment, self._name = experiment, name
        self.run_id, self._how = self._find(run_id)

    def __str__(self) -> str:
        return f"MLflow run {self.run_id} ({self._how})" if self.run_id else "MLflow"

    def steps(self, keys: Collection[str]) -> Mapping[str, Collection[int]]:
        """Return the steps that are there; one request for each key that has any."""
        if self.run_id is None:
            return {}
        names = {key: mlflow_key(key) for key in keys}
        known = self._client.get_run(self.run_id).data.metrics
        return {
            key: {metric.step for metric in self._client.get_metric_history(self.run_id, name)}
            for key, name in names.items()
            if name in known
        }

    def write(self, points: Sequence[Point]) -> list[str]:
        """Write points, no more than MLflow takes in a request; those that it refuses do not keep the others out."""
        metrics = [Metric(mlflow_key(p.key), p.value, int(p.time * 1000), p.step) for p in points]
        refused = []
        for why in log_metrics(self._client, self._run(), metrics):
            refused.append(why)
            if len(refused) == _MANY:
                raise SyncError(f"the store refuses point after point, at last {why}")
        return refused

    def announce(self, notices: Sequence[Notice]) -> int:
        """File alerts as tags and text artifacts."""
        if not notices:
            return 0
        run_id = self._run()
        paths = [mlflow_artifact(notice.alert, notice.key) for notice in notices]
        folders = {str(PurePosixPath(path).parent) for path in paths}
        there = {file.path for folder in folders for file in self._client.list_artifacts(run_id, folder)}
        missing = [notice for notice, path in zip(notices, paths, strict=True) if path not in there]
        for notice in missing:
            to_mlflow(self._client, run_id, notice.alert, notice.key)
        last = {(notice.key, notice.alert.kind): notice for notice in notices}
        for name in {(notice.key, notice.alert.kind) for notice in missing}:
            if last[name] not in missing:  # an older alert has taken its tag
                tag_mlflow(self._client, run_id, last[name].alert, last[name].key)
        return len(missing)

    def close(self) -> None:
        """Nothing is kept back."""

    def _find(self, given: str | None) -> tuple[str | None, str]:
        if given is not None:
            if (run := active_run(self._client, given)) is None:
                raise SyncError(f"the store has no run {given!r}, or has it among the deleted; see --run-id")
            self._mark(run)
            return given, "by --run-id"
        for store in reversed(self._journal.stores):
            named = store.get("run_id")
            if store.get("kind") == "mlflow" and isinstance(named, str) and active_run(self._client, named) is not None:
                return named, "named by the journal"
        for run in self._tagged():
            return str(run.info.run_id), "tagged with the journal's id"
        return None, ""

    def _tagged(self) -> Iterator[Run]:
        token = None
        while True:
            page = self._client.search_experiments(page_token=token)
            ids = [experiment.experiment_id for experiment in page]
            yield from self._client.search_runs(ids, f"tags.`{TAG}` = '{self._identity}'", max_results=1)
            token = page.token
            if not token:
                return

    def _mark(self, run: Run) -> None:
        """Have the run found again without its id; a run of several journals keeps the first one's."""
        if TAG not in run.data.tags:
            self._client.set_tag(run.info.run_id, TAG, self._identity)

    def _run(self) -> str:
        if self.run_id is None:
            self.run_id, self._how = self._new(), f"new, in experiment {self._experiment or 'Default'}"
        return self.run_id

    def _new(self) -> str:
        if self._experiment is None:
            experiment_id = DEFAULT_EXPERIMENT
        elif (found := self._client.get_experiment_by_name(self._experiment)) is not None:
            experiment_id = found.experiment_id
        else:
            experiment_id = self._client.create_experiment(self._experiment)
        times = [r.time for r in self._journal.readings] or [time.time()]
        begin, end = (int(1000 * seconds) for seconds in (min(times), max(times)))
        run = self._client.create_run(experiment_id, begin, {TAG: self._identity}, self._name)
        with contextlib.redirect_stdout(io.StringIO()):  # MLflow prints the store's address, credentials included
            self._client.set_terminated(run.info.run_id, end_time=end)  # now: nobody would if this process ended early
        return str(run.info.run_id)


def _reach(uri: str) -> None:
    """See at once whether a database answers, which MLflow asks ten times in 100 s.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it does not.
    """
    if uri.partition("://")[0].partition("+")[0] in DATABASE_ENGINES:
        engine = sqlalchemy.create_engine(uri)
        try:
            sqlalchemy.inspect(engine).get_table_names()
        finally:
            engine.dispose()
