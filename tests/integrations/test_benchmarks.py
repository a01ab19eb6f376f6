"""What the benchmarks compare is the same number; and they can be run. No time is asserted."""

import math

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import accelerator, baselines, curves, exchange, growth, page, pairs, ratios, rows, works
from benchmarks.curves import Cell
from benchmarks.loops import Loop
from benchmarks.pairs import Spread
from benchmarks.stopwatch import Stopwatch
from uniformity_callbacks import functional
from uniformity_callbacks.integrations.pytorch import watch


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(pairs, "WARM_S", 0.0)
    monkeypatch.setattr(pairs, "SAMPLE_S", 0.0)


def value_and_gradient(metric, z):
    z = z.clone().requires_grad_()
    value = metric(z)
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach(), gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("theirs", "ours", "shape"),
    [
        (baselines.published_w2, functional.wasserstein_uniformity, (96, 24)),
        (baselines.eigh_w2, functional.wasserstein_uniformity, (96, 24)),
        (baselines.svdvals_w2, functional.wasserstein_uniformity, (96, 24)),
        (baselines.pdist_wang_isola, functional.wang_isola_uniformity, (96, 24)),
        (baselines.pdist_wang_isola, functional.wang_isola_uniformity, (24, 96)),
        (baselines.svdvals_rankme, functional.rankme, (96, 24)),
        (baselines.svdvals_rankme, functional.rankme, (24, 96)),
    ],
)
def test_baselines_are_the_same_number_with_the_same_gradient(theirs, ours, shape, dtype):
    z = rows.power_law(*shape).to(dtype)
    (value, gradient), (expected, slope) = value_and_gradient(theirs, z), value_and_gradient(ours, z)
    assert value.dtype == dtype
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    assert (gradient - slope).norm() <= 1e-4 * slope.norm()


@pytest.mark.parametrize("theirs", [baselines.published_w2, baselines.eigh_w2, baselines.svdvals_w2])
def test_baselines_of_w2_have_its_value_where_rows_are_fewer_than_dimensions(theirs):
    z = rows.isotropic(24, 96).double()
    assert theirs(z).item() == pytest.approx(functional.wasserstein_uniformity(z).item(), rel=1e-4)


def test_populations_have_the_spectrum_that_they_are_named_by():
    n, d = 20_000, 32
    eigenvalues = {name: torch.linalg.eigvalsh(make(n, d).T.cov()).flip(0) for name, make in rows.SPECTRA.items()}
    expected = torch.arange(1, d + 1).reciprocal()
    assert torch.allclose(eigenvalues["isotropic"], torch.ones(d), rtol=0.15)
    assert torch.allclose(eigenvalues["1/i"], expected, rtol=0.15)
    strong, weak = eigenvalues["16 dims"].split(16)
    assert strong.min() > 0.8
    assert weak.max() < 1e-6


def test_works_take_turns(quick):
    calls = []
    times = pairs.in_turns({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3)
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}
    assert "".join(calls) == "abababab"  # after one call of each


def test_ratios_are_taken_pair_by_pair():
    assert pairs.ratio([2.0, 40.0, 6.0], [1.0, 10.0, 2.0]) == Spread(2.5, 3.0, 3.5)
    assert pairs.difference([2.0, 40.0, 6.0], [1.0, 10.0, 2.0]).median == 4.0


def test_table_of_ratios_has_all_rows_of_all_populations(quick, capfd):
    text = ratios.run(tiny=True)
    for case in ratios.CASES:
        lines = [line for line in text.splitlines() if f"| {case.work} |" in line and f"| {case.against} |" in line]
        for name in case.spectra:
            assert any(f"| {name} |" in line for line in lines)
        assert any(line.endswith(f"| {case.least:g} |") for line in lines)
    assert len(text.splitlines()) == 2 + sum(len(case.spectra) for case in ratios.CASES) + 2
    assert "MB beyond its input (to reach: under 300 MB)" in text


