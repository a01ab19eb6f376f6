"""AddedCallback: what a factory among Lightning's entry points adds where no source can be touched."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from uniformity_callbacks.integrations import solo_learn
from uniformity_callbacks.integrations.factory import VARIABLE
from uniformity_callbacks.integrations.lightning import UniformityCallback
from uniformity_callbacks.integrations.packages import pl
from uniformity_callbacks.integrations.publishing import be_heard
from uniformity_callbacks.integrations.settings import KEYS, arguments, keys_of
from uniformity_callbacks.layers import find
from uniformity_callbacks.monitor import UniformityMonitor

log = logging.getLogger("uniformity_callbacks")

FOLDER = "uniformity"
"""Where runs go that have no log directory of their own: ``uniformity/<name>/1`` and so on."""


class AddedCallback(UniformityCallback):
    """A `UniformityCallback` whose arguments are keys of solo-learn's configuration, or of an environment variable.

    Without either it is inert, and beside one of the user's own it steps aside; so does one that an earlier Trainer
    left in a list of callbacks that is used again. Where ``writers`` is not given, curves go into TensorBoard files,
    unless the Trainer's logger is TensorBoard's; rank zero prints where everything is.

    Args:
        text: the variable's keys, which win over the configuration's.

    Raises:
        ValueError: at the start of fit: a key is not known, or a value is out of its range.
        TypeError: likewise: a value is of another kind.
    """

    added = True

    _watched: ClassVar[set[str]] = set()
    """Texts by which a model was watched in this process: one without the layer is a later stage of the script then,
    such as a linear evaluation, which an error would end together with all that came before it."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self._text = text
        self._keys: dict[str, Any] | None = None
        self._given: tuple[Any, ...] | None = None
        self._name = ""
        self._events: str | None = None
        self.wanted = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Learn what is wanted: from here on the model is known, and with it its configuration."""
        if stage != "fit":
            return
        # Those before its own came with the list of callbacks, from other Trainers.
        *_, its_own = (each for each in _ours(trainer) if isinstance(each, AddedCallback))
        keys = self._asked_for(pl_module) if self is its_own else None
        self.wanted = keys is not None
        if keys is not None and keys != self._keys:
            with _named("UniformityCallback"):
                given = arguments(keys)
                self.monitor = UniformityMonitor(**given)
            self._given, self._events = given.get("writers"), None
            self._name = solo_learn.run_name(pl_module) or type(pl_module).__name__
        self._keys = keys  # not before: what is wrong with them is to be said again when fit is called again
        super().setup(trainer, pl_module, stage)

    def state_dict(self) -> dict[str, Any]:
        """Return the monitor's state, and where the curves are."""
        state = super().state_dict()
        return state and state | {"events": self._events}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up."""
        super().load_state_dict(state_dict)
        self._events = state_dict.get("events")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Attach, and say on rank zero what is read and where it goes."""
        if self.acts and self._text in self._watched and (missing := self._missing(pl_module)):
            self.acts = False
            if trainer.is_global_zero:
                be_heard()
                log.warning("uniformity: %s is not watched: %s", type(pl_module).__name__, missing)
            return
        super().on_fit_start(trainer, pl_module)
        if self.acts and self._text:
            self._watched.add(self._text)
        if self.acts and trainer.is_global_zero:
            self._say(trainer)
        elif self.wanted and trainer.is_global_zero and not all(each.added for each in _ours(trainer)):
            log.warning("uniformity: the script has a UniformityCallback of its own; keys given elsewhere are not used")

    def _asked_for(self, module: Any) -> dict[str, Any] | None:
        """Return the keys that are given, with what is known of the method in the place of None; None for nothing."""
        with _named("solo-learn's configuration"):
            keys = solo_learn.keys(module, KEYS)
            arguments(keys or {})  # now, while it is known whose they are
        if self._text:
            with _named(VARIABLE):
                own = {} if self._text.lower() in ("on", "1", "true") else keys_of(self._text)
                arguments(own)
            keys = {**(keys or {}), **own}
        if keys is not None and solo_learn.is_evaluation(module):
            be_heard()
            log.warning("uniformity: %s trains no representation; nothing is watched", type(module).__name__)
            return None
        if keys is None:
            return None
        known = {"layer": solo_learn.layer(module), "calls": solo_learn.calls(module)}
        return keys | {name: value for name, value in known.items() if keys.get(name) is None}

    def _missing(self, module: Any) -> str | None:
        """Return what is said of a layer that the module lacks; None if it has all."""
        layer = (self._keys or {}).get("layer")
        try:
            for each in layer if isinstance(layer, list) else [layer]:
                find(module, each)
        except (ValueError, TypeError) as error:
            return str(error)
        return None

    def _directory(self, trainer: pl.Trainer) -> Path:
        """Return the run's directory, a new one if the Trainer has none, and have the curves go there, too."""
        directory = super()._directory(trainer).absolute()  # a checkpoint remembers it
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return directory
        curves = self._given is None and not any(map(_is_tensorboard, trainer.loggers))
        if self._events is not None and not Path(self._events).is_dir():
            self._events = None  # of a run that is resumed elsewhere
        fresh = self.monitor.journal is None or (curves and self._events is None)
        # Lightning has a directory for each run by its own two loggers alone.
        if fresh and not (trainer.loggers and _kinds(trainer.loggers[0]) & {"TensorBoardLogger", "CSVLogger"}):
            name = re.sub(r"[^\w.-]+", "-", self._name).strip(".")[:100]
            directory = _new(directory / FOLDER / (name or "run"))
        if curves:
            self._events = self._events or str(directory)
            self.monitor.records.writers = _to_tensorboard(self._events)
        return directory

    def _say(self, trainer: pl.Trainer) -> None:
        monitor, logged = self.monitor, filter(_is_tensorboard, trainer.loggers)
        added = "" if monitor.auxiliary is None else f", and {monitor.auxiliary} added to the loss"
        lines = [f"{', '.join(monitor.layers)} is read every {monitor.every_n_steps} steps{added}"]
        lines += [] if monitor.journal is None else [f"journal {_from_here(monitor.journal)}"]
        ours = () if self._events is None or not monitor.records.writers else (self._events,)
        curves = ours or [str(logger.log_dir) for logger in logged]
        lines += [f"curves by: tensorboard --logdir {_from_here(directory)}" for directory in curves]
        with suppress(OSError, ValueError):  # a standard output that is closed, or cannot encode a name, ends no run
            print("\n".join(f"uniformity: {line}" for line in lines), flush=True)


