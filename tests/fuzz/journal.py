"""The journal reader, and all that is done with what it returns."""

import tempfile
from pathlib import Path

from journals import real
from malformed import check_journal

LENGTH = 2048
SEEDS = [b"".join(real()[:k]) for k in (1, 3, 5)] + [b"".join(real()[-4:]), *real()]

_FOLDER = tempfile.TemporaryDirectory()
_PATH = Path(_FOLDER.name) / "a.jsonl"


def check(data):
    check_journal(_PATH, data)
