"""Each cell of the table of docs/paper: which metric has which of the paper's desiderata, and which not."""

import re

import pytest
import torch

from benchmarks.paper import desiderata, outcome
from benchmarks.paper.desiderata import DESIDERATA, METRICS, WORSE

# A letter a desideratum, in the table's order: h holds on all kinds of data, f fails on one or more.
CELLS = {
    "W2": "hhhhhh",
    "W2 corrected": "hhfhhh",
    "L_U": "hhfffh",
    "RankMe": "hhhffh",
    "RankMe / d": "hhhhhh",
    "RankMe, raw rows": "hfhffh",
    "effective rank": "hhhfff",
    "effective rank / d": "hhhhhh",
    "std_ratio": "hhffhh",
}
FAR = 1e-4
"""Least difference of what is to stay and does not; RankMe, which is to worsen and does not, moves by 2e-4."""


@pytest.fixture(scope="module")
def rows():
    return desiderata.synthetic(256, 32)


def test_all_cells_are_looked_at():
    assert list(CELLS) == list(METRICS)
    assert all(len(cells) == len(DESIDERATA) for cells in CELLS.values())


@pytest.mark.parametrize("wanted", DESIDERATA)
@pytest.mark.parametrize("name", METRICS)
def test_cell(rows, name, wanted):
    desideratum = DESIDERATA[wanted]
    found = desiderata.worsenings(METRICS[name], desideratum, rows)
    holds = CELLS[name][list(DESIDERATA).index(wanted)] == "h"
    assert desideratum.holds(found) is holds, found
    values = found.values()
    if desideratum.worse:
        assert min(values) > 10 * WORSE if holds else min(values) < WORSE / 2
    else:
        assert max(map(abs, values)) < 1e-9 if holds else max(map(abs, values)) > FAR


@pytest.mark.parametrize("name", METRICS)
def test_better_and_worse_are_told_apart(name):
    """The sign of each metric: ideal rows against rows in a quarter of the dimensions, along the axes."""
    z = torch.randn(512, 64, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    fewer = z * (torch.arange(64) < 16)
    assert METRICS[name].worsening(z, fewer) > 0.05 if name != "L_U" else METRICS[name].worsening(z, fewer) > 0.01


@pytest.mark.parametrize("name", METRICS)
def test_span_is_from_the_ideal_to_collapse(name):
    d = 16
    axes = torch.eye(d, dtype=torch.float64)
    ideal, line = torch.cat([axes, -axes]), torch.zeros(32, d, dtype=torch.float64)
    line[:, 0] = torch.linspace(-1, 1, 32) ** 3
    line[:, 1] = 1e3  # one point, but for what keeps ranks defined
    metric = METRICS[name]
    span = metric.span(d)
    # Ranks end at 1, not at 0; the ideal L_U is that of endless dimensions.
    assert metric.worsening(ideal, line) == pytest.approx(1.0, abs=0.15), span


def test_correction_gives_up_cloning_by_what_it_takes_from_more_rows(rows):
    """Clones are taken for rows of their own: the corrected value of twice the rows is nearer to plain W2."""
    metric, cloning = METRICS["W2 corrected"], DESIDERATA["instances cloned"]
    assert all(value > 0 for value in desiderata.worsenings(metric, cloning, rows).values())
    with pytest.warns(UserWarning, match="rows that repeat another"):
        metric.value(cloning.change(rows["isotropic"]))


def test_page_shows_these_cells():
    text = (outcome.FOLDER / "README.md").read_text()
    for name, cells in CELLS.items():
        row = re.search(rf"^\| {re.escape(name)}, (?:larger|smaller) is better \| (.*) \|$", text, re.MULTILINE)
        told = "".join("h" if cell.startswith("holds") else "f" for cell in row[1].split(" | "))
        assert told == cells, name
