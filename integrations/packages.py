"""Lightning's two packages, ``lightning`` and ``pytorch_lightning``, each with classes of its own."""

from __future__ import annotations

import sys

try:
    import lightning.pytorch as pl
except ImportError:
    try:
        import pytorch_lightning as pl  # type: ignore[no-redef]
    except ImportError as error:
        raise ImportError(
            "UniformityCallback needs lightning or pytorch-lightning; pip install 'uniformity-callbacks[lightning]'"
        ) from error

__all__ = ["join_the_other", "pl"]


def join_the_other(callback: type) -> None:
    """Make a class of callbacks one of pytorch_lightning's, too, where that is in use and lightning beside it.

    Its Trainer takes no other before 2.6, and its CLI never does. It is not imported for this: the package that is
    imported last takes over Lightning's messages.
    """
    other = getattr(sys.modules.get("pytorch_lightning"), "Callback", None)
    if other is not None and not issubclass(callback, other):
        callback.__bases__ += (other,)
