"""Which solo-learn is tested."""

import os
from pathlib import Path

import pytest

CHECKOUT = os.environ.get("SOLO_LEARN")
NEWEST = bool(CHECKOUT)
"""Whether a checkout of its newest code, which comes first on the path; else 1.0.2, the newest on PyPI."""


def described():
    """Return it in words; imports it."""
    import repairs  # noqa: F401 - first
    from learners import METHODS, pl

    import solo

    place = Path(solo.__file__).parent.parent
    if NEWEST and place != Path(CHECKOUT).resolve():
        raise pytest.UsageError(f"SOLO_LEARN names {CHECKOUT}, but solo is imported from {place}; put it on PYTHONPATH")
    version = "newest code, of a checkout" if NEWEST else "1.0.2"
    return f"solo-learn: {version}; {pl.__name__} {pl.__version__}; {len(METHODS)} methods"
