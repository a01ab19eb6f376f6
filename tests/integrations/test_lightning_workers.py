"""DataLoader workers forked while our threads run, and callbacks that are pickled, as strategies that spawn do."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from trainers import fit, journal, new

from uniformity_callbacks import CollapseAlert, CosineDecay, WassersteinLoss
from uniformity_callbacks.integrations.lightning import UniformityCallback
from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter

pytestmark = pytest.mark.usefixtures("own_place")


def forked(context):
    data = torch.randn(48, 6, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(data), batch_size=16, num_workers=2, multiprocessing_context=context)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("context", [None, "fork"])
def test_workers_forked_beside_a_busy_reader_neither_hang_nor_change_the_run(context):
    """Each epoch forks anew, with a reading of the step before under way."""
    plain, watched = new(), new()
    callback = UniformityCallback(every_n_steps=1, writers=[lambda values, step: None])
    options = {"max_epochs": 4, "max_steps": -1}
    fit(plain, data=forked(context), **options)
    fit(watched, [callback], data=forked(context), **options)
    assert journal(callback).series("samples") == (list(range(12)), [32.0] * 12)
    for (name, a), b in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_callback_can_be_pickled_before_a_fit_and_after_it():
    loss = WassersteinLoss(CosineDecay(0.7), when="alert")
    rules = [CollapseAlert("constant", threshold=0.2, patience=2, warmup_steps=0)]
    first = UniformityCallback(
        every_n_steps=2, alerts=rules, auxiliary=loss, writers=[TensorBoardWriter("runs")], total_steps=8
    )
    before = pickle.loads(pickle.dumps(first))
    fit(new(), [first])
    after = pickle.loads(pickle.dumps(first))
    for copied in (before, after):
        fit(new(), [copied])
        read = [reading.values for reading in journal(copied).readings][-4:]
        assert read == [reading.values for reading in journal(first).readings][:4]
    assert after.monitor.journal == first.monitor.journal  # goes on where it was
    assert before.monitor.journal != first.monitor.journal
