"""Keys in solo-learn's configuration, as its users may write them."""

import oracle
import pytest
from learners import build
from omegaconf import OmegaConf
from watching import VARIABLE, added, fit, journal

from uniformity_callbacks import read_journal
from uniformity_callbacks.integrations.lightning import UniformityCallback


@pytest.fixture
def train(tmp_path):
    """Fit a method, two steps long, with a configuration's further sections; return the Trainer."""

    def run(*callbacks, method="simclr", change=lambda model: None, **sections):
        learner = build(method, steps=2, epochs=1)
        learner.model.cfg.merge_with(OmegaConf.create(sections))
        change(learner.model)
        return fit(learner, callbacks, default_root_dir=tmp_path, limit_val_batches=0)

    return run


def test_a_key_of_the_variable_wins(train, monkeypatch):
    monkeypatch.setenv(VARIABLE, "every_n_steps=1,auxiliary=0.5")
    record = journal(train(uniformity={"every_n_steps": 50, "metrics": "w2", "alerts": None}))
    assert record.series("w2")[0] == [0, 1]
    assert record.series("aux_weight")[1] == [0.5, 0.5]
    assert set(record.readings[0].values) == {"w2", "samples", "nonfinite", "aux_loss", "aux_weight"}


@pytest.mark.parametrize("section", [True, {}, "on"])
def test_a_section_without_keys_means_every_default(section, train):
    callback = added(train(uniformity=section))
    assert callback.acts
    assert callback.monitor.every_n_steps == 50


@pytest.mark.parametrize(
    "sections",
    [
        {},
        *({"uniformity": none} for none in (None, False, "off")),
        *({"uniform": others} for others in ({"scale": 3}, True, "on")),
    ],
)
def test_without_a_section_it_is_inert(sections, train, tmp_path):
    trainer = train(**sections)
    callback = added(trainer)
    assert not callback.acts
    assert callback.state_dict() == {}
    assert not [key for key in trainer.callback_metrics if "uniformity" in key]
    assert list(tmp_path.iterdir()) == []


def test_other_parts_of_the_configuration_can_be_named(train):
    keys = {"every_n_steps": "${max_epochs}", "prefix": "${method}", "auxiliary": {"weight": "${optimizer.lr}"}}
    record = journal(train(uniformity=keys))
    assert record.runs[0]["prefix"] == "simclr"
    assert record.series("aux_weight") == ([0, 1], [0.01, 0.01])


def test_beside_the_scripts_own_nothing_is_said_of_keys_that_are_not_there(train, tmp_path, caplog):
    train(UniformityCallback(journal=tmp_path / "mine.jsonl"))
    assert "keys given elsewhere" not in caplog.text


def test_a_trainer_that_fits_again_by_other_keys_has_another_run(train, tmp_path):
    trainer = train(uniformity={"every_n_steps": 1})
    learner = build("simclr", steps=2, epochs=1)
    learner.model.cfg.uniformity = {"every_n_steps": 2}
    trainer.fit_loop.epoch_loop.max_steps, trainer.fit_loop.max_epochs = -1, 2
    trainer.fit(learner.model, learner.train, learner.validation)
    assert journal(trainer).runs[0]["every_n_steps"] == 2
    runs = [tmp_path / "uniformity" / "SimCLR" / k for k in "12"]
    assert [len(read_journal(run / "uniformity.jsonl").runs) for run in runs] == [1, 1]
    assert [len(list(run.glob("events*"))) for run in runs] == [1, 1]


def test_a_configuration_that_takes_no_new_key(train):
    assert not added(train(change=lambda model: OmegaConf.set_struct(model.cfg, True))).acts


def test_it_steps_aside_for_a_callback_of_the_scripts_own(train, tmp_path):
    mine = UniformityCallback(every_n_steps=1, journal=tmp_path / "mine.jsonl")
    trainer = train(mine, uniformity={"every_n_steps": 1, "prefix": "other"})
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jsonl"]
    assert "uniformity/w2" in trainer.callback_metrics
    assert not [key for key in trainer.callback_metrics if key.startswith("other")]


@pytest.mark.parametrize("method", ["all4one", "dino", "mae"])
def test_a_method_made_of_solo_learns_is_read_like_it(method, train):
    def derive(model):
        model.__class__ = type("Mine", (type(model),), {})

    trainer = train(method=method, change=derive, uniformity={"every_n_steps": 1})
    assert added(trainer).monitor.journal.parent.parent.name == "Mine"
    assert [(r.step, r.layer) for r in journal(trainer).readings] == [(k, oracle.layer(method)) for k in (0, 1)]
    assert journal(trainer).series("samples")[1] == [64.0, 64.0]


def test_a_run_may_be_named_by_a_number(train, tmp_path):
    train(name=42, uniformity=True)
    assert (tmp_path / "uniformity" / "42" / "1").is_dir()


def test_a_method_of_the_users_own_by_a_name_of_solo_learns(train):
    def derive(model):
        model.__class__ = type("MAE", (type(model),), {})

    assert journal(train(change=derive, uniformity=True)).runs[0]["layers"] == ["projector"]


def test_of_a_linear_evaluation_it_says_that_keys_are_not_used(train, caplog):
    def derive(model):
        model.__class__ = type("Linear", (type(model),), {})
        type(model).__bases__ = (type("LinearModel", type(model).__bases__, {"__module__": "solo.methods.linear"}),)

    assert not added(train(change=derive, uniformity={"every_n_steps": 1})).acts
    assert "Linear trains no representation; nothing is watched" in caplog.text


def test_a_layer_and_calls_of_the_users_own(train):
    record = journal(train(method="all4one", uniformity={"layer": "predictor", "calls": "all"}))
    assert [(r.layer, r.values["samples"]) for r in record.readings] == [("predictor", 128.0)]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"uniformity": {"every_n_step": 2}},
            "solo-learn's configuration: .*'every_n_step'; did you mean every",
        ),
        ({"uniformity": [1]}, r"solo-learn's configuration: uniformity must hold keys, got \[1\]"),
        ({"uniformty": {"auxiliary": 1}}, "'uniformty' holds keys of ours; did you mean uniformity"),
        ({"uniformty": {"auxilary": 1}}, "'uniformty' holds keys of ours; did you mean uniformity"),
        ({"uniformty": True}, "'uniformty' is no section of solo-learn's; did you mean uniformity"),
        ({"uniformty": "on"}, "'uniformty' is no section of solo-learn's; did you mean uniformity"),
        ({"uniformity.views": 2}, "'uniformity.views' is no section of solo-learn's; did you mean uniformity"),
        ({"uniformity": {}, "uniformty": {"auxiliary": 1}}, "'uniformty' holds keys of ours; did you mean uniformity"),
        (
            {"uniformity": {"window": 60}},
            "UniformityCallback: window must be an integer from 1 to",
        ),
    ],
)
def test_what_is_misspelt_is_answered(sections, message, train):
    with pytest.raises(ValueError, match=message):
        train(**sections)


def test_a_value_that_is_missing_is_said_to_be(train):
    with pytest.raises(Exception, match="Missing mandatory value: every_n_steps"):
        train(uniformity={"every_n_steps": "???"})
