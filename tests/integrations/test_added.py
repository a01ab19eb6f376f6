"""The callback that the entry points add, where things go wrong, and where several Trainers share what they have."""

import lightning.pytorch as pl
import pytest
from trainers import fit, journal, loader, new

from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = pytest.mark.usefixtures("own_place")


def ours(trainer):
    return [each for each in trainer.callbacks if isinstance(each, UniformityCallback)]


def test_what_is_wrong_is_said_again_when_fit_is_called_again(asks):
    asks("every_n_steps=2,window=60")
    trainer = pl.Trainer(accelerator="cpu", logger=False, max_steps=2, enable_progress_bar=False)
    for _ in range(2):
        with pytest.raises(ValueError, match="window must be an integer from 1 to every_n_steps"):
            trainer.fit(new(), loader())


def test_a_list_of_callbacks_used_again_has_each_trainers_own_keys_and_run(asks, tmp_path):
    # Lightning adds to the list that it is given.
    callbacks, found = [pl.Callback()], []
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    for text in ("every_n_steps=2", "every_n_steps=1", "every_n_steps=3,prefix=b"):
        asks(text)
        trainer = pl.Trainer(accelerator="cpu", logger=False, max_steps=4, callbacks=callbacks, **quiet)
        trainer.fit(new(), loader())
        (acting,) = [each for each in ours(trainer) if each.acts]
        found.append([r.step for r in journal(acting).readings])
        trainer.save_checkpoint("last.ckpt")
    assert found == [[0, 2], [0, 1, 2, 3], [0, 3]]
    assert sorted(path.name for path in (tmp_path / "uniformity" / "Twin").iterdir()) == ["1", "2", "3"]
    fit(new(), max_steps=8, ckpt_path="last.ckpt")
    assert [r.step for r in journal(acting).readings] == [0, 3, 6]
