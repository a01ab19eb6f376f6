"""What a method's loss looks at, by hooks of the tests' own on layers named here, and W2's gradient by autograd."""

import torch
from learners import MULTICROP, pl
from which import NEWEST

LAYERS = {"dino": "head.mlp", "mae": "backbone.fc_norm"}
"""Where it is not ``projector``."""

# All4One projects twice, by `forward` and for its loss; 1.0.2's ReSSL does not project the view that it does not use.
_CALLS = {"all4one": 4, "ressl": 2 if NEWEST else 1}
_LARGE = 2


def layer(method):
    return LAYERS.get(method, "projector")


def calls(method, small_crops=0):
    """Return how often the layer is called with gradients in a step."""
    return _CALLS.get(method, _LARGE) + (small_crops if method in MULTICROP else 0)


def read(method, small_crops=0):
    """Return which of the calls are views."""
    if small_crops:
        return slice(0, _LARGE)
    return slice(2, 4) if method == "all4one" else slice(None)


class Oracle(pl.Callback):
    """Keeps what the layer puts out: with gradients in each step, and all that it does in each validation epoch."""

    def __init__(self, method):
        self.layer = layer(method)
        self.steps, self.validations = [], []
        self._now = None

    def on_fit_start(self, trainer, module):
        self._hook = module.get_submodule(self.layer).register_forward_hook(self._keep)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self._now = []
        self.steps.append(self._now)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self._now[:] = [z.detach() for z in self._now]
        self._now = None

    def on_validation_epoch_start(self, trainer, module):
        self._now = []
        if not trainer.sanity_checking:
            self.validations.append(self._now)

    def on_validation_epoch_end(self, trainer, module):
        self._now = None

    def on_fit_end(self, trainer, module):
        self._hook.remove()

    def _keep(self, module, args, output):
        # Momentum's calls need no gradient; in validation nothing does.
        validates = not module.training and not torch.is_grad_enabled()
        if self._now is not None and (output.requires_grad or validates):
            self._now.append(output)


def w2(views):
    """W2 of all rows, in float64, differentiable: through the singular values, not the closed form of the package."""
    z = torch.nn.functional.normalize(torch.cat(views).double())
    n, d = z.shape
    singular = torch.linalg.svdvals(z - z.mean(0))
    return (2 - 2 * singular.sum() / (n * d) ** 0.5).sqrt()
