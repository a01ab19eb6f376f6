"""Where solo-learn is, and its own CIFAR-10 configs brought to digits and two CPU cores."""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CONFIGS = Path("scripts/pretrain/cifar")
GET = """Get it and what it needs (it asks for wandb, and for more that is not needed here):
  git clone https://github.com/vturrisi/solo-learn
  pip install hydra-core omegaconf timm einops torchvision
  SOLO_LEARN=solo-learn python -m examples.solo_learn.digits"""

OUTPUTS = 256  # as many as in the paper's runs, so that its weights are for losses of this size
HIDDEN = 512
QUEUE = 512
STEPS = 150
BATCH = 64
EVERY = 20


@dataclass(frozen=True)
class Method:
    """One of solo-learn's methods as it is run here.

    Attributes:
        weight: the weight of the Wasserstein loss, as the config key `uniformity.auxiliary` has it.
        published: whether that is the paper's (arXiv 2403.00642). The others were set before any run with the loss: as
            for MoCo v2 where the loss is contrastive too, half of BYOL's for SimSiam, whose loss is a quarter as large
            (a mean of cosines where BYOL has twice their sum), and 1.0 for VICReg.
        file: the config among solo-learn's own for CIFAR-10.
        changes: what is changed in it, beside what is changed for all.
    """

    weight: float | str
    published: bool
    file: str
    changes: dict[str, Any] = field(default_factory=dict)


MOMENTUM = {"base_tau": 0.95}  # of so few steps, a target that lags 100 behind would see little

METHODS = {
    "simclr": Method(1.0, False, "simclr"),
    "mocov2plus": Method(1.0, True, "mocov2plus", {"momentum": MOMENTUM, "method_kwargs": {"queue_size": QUEUE}}),
    "byol": Method(0.2, True, "byol", {"momentum": MOMENTUM, "method_kwargs": {"pred_hidden_dim": HIDDEN}}),
    "simsiam": Method(0.1, False, "simsiam", {"method_kwargs": {"pred_hidden_dim": OUTPUTS // 4}}),
    "barlow_twins": Method("linear:30:0", True, "barlow"),
    "vicreg": Method(1.0, False, "vicreg"),
}
UNTRAINED = "untrained"
"""SimCLR's network as it is made: a representation should beat that, too."""


def solo_learn() -> Path:
    """Return the checkout of solo-learn, after seeing to it that `import solo` takes that one.

    Raises:
        SystemExit: there is none, it is too old, or something that it needs is missing; with the mend.
    """
    named, installed = os.environ.get("SOLO_LEARN"), find_spec("solo")
    if named:
        root = Path(named).resolve()
    elif installed is not None and installed.origin is not None:
        root = Path(installed.origin).parents[1]
    else:
        raise SystemExit(f"solo-learn is not installed, and SOLO_LEARN does not name a checkout of it.\n{GET}")
    if not (root / "solo/args/pretrain.py").exists() or not (root / CONFIGS).is_dir():
        raise SystemExit(
            f"{root} is no checkout of solo-learn's newest code; 1.0.2 of PyPI has no Hydra configs.\n{GET}"
        )
    sys.path.insert(0, str(root))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated names in timm and torch, a screenful
            import_module("solo.methods")
            import_module("hydra")
    except (ImportError, RuntimeError) as error:  # the latter is torchvision's, beside a torch of another build
        raise SystemExit(f"solo-learn in {root} cannot be imported: {error}.\n{GET}") from error
    return root


def weights(name: str) -> list[float | str | None]:
    """Return the weights that a method is run with; None is without the loss."""
    return [None] if name == UNTRAINED else [None, METHODS[name].weight]


def config(root: Path, name: str, *, weight: float | str | None, seed: int, batch: int = BATCH) -> Any:
    """Return the config of one run: solo-learn's own for CIFAR-10, made small, and the keys of this package."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    method = METHODS["simclr" if name == UNTRAINED else name]
    with initialize_config_dir(str(root / CONFIGS), version_base="1.2"):
        cfg = compose(method.file)
    OmegaConf.set_struct(cfg, False)
    # No dataset of solo-learn's: for CIFAR-10 the ResNet would have a stem of stride 1, and take four times as long.
    cfg.data = {"dataset": "digits", "num_classes": 10, "num_large_crops": 2, "num_small_crops": 0}
    cfg.optimizer = {"name": "adam", "lr": 1e-3, "batch_size": batch, "weight_decay": 1e-5, "classifier_lr": 1e-2}
    cfg.scheduler = {"name": "warmup_cosine", "warmup_epochs": 0.1}  # all steps are one epoch
    cfg.performance = {"disable_channel_last": True}
    cfg.max_epochs, cfg.seed = 1, seed
    cfg = OmegaConf.merge(
        cfg, {"method_kwargs": {"proj_hidden_dim": HIDDEN, "proj_output_dim": OUTPUTS}}, method.changes
    )
    cfg.uniformity = {"every_n_steps": EVERY} | ({} if weight is None else {"auxiliary": weight})
    return cfg
