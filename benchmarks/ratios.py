"""Our functions against what others compute: ratios of times, each beside the one that it has to reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks import baselines, memory, page
from benchmarks.pairs import ROUNDS, Spread, in_turns, ratio, say
from benchmarks.rows import SPECTRA
from benchmarks.works import Work, gradient_of, panel, panel_of_two_views, spectral, value_of
from uniformity_callbacks import functional

PAIRWISE_ROWS, PAIRWISE_LIMIT_MB = 65_536, 300
"""Rows of 256 dimensions whose Wang-Isola uniformity must fit beside them into so much memory."""


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        work: what is done, in words.
        n: rows.
        d: dimensions.
        ours: how we do it.
        against: what it is compared with, in words.
        theirs: how that does it.
        least: the ratio of times to reach, on isotropic rows.
        spectra: which populations' rows it is done with.
    """

    work: str
    n: int
    d: int
    ours: Work
    against: str
    theirs: Work
    least: float
    spectra: tuple[str, ...] = tuple(SPECTRA)


_W2 = "W2, value and gradient"
_OURS = gradient_of(functional.wasserstein_uniformity)
_PUBLISHED = "published algorithm"
_EIGH, _SVDVALS = gradient_of(baselines.eigh_w2), gradient_of(baselines.svdvals_w2)
_RANKME = value_of(baselines.svdvals_rankme)

CASES = (
    Case(_W2, 512, 256, _OURS, _PUBLISHED, gradient_of(baselines.published_w2), 4.0),
    Case(_W2, 512, 256, _OURS, "autograd, `eigh`", _EIGH, 1.0),
    Case(_W2, 512, 2048, _OURS, "autograd, `svdvals`", _SVDVALS, 4.0),
    Case(_W2, 512, 2048, _OURS, "autograd, `eigh`", _EIGH, 20.0),
    Case(_W2, 256, 8192, _OURS, "autograd, `svdvals`", _SVDVALS, 6.0),
    Case("eight spectral metrics", 10_000, 2048, spectral, "published W2 alone", value_of(baselines.published_w2), 4.0),
    Case("default panel, one view", 512, 2048, panel, "RankMe alone", _RANKME, 1.5),
    Case("default panel, two views", 512, 2048, panel_of_two_views, "RankMe alone", _RANKME, 1.5),
    Case(
        "Wang-Isola, value",
        4096,
        256,
        value_of(functional.wang_isola_uniformity),
        "`torch.pdist`",
        value_of(baselines.pdist_wang_isola),
        2.0,
        ("isotropic",),
    ),
)
"""What issue and page promise."""


def run(*, tiny: bool = False) -> str:
    """Measure all, and return a table in Markdown."""
    rows = [row for case in CASES for row in _rows(case, tiny=tiny)]
    head = ["work", "n x d", "rows", "against", "ours, ms", "theirs, ms", "ratio (quartiles)", "to reach"]
    n, d = (PAIRWISE_ROWS, 256) if not tiny else (256, 32)
    say(f"memory of Wang-Isola, n {n}, d {d}")
    bytes_ = memory.peak("wang_isola", n, d)
    needs = f"Wang-Isola of {n:,} rows of {d} dimensions needs {bytes_ / 1e6:.0f} MB beyond its input"
    return f"{page.table(head, rows)}\n\n{needs} (to reach: under {PAIRWISE_LIMIT_MB} MB)."


def _rows(case: Case, *, tiny: bool) -> Iterator[list[str]]:
    n, d = (max(32, case.n // 32), max(16, case.d // 32)) if tiny else (case.n, case.d)
    for name in case.spectra:
        z = SPECTRA[name](n, d)
        works = {"ours": partial(case.ours, z), "theirs": partial(case.theirs, z)}
        title = f"{case.work}, {n} x {d}, {name}, against {case.against}"
        times = in_turns(works, rounds=2 if tiny else ROUNDS, title=title)
        ours, theirs = (page.number(1e3 * Spread.of(times[key]).median) for key in works)
        quotient = page.spread(ratio(times["theirs"], times["ours"]))
        least = f"{case.least:g}" if name == "isotropic" else ""
        yield [case.work, f"{n} x {d}", name, case.against, ours, theirs, quotient, least]
