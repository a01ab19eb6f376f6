"""MLflowWriter: readings into an MLflow run."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

try:
    import mlflow
    from mlflow.entities import LifecycleStage, Metric, Run
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode
    from mlflow.tracking import MlflowClient
except ImportError as error:
    raise ImportError("MLflowWriter needs mlflow; pip install 'uniformity-callbacks[mlflow]'") from error

from uniformity_callbacks.alerts import Alert
from uniformity_callbacks.faults import in_words
from uniformity_callbacks.integrations.events import to_mlflow
from uniformity_callbacks.integrations.keys import mlflow_key
from uniformity_callbacks.integrations.reachable import ask
from uniformity_callbacks.lines import is_storable
from uniformity_callbacks.masking import masked
from uniformity_callbacks.writers import Entry, Refused

log = logging.getLogger("uniformity_callbacks")

_DEFAULT_FILE = "mlflow.db"
"""In the working directory, as MLflow 3 has it by default; older versions' ``./mlruns`` is no longer accepted by it."""

_FIND_S = 1.0
"""How long a checkpoint waits to learn of a run that is being made; a server that is there takes less."""

_MISSING = [ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)]
"""What a store answers that does not have a run, or could not have one of such an id."""

_BATCH = 1000
"""Metrics that MLflow takes in a request."""

DEFAULT_EXPERIMENT = "0"
"""Id of the experiment "Default", which every store has."""


