"""Our torchmetrics where torchmetrics uses them: collections, ranks, copies, precisions."""

import io
import math
import pickle
import warnings

import pytest
import torch
from metrics import CASES, SPECTRAL, D, rows, updated
from torchmetrics import Metric, MetricCollection, MetricTracker
from torchmetrics.wrappers import MinMaxMetric, Running

from spread import spread
from uniformity_callbacks import functional
from uniformity_callbacks.integrations import torchmetrics as ours

ALL = {name: case for name, case in CASES.items() if case.views == 2}
GROUPS = [["alignment"], sorted(SPECTRAL), ["lu"]]


def collection(names=ALL, **options):
    return MetricCollection({name: ALL[name]() for name in names}, **options)


def expected(views, names=ALL):
    return {name: pytest.approx(ALL[name].expected(*views), rel=1e-9) for name in names}


def values(metrics):
    return {name: value.item() for name, value in metrics.compute().items()}


def groups(metrics):
    return sorted(sorted(group) for group in metrics.compute_groups.values())


def bits(metric):
    return {name: state.clone() for name, state in metric.metric_state.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_collection_updates_each_group_once(monkeypatch):
    """Before it knows the groups, every metric by itself; then one of each."""
    views = rows(90)
    metrics = collection()
    first, *others = zip(*(view.split([20, 30, 40]) for view in views), strict=True)
    metrics.update(*first)
    assert groups(metrics) == GROUPS
    calls = []
    for name in ALL:
        metric = metrics[name]
        update = metric.update
        monkeypatch.setattr(metric, "update", lambda *a, _n=name, _u=update: (calls.append(_n), _u(*a)))
    for batch in others:
        metrics.update(*batch)
    assert len(calls) == 2 * len(GROUPS)
    assert values(metrics) == expected(views)


def test_groups_outlive_copies_and_resets():
    views = rows(90)
    first, second, third = zip(*(view.split(30) for view in views), strict=True)
    metrics = collection()
    metrics.update(*first)
    for copy in (metrics.clone(), pickle.loads(pickle.dumps(metrics))):
        copy.update(*second)
        copy.update(*third)
        assert groups(copy) == GROUPS
        assert values(copy) == expected(views)
    metrics.update(*second)
    assert values(metrics) == expected([view[:60] for view in views])
    metrics.reset()
    metrics.update(*third)
    assert groups(metrics) == GROUPS
    assert values(metrics) == expected(third)


def test_a_collection_steps():
    views = rows(80)
    metrics = collection()
    for batch in zip(*(view.split(40) for view in views), strict=True):
        assert {name: value.item() for name, value in metrics(*batch).items()} == expected(batch)
    assert values(metrics) == expected(views)


def test_different_powers_are_no_group():
    """Not even if the first batch leaves them equal, as one without rows does."""
    views = rows()
    metrics = MetricCollection({"1": ours.Alignment(alpha=1.0), "2": ours.Alignment(), "two": ours.Alignment()})
    metrics.update(*(view[:0] for view in views))
    metrics.update(*views)
    assert groups(metrics) == [["1"], ["2", "two"]]
    for name, alpha in (("1", 1.0), ("2", 2.0), ("two", 2.0)):
        assert metrics[name].compute().item() == pytest.approx(functional.alignment(*views, alpha=alpha).item())


def test_different_potentials_share_their_rows():
    (z,) = rows(views=1)
    metrics = MetricCollection({str(t): ours.WangIsolaUniformity(D, t=t) for t in (1, 2)})
    metrics.update(z)
    assert groups(metrics) == [["1", "2"]]
    for t in (1, 2):
        assert metrics[str(t)].compute().item() == pytest.approx(functional.wang_isola_uniformity(z, t=t).item())


def test_collections_in_collections_are_one_group():
    views = rows(90)
    inner = [collection(names, prefix=f"{k}/") for k, names in enumerate((["w2", "rankme"], ["w2", "lu"]))]
    metrics = MetricCollection(inner, postfix="/end")
    metrics.update(*(view[:30] for view in views))
    renamed = metrics.clone(prefix="more_")
    for each, prefix in ((metrics, ""), (renamed, "more_")):
        each.update(*(view[30:] for view in views))
        assert groups(each) == [["0/rankme", "0/w2", "1/w2"], ["1/lu"]]
        told = {f"{prefix}{k}/{name}/end": ALL[name] for k, name in ((0, "rankme"), (0, "w2"), (1, "w2"), (1, "lu"))}
        assert values(each) == {key: pytest.approx(case.expected(*views)) for key, case in told.items()}


@pytest.mark.parametrize("name", ["w2", "rankme", "lu", "alignment"])
def test_wrapped(name):
    """Of the last two batches; the least and the most so far; the best of several epochs."""
    views, case = rows(90), ALL[name]
    batches = list(zip(*(view.split(30) for view in views), strict=True))
    running, extremes = Running(case(), window=2), MinMaxMetric(case())
    tracker = MetricTracker(case(), maximize=case().higher_is_better or False)
    for batch in batches:
        running.update(*batch)
        extremes.update(*batch)
        extremes.compute()
        tracker.increment()
        tracker.update(*batch)
    assert running.compute().item() == pytest.approx(case.expected(*(view[30:] for view in views)))
    sofar = [case.expected(*(view[:n] for view in views)) for n in (30, 60, 90)]
    assert extremes.compute()["min"].item() == pytest.approx(min(sofar))
    assert extremes.compute()["max"].item() == pytest.approx(max(sofar))
    epochs = [case.expected(*batch) for batch in batches]
    best, step = tracker.best_metric(return_step=True)
    assert best == pytest.approx((max if name == "rankme" else min)(epochs))
    assert epochs[step] == pytest.approx(best)


@pytest.mark.parametrize("name", ALL)
def test_steps_copies_and_resets(name):
    case = ALL[name]
    views = rows(90)
    first, second, third = zip(*(view.split(30) for view in views), strict=True)
    metric = case()
    start = bits(metric)
    assert metric(*first).item() == pytest.approx(case.expected(*first))
    assert metric(*second).item() == pytest.approx(case.expected(*second))
    for copy in (metric.clone(), pickle.loads(pickle.dumps(metric))):
        assert updated(copy, third).compute().item() == pytest.approx(case.expected(*views), rel=1e-9)
    assert metric.compute().item() == pytest.approx(case.expected(*(view[:60] for view in views)), rel=1e-9)
    metric.reset()
    assert same(bits(metric), start)


@pytest.mark.skipif(not hasattr(Metric, "merge_state"), reason="torchmetrics 1.4 cannot merge")
@pytest.mark.parametrize("name", ALL)
def test_merged(name):
    views = rows(90)
    metric = updated(ALL[name](), [view[:31] for view in views])
    metric.merge_state(updated(ALL[name](), [view[31:] for view in views]))
    assert metric.compute().item() == pytest.approx(ALL[name].expected(*views), rel=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_a_checkpoint_goes_on(name):
    case = ALL[name]
    views = rows(60)
    assert not case().state_dict()  # as other metrics: only if asked to
    metric = updated(case(), [view[:30] for view in views])
    metric.persistent(True)
    file = io.BytesIO()
    torch.save(metric.state_dict(), file)
    file.seek(0)
    loaded = case()
    loaded.persistent(True)
    loaded.load_state_dict(torch.load(file))
    assert same(bits(loaded), bits(metric))
    assert updated(loaded, [view[30:] for view in views]).compute().item() == pytest.approx(case.expected(*views))


@pytest.mark.parametrize("name", ALL)
def test_states_stay_in_float64(name):
    """However a model is converted, before and after rows came."""
    views = rows(60)
    model = torch.nn.Module()
    model.metric = ALL[name]()
    for convert in (
        lambda m: m.half(),
        lambda m: m.to(torch.bfloat16),
        lambda m: m.float(),
        lambda m: m.to("cpu", torch.float16),
        lambda m: m.metric.set_dtype(torch.float16),
        lambda m: m.metric.reset(),
    ):
        convert(model)
        assert {state.dtype for state in model.metric.metric_state.values()} == {torch.float64}
        updated(model.metric, [view[:30] for view in views])
    updated(model.metric, [view[30:] for view in views])
    assert model.metric.compute().item() == pytest.approx(ALL[name].expected(*views), rel=1e-9)


@pytest.mark.parametrize("to", [("meta",), ("meta", torch.float16)])
def test_states_move(to):
    metric = ours.WassersteinUniformity(4).to(*to)
    assert metric.moments.device.type == "meta"
    assert metric.moments.dtype == torch.float64


@pytest.mark.parametrize("name", ALL)
def test_from_inference_mode_and_back(name):
    views = rows(60)
    metric = ALL[name]()
    with torch.inference_mode():
        metric.reset()  # as Lightning does after a validation epoch
    updated(metric, [view[:10] for view in views])
    with torch.inference_mode():
        updated(metric, [view[10:20] for view in views])
        metric(*(view[20:30] for view in views))
    metric(*(view[30:40] for view in views))
    updated(metric, [view[40:] for view in views])
    assert metric.compute().item() == pytest.approx(ALL[name].expected(*views), rel=1e-9)


def ranked(rank, split):
    """Each rank's part, in two batches, and what it says; states afterwards are the rank's own again."""
    views = rows(90)
    metrics = collection()
    own = [view[slice(*split[rank])] for view in views]
    updated(metrics, own, 20)
    before = {name: bits(metrics[name]) for name in ALL}
    got = values(metrics)
    again = all(same(bits(metrics[name]), before[name]) for name in ALL)
    small = updated(ours.WangIsolaUniformity(D, views=2, max_rows=50), own, 20)
    return got, again, small.compute().item(), groups(metrics)


@pytest.mark.parametrize("split", [[(0, 61), (61, 90)], [(0, 0), (0, 90)]])
def test_ranks_are_as_one(split):
    small = updated(ours.WangIsolaUniformity(D, views=2, max_rows=50), rows(90)).compute().item()
    for got, again, sampled, found in spread(2, ranked, split):
        assert got == expected(rows(90))
        assert again
        assert sampled == small  # the same rows, to the last bit
        assert found == GROUPS


def silent(rank):
    """One rank was never updated, and the other had a row that is not finite."""
    metric = ours.WassersteinUniformity(D)
    if rank == 1:
        (z,) = rows(views=1)
        z[0] = math.nan
        metric.to(torch.float16).update(z)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        value = metric.compute().item()
    return value, [str(warning.message) for warning in told]


def test_a_rank_without_an_update():
    (z,) = rows(views=1)
    for value, told in spread(2, silent):
        assert value == pytest.approx(functional.wasserstein_uniformity(z[1:]).item())
        assert any("left out: 1;" in message for message in told)
