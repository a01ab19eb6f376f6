"""How an alert is filed with what is not ours: text in TensorBoard, tag and text artifact in MLflow, alert in W&B."""

from __future__ import annotations

from typing import Any

from uniformity_callbacks.alerts import Alert
from uniformity_callbacks.integrations.keys import mlflow_key


def to_tensorboard(summary: Any, alert: Alert, key: str) -> None:
    """Add an alert as text to a ``SummaryWriter``, under ``uniformity/alerts/constant`` for the key ``uniformity/``."""
    summary.add_text(*as_text(alert, key), alert.step)


def as_text(alert: Alert, key: str) -> tuple[str, str]:
    """Return the tag and the text of an alert in TensorBoard."""
    # Four spaces make it a block as it is: its lines are laid out, and names from models are not read as Markdown.
    block = "\n".join(f"    {line}" for line in alert.message.splitlines())
    return f"{key}alerts/{alert.kind}", block


def to_mlflow(client: Any, run_id: str, alert: Alert, key: str) -> None:
    """Set the tag ``uniformity/alerts/constant`` of an MLflow run and add the message as a text artifact."""
    tag_mlflow(client, run_id, alert, key)
    client.log_text(run_id, alert.message + "\n", mlflow_artifact(alert, key))


def tag_mlflow(client: Any, run_id: str, alert: Alert, key: str) -> None:
    """Set the tag alone, which tells of the last alert of its kind."""
    what = f"{_what(alert)} at step {alert.step}, since step {alert.since}"
    client.set_tag(run_id, mlflow_key(f"{key}alerts/{alert.kind}"), what)


def mlflow_artifact(alert: Alert, key: str) -> str:
    """Return the path of an alert's text: ``uniformity/alerts/constant-50-found.txt`` for the key ``uniformity/``."""
    return f"{mlflow_key(f'{key}alerts/{alert.kind}')}-{alert.step}-{_what(alert)}.txt"


def to_wandb(run: Any, alert: Alert) -> None:
    """Send an alert of Weights & Biases, which mails it to those who asked for that."""
    level = "INFO" if alert.recovered else "WARN"
    run.alert(f"uniformity: {alert.kind} {_what(alert)} at step {alert.step}", alert.message, level=level)


def to_experiment(experiment: Any, run_id: str | None, alert: Alert, key: str) -> None:
    """File an alert with what a logger of Lightning's writes to, if it takes texts; else do nothing."""
    if hasattr(experiment, "add_text"):  # TensorBoardLogger: a SummaryWriter, of torch or of tensorboardX
        to_tensorboard(experiment, alert, key)
    elif run_id is not None and hasattr(experiment, "log_text") and hasattr(experiment, "set_tag"):  # MLFlowLogger
        to_mlflow(experiment, run_id, alert, key)
    elif hasattr(experiment, "alert") and hasattr(experiment, "define_metric"):  # WandbLogger
        to_wandb(experiment, alert)


def _what(alert: Alert) -> str:
    return "over" if alert.recovered else "found"
