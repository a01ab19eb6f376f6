"""That docs/paper can be made, of what it is made, and that its exact laws are those that samples follow."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from benchmarks import page
from benchmarks.paper import __main__ as command
from benchmarks.paper import assumptions, encoders, gaussian, goals, outcome, populations, sensitivity
from benchmarks.paper.outcome import Outcome
from benchmarks.paper.populations import Reading
from uniformity_callbacks import functional


@pytest.mark.parametrize("part", command.PARTS)
def test_part_runs_in_short_and_writes_nothing(part, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(outcome, "FOLDER", tmp_path)
    command.main([part, "--tiny"])
    assert "| --- |" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_part_that_is_not_tiny_is_written(monkeypatch, tmp_path):
    figure, _ = sensitivity.plt.subplots()
    found = Outcome("text", {"curve": figure}, {"curve": outcome.numbers(["x", "y"], [("a", 1 / 3)])})
    monkeypatch.setattr(outcome, "FOLDER", tmp_path)
    monkeypatch.setattr(command, "PARTS", {"x": lambda *, tiny: found})
    (tmp_path / "README.md").write_text("before\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nafter\n")
    command.main([])
    told = (tmp_path / "README.md").read_text()
    assert told.startswith("before\n<!-- bench:x -->\ntext\n\nMeasured on ")
    assert told.endswith("\n<!-- /bench:x -->\nafter\n")
    assert (tmp_path / "curve.csv").read_text() == "x,y\na,0.33333\n"
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_command_names_the_parts_that_there_are(capsys):
    with pytest.raises(SystemExit):
        command.main(["gauss"])
    assert "no part gauss; there are desiderata, sensitivity, gaussian" in capsys.readouterr().err


def test_page_has_all_parts_and_shows_all_figures():
    text = {name: (outcome.FOLDER / name).read_text() for name in ("README.md", "methods.md")}
    for part in command.PARTS:
        page_of_part = text["methods.md" if part == "methods" else "README.md"]
        assert page.replaced(page_of_part, part, "x") != page_of_part
    for path in outcome.FOLDER.glob("*.*"):
        assert path.name == "README.md" or any(f"({path.name})" in each for each in text.values()), path.name


@pytest.mark.parametrize("name", populations.SPECTRA)
def test_true_readings_are_those_of_many_rows(name):
    variances = populations.SPECTRA[name](32)
    truth = populations.true_reading(variances)
    z = populations.sample(variances, 200_000, torch.Generator().manual_seed(0))
    found = populations.plain(z)
    assert populations.true_eigenvalues(variances).sum().item() == pytest.approx(1.0, abs=1e-9)
    assert found.w2 == pytest.approx(truth.w2, rel=3e-3, abs=0.02)
    assert found.dims == pytest.approx(truth.dims, rel=3e-3)
    assert found.rankme == pytest.approx(truth.rankme, rel=3e-3)


def test_corrected_rankme_is_of_rows_that_are_not_centred():
    def rows(n):
        z = populations.sample(1 / torch.arange(1.0, 33, dtype=torch.float64), n, generator)
        z[:, -1] += 1.0
        return z

    generator = torch.Generator().manual_seed(1)
    truth = functional.rankme(rows(50_000)).item()
    samples = [rows(64) for _ in range(20)]
    plain, corrected = (
        populations.median([read(z) for z in samples], "rankme")[1]
        for read in (populations.plain, populations.corrected)
    )
    assert plain < 0.93 * truth
    assert corrected == pytest.approx(truth, rel=0.04)


def test_uniform_sphere_reads_as_told():
    for d, kept in ((100, 100), (100, 10), (16, 1)):
        z = torch.randn(8000, d, generator=torch.Generator().manual_seed(2))
        z[:, kept:] = 0.0
        assert functional.wang_isola_uniformity(z).item() == pytest.approx(sensitivity.true_lu(kept), abs=2e-3)
        assert functional.wasserstein_uniformity(z).item() == pytest.approx(sensitivity.true_w2(d, kept), abs=0.06)


def test_degrees_leave_a_dimension():
    assert [sensitivity.used(200, degree) for degree in (0, 50, 99, 100)] == [200, 100, 2, 1]
    rows = sensitivity.rows_of(300, 20)
    z = rows.clone()
    z[:, 10:] = 0.0
    point = sensitivity.Point.of(rows, 50)
    assert point.lu == pytest.approx(functional.wang_isola_uniformity(z).item(), abs=1e-6)
    assert point.w2 == functional.wasserstein_uniformity(z).item()


def test_coordinates_of_the_sphere_follow_their_law():
    rng = np.random.default_rng(0)
    for d in (2, 3, 8):
        x = gaussian.sphere(20_000, d, 2, rng)
        assert gaussian.stats.kstest(x[:, 0], gaussian.coordinate(d).cdf).pvalue > 1e-3
        assert np.square(x).mean() == pytest.approx(1.0, abs=0.02)
    z = rng.standard_normal((50_000, 8))
    z *= math.sqrt(8) / np.linalg.norm(z, axis=1, keepdims=True)
    assert gaussian.stats.ks_2samp(z[:, 0] * z[:, 1], gaussian.sphere(50_000, 8, 2, rng).prod(1)).pvalue > 1e-3


def test_exact_distances_fall_with_the_dimensions():
    found = [gaussian.exact(d) for d in gaussian.DIMS]
    # Of the order of 1 / d^2 and 1 / d.
    for few, many in pairwise(found[2:]):
        assert few.kl / many.kl == pytest.approx(4.0, rel=0.2)
        assert few.w1 / many.w1 == pytest.approx(2.0, rel=0.1)
    # Bins lose little where the law is smooth, much at d = 2, the arcsine law, whose entropy is log(pi / sqrt(2)).
    assert found[2].kl == pytest.approx(gaussian.exact_kl(8), rel=0.01)
    assert found[0].kl < 0.7 * gaussian.exact_kl(2)
    entropy = math.log(math.pi / math.sqrt(2))
    assert gaussian.exact_kl(2) == pytest.approx(0.5 * math.log(2 * math.pi * math.e) - entropy)


def test_samples_of_degree_none_are_of_the_population():
    generator = torch.Generator().manual_seed(3)
    for bound in assumptions.BOUNDS:
        z = bound.draw(4096, bound.degrees[0], generator)
        others = bound.population(4096, bound.degrees[0], generator)
        first, second = (functional.wasserstein_uniformity(rows).item() for rows in (z, others))
        assert first == pytest.approx(second, abs=0.02)
        assert len(z.unique(dim=0)) == 4096
        assert torch.allclose(z.norm(dim=1), torch.ones(4096, dtype=torch.float64))


def test_degrees_repeat_rows_and_views():
    generator = torch.Generator().manual_seed(4)
    assert len(assumptions._repeated(200, 0.25, generator).unique(dim=0)) == 150
    z = assumptions._views(200, 4, generator)
    within = (z[::4] * z[1::4]).sum(1).mean().item()
    between = (z[::4] * z.roll(4, 0)[1::4]).sum(1).mean().item()
    assert within > 0.7
    assert abs(between) < 0.1


def test_distances_to_the_truth_and_drifts_are_of_medians():
    def readings(*w2):
        return [Reading(x, 10.0, 10.0) for x in w2]

    sizes = {0.5: readings(0.52, 0.6, 9.0), 8.0: readings(0.4, 0.5, 0.5)}
    curve = goals.Curve("x", 8, Reading(0.5, 10.0, 10.0), sizes, sizes)
    assert curve.off("w2", 0.5) == pytest.approx(0.2)
    assert curve.drift("w2") == pytest.approx(-0.2)
    assert [curve.near("w2", ratio, of="plain") for ratio in sizes] == pytest.approx([1 / 3, 2 / 3])
    ideal = goals.Curve("x", 8, Reading(0.0, 10.0, 10.0), sizes, sizes)
    assert ideal.off("w2", 0.5) == pytest.approx(0.6)


def test_encoders_are_trained_alike_each_time_and_leave_the_random_state():
    state = torch.random.get_rng_state()
    network, draw = encoders.encoder("VICReg", steps=2)
    encoders._trained.cache_clear()
    again, _ = encoders.encoder("VICReg", steps=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    z = draw(20, torch.Generator().manual_seed(0))
    assert z.shape == (20, 128)
    assert torch.equal(z, draw(20, torch.Generator().manual_seed(0)))
