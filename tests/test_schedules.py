import math

import pytest

from uniformity_callbacks import Constant, CosineDecay, LinearDecay, WassersteinLoss
from uniformity_callbacks.schedules import check_weight


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Constant(0.2), [0.2, 0.2, 0.2]),
        (LinearDecay(30.0), [30.0, 15.0, 0.0]),
        (LinearDecay(1.0, 3.0), [1.0, 2.0, 3.0]),
        (CosineDecay(1.0), [1.0, 0.5, 0.0]),
        (CosineDecay(2.0, 1.0), [2.0, 1.5, 1.0]),
    ],
)
def test_beginning_middle_and_end(schedule, values):
    assert [schedule(fraction) for fraction in (0.0, 0.5, 1.0)] == pytest.approx(values, abs=1e-12)


def test_cosine_is_flat_at_both_ends():
    slopes = [CosineDecay(1.0)(x + 1e-4) - CosineDecay(1.0)(x) for x in (0.0, 0.5, 1.0 - 1e-4)]
    assert slopes[0] == pytest.approx(0.0, abs=1e-7)
    assert slopes[2] == pytest.approx(0.0, abs=1e-7)
    assert slopes[1] == pytest.approx(-math.pi / 2 * 1e-4, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Constant(-1.0), ValueError, "weight must be finite and >= 0, got -1.0"),
        (lambda: LinearDecay(math.inf), ValueError, "start must be finite and >= 0, got inf"),
        (lambda: CosineDecay(1.0, -0.5), ValueError, "end must be finite and >= 0, got -0.5"),
        (lambda: LinearDecay("30"), TypeError, "start must be a number, got '30'"),
        (lambda: WassersteinLoss(lambda fraction: 1.0 - 2.0 * fraction), ValueError, "weight at 100% of training must"),
        (lambda: WassersteinLoss(lambda fraction: None), TypeError, "weight at 0% of training must be a number"),
        (lambda: check_weight(True), TypeError, "weight must be a number, got True"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_weights(make, error, message):
    with pytest.raises(error, match=message):
        make()
