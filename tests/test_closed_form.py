"""W2's gradient from raw rows: in float32 where that is enough, in float64 elsewhere."""

import math

import pytest
import torch

from spread import spread
from uniformity_callbacks import WassersteinLoss, closed_form, measures
from uniformity_callbacks.closed_form import WELL_SPREAD, _double, _single, is_wide, rooted
from uniformity_callbacks.unit_rows import unit_rows

SHAPES = [(512, 64), (96, 256), (256, 250), (64, 64)]


def rows(n, d, singular):
    """Centred, with these singular values, the largest first, and a mean a tenth of the whole."""
    k = min(n - 1, d)
    left = torch.linalg.qr(torch.cat([torch.ones(n, 1), torch.randn(n, k)], 1).double()[:, :n])[0][:, 1 : k + 1]
    right = torch.linalg.qr(torch.randn(d, k, dtype=torch.float64))[0]
    c = (left * singular(k)) @ right.T * math.sqrt(n / singular(k).square().sum())
    return c + 0.1 * torch.nn.functional.normalize(torch.randn(d, dtype=torch.float64), dim=0)


def half_at(weakest):
    """From 1 down to the weakest, half of them there."""
    end = math.log10(weakest)
    return lambda k: torch.cat([torch.logspace(0, end, k - k // 2), torch.full((k // 2,), weakest)]).double()


def some_at(*weak):
    """Most at 0.1 to 1, and some weak ones."""
    return lambda k: torch.cat([torch.linspace(1, 0.1, k - len(weak)), torch.tensor(weak)]).double()


def by_svd(z):
    """W2 and its gradient by a decomposition of the rows themselves: no singular value is squared."""
    z = z.double().requires_grad_()
    u = torch.nn.functional.normalize(z)
    c = u - u.mean(0)
    left, singular, right = torch.linalg.svd(c.detach(), full_matrices=False)
    kept = singular > 1e-7 * singular[0]
    (c * (left[:, kept] @ right[kept])).sum().backward()
    n, d = z.shape
    w2 = torch.sqrt(2.0 - 2.0 * singular.sum() / math.sqrt(n * d))
    return w2.item(), z.grad / (-w2 * math.sqrt(n * d))


def by_autograd(z):
    """The same through the parts of it, where rows may be left out."""
    z = z.double().requires_grad_()
    value = measures.w2(unit_rows(z))
    value.backward()
    return value.item(), z.grad


def both(z):
    z = z.clone().requires_grad_()
    value = closed_form.uniformity(z)
    value.backward()
    return value.item(), z.grad


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("weakest", [1.0, 0.3, 2 * WELL_SPREAD])
def test_strong_directions_in_single_precision(n, d, weakest):
    z = rows(n, d, half_at(weakest)).float() * torch.rand(n, 1).add(0.5)
    found = _single(z)
    (value, grad), (exact, gradient) = both(z), by_svd(z)
    assert (found is not None) == (exact > 0.1)
    if min(n, d) < max(n, d) - 10:  # near square, normalising leaves directions that are weaker
        assert found.weak is None
    assert value == pytest.approx(exact, rel=1e-6)  # 3e-7 seen
    assert (grad - gradient).norm() <= 1e-4 * gradient.norm()  # 4e-5 seen


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("weak", [(0.01,), (1e-3, 1e-4), (1e-4, 1e-5, 1e-5)])
def test_weak_directions_apart(n, d, weak):
    z = rows(n, d, some_at(*weak))
    found = _single(z.float())
    assert found.weak.left.shape[1] >= len(weak)
    (value, grad), (exact, gradient) = both(z.float()), by_svd(z.float())
    assert value == pytest.approx(exact, rel=1e-6)
    assert (grad - gradient).norm() <= 1e-4 * gradient.norm()
    # And each of the weak ones by itself: its share of the polar factor is 1.
    c = unit_rows(z.float()).centred
    left, _, right = torch.linalg.svd(c, full_matrices=False)
    picked = slice(min(n - 1, d) - len(weak), min(n - 1, d))
    polar = _polar(found)
    shares = (left[:, picked] * (polar @ right[picked].T)).sum(0)
    torch.testing.assert_close(shares, torch.ones_like(shares), atol=1e-4, rtol=0)
    assert torch.linalg.matrix_norm(polar, 2) < 1 + 1e-4


def _polar(found):
    """The polar factor that a gradient is made of."""
    matrix, c = found.matrix.double(), found.rows.double()
    return (matrix @ c if is_wide(c) else c @ matrix) + found.weak.left.double() @ found.weak.right.double()


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("weakest", [0.01, 1e-3, 1e-5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_weak_directions_in_double(n, d, weakest, dtype):
    z = rows(n, d, half_at(weakest)).to(dtype)
    assert _single(z.float()) is None
    (value, grad), (exact, gradient) = both(z), by_svd(z)
    assert value == pytest.approx(exact, rel=1e-9)
    assert grad.dtype == dtype
    assert (grad - gradient).norm() <= 1e-4 * gradient.norm()  # of directions at 1e-5, whose squares are at 1e-10


ROWS = torch.randn(40, 160, generator=torch.Generator().manual_seed(1))
ODD = {
    "one point": torch.ones(40, 160) + 1e-5 * ROWS,
    "equal rows": torch.ones(40, 160),
    "a zero row": torch.cat([ROWS, torch.zeros(1, 160)]),
    "not a number": torch.cat([ROWS, torch.full((2, 160), math.nan)]),
    "infinite": torch.cat([ROWS, torch.full((2, 160), math.inf)]),
    "huge": 1e25 * ROWS,
    "small": 1e-25 * ROWS,
    "near the ideal": torch.cat([torch.eye(160), -torch.eye(160)]),
    "one row": ROWS[:1],
    "only zeros": torch.zeros(5, 7),
}


@pytest.mark.parametrize("name", ODD)
def test_rows_that_single_precision_is_not_for(name):
    z = ODD[name]
    assert rooted(z).matrix.dtype == torch.float64
    (value, grad), (exact, gradient) = both(z), by_autograd(z)
    assert value == pytest.approx(exact, rel=1e-12)
    assert torch.isfinite(grad).all()
    scale = float(gradient.abs().sum().clamp(min=1e-30))
    torch.testing.assert_close(grad.double(), gradient, rtol=1e-6, atol=1e-12 * scale + 1e-16)


@pytest.mark.parametrize("shape", [(40, 160), (160, 40)])
@pytest.mark.parametrize("precision", [_single, _double])
def test_a_part_of_the_gradient(shape, precision):
    found = precision(torch.randn(shape))
    torch.testing.assert_close(found.gradient(2.0, slice(5, 9)), 2.0 * found.gradient()[5:9])


def test_settings_of_single_precision_do_not_touch_it():
    z = torch.randn(40, 160)
    assert rooted(z).matrix.dtype == torch.float32
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert rooted(z).matrix.dtype == torch.float64
    finally:
        torch.set_float32_matmul_precision(before)
    assert rooted(z).matrix.dtype == torch.float32


@pytest.mark.parametrize("shape", [(40, 160), (160, 40)])
def test_autocast_does_not_touch_it(shape):
    z = torch.randn(shape)
    _, expected = both(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, grad = both(z)
    assert torch.equal(grad, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_as_its_float32(dtype):
    z = torch.randn(40, 160).to(dtype)
    (value, grad), (exact, gradient) = both(z), both(z.float())
    assert (value, grad.dtype) == (exact, dtype)
    assert torch.equal(grad, gradient.to(dtype))


def test_the_value_does_not_depend_on_whether_a_gradient_is_wanted():
    z = torch.randn(300, 64)
    with torch.no_grad():
        without = closed_form.uniformity(z)
    assert closed_form.uniformity(z.clone().requires_grad_()).item() == pytest.approx(without.item(), rel=1e-6)


def traced(rank):
    """What the loss says of some rows, traced without a break, and in float64: values and gradients."""
    found = []
    for shape in ((40, 160), (160, 40)):
        for graded in (True, False):
            z = torch.randn(shape, requires_grad=graded)
            exact = z.detach().double().requires_grad_()
            value = torch.compile(WassersteinLoss(1.0), backend="aot_eager", fullgraph=True)(z)
            expected = WassersteinLoss(1.0)(exact)
            expected.backward()
            if graded:
                value.backward()
            found.append((value.item(), expected.item(), z.grad, exact.grad))
    return found


def test_it_is_traced_without_a_break_and_in_double():
    """A trace cannot look at values, by which single precision is chosen. In a process without the tests' checks."""
    for value, expected, grad, gradient in spread(1, traced)[0]:
        assert value == pytest.approx(expected, rel=1e-7)
        if grad is not None:
            assert (grad - gradient).norm() <= 1e-7 * gradient.norm()
