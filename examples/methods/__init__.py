"""Methods of self-supervised learning as plain PyTorch, each on its own definition, on handwritten digits."""

from __future__ import annotations

from .barlow_twins import BarlowTwins
from .byol import BYOL
from .method import Method
from .moco_v2 import MoCoV2
from .siamese import Siamese
from .simclr import SimCLR
from .simsiam import SimSiam
from .swav import SwAV
from .vicreg import VICReg
from .zero_cl import ZeroCL

METHODS: dict[str, type[Method]] = {
    "simclr": SimCLR,
    "moco_v2": MoCoV2,
    "swav": SwAV,
    "byol": BYOL,
    "simsiam": SimSiam,
    "barlow_twins": BarlowTwins,
    "zero_cl": ZeroCL,
    "vicreg": VICReg,
    "siamese": Siamese,
}
"""Name -> method; what a constructor takes beyond nothing is how to take apart what keeps it from collapse."""

TITLES: dict[str, str] = {
    "simclr": "SimCLR",
    "moco_v2": "MoCo v2",
    "swav": "SwAV",
    "byol": "BYOL",
    "simsiam": "SimSiam",
    "barlow_twins": "Barlow Twins",
    "zero_cl": "Zero-CL",
    "vicreg": "VICReg",
    "siamese": "plain Siamese",
}
"""Name -> as the papers write it."""
