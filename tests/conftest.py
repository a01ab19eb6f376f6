import json
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

DATA = Path(__file__).parent / "data"
VALUES = json.loads((DATA / "values.json").read_text())
CASES = sorted(VALUES)


@pytest.fixture(autouse=True)
def _clean_state():
    """Each test starts from one seed and must leave torch's global settings as they were."""
    torch.manual_seed(0)
    before = torch.is_grad_enabled(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled()
    yield
    assert before == (torch.is_grad_enabled(), torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled())


@pytest.fixture(scope="session")
def embeddings():
    return _arrays("embeddings")


@pytest.fixture(scope="session")
def gradients():
    return _arrays("gradients")


def _arrays(name):
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as archive:
        return {case: archive[case] for case in archive.files}


@pytest.fixture
def unchecked():
    """Without jaxtyping's checks, as in a user's process: what our own messages answer."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
