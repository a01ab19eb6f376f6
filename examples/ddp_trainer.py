"""Two ranks by Lightning's Trainer; run it by ``python -m examples.ddp_trainer``.

A Siamese network on handwritten digits collapses to a point, on both ranks. What is read is the batch of both together;
the alert comes on both at one step and switches the Wasserstein loss on, which is that of the batch of both, too.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything

from examples.digits import data, models, show
from uniformity_callbacks import WassersteinLoss
from uniformity_callbacks.integrations.lightning import UniformityCallback

STEPS = 300


def main() -> None:
    """Train, and print what was read."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")  # the images are in memory
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")  # Lightning's own, with this torch
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-results/ddp-trainer")
    seed_everything(0, verbose=False)
    callback = UniformityCallback(every_n_steps=20, auxiliary=WassersteinLoss(weight=1.0, when="alert"))
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_steps=STEPS,
        callbacks=[callback],
        default_root_dir=folder,
        use_distributed_sampler=False,  # each rank draws batches of its own
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
    )
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    trainer.fit(models.Siamese(), data.train_loader(data.load(), steps=STEPS, batch_size=128, seed=rank))
    if trainer.is_global_zero:
        show.readings(callback.monitor.journal)


if __name__ == "__main__":
    main()
