"""The bounded sample of rows: which rows it keeps, and what L_U of them tells of the whole set."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformity_callbacks import functional
from uniformity_callbacks.integrations import row_sample
from uniformity_callbacks.integrations.torchmetrics import WangIsolaUniformity


def sample(z, most, sizes=None):
    kept = row_sample.empty(most, z.shape[1])
    for part in z.split(sizes or len(z)):
        kept = row_sample.keep(torch.cat([kept, row_sample.packed(part)]), most)
    return kept


def potential(z, most=64):
    metric = WangIsolaUniformity(z.shape[1], max_rows=most)
    for part in z.split(100):
        metric.update(part)
    return metric.compute().item()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=2, max_size=6), st.integers(2, 40), st.integers(0, 2**31))
def test_order_and_parts_do_not_matter(sizes, most, seed):
    """To the last bit; every third row or so repeats."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    z = z[torch.randint(30, (sum(sizes),), generator=generator)]
    whole = sample(z, most)
    mixed = z[torch.randperm(len(z), generator=generator)]
    assert torch.equal(sample(mixed, most, sizes), whole)
    assert torch.equal(row_sample.join(torch.stack([sample(part, most) for part in z.split(sizes)])), whole)


def test_it_is_of_different_rows_with_their_counts():
    z = torch.randn(50, 4, dtype=torch.float64)
    kept = sample(torch.cat([z, z[:20], z[:20]]), 30)
    assert kept.shape == (30, 6)
    by_key = z[row_sample.keys(z).argsort(descending=True)[:30]]
    assert torch.equal(kept[:, 2:], by_key)
    repeated = (by_key[:, None] == z[None, :20]).all(-1).any(1)
    assert torch.equal(kept[:, 1], torch.where(repeated, 3.0, 1.0).double())


def test_keys_are_as_if_drawn_at_random():
    """Also where rows are nearly alike, permuted or of few different bits: each in a cell of the square by chance."""
    codes = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 13).double()  # 8192 rows
    lattice = torch.stack([torch.arange(8192.0), torch.zeros(8192), torch.ones(8192)], 1).double()
    normal = torch.randn(8192, 5).half().double()
    one_hot = torch.eye(2048).double()
    for z in (codes, lattice, normal, one_hot):
        keys = row_sample.keys(z)
        assert keys.dtype == torch.float64
        assert ((keys > 0) & (keys <= 1)).all()
        assert len(keys.unique()) == len(z)
        cells = torch.histc(keys, 64, 0.0, 1.0)
        chi = ((cells - len(z) / 64).square() / (len(z) / 64)).sum().item()
        assert 30 < chi < 115  # 63 +- 11
        # A row's key tells nothing of its entries.
        centred = (z - z.mean(0)) / z.std(0).clamp(min=1e-9)
        with_entries = (centred * ((keys - 0.5) * math.sqrt(12))[:, None]).mean(0) * math.sqrt(len(z))
        assert with_entries.abs().max() < 5.0


def test_keys_of_a_product_are_no_sums():
    """As they would be without a last mixing: which rows of a grid are kept would follow from its sides."""
    a, b = torch.randn(2, 50, dtype=torch.float64)
    grid = row_sample.keys(torch.cartesian_prod(a, b)).view(50, 50)
    crossed = (grid[1:, 1:] + grid[:-1, :-1] - grid[1:, :-1] - grid[:-1, 1:]) % 1.0
    assert crossed.std() == pytest.approx(12**-0.5, rel=0.05)


def test_equal_rows_have_equal_keys():
    z = torch.randn(40, 6)
    z[:, 0] = 0.0
    assert torch.equal(row_sample.keys(z.half().double()), row_sample.keys(z.half().float().double()))
    negative = z.double()
    negative[:, 0] = -0.0
    assert torch.equal(row_sample.keys(z.double()), row_sample.keys(negative))
    other = z.double()
    other[:, 3] = torch.nextafter(other[:, 3], other.new_tensor(9.0))
    assert not (row_sample.keys(z.double()) == row_sample.keys(other)).any()
    swapped = z.double()[:, [0, 2, 1, 3, 4, 5]]
    assert not (row_sample.keys(z.double()) == row_sample.keys(swapped)).any()


def test_how_a_batch_lies_in_memory_does_not_matter():
    """A unit row's last bits depend on it; rows are kept as they came."""
    z = 3.0 * torch.randn(300, 4, dtype=torch.float64)
    states = []
    for batch in (z, z.T.contiguous().T, z.repeat_interleave(2, 1)[:, ::2]):
        metric = WangIsolaUniformity(4, max_rows=8)
        metric.update(batch)
        states.append(metric.sample)
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])
    assert torch.equal(states[0][:, 2:], z[row_sample.keys(z).argsort(descending=True)[:8]])


def test_memory_is_bounded():
    metric = WangIsolaUniformity(5, views=2, max_rows=16)
    for _ in range(20):
        metric.update(torch.randn(7, 5), torch.randn(30, 5))
    assert {name: tuple(state.shape) for name, state in metric.metric_state.items()} == {
        "sample": (16, 7),
        "rows": (),
        "nonfinite": (),
    }
    assert metric.rows == 740


def test_few_different_rows_are_exact_however_many_there_are():
    points = torch.randn(30, 6, dtype=torch.float64)
    z = points[torch.distributions.Categorical(1.0 / torch.arange(1.0, 31.0)).sample((2000,))]
    assert potential(z, 30) == pytest.approx(functional.wang_isola_uniformity(z).item(), rel=1e-11)
    assert potential(points[:2].repeat_interleave(torch.tensor([999, 1]), 0), 2) == pytest.approx(
        functional.wang_isola_uniformity(points[:2].repeat_interleave(torch.tensor([999, 1]), 0)).item(), rel=1e-9
    )


def test_one_point_and_one_row():
    point = torch.randn(1, 6)
    assert potential(point.expand(500, 6)) == 0.0
    assert math.isnan(potential(point))
    assert potential(torch.cat([point, -point])) == pytest.approx(-8.0)


@pytest.mark.parametrize("copies", [1, 2, 8])
def test_beyond_it_estimates(copies):
    """Within some standard errors; were copies counted as if the sample were the set, they would read 0.1 high."""
    z = torch.randn(4000 // copies, 32, dtype=torch.float64).repeat(copies, 1)
    z[:, 8:] *= 0.2
    expected = functional.wang_isola_uniformity(z).item()
    got = potential(z, 100)
    assert got != expected
    assert got == pytest.approx(expected, abs=0.06)


def test_a_sample_that_cannot_tell_is_told_of():
    z = torch.randn(2000, 6)
    potential(z, 400)  # warnings are errors
    potential(z.repeat(3, 1), 400)
    z[:1000] = z[0]
    with pytest.warns(UserWarning, match="some rows repeat much more often .* a max_rows above 400, or leave"):
        potential(z, 400)
    assert potential(z, 1001) == pytest.approx(functional.wang_isola_uniformity(z.double()).item(), rel=1e-9)
