"""What is left of the passes of a step, in every order in which they can come."""

import pytest
import torch

from uniformity_callbacks.passes import Passes


def play(script):
    """a, b, ... bring a pass; "." spends, "!" spends where no gradients were, "|" is a step, "x" forgets."""
    passes = Passes()
    for letter in script:
        match letter:
            case ".":
                passes.spend(fresh=False)
            case "!":
                passes.spend(fresh=True)
            case "|":
                passes.step()
            case "x":
                passes.forget()
            case _:
                passes.add([torch.tensor(ord(letter))], None)
    return "".join(chr(views[0].item()) for views in passes.views)


@pytest.mark.parametrize(
    ("script", "left"),
    [
        ("a", "a"),
        ("a!", "a"),
        ("a!b.c.", "abc"),  # accumulated
        ("ab!", "ab"),  # two losses, summed for one backward
        ("a!b!", "b"),  # a's gradients are gone
        ("a!b.c!", "c"),
        ("a!b!c.", "bc"),
        ("a!bc!", "bc"),
        ("a!|b!", "ab"),  # a window of two steps
        ("a!|b!c!|d!", "acd"),
        ("a!|b!c!d.|", "acd"),
        ("a!!", "a"),  # told twice of one backward
        ("a!x!b!", "b"),
        ("!a!", "a"),
        ("a!|!b.", "ab"),  # another loss's backward
    ],
)
def test_what_is_left(script, left):
    assert play(script) == left


def test_passes_without_views_or_terms():
    passes = Passes()
    passes.add([], None)
    passes.add([], torch.tensor(1.0))
    passes.add([torch.ones(2, 2)], None)
    assert [term.item() for term in passes.terms] == [1.0]
    assert len(passes.views) == 1
    passes.spend(fresh=True)
    passes.add([torch.ones(3, 2)], torch.tensor(2.0))
    passes.spend(fresh=True)
    assert [term.item() for term in passes.terms] == [2.0]
    assert [len(views[0]) for views in passes.views] == [3]
