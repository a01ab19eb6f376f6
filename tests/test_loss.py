import math

import pytest
import torch

from uniformity_callbacks import Constant, LinearDecay, WassersteinLoss, functional


def test_is_weight_times_w2_of_all_views():
    views = torch.randn(12, 6), torch.randn(20, 6) + 1
    expected = functional.wasserstein_uniformity(torch.cat(views)).item()
    assert WassersteinLoss(0.3)(*views).item() == pytest.approx(0.3 * expected, rel=1e-6)


def test_dtypes():
    z = torch.randn(8, 4)
    assert WassersteinLoss()(z.bfloat16()).dtype == torch.float32
    assert WassersteinLoss()(z.double()).dtype == torch.float64


def test_gradient_reaches_every_view_and_spares_bad_rows():
    z0, z1 = torch.randn(8, 4), torch.randn(8, 4)
    z0[0, 0], z1[1] = math.nan, 0.0
    z0.requires_grad_(), z1.requires_grad_()
    loss = WassersteinLoss(1.0)(z0, z1)
    loss.backward()
    assert loss.isfinite()
    for z, bad in ((z0, 0), (z1, 1)):
        assert z.grad.isfinite().all()
        assert (z.grad[bad] == 0).all()
        assert (z.grad[2:].abs().sum(1) > 0).all()
    good = functional.wasserstein_uniformity(torch.cat([z0[1:], z1.detach()[torch.arange(8) != 1]]).detach())
    assert loss.item() == pytest.approx(good.item(), rel=1e-6)


def test_descent_spreads_a_collapsed_cloud():
    torch.manual_seed(1)
    z = (torch.ones(64, 8) + 0.01 * torch.randn(64, 8)).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    before = functional.wasserstein_uniformity(z).item()
    for _ in range(150):
        optimizer.zero_grad()
        WassersteinLoss(1.0)(z).backward()
        optimizer.step()
    assert before > 1.35
    assert functional.wasserstein_uniformity(z).item() < 0.1


def test_draws_no_random_number_and_holds_no_state():
    state = torch.get_rng_state()
    loss = WassersteinLoss()
    loss(torch.ones(4, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert not loss.state_dict()
    assert repr(loss) == "WassersteinLoss(weight=0.1, when='always')"


def test_weight_by_the_fraction_of_training_done():
    z = torch.ones(8, 4)
    loss = WassersteinLoss(LinearDecay(2.0, 1.0))
    for fraction, weight in ((0.0, 2.0), (0.5, 1.5), (1.0, 1.0)):
        loss.progress = fraction
        assert loss.weight == weight
        assert loss(z).item() == pytest.approx(weight * math.sqrt(2))
    assert loss.needs_progress
    assert not WassersteinLoss(1.0).needs_progress
    assert not WassersteinLoss(Constant(1.0)).needs_progress
    assert repr(loss) == "WassersteinLoss(weight=LinearDecay(start=2.0, end=1.0), when='always')"


def test_a_schedule_that_turns_bad_is_an_error_when_it_is_used():
    loss = WassersteinLoss(lambda fraction: -1.0 if fraction == 0.5 else 1.0)
    loss.progress = 0.5
    with pytest.raises(ValueError, match=r"weight at 50\.0% of training must be finite and >= 0, got -1\.0"):
        loss(torch.ones(4, 2))


@pytest.mark.parametrize(
    ("method", "weights"), [("byol", [0.2, 0.2]), ("mocov2", [1.0, 1.0]), ("barlow_twins", [30.0, 0.0])]
)
def test_published_settings(method, weights):
    loss = WassersteinLoss.published(method)
    assert [loss.schedule(fraction) for fraction in (0.0, 1.0)] == weights
    assert WassersteinLoss.published(method, when="alert").when == "alert"


def test_an_unknown_method_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="no published weight for 'moco'; did you mean mocov2"):
        WassersteinLoss.published("moco")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weight": -1}, ValueError, "weight must be finite and >= 0, got -1"),
        ({"weight": math.inf}, ValueError, "weight must be finite"),
        ({"weight": "0.1"}, TypeError, "weight must be a number, got '0.1'"),
        ({"weight": True}, TypeError, "weight must be a number, got True"),
        ({"when": "never"}, ValueError, 'when must be "always" or "alert", got \'never\''),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        WassersteinLoss(**arguments)


@pytest.mark.parametrize(
    ("views", "error", "message"),
    [
        ((), ValueError, "got none"),
        ((torch.zeros(4),), ValueError, r"views\[0\] must be \(n, d\)"),
        ((torch.zeros(4, 2), torch.zeros(4, 3)), ValueError, r"same dimension d, got \(4, 2\), \(4, 3\)"),
        ((torch.zeros(0, 2),), ValueError, "n >= 1"),
        ((torch.zeros(4, 2, dtype=torch.int32),), TypeError, r"views\[0\] must be a floating-point tensor"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_views(views, error, message):
    with pytest.raises(error, match=message):
        WassersteinLoss()(*views)


def test_float64_if_a_view_is():
    z = torch.randn(8, 4)
    assert WassersteinLoss()(z, z.double()).dtype == torch.float64
