"""What plain loops of the field's methods are made of, in the shape in which their own code has it; a run of one."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from uniformity_callbacks import WassersteinLoss, functional
from uniformity_callbacks.integrations.pytorch import watch

N, D, STEPS, EVERY = 32, 16, 5, 2


def mlp(inputs, outputs, hidden=32):
    # No bias before a normalisation: its gradient is round-off, which Adam makes large.
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


class Backbone(nn.Module):
    """Images of any size to features (n, 32), or to what ``fc`` makes of them, as in torchvision's networks."""

    def __init__(self, fc=None):
        super().__init__()
        layers = nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.1))
        self.fc = fc or nn.Identity()

    def forward(self, x):
        return self.fc(self.body(x))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.projector = Backbone(), mlp(32, D)

    def forward(self, x):
        return self.projector(self.backbone(x))


@torch.no_grad()
def follow(target, online, m=0.9):
    for a, b in zip(target.parameters(), online.parameters(), strict=True):
        a.data = m * a.data + (1 - m) * b.data


class MoCo(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder_q = Backbone(mlp(32, D))
        self.encoder_k = copy.deepcopy(self.encoder_q).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(2 * N, D), dim=1))

    def forward(self, im_q, im_k):
        q = F.normalize(self.encoder_q(im_q), dim=1)
        with torch.no_grad():
            follow(self.encoder_k, self.encoder_q)
            shuffle = torch.randperm(len(im_k))
            k = F.normalize(self.encoder_k(im_k[shuffle]), dim=1)[shuffle.argsort()]
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue.clone().T], dim=1) / 0.2
        self.queue = torch.cat([k, self.queue[: len(self.queue) - len(k)]])
        return logits, torch.zeros(len(q), dtype=torch.long)


class BYOL(nn.Module):
    def __init__(self):
        super().__init__()
        self.online, self.predictor, self.target = Model(), mlp(D, D), None

    def forward(self, x0, x1):
        if self.target is None:  # with whatever hooks the network has by now
            self.target = copy.deepcopy(self.online).requires_grad_(False)
        p0, p1 = self.predictor(self.online(x0)), self.predictor(self.online(x1))
        with torch.no_grad():
            t0, t1 = self.target(x0).detach(), self.target(x1).detach()
        return ((2 - 2 * F.cosine_similarity(p0, t1)) + (2 - 2 * F.cosine_similarity(p1, t0))).mean()


class LARS(torch.optim.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                trust = p.norm() / (p.grad.norm() + 1e-8) if p.ndim > 1 else 1.0
                p.add_(p.grad * trust, alpha=-group["lr"])


class BarlowTwins(Model):
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(D, affine=False)

    def forward(self, y1, y2):
        z1, z2 = self.projector(self.backbone(y1)), self.projector(self.backbone(y2))
        c = self.bn(z1).T @ self.bn(z2) / len(y1)
        on = c.diagonal()
        return (on - 1).square().sum() + 0.005 * (c.square().sum() - on.square().sum())


@torch.no_grad()
def sinkhorn(scores):
    q = (scores / 0.1).exp().T
    for _ in range(3):
        q = F.normalize(F.normalize(q, p=1, dim=1), p=1, dim=0)
    return q.T


class DINOHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, D))
        self.last_layer = nn.utils.parametrizations.weight_norm(nn.Linear(D, 24, bias=False))

    def forward(self, x):
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))


class MultiCrop(nn.Module):
    """The backbone once for each size, the head once for all crops."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = Backbone(), DINOHead()

    def forward(self, views):
        sizes = [[v for v in views if v.shape[-1] == size] for size in (7, 4)]
        return self.head(torch.cat([self.backbone(torch.cat(same)) for same in sizes if same]))


class MAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.token = nn.Linear(4, D), nn.Parameter(torch.zeros(1, 1, D))
        self.encoder = nn.TransformerEncoderLayer(D, 2, 32, dropout=0.0, batch_first=True)
        self.norm, self.decoder = nn.LayerNorm(D), nn.Linear(D, 64)

    def forward(self, images):
        patches = F.unfold(images, 2, stride=2).transpose(1, 2)
        kept = torch.rand(16).argsort()[:6]
        tokens = torch.cat([self.token.expand(len(images), -1, -1), self.embed(patches[:, kept])], dim=1)
        return F.mse_loss(self.decoder(self.norm(self.encoder(tokens)).mean(1)), images.flatten(1))


def loader():
    return torch.randn(STEPS, N, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def augment(x):
    return x * (0.5 + torch.rand(len(x), 1, 1, 1)) + 0.3 * torch.randn_like(x)


def crops(x, small=4):
    def crop(size):
        i, j = torch.randint(0, 9 - size, (2,)).tolist()
        return augment(x)[..., i : i + size, j : j + size]

    return [crop(7) for _ in range(2)] + [crop(4) for _ in range(small)]


def sgd(*parts):
    return torch.optim.SGD([p for part in parts for p in part.parameters()], lr=0.05, momentum=0.9, weight_decay=1e-4)


@dataclass
class Method:
    """A loop; the online network's module, its views among the calls of a pass, and what `watch` must be told."""

    loop: Callable
    path: str
    views: Callable = list
    many: int = 2
    options: dict = field(default_factory=dict)


class Run:
    """A run of a loop: unwatched, watched, or with the loss, by the monitor or by hand.

    Args:
        method: its loop is given `begin`, to call once model and optimizer are made; it returns what to do with a loss.
        watched: by a monitor.
        line: whether the loop calls `add_auxiliary`; without an auxiliary loss that is left to it.
        auxiliary: the weight of the loss, or None.
    """

    def __init__(self, method, *, watched=False, line=True, auxiliary=None):
        self.method, self.watched, self.line, self.auxiliary = method, watched, line, auxiliary
        self.calls, self.passes, self.views, self.terms = [], [], [], []
        torch.manual_seed(0)
        model = method.loop(self.begin)
        self.random = torch.get_rng_state()
        self.state = [value.clone() for value in model.state_dict().values()]
        self.weights = nn.utils.parameters_to_vector(p for p in model.parameters() if p.requires_grad).detach()
        if watched:
            self.monitor.close()
            assert self.monitor.monitor.faults.count == 0

    def begin(self, model, optimizer, criterion=None):
        model.get_submodule(self.method.path).register_forward_hook(self.called)
        optimizer.register_step_post_hook(self.stepped)
        if self.watched:
            options = {"alerts": None, "every_n_steps": EVERY} | self.method.options
            if self.auxiliary is not None:
                self.line &= criterion is None
                options |= {"auxiliary": self.auxiliary, "criterion": criterion}
            self.monitor = watch(model, optimizer=optimizer, **options)
        return self.add

    def called(self, module, args, z):
        if module.training and z.requires_grad:
            self.calls.append(z)

    def add(self, loss):
        views, self.calls = self.method.views(self.calls), []
        self.passes.append([view.detach().double() for view in views])
        if self.watched:
            return self.monitor.add_auxiliary(loss) if self.line else loss
        return loss if self.auxiliary is None else loss + WassersteinLoss(self.auxiliary)(*views)

    def stepped(self, *args):
        terms = [functional.wasserstein_uniformity(torch.cat(views)).item() for views in self.passes]
        self.terms.append(sum(terms) / len(terms))
        self.views.append([torch.cat(view) for view in zip(*self.passes, strict=True)])
        self.passes = []
