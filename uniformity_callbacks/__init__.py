"""Know, while a self-supervised model trains, whether its representations are collapsing, and stop it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniformity_callbacks import functional
    from uniformity_callbacks.alerts import Alert, CollapseError
    from uniformity_callbacks.baseline import threshold_from
    from uniformity_callbacks.journal import read_journal
    from uniformity_callbacks.loss import WassersteinLoss
    from uniformity_callbacks.monitor import UniformityMonitor
    from uniformity_callbacks.panel import Reading
    from uniformity_callbacks.rules import CollapseAlert
    from uniformity_callbacks.schedules import Constant, CosineDecay, LinearDecay
    from uniformity_callbacks.writers import Writer

__version__ = "0.1.0"

__all__ = [
    "Alert",
    "CollapseAlert",
    "CollapseError",
    "Constant",
    "CosineDecay",
    "LinearDecay",
    "Reading",
    "UniformityMonitor",
    "WassersteinLoss",
    "Writer",
    "functional",
    "read_journal",
    "threshold_from",
]

_HOMES = {
    "Alert": "alerts",
    "CollapseAlert": "rules",
    "CollapseError": "alerts",
    "Constant": "schedules",
    "CosineDecay": "schedules",
    "LinearDecay": "schedules",
    "Reading": "panel",
    "UniformityMonitor": "monitor",
    "WassersteinLoss": "loss",
    "Writer": "writers",
    "functional": "functional",
    "read_journal": "journal",
    "threshold_from": "baseline",
}
"""Public name -> its module, imported when the name is first asked for: torch takes 1.5 s to import, for which
``uniformity --help`` and a wrong option need not wait."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOMES[name]}")
    value = globals()[name] = module if name == _HOMES[name] else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
