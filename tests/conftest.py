import sys

import jaxtyping
import pytest
import torch

from reference import arrays


@pytest.fixture(autouse=True)
def _clean_state():
    """Each test starts from one seed, nothing compiled, and must leave torch's global settings as they were."""
    torch.manual_seed(0)
    before = torch.is_grad_enabled(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    yield
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is not None and dynamo.counters:
        torch.compiler.reset()
        dynamo.counters.clear()
    assert before == (torch.is_grad_enabled(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled())


@pytest.fixture(scope="session")
def embeddings():
    return arrays("embeddings")


@pytest.fixture(scope="session")
def gradients():
    return arrays("gradients")


@pytest.fixture
def unchecked():
    """Without jaxtyping's checks, as in a user's process: what our own messages answer."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
