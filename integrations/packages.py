"""Lightning's two packages, ``lightning`` and ``pytorch_lightning``, each with classes of its own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lightning.pytorch as pl
elif "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
    import pytorch_lightning as pl  # the script's own: the other would take seconds, and over Lightning's messages
else:
    try:
        import lightning.pytorch as pl
    except ImportError:
        try:
            import pytorch_lightning as pl
        except ImportError as error:
            raise ImportError(
                "UniformityCallback needs lightning or pytorch-lightning; pip install 'uniformity-callbacks[lightning]'"
            ) from error

__all__ = ["join_the_other", "pl"]


def join_the_other(callback: type) -> None:
    """Make a class of callbacks one of the other package's, too, where both are in use.

    A Trainer takes no other before 2.6, and a CLI never does. The other package is not imported for this: the one that
    is imported last takes over Lightning's messages.
    """
    name = "pytorch_lightning" if pl.__name__ == "lightning.pytorch" else "lightning.pytorch"
    other = getattr(sys.modules.get(name), "Callback", None)
    if other is not None and not issubclass(callback, other):
        callback.__bases__ += (other,)
