"""What is taken for a projector by itself, and by which path it goes."""

import pytest
import torch
from torch import nn

from uniformity_callbacks.layers import find


def tree(*paths, **modules):
    """A model with a Linear at each path, and other modules at paths that are written with __ for a dot."""
    model = nn.Module()
    for path, module in ({path: nn.Linear(2, 2) for path in paths} | modules).items():
        parent, parts = model, path.replace("__", ".").split(".")
        for part in parts[:-1]:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        parent.add_module(parts[-1], module)
    return model


def prototypes():
    return torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 2, bias=False))


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (tree("encoder", "projector", "momentum_projector"), ["projector"]),
        (tree("backbone.fc", "net.projection_head.0", "net.projection_head.1"), ["net.projection_head"]),
        (
            tree("online_network.projector", "target_network.projector"),
            ["online_network.projector", "target_network.projector"],
        ),
        (
            tree(
                "head.mlp", "momentum_head.mlp", head__last_layer=prototypes(), momentum_head__last_layer=prototypes()
            ),
            ["head.mlp", "momentum_head.mlp"],
        ),
        (tree("student_head.layers", student_head__last_layer=prototypes()), ["student_head.layers"]),
        (tree("projection_head.layers", projection_head__last_layer=prototypes()), ["projection_head.layers"]),
        (tree("head.mlp.projection", head__last_layer=prototypes()), ["head.mlp"]),
        # A last layer with a bias is no prototypes, and a head without a body that is named so no DINO head.
        (tree("head.mlp", "head.last_layer", "projector"), ["projector"]),
        (tree("head.body", "projector", head__last_layer=prototypes()), ["projector"]),
        (tree("head.mlp", "projector", head__last_layer=nn.Identity()), ["projector"]),
    ],
)
def test_what_is_found(model, found):
    modules = dict(model.named_modules())
    assert find(model, None) == {name: modules[name] for name in found}


def test_a_head_by_name_is_the_head():
    model = tree("head.mlp", head__last_layer=prototypes())
    assert find(model, "head") == {"head": model.head}


def test_a_module_with_two_paths_is_one_candidate_and_goes_by_either():
    model = tree("projector")
    model.student = nn.ModuleDict({"projector": model.projector})
    assert list(find(model, None)) == ["projector"]
    assert find(model, "student.projector") == {"student.projector": model.projector}
    assert find(model, model.projector) == {"projector": model.projector}


def test_what_has_no_such_name_is_answered_by_what_there_is():
    """As in the papers' code for SimSiam, whose projector is an encoder's fc: not by its predictor."""
    blocks = [f"encoder.layer{k}.{part}" for k in range(4) for part in ("conv1", "bn1", "conv2", "bn2")]
    model = tree("encoder.conv1", *blocks, "encoder.fc.0", "predictor.0", "prediction_head")
    with pytest.raises(ValueError, match=r"found no projector or .* the model has encoder, predictor, .*encoder\.fc, "):
        find(model, None)
    with pytest.raises(ValueError, match="the nearest are projectr; name it"):
        find(tree("projectr", "predictor"), None)


def test_the_model_itself():
    model = nn.Linear(2, 2)
    assert find(model, model) == {"Linear": model}


class Fabric(nn.Module):
    """Holds a model as Lightning Fabric does."""

    def __init__(self, model):
        super().__init__()
        self._forward_module = nn.DataParallel(model)
        self._original_module = model


@pytest.mark.parametrize("wrap", [nn.DataParallel, Fabric, lambda model: nn.DataParallel(Fabric(model))])
def test_wrappers_have_no_part_in_a_path(wrap):
    model = tree("net.projector")
    wrapped = wrap(model)
    for layer in (None, "net.projector", "module.net.projector", "_forward_module.module.net.projector"):
        assert find(wrapped, layer) == {"net.projector": model.net.projector}
    assert find(wrapped, model.net.projector) == {"net.projector": model.net.projector}
    assert find(wrapped, model).keys() == {type(wrapped).__name__}


def test_module_is_a_name_as_any_other():
    model = tree("module.projector", "net.module.projector")
    assert list(find(model, "module.projector")) == ["module.projector"]
    assert list(find(model, None)) == ["module.projector", "net.module.projector"]
    with pytest.raises(ValueError, match=r"layer 'projector' is not in the model; did you mean module\.projector"):
        find(model, "projector")
