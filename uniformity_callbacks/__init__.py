"""Know, while a self-supervised model trains, whether its representations are collapsing, and stop it."""

from uniformity_callbacks import functional
from uniformity_callbacks.alerts import Alert, CollapseError
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
]
