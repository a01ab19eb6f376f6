"""Which calls of a layer a loss was computed from."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from uniformity_callbacks import given_up
from uniformity_callbacks.given_up import GivenUp, reached


def calls(layer, n, parts=1):
    """Outputs of a layer, and for each the parts of a copy."""
    outputs = [layer(torch.randn(4, 3)) for _ in range(n)]
    return outputs, [list(z.clone().chunk(parts)) for z in outputs]


def told(usual, n, used, *, parts=1):
    """The calls that are left of n after a pass of as many as usual, where the loss is of some of them."""
    layer, known = nn.Linear(3, 2), GivenUp()
    outputs, copies = calls(layer, usual, parts)
    assert numbers(copies, known.without(copies, outputs[-1].sum())) == list(range(usual))
    outputs, copies = calls(layer, n, parts)
    loss = torch.zeros(()) + sum(outputs[k].square().sum() for k in used)
    left = known.without(copies, loss)
    return numbers(copies, left)


def numbers(copies, left):
    return [k for k, copy in enumerate(copies) if any(copy is call for call in left)]


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    ("usual", "n", "used", "left"),
    [
        (2, 4, (2, 3), [2, 3]),
        (2, 6, (4, 5), [4, 5]),
        (2, 3, (1, 2), [1, 2]),  # given up between its calls
        (2, 6, (0, 1, 4, 5), [0, 1, 4, 5]),  # in the middle of a sum
        (2, 4, (0, 1, 2, 3), [0, 1, 2, 3]),  # a batch of more views
        (4, 8, (6, 7), [4, 5, 6, 7]),  # the loss never used the first two
        (4, 4, (2, 3), [0, 1, 2, 3]),
        (4, 2, (1,), [0, 1]),
        (2, 4, (), [0, 1, 2, 3]),  # nothing is known
    ],
)
def test_the_earliest_calls_go_that_are_more_than_usual_and_not_of_the_loss(usual, n, used, left, parts):
    assert told(usual, n, used, parts=parts) == left


def test_usual_are_the_fewest_calls_of_a_pass():
    layer, known = nn.Linear(3, 2), GivenUp()
    for n, left in ((4, 4), (3, 3), (4, 3), (2, 2), (4, 2)):
        outputs, copies = calls(layer, n)
        assert len(known.without(copies, outputs[-1].sum())) == left
        assert known.without([], outputs[-1].sum()) == []  # an evaluation


def test_before_anything_is_usual_those_go_that_are_not_finite_and_what_goes_with_them():
    layer, known = nn.Linear(3, 2), GivenUp()
    for _ in range(2):  # nothing is learned of it
        outputs, copies = calls(layer, 4)
        copies[0][0].data[0, 0] = torch.nan
        assert numbers(copies, known.without(copies, outputs[3].sum() + outputs[2].sum())) == [2, 3]
    outputs, copies = calls(layer, 4)
    assert numbers(copies, known.without(copies, outputs[3].sum())) == [0, 1, 2, 3]
    copies[0][0].data[0, 0] = torch.inf
    assert numbers(copies, known.without(copies, outputs[3].sum())) == [0, 1, 2, 3]
    assert numbers(copies, GivenUp().without(copies, outputs[0].sum())) == [0, 1, 2, 3]  # of the loss itself


def test_copies_without_a_graph_stay():
    layer, known = nn.Linear(3, 2), GivenUp()
    outputs, copies = calls(layer, 1)
    known.without(copies, outputs[0].sum())
    outputs, _ = calls(layer, 2)
    copies = [[z.detach()] for z in outputs]
    assert numbers(copies, known.without(copies, outputs[1].sum())) == [0, 1]


def test_as_many_calls_as_usual_cost_no_walk(monkeypatch):
    layer, known = nn.Linear(3, 2), GivenUp()
    outputs, copies = calls(layer, 4)
    known.without(copies, outputs[0].sum())
    monkeypatch.setattr(given_up, "reached", None)
    for n in (4, 4, 2):
        outputs, copies = calls(layer, n)
        assert numbers(copies, known.without(copies, outputs[0].sum())) == list(range(n))


def test_reached_through_whatever_there_is():
    layer = nn.Linear(2, 2)
    first = layer(torch.randn(3, 2))
    node = first.grad_fn
    second = layer(first)  # a layer that runs on its own output
    other = layer(torch.randn(3, 2))
    nodes = [node, second.grad_fn, other.grad_fn]
    inside = [
        second.relu_().sum(),  # changed in place after it was seen
        checkpoint(torch.tanh, second, use_reentrant=False).sum(),
        checkpoint(torch.tanh, second, use_reentrant=True).sum(),
        torch.stack([second.detach(), second]).sum() + torch.ones(()),
    ]
    for loss in inside:
        assert reached(loss, nodes) == set(nodes[:2])
    assert reached(torch.ones(()), nodes) == reached(first.detach().sum(), nodes) == set()
    assert reached(torch.ones((), requires_grad=True), nodes) == set()


def test_a_long_graph_is_walked_without_recursion():
    x = torch.ones((), requires_grad=True)
    z = x * 2
    loss = z
    for _ in range(5000):
        loss = loss + 1
    assert reached(loss, [z.grad_fn]) == {z.grad_fn}