def test_works_do_all_that_is_promised_of_them():
    z = rows.isotropic(64, 8)
    assert set(works.SPECTRAL) < set(works.spectral(z))
    assert {"w2", "w2_corrected", "lu", "rankme"} < set(works.panel(z))
    assert "alignment" in works.panel_of_two_views(z)
    assert works.WORKS["loss"](z).requires_grad
    assert not works.WORKS["wang_isola"](z).requires_grad


def test_stopwatch_is_in_all_hooks_of_a_watched_loop(tmp_path):
    loop, stopwatch = Loop.of(16, 8), Stopwatch()
    with stopwatch.listening():
        monitor = watch(loop.model, optimizer=loop.optimizer, journal=tmp_path / "uniformity.jsonl")
    layer, optimizer = loop.model.projector, loop.optimizer
    hooks = [layer._forward_hooks, layer.weight._backward_hooks]
    hooks += [optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]
    assert all(len(some) == 1 for some in hooks)
    assert all(hasattr(hook, "__wrapped__") for some in hooks for hook in some.values())
    assert stopwatch.during(loop) > 0
    assert monitor.step == 1
    monitor.close()
    assert torch.Tensor.register_hook.__name__ == "register_hook"


def test_formula_has_the_factor_of_its_larger_cells():
    cells = [Cell(1, 1, 100.0, 1.0), Cell(2, 1, 100.0, 2.0), Cell(4, 1, 30.0, 10.0), Cell(8, 1, math.nan, 50.0)]
    assert curves.factor(cells) == pytest.approx((100 / 2 + 30 / 10) / 2)


def test_sizes_that_are_predicted_to_pass_the_limits_are_left_out(quick, monkeypatch):
    monkeypatch.setattr(growth, "alone", lambda work: 0.01)
    monkeypatch.setattr(growth.memory, "peak", lambda *args: 1e4)
    times, spaces = growth._measured(growth.KINDS[1], [(4096, 4096), (16, 8), (16, 64)])
    assert [cell.known for cell in times] == [cell.known for cell in spaces] == [True, True, False]
    assert "| 4,096 | 4,096 | left out |" in growth._table(times, spaces, "needs, MB")


def test_exchange_sends_what_is_predicted():
    places = [(64, 8), (16, 64)]  # sums, rows
    times, sizes = exchange.measure(places)
    assert all(cell.measured > 0 for cell in times)
    for cell in sizes:
        assert cell.measured == cell.formula + 16  # and the head
    assert [cell.formula for cell in sizes] == [8 * 73, 4 * 8 * 64]


def test_page_keeps_what_is_around_a_part():
    text = "a\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nb\n<!-- bench:y -->\n<!-- /bench:y -->\n"
    new = page.replaced(text, "x", "| new \\1 |\n")
    assert new == text.replace("old", "| new \\1 |")
    assert page.replaced(new, "x", "old") == text
    with pytest.raises(ValueError, match="must have <!-- bench:z --> and <!-- /bench:z --> once, got them 0 times"):
        page.replaced(text, "z", "")


def test_page_has_all_parts():
    text = page.PAGE.read_text()
    for part in command.PARTS:
        assert page.replaced(text, part, "x") != text
    assert ("(speed.png)" in text) == page.PAGE.with_suffix(".png").exists()


def test_command_names_the_parts_that_there_are(capsys):
    with pytest.raises(SystemExit):
        command.main(["ratio"])
    assert "no part ratio; there are thread, runs, ratios, growth, accelerator" in capsys.readouterr().err


def test_command_prints_and_writes_only_what_is_not_tiny(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(page, "PAGE", tmp_path / "speed.md")
    monkeypatch.setattr(command, "PARTS", {"thread": lambda *, tiny: f"tiny {tiny}"})
    page.PAGE.write_text("<!-- bench:thread -->\n<!-- /bench:thread -->\n")
    command.main(["--tiny"])
    assert "tiny True\n\nMeasured on" in capsys.readouterr().out
    assert "tiny" not in page.PAGE.read_text()
    command.main(["thread"])
    assert f"torch {torch.__version__}" in page.PAGE.read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says so only where there is no GPU")
def test_page_says_that_a_gpu_was_not_measured_where_there_is_none():
    assert accelerator.run() == accelerator.NOT_MEASURED
