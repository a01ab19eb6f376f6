"""Backward passes through a layer are heard of, with what they find in the gradients."""

import copy
import pickle
import warnings
import weakref

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from uniformity_callbacks.backward import Backwards, this_backward


def test_a_backward_has_a_number_of_its_own_and_forward_has_none():
    seen = []
    z = torch.ones(2, requires_grad=True) * 2
    z.register_hook(lambda gradient: seen.append(this_backward()))
    assert this_backward() is None
    z.sum().backward(retain_graph=True)
    z.sum().backward()
    assert this_backward() is None
    assert None not in seen
    assert len(set(seen)) == 2
    inside = []

    def layer(x):
        inside.append(this_backward())
        return x.tanh()

    # What torch.utils.checkpoint runs again is told by it, of both kinds: the number is private.
    for reentrant in (False, True):
        inside.clear()
        checkpoint(layer, torch.ones(2, requires_grad=True), use_reentrant=reentrant).sum().backward()
        assert [number is None for number in inside] == [True, False]


def test_a_parameter_tells_whether_gradients_were_there():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    told = []
    backwards = Backwards(told.append)
    backwards.attach([model[1]], model)
    for _ in range(2):
        model(torch.ones(1, 2)).sum().backward()
    model.zero_grad(set_to_none=True)
    model(torch.ones(1, 2)).sum().backward()
    model[0](torch.ones(1, 2)).sum().backward()  # past the layer
    torch.autograd.grad(model(torch.ones(1, 2)).sum(), model[0].weight)
    assert told == [True, False, True]
    backwards.detach()
    model(torch.ones(1, 2)).sum().backward()
    assert len(told) == 3


def test_where_a_layer_has_no_parameter_that_is_trained_the_model_has():
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2).requires_grad_(False))
    for layer in (model[1], model[2]):
        told = []
        Backwards(told.append).attach([layer], model)
        model.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        assert told == [True]
    Backwards(told.append).attach([nn.Tanh()], nn.Tanh())  # nothing is trained


def test_an_output_tells_as_soon_as_its_gradient_is_there():
    told = []
    backwards = Backwards(told.append)
    x = torch.ones(2, requires_grad=True)
    z = x * 2
    x.register_hook(lambda gradient: told.append("then"))
    backwards.follow(z)
    backwards.follow(torch.ones(2))
    z.sum().backward()
    assert told == [None, "then"]


def test_neither_copies_nor_pickles_are_heard_nor_warned_of():
    model = nn.Linear(2, 2)
    told = []
    Backwards(told.append).attach([model], model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            other(torch.ones(1, 2)).sum().backward()
    assert told == []


def test_an_output_is_not_kept():
    backwards = Backwards(lambda fresh: None)
    z = torch.ones(2, requires_grad=True) * 2
    backwards.follow(z)
    gone = weakref.ref(z)
    del z
    assert gone() is None