def _ours(trainer: Any) -> list[UniformityCallback]:
    return [each for each in trainer.callbacks if isinstance(each, UniformityCallback)]


def _is_tensorboard(logger: object) -> bool:
    return "TensorBoardLogger" in _kinds(logger)


def _from_here(path: str | Path) -> Path:
    path, here = Path(path), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _to_tensorboard(directory: str) -> tuple[Any, ...]:
    try:
        from uniformity_callbacks.integrations.tensorboard import TensorBoardWriter
    except Exception as error:  # others' kinds, too, where it does not go with NumPy's or protobuf's version
        log.warning("uniformity: no curves are written: %s", error)
        return ()
    return (TensorBoardWriter(directory),)


def _new(place: Path) -> Path:
    """Make and return the next numbered directory in a place; the first, not made, where none can be.

    Whoever writes there says so then, as the monitor does of its journal: on all ranks, which this one alone must not.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        for k in itertools.count(1):
            with suppress(FileExistsError):
                (place / str(k)).mkdir()
                return place / str(k)
    except OSError as error:
        log.debug("uniformity: no directory for the run in %s: %s", place, error)
    return place / "1"


def _kinds(value: object) -> set[str]:
    """Return the names of a value's classes: it may be of either of Lightning's packages."""
    return {kind.__name__ for kind in type(value).__mro__}


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Have errors say where what is wrong was given."""
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError  # others' own kinds may take no such message
        raise kind(f"{source}: {error}") from error
