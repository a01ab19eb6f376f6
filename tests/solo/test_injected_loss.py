"""The loss that is added by a key alone: the parameters' gradients change by its weight times that of W2."""

import oracle
import pytest
import torch
from learners import METHODS, MULTICROP, build, told_apart
from oracle import Oracle
from watching import fit, journal

TOLERANCE = 1e-4


class Gradients(Oracle):
    """Keeps the first step's gradients, before the method clips or drops any, and the random state after them.

    With ``views``, W2's own gradient besides, which autograd takes to the parameters through the same forward pass.
    """

    def __init__(self, method, views=None):
        super().__init__(method)
        self._views = views

    def on_before_backward(self, trainer, module, loss):
        self.views = [z.detach() for z in self._now]
        if self._views is not None:
            value, parameters = oracle.w2(self._now[self._views]), _trained(module)
            found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            self.of_w2 = _flat(found, parameters)

    def on_after_backward(self, trainer, module):
        parameters = _trained(module)
        self.random_state, self.taken = torch.get_rng_state(), _flat([p.grad for p in parameters], parameters)


def _trained(module):
    return [p for p in module.parameters() if p.requires_grad]


def _flat(gradients, parameters):
    """Return one vector in float64; a parameter that the loss does not reach has zeros."""
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).double().flatten() for g, p in pairs])


def one_step(method, seen, tmp_path, small_crops=0, **keys):
    learner = told_apart(build(method, small_crops=small_crops, steps=1, epochs=1))
    torch.manual_seed(1)
    return fit(learner, [seen], keys=keys, num_sanity_val_steps=0, limit_val_batches=0, default_root_dir=tmp_path)


def check(method, tmp_path, small_crops=0, views=None, **keys):
    views = oracle.read(method, small_crops) if views is None else views
    plain, injected = Gradients(method, views), Gradients(method)
    one_step(method, plain, tmp_path, small_crops)
    # The loss's own gradient is taken off in float32, whose noise is 1e-7 of it: W2's is made much the larger one.
    weight = max(1.0, round(30 * float(plain.taken.norm() / plain.of_w2.norm()), 3))
    trainer = one_step(method, injected, tmp_path, small_crops, auxiliary=weight, **keys)
    assert torch.equal(plain.random_state, injected.random_state)  # dropout and masks drew the same numbers
    assert all(map(torch.equal, plain.views, injected.views))
    assert len(plain.views) == oracle.calls(method, small_crops)
    expected = weight * plain.of_w2
    assert (injected.taken - plain.taken - expected).norm() <= TOLERANCE * expected.norm()
    (reading,) = journal(trainer).readings
    assert reading.values["aux_weight"] == weight
    value = float(oracle.w2(plain.views[views]))
    assert reading.values["aux_loss"] == pytest.approx(weight * value, rel=1e-5)
    return reading


@pytest.mark.parametrize("method", METHODS)
def test_gradients_change_by_weight_times_that_of_w2(method, tmp_path):
    check(method, tmp_path)


@pytest.mark.parametrize("method", MULTICROP)
def test_of_several_crops_the_large_ones(method, tmp_path):
    assert check(method, tmp_path, small_crops=2).values["samples"] == 64


@pytest.mark.parametrize("method", MULTICROP[:1])
def test_of_several_crops_all_by_a_key(method, tmp_path):
    assert check(method, tmp_path, small_crops=2, views=slice(None), calls="all").values["samples"] == 128
