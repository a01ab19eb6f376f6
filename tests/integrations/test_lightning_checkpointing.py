"""Activation checkpointing of both kinds inside a LightningModule: exact readings, and the loss written by hand."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from trainers import Embeds, distance, fit, journal, new

from uniformity_callbacks.integrations.lightning import UniformityCallback

pytestmark = pytest.mark.usefixtures("own_place")


class Checkpointed(Embeds):
    """Its encoder, its projector or both are run again in backward."""

    def __init__(self, part, reentrant, **arguments):
        super().__init__(**arguments)
        self.part, self.reentrant = part, reentrant

    def embed(self, x):
        x = x.requires_grad_()  # reentrant checkpointing needs one that does
        if self.part == "both":
            return self._run(lambda x: self.projector(self.encoder(x)), x)
        if self.part == "encoder":
            return self.projector(self._run(self.encoder, x))
        return self._run(self.projector, self.encoder(x))

    def _run(self, function, x):
        return checkpoint(function, x, use_reentrant=self.reentrant)


CASES = [(part, reentrant) for part in ("encoder", "projector", "both") for reentrant in (False, True)]


@pytest.mark.parametrize(("part", "reentrant"), CASES)
def test_the_injected_loss_is_the_one_written_by_hand(part, reentrant):
    arguments = {"kind": Checkpointed, "part": part, "reentrant": reentrant}
    plain, by_hand, injected = (new(**arguments, **extra) for extra in ({}, {"weight": 0.7}, {}))
    fit(plain)
    fit(by_hand)
    callback = UniformityCallback(every_n_steps=3, auxiliary=0.7)
    fit(injected, [callback])
    effect = distance(by_hand.parameters(), plain.parameters())
    assert effect > 1e-3
    assert distance(by_hand.parameters(), injected.parameters()) <= 1e-4 * effect
    assert [(r.step, r.values["samples"]) for r in journal(callback).readings] == [(0, 32), (3, 32), (6, 32)]
    assert callback.monitor.faults.count == 0


@pytest.mark.parametrize(("part", "reentrant"), CASES)
def test_watching_changes_nothing_and_reads_what_there_is(part, reentrant):
    arguments = {"kind": Checkpointed, "part": part, "reentrant": reentrant}
    without, watched, plainly = new(**arguments), new(**arguments), new()
    fit(without)
    callback, other = (UniformityCallback(every_n_steps=3) for _ in range(2))
    fit(watched, [callback])
    assert distance(without.parameters(), watched.parameters()) == 0
    fit(plainly, [other])
    assert distance(plainly.parameters(), watched.parameters()) <= 1e-6
    readings, expected = journal(callback).readings, journal(other).readings
    assert [(r.step, r.values["samples"]) for r in readings] == [(0, 32), (3, 32), (6, 32)]
    assert [r.values["w2"] for r in readings] == pytest.approx([r.values["w2"] for r in expected], rel=1e-5)


def test_a_projector_that_a_loss_cannot_reach_is_refused_with_the_mend():
    class Hidden(Checkpointed):
        def embed(self, x):
            return self._run(
                lambda x: torch.nn.functional.normalize(self.projector(self.encoder(x))), x.requires_grad_()
            )

    model = new(Hidden, part="both", reentrant=True)
    with pytest.raises(
        ValueError, match=r"'projector', but projector: it lies in a reentrant checkpoint .*reentrant=False"
    ):
        fit(model, [UniformityCallback(auxiliary=0.7)])
    callback = UniformityCallback(every_n_steps=3)
    fit(new(Hidden, part="both", reentrant=True), [callback])
    assert [r.values["samples"] for r in journal(callback).readings] == [32, 32, 32]
    callback = UniformityCallback(every_n_steps=3, auxiliary=0.7)
    fit(new(Hidden, part="both", reentrant=False), [callback])
    assert [r.values["samples"] for r in journal(callback).readings] == [32, 32, 32]
