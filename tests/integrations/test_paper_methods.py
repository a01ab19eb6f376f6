"""The paper's part on the methods: pairs are pairs, what is chosen does not see what is judged, and it runs."""

import dataclasses

import pytest
import torch
from scipy import stats

from benchmarks import page
from benchmarks.paper import methods, methods_figure, methods_runs, outcome
from benchmarks.paper.methods_runs import Task
from examples.digits import data, evaluate


@pytest.fixture(scope="module")
def digits():
    return data.load()


def test_difference_is_the_paired_t_interval():
    after, before = [1.0, 2.5, 2.0, 4.0], [0.5, 2.0, 2.5, 2.0]
    d = methods.Difference.of(after, before)
    expected = stats.ttest_rel(after, before)
    interval = expected.confidence_interval(0.95)
    assert (d.low, d.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert d.mean == pytest.approx(0.625)


def test_weights_are_chosen_on_training_images_alone(digits):
    chosen = methods_runs.chosen_on(digits)
    train = {tuple(image.flatten().tolist()) for image in digits.train_images}
    parts = [{tuple(image.flatten().tolist()) for image in part} for part in (chosen.train_images, chosen.test_images)]
    assert [len(chosen.train_labels), len(chosen.test_labels)] == [1000, 297]
    assert parts[0] | parts[1] == train
    assert not parts[0] & parts[1]
    assert not set(methods.CHOOSING) & set(methods.SEEDS)


def test_few_labels_are_ten_a_class_and_the_same_each_time(digits):
    few, again, other = (methods_runs.few_labels(digits, draw) for draw in (0, 0, 1))
    assert torch.equal(few.train_labels.bincount(), torch.full((10,), 10))
    assert torch.equal(few.train_images, again.train_images)
    assert not torch.equal(few.train_images, other.train_images)
    assert torch.equal(few.test_labels, digits.test_labels)


def test_nearest_neighbour_is_the_one_of_the_examples(digits):
    flat = dataclasses.replace(
        digits, train_images=digits.train_images.flatten(1), test_images=digits.test_images.flatten(1)
    )
    assert methods_runs.nearest_neighbour(flat) == evaluate.pixel_accuracies(digits).nearest_neighbour


def test_a_run_is_the_same_again_and_a_weight_of_nothing_is_no_loss():
    task = Task("byol", "none", 0.0, 0, 3)
    first = methods_runs.work(task)
    assert methods_runs.work(task) == first
    assert methods_runs.work(dataclasses.replace(task, loss="w2", weight=0.0)) == first
    assert methods_runs.work(dataclasses.replace(task, loss="w2", weight=1.0)) != first
    assert methods_runs.work(dataclasses.replace(task, loss="wang_isola", weight=1.0)) != first


def test_it_runs_in_short():
    found = methods.run(tiny=True)
    text = found.text
    assert "| plain Siamese |" in text
    assert text.count("| BYOL |") == len(methods.MEASURES) + 2  # and the weights, and against each other
    assert "Linear probe, 10 labels a class, the difference's interval: Wang-Isola: above 0 in " in text


def test_a_row_far_outside_is_told_in_words():
    rows = [(0.1, 0.0, 0.2), (-0.1, -0.2, 0.1), (12.0, 10.0, 14.0)]
    panel = methods_figure.Panel("", ["a", "b", "c"], {"one": rows, "two": rows})
    assert methods_figure._outside(panel) == {2}
    near = methods_figure.Panel("", ["a", "b"], {"one": rows[:2]})
    assert methods_figure._outside(near) == set()


def test_page_has_its_part():
    text = (outcome.FOLDER / "methods.md").read_text()
    assert page.replaced(text, "methods", "x") != text
    assert ("(methods.png)" in text) == (outcome.FOLDER / "methods.png").exists()
