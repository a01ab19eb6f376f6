"""The command line, ``uniformity`` or ``python -m uniformity_callbacks``.

Each command is a module of its own, which imports what it computes with inside functions: ``--help`` is there at once.
"""

from __future__ import annotations

import click

from uniformity_callbacks.integrations.command_measure import measure_command
from uniformity_callbacks.integrations.command_report import report_command
from uniformity_callbacks.integrations.command_sync import sync_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="uniformity-callbacks")
def main() -> None:
    """What uniformity_callbacks tells of embeddings on disk, and of a run after the run."""


main.add_command(measure_command)
main.add_command(report_command)
main.add_command(sync_command)
