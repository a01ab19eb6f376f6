"""solo-learn's own scripts, launched as its users do, on a folder of handwritten digits."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from sklearn.datasets import load_digits
from which import CHECKOUT

BATCH, STEPS, VALIDATED = 16, 6, 40
AUGMENTATION = {
    "rrc": {"enabled": True, "crop_min_scale": 0.5, "crop_max_scale": 1.0},
    "color_jitter": {"prob": 0.5, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1},
    "grayscale": {"prob": 0.2},
    "gaussian_blur": {"prob": 0.0},
    "solarization": {"prob": 0.0},
    "equalization": {"prob": 0.0},
    "horizontal_flip": {"prob": 0.0},
    "crop_size": 32,
    "num_crops": 2,
}


def images(root):
    """Write digits as solo-learn's folders of images have them: by class, 6 batches to train on and 40 to validate."""
    pixels, labels = load_digits(return_X_y=True)
    for k, (image, label) in enumerate(zip(pixels[: BATCH * STEPS + VALIDATED], labels, strict=False)):
        folder = root / ("train" if k < BATCH * STEPS else "val") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((image.reshape(8, 8) * 15.9).astype(np.uint8))
        grey.convert("RGB").resize((32, 32)).save(folder / f"{k}.png")


def configuration(root):
    """Return a configuration in the layout of solo-learn's own, with the settings that a CPU needs."""
    return {
        "defaults": [
            "_self_",
            # As in all of solo-learn's: what Hydra then does to Python's logging is part of what is tested.
            {"override hydra/hydra_logging": "disabled"},
            {"override hydra/job_logging": "disabled"},
        ],
        "hydra": {"output_subdir": None, "run": {"dir": "."}},
        "name": "simclr-digits",
        "method": "simclr",
        "backbone": {"name": "resnet18"},
        "method_kwargs": {"proj_hidden_dim": 32, "proj_output_dim": 16, "temperature": 0.2},
        "augmentations": [AUGMENTATION],
        "data": {
            "dataset": "custom",
            "train_path": str(root / "train"),
            "val_path": str(root / "val"),
            "format": "image_folder",
            "num_workers": 0,
        },
        "optimizer": {"name": "sgd", "batch_size": BATCH, "lr": 0.1, "classifier_lr": 0.1, "weight_decay": 1.0e-5},
        "scheduler": {"name": "none"},
        "checkpoint": {"enabled": True, "dir": "trained_models", "frequency": 1, "keep_prev": True},
        "auto_resume": {"enabled": False},
        "max_epochs": 1,
        "devices": "1",
        "strategy": "auto",
        "accelerator": "cpu",
        "enable_progress_bar": False,
    }


def prepare(root):
    """Write images and a configuration ``simclr.yaml``."""
    images(root)
    (root / "simclr.yaml").write_text(yaml.safe_dump(configuration(root), sort_keys=False))


def launch(place, root, *overrides, script="main_pretrain.py", config="simclr.yaml", fails=False, **environment):
    """Run a script of solo-learn's in a place; return what it printed on standard output and on standard error."""
    command = [sys.executable, "-W", "ignore", str(Path(CHECKOUT) / script)]
    command += ["--config-path", str(root), "--config-name", config, *overrides]
    place.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=200)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stdout, done.stderr


def said(out):
    """Return the lines of ours among what was printed."""
    return re.findall(r"^uniformity: .*$", out, flags=re.M)
