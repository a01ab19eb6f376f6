import warnings

import jaxtyping
from which import NEWEST, described

from advice import ADVICE

# Files that need solo-learn's newest code, its Hydra configurations and `main_pretrain.py`, and those about 1.0.2.
collect_ignore_glob = ["test_release*.py"] if NEWEST else ["test_newest*.py"]

# Third parties' own, none of which our code can avoid.
THIRD_PARTIES = (
    # solo-learn imports what timm and torch have moved, and names its backbones as timm does.
    "ignore:Importing from timm.* is deprecated:FutureWarning:timm",
    "ignore:Overwriting .* in registry with solo:UserWarning:solo.backbones",
    "ignore:.torch.cuda.amp.custom_fwd.* is deprecated:FutureWarning:solo.utils.whitening",
    # Its methods run what torch and logging have renamed.
    "ignore:.torch.nn.utils.weight_norm. is deprecated:FutureWarning:torch.nn.utils.weight_norm",
    "ignore:The 'warn' function is deprecated:DeprecationWarning:solo",
    "ignore:torch.(cholesky|triangular_solve) is deprecated:UserWarning:solo.utils.whitening",
)


def pytest_configure(config):
    for line in THIRD_PARTIES + ADVICE:
        config.addinivalue_line("filterwarnings", line)
    # As in a user's process: a Trainer of pytorch_lightning is not of the class that the annotations name.
    jaxtyping.config.update("jaxtyping_disable", True)


def pytest_report_header():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return described()
