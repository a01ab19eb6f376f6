"""An exception in each function of ours that a training comes through, one by one: it must cost the run nothing."""

import functools
import gc
import inspect
import warnings
from collections import Counter

import lightning.pytorch as pl
import pytest
import torch
from trainers import Validated, fit, new

from uniformity_callbacks import CollapseAlert, reader
from uniformity_callbacks.alerts import AlertBook
from uniformity_callbacks.backward import Backwards
from uniformity_callbacks.collector import Collector
from uniformity_callbacks.desk import Desk
from uniformity_callbacks.feeds import Feed
from uniformity_callbacks.integrations import publishing
from uniformity_callbacks.integrations.lightning import UniformityCallback
from uniformity_callbacks.integrations.loop import LoopMonitor
from uniformity_callbacks.integrations.pytorch import watch
from uniformity_callbacks.integrations.steps import Steps
from uniformity_callbacks.load import Load
from uniformity_callbacks.memory import Memory
from uniformity_callbacks.monitor import UniformityMonitor
from uniformity_callbacks.passes import Passes
from uniformity_callbacks.reader import Reader
from uniformity_callbacks.recording import JournalWriter
from uniformity_callbacks.records import Records
from uniformity_callbacks.responder import Responder
from uniformity_callbacks.tap import Tap
from uniformity_callbacks.validating import Validating
from uniformity_callbacks.worker import Worker

OWNERS = [Collector, Desk, Feed, Reader, Responder, AlertBook, Load, JournalWriter, Records, Memory, Passes, Tap]
OWNERS += [Validating, Backwards, UniformityMonitor]
GUARDS = {"Collector._backward", "Tap.collect", "Tap.kept_from_training", "Tap.name"}
GUARDS |= {"UniformityMonitor.kept_from_training", "UniformityMonitor.absorb"}
"""What catches what goes wrong below it, with nothing above it but torch; and what it names the layer by."""

FUNCTIONS = [(reader, "measure"), (publishing, "show"), (publishing.Publisher, "publish")]
FUNCTIONS += [(Worker, "put"), (Worker, "settle"), (Worker, "close")]


def functions(*owners):
    """The functions and properties that classes, and those above them, have of ours."""
    for owner in owners:
        for name in sorted({n for each in owner.__mro__ if "uniformity" in each.__module__ for n in vars(each)}):
            value = inspect.getattr_static(owner, name)
            ours = inspect.isfunction(value) or isinstance(value, property)
            if ours and not name.startswith("__") and f"{owner.__name__}.{name}" not in GUARDS:
                yield owner, name


class Injected:
    """Raises in a function once it is armed."""

    def __init__(self, monkeypatch, owner, name):
        self.armed, self.calls = False, 0
        value = inspect.getattr_static(owner, name)
        before = value.fget if isinstance(value, property) else value

        @functools.wraps(before)
        def raises(*args, **kwargs):
            if self.armed:
                self.calls += 1
                raise RuntimeError("injected")
            return before(*args, **kwargs)

        monkeypatch.setattr(owner, name, property(raises) if isinstance(value, property) else raises)


class Writes:
    """A writer with all that one can have."""

    flush_secs = 0.0

    def __init__(self):
        self.steps = []

    def __call__(self, values, step):
        raise NotImplementedError

    def many(self, readings):
        self.steps += [step for _, step, _ in readings]

    def alert(self, alert, key):
        pass

    def state_dict(self):
        return {"steps": len(self.steps)}

    def load_state_dict(self, state):
        pass

    def close(self):
        pass


class Arms(pl.Callback):
    def __init__(self, injected):
        self.injected = injected

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 3:
            self.injected.armed = True


def trained(folder, *callbacks):
    """Weights and random state after a training with validation epochs and a checkpoint, none of it with ours."""
    trainer = fit(model := new(Validated), callbacks, max_steps=-1, max_epochs=2, default_root_dir=folder)
    trainer.save_checkpoint(folder / "end.ckpt")
    return [*(p.detach().clone() for p in model.parameters()), torch.get_rng_state()]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("bare"))


def told(caplog):
    return Counter(r.getMessage() for r in caplog.records if "injected" in r.getMessage())


RULES = [CollapseAlert("constant", threshold=0.01, patience=1, warmup_steps=0), CollapseAlert("blind")]


@pytest.fixture
def nothing_is_left():
    """A journal whose ``close`` raises is closed as garbage, which says so."""
    with warnings.catch_warnings():
        yield
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize(("owner", "name"), [*functions(*OWNERS, Steps), *FUNCTIONS])
def test_in_a_trainer(owner, name, bare, tmp_path, monkeypatch, caplog):
    injected = Injected(monkeypatch, owner, name)
    callback = UniformityCallback(every_n_steps=2, alerts=RULES, writers=[Writes()])
    after = trained(tmp_path, Arms(injected), callback)
    assert all(map(torch.equal, after, bare))
    if injected.calls:
        assert told(caplog)
        assert set(told(caplog).values()) == {1}


def looped(folder, injected=None):
    """The same after a loop of one's own."""
    torch.manual_seed(0)
    model = Validated()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    data = torch.randn(32, 6)
    monitor = None
    if injected is not None:
        monitor = watch(
            model,
            optimizer=optimizer,
            every_n_steps=2,
            alerts=RULES,
            writers=[Writes()],
            journal=folder / "loop.jsonl",
        )
    for k in range(12):
        if injected is not None and k == 3:
            injected.armed = True
        optimizer.zero_grad()
        z0, z1 = (model.projector(model.encoder(data + 0.1 * torch.randn_like(data))) for _ in range(2))
        loss = (z0 - z1).square().mean()
        (loss if monitor is None else monitor.add_auxiliary(loss)).backward()
        optimizer.step()
        if k % 4 == 3:
            with torch.no_grad():
                for batch in [data] if monitor is None else monitor.validation([data]):
                    model.projector(model.encoder(batch))
    if monitor is not None:
        monitor.state_dict()
        monitor.close()
    return [*(p.detach().clone() for p in model.parameters()), torch.get_rng_state()]


@pytest.fixture(scope="module")
def bare_loop(tmp_path_factory):
    return looped(tmp_path_factory.mktemp("bare"))


COURSE = ["_begin_pass", "_end_pass", "_end_step", "_follow", "_hear_backward", "_with_auxiliary", "leave"]


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize(("owner", "name"), [*functions(*OWNERS), *((LoopMonitor, name) for name in COURSE)])
def test_in_a_loop(owner, name, bare_loop, tmp_path, monkeypatch, caplog):
    injected = Injected(monkeypatch, owner, name)
    after = looped(tmp_path, injected)
    assert all(map(torch.equal, after, bare_loop))
    if injected.calls:
        assert told(caplog)
        assert set(told(caplog).values()) == {1}
