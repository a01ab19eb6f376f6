"""The loss of all ranks' rows together: its value, and the gradient that data parallel training makes of it."""

import math

import pytest
import torch
from torch import nn

from dispatch import Waits
from spread import spread
from uniformity_callbacks import WassersteinLoss, exchanges, spectrum
from uniformity_callbacks.joint import JointLoss
from uniformity_callbacks.ranks import Ranks
from uniformity_callbacks.shapes import Shape, agree, by_moments, grown, pack, unpack


def rows_of(sizes, d, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    scale = torch.arange(1, d + 1, dtype=torch.float64).rsqrt()
    whole = torch.randn(sum(sizes), d, generator=generator, dtype=torch.float64) * scale + 0.3
    return list(whole.to(dtype).split(sizes))


def gradients(rank, steps, d, dtype):
    """The term and own gradients of each step, and the collectives of each."""
    joint = JointLoss(WassersteinLoss(0.7), Ranks.of(nn.Linear(2, 2)))
    out = []
    for sizes in steps:
        own = rows_of(sizes, d, dtype)[rank].requires_grad_()
        (term,) = joint.terms([own if len(own) else None])
        if len(own):
            term.backward()
        out.append((term.detach(), None if own.grad is None else own.grad / len(sizes)))
    return out


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("d", [8, 96])  # sums, rows
@pytest.mark.parametrize("steps", [[[12, 12]] * 3, [[12, 7], [20, 3], [0, 30]], [[9, 9, 3, 11], [0, 20, 0, 1]]])
def test_term_and_gradient_are_those_of_one_process_with_all_rows(steps, d, dtype, tolerance):
    got = spread(len(steps[0]), gradients, steps, d, dtype)
    for k, sizes in enumerate(steps):
        whole = torch.cat(rows_of(sizes, d, dtype)).requires_grad_()
        term = WassersteinLoss(0.7)(whole)
        term.backward()
        scale = whole.grad.norm()
        for (value, gradient), expected in zip([rank[k] for rank in got], whole.grad.split(sizes), strict=True):
            assert value.item() == pytest.approx(term.item(), rel=tolerance)
            assert value.dtype == term.dtype
            if gradient is not None:
                assert (gradient - expected).norm() <= tolerance * scale


def near_one_point(n, d):
    """Rows whose spread is 1e-4 of their length, along directions of strength 1 to 1e-4."""
    generator = torch.Generator().manual_seed(6)
    scale = torch.logspace(0, -4, d, dtype=torch.float64)
    return 1.0 + 1e-4 * scale * torch.randn(n, d, generator=generator, dtype=torch.float64)


def collapsing(rank, d):
    joint = JointLoss(WassersteinLoss(1.0), Ranks.of(nn.Linear(2, 2)))
    for _ in range(3):
        own = near_one_point(64, d).chunk(2)[rank].requires_grad_()
        (term,) = joint.terms([own])
    term.backward()
    return own.grad / 2


def test_sums_about_the_mean_of_the_step_before_keep_the_digits_of_weak_directions():
    """About zero, round-off would hide all directions below 1e-4 of the spread."""
    d = 8
    whole = near_one_point(64, d).requires_grad_()
    WassersteinLoss(1.0)(whole).backward()
    got = torch.cat(spread(2, collapsing, d))
    strength = whole.grad.norm(dim=0)
    assert ((got - whole.grad).norm(dim=0) <= 1e-4 * strength).all()


def at_one_point(rank):
    joint = JointLoss(WassersteinLoss(0.7), Ranks.of(nn.Linear(2, 2)))
    own = torch.linspace(0.1, 0.9, 8, dtype=torch.float64).expand(20, 8).clone().requires_grad_()
    (term,) = joint.terms([own])
    term.backward()
    return term.item(), own.grad.abs().max().item()


def test_round_off_of_the_first_sums_at_one_point_is_no_direction():
    assert spread(2, at_one_point) == [(pytest.approx(0.7 * math.sqrt(2), abs=1e-12), 0.0)] * 2


def without_waiting(rank, steps, d):
    """As on an accelerator, where a rank that has more rows than agreed finds out one step later."""
    Ranks.answers_at_once = False
    return gradients(rank, steps, d, torch.float64)


@pytest.mark.parametrize("later", [[[12, 20], [5, 20]], [[5, 5], [12, 12]]])
def test_where_nothing_may_wait_rows_without_room_are_left_out_once(later):
    steps = [[12, 12], [12, 20], *later]
    got = spread(2, without_waiting, steps, 96)
    for k, sizes in enumerate(steps):
        parts = rows_of(sizes, 96)
        sent = [part[:12] for part in parts] if k == 1 else parts
        whole = torch.cat(sent).requires_grad_()
        term = WassersteinLoss(0.7)(whole)
        term.backward()
        for (value, gradient), expected in zip(
            [r[k] for r in got], whole.grad.split([len(s) for s in sent]), strict=True
        ):
            assert value.item() == pytest.approx(term.item(), rel=1e-10)
            torch.testing.assert_close(gradient[: len(expected)], expected)
            assert not gradient[len(expected) :].any()


def counted(rank, sizes, d, kind):
    """Bytes that the last of some passes hands to collectives."""
    joint = JointLoss(WassersteinLoss(0.7), Ranks.of(nn.Linear(2, 2)))
    count = []
    for name in ("gather", "total"):
        call = getattr(Ranks, name)
        setattr(Ranks, name, lambda self, t, call=call: (count.append(t.numel() * t.itemsize), call(self, t))[1])
    for _ in range(2):
        count.clear()
        joint.terms([rows_of(sizes, d, kind)[rank]])
    return count


@pytest.mark.parametrize(("kind", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_bytes_are_those_of_the_docs(kind, size):
    assert spread(2, counted, [64, 64], 128, kind) == [[64 * 128 * size + 16]] * 2  # rows, and a head of two numbers
    assert spread(2, counted, [600, 600], 128, kind) == [[8 * (128 * 128 + 128 + 1) + 16]] * 2  # sums


def changing(rank, kinds, at_once):
    if not at_once:
        Ranks.answers_at_once = False
    joint = JointLoss(WassersteinLoss(0.7), Ranks.of(nn.Linear(2, 2)))
    return [joint.terms([rows_of([40, 40], d, dtype)[rank]])[0] for d, dtype in kinds]


@pytest.mark.parametrize("at_once", [True, False])
def test_type_and_dimension_may_change_on_all_ranks(at_once):
    """Where nothing may wait, a pass has no rows of the new kind."""
    kinds = [(8, torch.float32), (8, torch.bfloat16), (6, torch.float64), (96, torch.float64), (8, torch.float32)]
    expected = [WassersteinLoss(0.7)(torch.cat(rows_of([40, 40], d, dtype))) for d, dtype in kinds]
    nothing = WassersteinLoss(0.7)(torch.zeros(2, 8))
    if not at_once:
        kinds = [kind for kind in kinds for _ in range(2)]
        expected = [term for k, fit in enumerate(expected) for term in (fit if k == 0 else nothing, fit)]
    for terms in spread(2, changing, kinds, at_once):
        assert terms == [pytest.approx(term.item(), rel=1e-5) for term in expected]


def seen_now_and_then(rank, d):
    joint = JointLoss(WassersteinLoss(0.7), Ranks.of(nn.Linear(2, 2)))
    own = rows_of([12, 12], d)[rank]
    return [joint.terms([own if k in (1, 3 + rank) else None])[0] for k in range(6)]


@pytest.mark.parametrize("d", [4, 96])
def test_there_is_a_term_where_any_rank_has_rows_and_none_where_no_rank_has(d):
    parts = rows_of([12, 12], d)
    together, *each = (WassersteinLoss(0.7)(rows).item() for rows in (torch.cat(parts), *parts))
    for terms in spread(2, seen_now_and_then, d):
        assert [terms[k] for k in (0, 2, 5)] == [None] * 3
        assert [terms[k].item() for k in (1, 3, 4)] == pytest.approx([together, *each])


def with_bad_rows(rank, d):
    joint = JointLoss(WassersteinLoss(0.7), Ranks.of(nn.Linear(2, 2)))
    for k in range(2):  # sums are about a mean from the second on
        own = rows_of([20, 20], d)[rank]
        own[rank + 3 * k :: 5] = (math.nan, 0.0)[k]
        own.requires_grad_()
        (term,) = joint.terms([own])
    term.backward()
    return term.item(), own.grad / 2


@pytest.mark.parametrize("d", [8, 96])
def test_rows_that_cannot_be_measured_are_none(d):
    whole = torch.cat(rows_of([20, 20], d))
    whole[3:20:5] = whole[24::5] = 0.0
    whole.requires_grad_()
    term = WassersteinLoss(0.7)(whole)
    term.backward()
    for (value, gradient), expected in zip(spread(2, with_bad_rows, d), whole.grad.chunk(2), strict=True):
        assert value == pytest.approx(term.item(), rel=1e-10)
        torch.testing.assert_close(gradient, expected)


def test_rows_of_any_type_and_number_are_unpacked_as_they_were():
    kinds = [(3, 5, torch.bfloat16), (1, 1, torch.float32), (2, 3, torch.float64), (0, 4, torch.float16)]
    rows = [torch.randn(n, d).to(dtype) for n, d, dtype in kinds]
    shapes = [Shape.of(z) for z in rows]
    packed = pack([(shape, z) for shape, z in zip(shapes, rows, strict=True)], torch.device("cpu"))
    for z, got in zip(rows, unpack(packed, shapes), strict=True):
        assert got.dtype == z.dtype
        torch.testing.assert_close(got, z, rtol=0, atol=0)


class OnMeta(Ranks):
    """Two ranks on the device that needs no GPU."""

    device, size, rank = torch.device("meta"), 2, 0

    def __init__(self):
        pass

    def gather(self, tensor):
        return [torch.empty_like(tensor) for _ in range(self.size)]

    def total(self, tensor):
        return tensor


@pytest.mark.parametrize("d", [4, 96])
def test_a_pass_does_not_wait_for_an_accelerator(d):
    joint = JointLoss(WassersteinLoss(0.7), OnMeta())
    joint._shapes = [Shape(12, d, "float32")]  # where they agree on them they do wait
    rows = torch.randn(12, d, device="meta", requires_grad=True)
    with Waits() as waits:
        (term,) = joint.terms([rows])
        term.backward()
    assert waits.names == []
    assert rows.grad.shape == rows.shape


def test_shapes_grow_and_change_their_kind():
    few, many, other = Shape(3, 8, "float32"), Shape(5, 8, "float32"), Shape(2, 9, "float32")
    assert grown([few, many, None, None, other], [many, few, few, None, many]) == [many, many, few, None, other]
    assert grown([few], [many, other]) == [many, other]


def test_the_cheaper_exchange_is_taken():
    assert not by_moments([Shape(255, 512, "float32")], 8)  # 8 ranks of 255 rows: fewer than 4 d
    assert by_moments([Shape(257, 512, "float32")], 8)
    assert not by_moments([Shape(257, 512, "bfloat16")], 8)
    assert by_moments([Shape(129, 512, "float64")], 8)
    assert not by_moments([None], 8)


def test_ranks_agree_on_the_most_that_one_has():
    told = [[Shape(3, 8, "float32"), None], [None, None], [Shape(5, 8, "float32"), None]]
    assert agree(told) == [Shape(5, 8, "float32"), None]
    with pytest.raises(ValueError, match="of one dimension and type on all ranks"):
        agree([[Shape(3, 8, "float32")], [Shape(3, 9, "float32")]])


class FailsOnce:
    """What is sent instead of what failed needs the same once more."""

    def __init__(self, call):
        self.call, self.failed = call, False

    def __call__(self, *args, **kwargs):
        if not self.failed:
            self.failed = True
            raise MemoryError("planned")
        return self.call(*args, **kwargs)


def ill(rank, module, name, d):
    """Three passes, with an error on the second rank in the second one."""
    joint = JointLoss(WassersteinLoss(0.7), Ranks.of(nn.Linear(2, 2)))
    module, out = {"exchanges": exchanges, "spectrum": spectrum}[module], []
    for k in range(3):
        with pytest.MonkeyPatch.context() as patch:
            if k == rank == 1:
                patch.setattr(module, name, FailsOnce(getattr(module, name)))
            try:
                (term,) = joint.terms([rows_of([12, 12], d)[rank]])
                out.append(term.item())
            except MemoryError as error:
                out.append(str(error))
    return out


@pytest.mark.parametrize(
    ("module", "name", "d", "sent"),
    [
        ("exchanges", "pack", 96, False),
        ("exchanges", "unit_rows", 8, False),
        ("spectrum", "norm_and_root", 96, True),
        ("spectrum", "norm_and_root", 8, True),
    ],
)
def test_an_error_on_one_rank_keeps_no_other_from_the_exchange(module, name, d, sent):
    first, second = spread(2, ill, module, name, d)
    parts = rows_of([12, 12], d)
    whole, alone = (WassersteinLoss(0.7)(torch.cat(rows)).item() for rows in (parts, parts[:1]))
    assert first == pytest.approx([whole, whole if sent else alone, whole], rel=1e-10)
    assert (second[0], second[2]) == pytest.approx((whole, whole), rel=1e-10)
    assert second[1] == "planned"
