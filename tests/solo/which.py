"""Which solo-learn is tested."""

import os
from importlib.util import find_spec
from pathlib import Path

CHECKOUT = os.environ.get("SOLO_LEARN")
NEWEST = bool(CHECKOUT)
"""Whether a checkout of its newest code, which comes first on the path; else 1.0.2, the newest on PyPI."""

_found = Path(find_spec("solo").origin).parent.parent
if NEWEST and _found != Path(CHECKOUT).resolve():
    raise ImportError(
        f"SOLO_LEARN names {CHECKOUT}, but solo is imported from {_found}; use make test-solo SOLO_LEARN=..."
    )


def described():
    """Return it in words; imports it."""
    from learners import METHODS, pl

    version = "newest code, of a checkout" if NEWEST else "1.0.2"
    return f"solo-learn: {version}; {pl.__name__} {pl.__version__}; {len(METHODS)} methods"
