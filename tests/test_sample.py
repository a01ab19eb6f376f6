import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uniformity_callbacks.sample import Sample, unit_rows


def test_rows_that_cannot_be_measured_are_masked():
    z = torch.randn(6, 3)
    z[1], z[2, 0], z[4, 2] = 0.0, float("nan"), float("inf")
    unit = unit_rows(z)
    assert unit.valid.tolist() == [True, False, False, True, False, True]
    assert unit.count == 3
    assert (unit.rows[[1, 2, 4]] == 0).all()
    assert unit.rows.dtype == torch.float64
    torch.testing.assert_close(unit.rows[unit.valid].norm(dim=1), torch.ones(3, dtype=torch.float64))


@settings(max_examples=50, deadline=None)
@given(st.integers(-290, 290))
def test_lengths_beyond_the_square_root_of_float64(exponent):
    z = torch.tensor([[3.0, 4.0]], dtype=torch.float64) * 10.0**exponent
    torch.testing.assert_close(unit_rows(z).rows, torch.tensor([[0.6, 0.8]], dtype=torch.float64))


def test_zero_rows_count_where_rows_are_taken_as_they_are():
    assert unit_rows(torch.zeros(4, 2), normalize=False).count == 4


def test_passes_are_joined_view_by_view():
    a, b, c, d = (torch.full((n, 2), float(n)) for n in (1, 2, 3, 4))
    sample = Sample.of([[a, b], [c, d]])
    assert [len(view) for view in sample.views] == [4, 6]
    assert sample.rows.shape == (10, 2)


def test_a_pass_may_have_fewer_views():
    a, b, c = (torch.zeros(n, 2) for n in (1, 2, 3))
    assert [len(view) for view in Sample.of([[a, b], [c]]).views] == [4, 2]
