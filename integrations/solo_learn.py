"""What is known of solo-learn: where its configuration is, and which outputs its methods' losses look at."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Mapping
from typing import Any

SECTION = "uniformity"
"""Section of solo-learn's configuration that is ours: ``+uniformity.every_n_steps=50``."""

LAYERS = {"MAE": "backbone.fc_norm", "DINO": "head.mlp"}
"""Capture points of the methods, by class, that have no ``projector``: MAE's pooled features, which its online
classifier and every evaluation start from, and what DINO's head puts out before its prototypes."""

CALLS = {"All4One": "last:2"}
"""Which calls of a step the losses look at, where not all: All4One projects both views twice and uses the second."""

_BASE = ("solo.methods.base", "BaseMethod")
_LINEAR = ("solo.methods.linear", "LinearModel")


def is_loaded() -> bool:
    """Whether solo-learn's methods are imported in this process."""
    return _BASE[0] in sys.modules


def is_method(module: object) -> bool:
    """Whether a module is one of solo-learn's methods, or made of one."""
    return _BASE in _classes(module)


def is_evaluation(module: object) -> bool:
    """Whether a module is solo-learn's linear evaluation, which trains no representation."""
    return _LINEAR in _classes(module)


def keys(module: Any, known: Collection[str] = ()) -> dict[str, Any] | None:
    """Return what a method's configuration says under ``uniformity``, as plain values; None if it asks for nothing.

    Args:
        module: any module.
        known: keys that the section may have, by which a section that is misspelt is told from one of somebody else's.

    Raises:
        ValueError: the section holds no keys, or is misspelt.
    """
    cfg = getattr(module, "cfg", None)
    if not (is_method(module) or is_evaluation(module)) or not isinstance(cfg, Mapping | _config_class()):
        return None
    section = _plain(cfg.get(SECTION))
    for name in map(str, cfg):  # whether there is a section or not: one key of several may be misspelt
        if name != SECTION:
            _check(name, cfg, known)
    if section is None or section is False or section == "off":
        return None
    if section is True or section == "on":
        return {}
    if not isinstance(section, dict):
        raise ValueError(f"{SECTION} must hold keys, got {section!r}; e.g. +{SECTION}.every_n_steps=50")
    return section


def layer(module: object) -> str | None:
    """Return a method's capture point; None where it is to be found by its name."""
    return _of(LAYERS, module)


def calls(module: Any) -> str | None:
    """Return which of a step's calls are the views that a method compares: of several crops the large ones."""
    if is_method(module) and getattr(module, "multicrop", False):
        return f"first:{module.num_large_crops}"
    return _of(CALLS, module)


def run_name(module: Any) -> str | None:
    """Return the name that the configuration gives the run, or None."""
    name = getattr(getattr(module, "cfg", None), "name", None) if is_method(module) else None
    return None if name is None else str(name)


def _classes(module: object) -> set[tuple[str, str]]:
    return {(kind.__module__, kind.__name__) for kind in type(module).__mro__}


def _of(table: Mapping[str, str], module: object) -> str | None:
    """Return what a table has for a method's class, or for the one of solo-learn's that it is made of."""
    if not is_method(module):
        return None
    ours = (kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith("solo.methods."))
    return next((table[name] for name in ours if name in table), None)


def _check(name: str, cfg: Any, known: Collection[str]) -> None:
    """Raise ValueError if this other section of the configuration is ours by another name."""
    near = difflib.SequenceMatcher(a=SECTION, b=name).ratio()
    other = cfg.get(name) if near > 0.75 else None
    if isinstance(other, Mapping | _config_class()):
        if any(difflib.get_close_matches(str(key), known, n=1, cutoff=0.8) for key in other):
            raise ValueError(f"{name!r} holds keys of ours; did you mean {SECTION}?")
    elif name.startswith(f"{SECTION}.") or ((other is True or other == "on") and near > 0.85):  # "uniform" is a word
        raise ValueError(f"{name!r} is no section of solo-learn's; did you mean {SECTION}?")


def _config_class() -> Any:
    """Return OmegaConf's class of mappings, which are none of Python's; never imported for this."""
    return getattr(sys.modules.get("omegaconf"), "DictConfig", dict)


def _plain(value: Any) -> Any:
    """Return a section as dicts, lists, numbers and strings, what it refers to filled in."""
    if not isinstance(value, _config_class()) or isinstance(value, dict):
        return value
    return sys.modules["omegaconf"].OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
