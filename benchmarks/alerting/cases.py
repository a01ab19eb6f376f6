"""The runs: what is wrong with each, and what is expected of it, written down before any of them was looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from examples.methods import TITLES

HEALTHY: Final = "healthy"
CONSTANT: Final = "constant"
DIMENSIONAL: Final = "dimensional"
NONFINITE: Final = "nonfinite"

STEPS = 300
BATCH = 128
EVERY = 10
"""Steps between readings, and between looks at the whole training set."""

SEEDS = (1, 2, 3, 4, 5)
"""Of initial weights, batches and views. Odd ones choose thresholds, even ones judge them."""

HIGH = 10.0
"""Times the method's own learning rate: too high."""

LOW = 0.5
"""Times the method's own learning rate: the second rate of the healthy runs."""

METHODS = ("simclr", "moco_v2", "swav", "byol", "simsiam", "barlow_twins", "zero_cl")
"""Those that are healthy as they are. VICReg is beside them, as the intact counterpart of VICReg without covariance."""

NAN_STEPS = 220
NAN_FROM = 120
"""The loss is NaN at this step, or up to 50 steps later, by the seed."""


@dataclass(frozen=True)
class Case:
    """A kind of run.

    Attributes:
        name: unique.
        title: what is wrong with it, for tables.
        method: its name in `examples.methods.METHODS`.
        expected: "healthy", "constant", "dimensional" or "nonfinite"; None where it is not known beforehand.
        arguments: of the method's constructor.
        rate: times the method's own learning rate.
        spoilt: the loss becomes NaN on the way.
    """

    name: str
    title: str
    method: str
    expected: str | None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1.0
    spoilt: bool = False

    @property
    def intact(self) -> str:
        """The name of the run of the same method with nothing wrong, to which it is compared; its own if it is one."""
        return f"{self.method}-1" if self.expected != HEALTHY else self.name

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return NAN_STEPS if self.spoilt else STEPS

    def spoilt_at(self, seed: int) -> int | None:
        """Return the step at which the loss is NaN, one that need not be due."""
        return NAN_FROM + (17 * seed) % 50 if self.spoilt else None


def cases() -> Sequence[Case]:
    """Return all kinds of runs."""
    healthy = [
        Case(f"{method}-{rate:g}", _title(method, rate), method, HEALTHY, rate=rate)
        for method in (*METHODS, "vicreg")
        for rate in (1.0, LOW)
    ]
    collapsing = [
        Case("siamese", "plain Siamese network", "siamese", CONSTANT),
        Case("simsiam-no-stop", "SimSiam without stop-gradient", "simsiam", CONSTANT, {"stopping": False}),
        Case("byol-no-predictor", "BYOL without predictor", "byol", CONSTANT, {"predicting": False}),
        Case("barlow-no-off", "Barlow Twins without off-diagonal", "barlow_twins", DIMENSIONAL, {"off_diagonal": 0.0}),
        Case("vicreg-no-cov", "VICReg without covariance", "vicreg", DIMENSIONAL, {"covariance": 0.0}),
    ]
    high = [Case(f"{method}-high", _title(method, HIGH), method, None, rate=HIGH) for method in METHODS]
    # Zero-CL's own eigendecomposition raises at the first NaN: such a run ends by itself.
    nan = [
        Case(f"{method}-nan", f"{TITLES[method]}, loss NaN", method, NONFINITE, spoilt=True)
        for method in METHODS
        if method != "zero_cl"
    ]
    return [*healthy, *collapsing, *high, *nan]


def _title(method: str, rate: float) -> str:
    return TITLES[method] + (f", rate x {rate:g}" if rate != 1 else "")