class MLflowWriter:
    """Writes readings as batches of metrics under their keys, and each alert as a tag and a text artifact.

    The run is ``run_id`` if given, else the active run of the thread that starts training (as ``mlflow.start_run`` or
    autologging leave it), else that of the run that is resumed or of the fit before, else a new one. The last two are
    ended with training.

    Args:
        tracking_uri: where; None for what ``mlflow.set_tracking_uri`` or ``MLFLOW_TRACKING_URI`` say, else the file
            ``mlflow.db`` in the working directory.
        experiment: name, made if it is not there; None for what ``mlflow.set_experiment`` or the environment say.
        run_id: an existing run to join.
        run_name: name of a new run.
        flush_secs: readings of so many seconds are written together: a request, or a transaction, takes some 10 ms of
            the processor whatever is in it. Alerts and the end of training do not wait for it. 0 writes each at once.

    Raises:
        ValueError: run_id together with experiment or run_name; flush_secs below 0.

    Example:
        >>> writer = MLflowWriter("sqlite:///mlflow.db", experiment="digits", run_name="siamese")
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        experiment: str | None = None,
        run_id: str | None = None,
        *,
        run_name: str | None = None,
        flush_secs: float = 5.0,
    ) -> None:
        if run_id is not None and (experiment is not None or run_name is not None):
            raise ValueError("run_id names an existing run; give it without experiment and run_name")
        if not flush_secs >= 0:
            raise ValueError(f"flush_secs must be >= 0, got {flush_secs!r}")
        self.flush_secs = flush_secs
        self._uri, self._experiment, self._run_name = tracking_uri, experiment, run_name
        self._given = run_id
        self._last: str | None = None
        self._client: MlflowClient | None = None
        self._ours, self._waits = False, False
        self.run_id = run_id

    def open(self) -> None:
        """Find the store and the run to join; an active run belongs to the calling thread. Asks no server."""
        given = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]  # MLflow leaves it untyped
        # As an absolute path: MLflow keeps stores by URI, and training may change the working directory.
        current = mlflow.get_tracking_uri() if given else f"sqlite:///{Path(_DEFAULT_FILE).resolve()}"
        self._uri = self._uri or current
        if self._given is None:  # found anew by each training: its run may have been ended meanwhile
            self._last, self.run_id = self.run_id or self._last, None
        self._waits = True
        active = mlflow.active_run()
        named = self._given or self._experiment or self._run_name
        if active is not None and not named and self._uri == current:
            self.run_id = active.info.run_id

    def __call__(self, values: Mapping[str, float], step: int, /) -> None:
        """Log one reading now."""
        self.many([(values, step, time.time())])

    def many(self, readings: Sequence[Entry]) -> None:
        """Log some readings."""
        client, run_id = self._join()
        metrics, refused = _metrics(readings)
        count = len(metrics) + len(refused)
        for k, why in enumerate(log_metrics(client, run_id, metrics)):
            if k == 0 and active_run(client, run_id) is None:
                raise RuntimeError(f"run {run_id} is deleted")
            refused.append(why)
        if refused:
            raise Refused(f"MLflow does not take {len(refused)} of {count} values: {refused[0]}", len(refused))

    @property
    def target(self) -> str:
        """What ``uniformity sync --to`` calls the store."""
        return f"mlflow:{masked(str(self._uri))}"

    @property
    def store(self) -> dict[str, Any] | None:
        """What the journal is to know: where the run is, once there is one."""
        if self.run_id is None:
            return None
        return {"kind": "mlflow", "uri": masked(str(self._uri)), "run_id": self.run_id}

    def alert(self, alert: Alert, key: str) -> None:
        """Tag the run and add the alert's message as a text artifact."""
        to_mlflow(*self._join(), alert, key)

    def state_dict(self) -> dict[str, Any]:
        """Return the run's id, waiting a little for the thread that writes to have found the run."""
        deadline = time.monotonic() + _FIND_S
        while self._waits and self.run_id is None:
            if time.monotonic() > deadline:
                self._waits = False  # the next checkpoint is not held up by a dead server, too
            time.sleep(0.01)
        return {"run_id": self.run_id or self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the run that `state_dict` told of, unless another one is given."""
        if self._given is None:
            self._last, self.run_id = state["run_id"], None

    def close(self) -> None:
        """End the run if it is ours."""
        self._waits = False
        if self._client is not None and self.run_id is not None and self._ours:
            self._client.set_terminated(self.run_id)
            self._ours = False

    def _join(self) -> tuple[MlflowClient, str]:
        ask(str(self._uri))
        if self._client is None:
            self._client = MlflowClient(tracking_uri=self._uri)
        if self.run_id is None:
            self.run_id = self._reopen(self._client) or self._new_run(self._client)
            self._ours = True
        return self._client, self.run_id

    def _reopen(self, client: MlflowClient) -> str | None:
        """Return the id of the run to go on with, running again; None if there is none."""
        if self._last is None:
            return None
        if active_run(client, self._last) is None:
            told = "uniformity: MLflow run %s is not in %s any more; a new one is begun"
            log.warning(told, self._last, masked(str(self._uri)))
            self._last = None
            return None
        client.update_run(self._last, status="RUNNING")
        return self._last

    def _new_run(self, client: MlflowClient) -> str:
        name = self._experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        if name is None:
            # mlflow.set_experiment sets this variable too.
            experiment_id = os.environ.get("MLFLOW_EXPERIMENT_ID", DEFAULT_EXPERIMENT)
        elif (found := client.get_experiment_by_name(name)) is not None:
            experiment_id = found.experiment_id
        else:
            experiment_id = client.create_experiment(name)
        return str(client.create_run(experiment_id, run_name=self._run_name).info.run_id)


def _metrics(readings: Sequence[Entry]) -> tuple[list[Metric], list[str]]:
    """Return what MLflow can hold of some readings, and why it cannot hold the rest."""
    metrics, refused = [], []
    for values, step, seconds in readings:
        for key, value in values.items():
            try:
                number = float(value)
                if not is_storable(step, seconds):
                    raise ValueError("its step or time is out of all bounds")
                finite = number if math.isfinite(number) else math.nan
                metrics.append(Metric(mlflow_key(key), finite, int(seconds * 1000), step))
            except (TypeError, ValueError, ArithmeticError) as error:
                refused.append(f"{key} at step {step}: {in_words(error)}")
    return metrics, refused


def log_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> Iterator[str]:
    """Log metrics, and yield what of them MLflow will never take, and why: one bad value costs only itself.

    Args:
        client: of the store.
        run_id: of a run in it.
        metrics: any number, in order.

    Raises:
        MlflowException: the store takes none now.
    """
    for k in range(0, len(metrics), _BATCH):
        yield from _log_batch(client, run_id, metrics[k : k + _BATCH])


def _log_batch(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> Iterator[str]:
    """Log a batch, or else its halves, down to what is refused by itself."""
    try:
        client.log_batch(run_id, metrics=metrics)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(INVALID_PARAMETER_VALUE):
            raise
        if len(metrics) == 1:
            yield f"{metrics[0].key} at step {metrics[0].step}: {error.message}"
            return
        half = len(metrics) // 2
        yield from _log_batch(client, run_id, metrics[:half])
        yield from _log_batch(client, run_id, metrics[half:])


def active_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return a run; None if the store does not have it, or among the deleted.

    Raises:
        MlflowException: the store does not answer.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in _MISSING:  # a store that is down may have it
            raise
        return None
    return run if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None
