"""What the commands have in common: errors of one line, counts in words, and a bar for what takes long."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import Any

import click

from uniformity_callbacks.masking import masked

_LONG_S = 2.0
"""What takes longer shows how far it is."""

_LINE = 400
"""Letters of an error that are told: some stores answer with a page."""


class Failed(click.ClickException):
    """Bad input, or a store that does not answer: one line and no traceback."""

    exit_code = 2


def line(text: str, uri: str = "") -> str:
    """Return a text as one line without credentials."""
    one = masked(" ".join(printable(text).split()), uri)
    return one if len(one) <= _LINE else one[:_LINE] + "..."


def printable(text: str) -> str:
    """Return a text without what no terminal takes: names of files may be any bytes."""
    return text.encode("utf-8", "replace").decode()


def count(number: int, thing: str) -> str:
    """Return "1 row", "2,000 rows", or nothing for none."""
    return f"{number:,} {thing}{'s' * (number != 1)}" if number else ""


class Progress:
    """A bar on a terminal, for what takes long.

    Args:
        label: what is counted.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._began, self._done = time.monotonic(), 0
        self._stack = ExitStack()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def __call__(self, done: int, of: int) -> None:
        """Take in how many of how many are done."""
        if self._bar is None and sys.stderr.isatty() and time.monotonic() - self._began > _LONG_S:
            self._bar = self._stack.enter_context(click.progressbar(length=of, label=self._label, file=sys.stderr))
            self._done = 0
        if self._bar is not None:
            self._bar.update(done - self._done)
            self._done = done
