"""The example as it is printed: its digits in few steps, its commands for CIFAR-10 composed by the real scripts."""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from examples.solo_learn import configs, digits
from uniformity_callbacks import WassersteinLoss, read_journal
from uniformity_callbacks.integrations.settings import arguments

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/solo_learn"
CHECKOUT = Path(os.environ.get("SOLO_LEARN", ".")).resolve()
PYTHON = shlex.quote(sys.executable)
README = (EXAMPLE / "README.md").read_text()


def run(command, cwd, **environment):
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "COLUMNS": "80"} | environment
    return subprocess.run(command, shell=True, cwd=cwd, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def few_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    command = re.search(r"^    (SOLO_LEARN=.*)$", digits.__doc__, re.MULTILINE)[1]
    assert command in README
    command = command.replace("path/to/solo-learn", shlex.quote(str(CHECKOUT))).replace("python", PYTHON, 1)
    return f"{command} --methods simsiam --seeds 0 --steps 4 --batch-size 32 --folder {folder}", folder


@pytest.fixture(scope="module")
def first(few_steps):
    done = run(few_steps[0], ROOT)
    assert done.returncode == 0, done.stderr
    return done


def test_digits_come_to_finite_values_with_and_without_the_loss(few_steps, first):
    runs = [json.loads(line) for line in (few_steps[1] / "runs.jsonl").read_text().splitlines()]
    assert [(run["method"], run["weight"]) for run in runs] == [
        ("untrained", None),
        ("simsiam", None),
        ("simsiam", configs.METHODS["simsiam"].weight),
    ]
    assert all(math.isfinite(value) for run in runs for value in run.values() if isinstance(value, float))
    assert all(0.5 < run["nearest_neighbour"] <= 1 for run in runs)
    assert runs[1]["w2"] != runs[2]["w2"]
    assert "[3/3] simsiam, W2 loss 0.1, seed 0: W2 1." in first.stdout


def test_the_loss_comes_by_the_keys_and_only_where_they_are(few_steps, first):
    def journal(name):
        (path,) = (few_steps[1] / name).rglob("uniformity.jsonl")
        return read_journal(path)

    assert set(journal("simsiam-w2-0-4-32").series("aux_weight")[1]) == {0.1}
    assert all("aux_loss" not in reading.values for reading in journal("simsiam-plain-0-4-32").readings)


def test_both_rows_are_in_both_tables(few_steps, first):
    printed = first.stdout.splitlines()
    assert max(map(len, printed[3:-2])) <= 80  # the closing lines name a folder, of whatever length
    terminal = "\n".join(printed)
    assert re.search(r"^simsiam +- +\d\.\d\d", terminal, re.MULTILINE)
    assert re.search(r"^ +0\.1 +\d\.\d\d", terminal, re.MULTILINE)
    markdown = (few_steps[1] / "table.md").read_text()
    assert re.search(r"^\| simsiam \| - \| \d\.\d\d \|", markdown, re.MULTILINE)
    assert re.search(r"^\| simsiam \| 0\.1 \| \d\.\d\d \|", markdown, re.MULTILINE)


def test_what_is_done_is_not_run_again(few_steps, first):
    kept = (few_steps[1] / "runs.jsonl").read_text()
    again = run(few_steps[0], ROOT)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    assert (few_steps[1] / "runs.jsonl").read_text() == kept


def test_another_solo_learn_is_answered_with_the_mend(monkeypatch, tmp_path):
    monkeypatch.setenv("SOLO_LEARN", str(tmp_path))
    with pytest.raises(SystemExit, match=r"is no checkout of solo-learn's newest code.*\n.*\n.*git clone"):
        configs.solo_learn()


def test_no_solo_learn_is_answered_with_the_mend(monkeypatch):
    monkeypatch.delenv("SOLO_LEARN")
    monkeypatch.setattr(configs, "find_spec", lambda name: None)
    with pytest.raises(
        SystemExit, match=r"solo-learn is not installed, and SOLO_LEARN does not name.*\n.*\n.*git clone"
    ):
        configs.solo_learn()


def test_a_batch_that_mocos_queue_cannot_hold_is_refused(few_steps):
    done = run(few_steps[0].replace("--batch-size 32", "--batch-size 100"), ROOT)
    assert done.returncode == 2
    assert "--batch-size must divide 512" in done.stderr


def test_a_variable_does_not_reach_the_runs(few_steps, first, tmp_path):
    command = few_steps[0].replace(str(few_steps[1]), str(tmp_path))
    done = run(command, ROOT, UNIFORMITY_CALLBACKS="auxiliary=5")
    assert done.returncode == 0, done.stderr
    kept, again = (
        [{**json.loads(line), "seconds": None} for line in (folder / "runs.jsonl").read_text().splitlines()]
        for folder in (few_steps[1], tmp_path)
    )
    assert again == kept


def composed(done):
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


@pytest.mark.parametrize(
    ("method", "published"), [("byol", "byol"), ("mocov2plus", "mocov2"), ("barlow_twins", "barlow_twins")]
)
def test_cifar_commands_compose_with_the_papers_weights(method, published):
    done = run(f"{EXAMPLE}/cifar10.sh {method} max_epochs=2 --cfg job", CHECKOUT, PYTHON=sys.executable)
    cfg = composed(done)
    assert (cfg["method"], cfg["name"], cfg["max_epochs"]) == (method, f"{method}-cifar10-w2", 2)
    assert cfg["data"]["dataset"] == "cifar10"
    keys = arguments(cfg["uniformity"])
    assert keys["every_n_steps"] == 50
    assert keys["auxiliary"].schedule == WassersteinLoss.published(published).schedule
    printed = dict(re.findall(r"`--config-name (\S+)\.yaml (.*)`", README))[cfg_file(method)]
    assert f"--config-name {cfg_file(method)}.yaml " in done.stderr
    assert f" {printed} " in done.stderr


def cfg_file(method):
    return configs.METHODS[method].file


@pytest.mark.parametrize(("variant", "keys"), [("watched", {"every_n_steps": 50}), ("plain", None)])
def test_cifar_variants_have_names_and_keys_of_their_own(variant, keys):
    done = run(f"{EXAMPLE}/cifar10.sh byol {variant} wandb.enabled=True --cfg job", CHECKOUT, PYTHON=sys.executable)
    cfg = composed(done)
    assert cfg["name"] == f"byol-cifar10-{variant}"
    assert cfg.get("uniformity") == keys
    assert cfg["wandb"]["enabled"] is True


def test_cifar_script_says_how_it_is_used(tmp_path):
    for arguments_ in ("", "simclr"):
        done = run(f"{EXAMPLE}/cifar10.sh {arguments_}", CHECKOUT)
        assert (done.returncode, done.stdout) == (2, "")
        assert "cifar10.sh METHOD [VARIANT]" in done.stderr
    done = run(f"{EXAMPLE}/cifar10.sh byol", tmp_path)
    assert done.returncode == 2
    assert "run it in a checkout of solo-learn" in done.stderr


def evaluation(script):
    (block,) = re.findall(rf"```sh\npython ({script}.py .*?)```", README, re.DOTALL)
    return block.strip()


def test_linear_evaluation_composes():
    command = evaluation("main_linear").replace("CHECKPOINT", "byol-cifar10-w2-ep=999")
    cfg = composed(run(f"{PYTHON} {command} --cfg job", CHECKOUT))
    assert cfg["pretrained_feature_extractor"] == "trained_models/byol/RUN/byol-cifar10-w2-ep=999.ckpt"
    assert (cfg["data"]["dataset"], cfg["pretrain_method"]) == ("cifar10", "byol")


def test_knn_evaluation_has_arguments_that_there_are():
    parse = "from solo.args.knn import parse_args_knn; print(vars(parse_args_knn())['pretrained_checkpoint_dir'])"
    done = run(f"{PYTHON} -W ignore -c {shlex.quote(parse)} {evaluation('main_knn').partition(' ')[2]}", CHECKOUT)
    assert done.stdout.strip() == "trained_models/byol/RUN", done.stderr
