"""How much is read, from what readings take and how often one is due: times in, verdicts out."""

import pytest

from uniformity_callbacks.load import SHARE, SHORT_S, Load

ROWS = 256


class Run:
    """A training on a clock of its own, whose reader makes one reading at a time, each with what it takes."""

    def __init__(self, overload="skip", waits=False):
        self.load, self.waits, self.now, self.step = Load(overload), waits, 0.0, 0
        self.queue, self.free, self.begun = [], 0.0, None
        self.read, self.told, self.busy = [], [], 0.0

    def goes(self, steps, takes, *, interval=1.0, rows=(ROWS,)):
        """Due steps, each an interval after the one before; ``takes`` is what a reading of 1/n of the rows takes."""
        for _ in range(steps):
            self._until(self.now)
            if self.waits and not self.load.is_high and self.queue:
                self._until(done := max(self.free, self.now))
                self.load.waited(done - self.now)
                self.now = done
            verdict = self.load.due(self.step, self.now, rows)
            self.told += [verdict.told] if verdict.told else []
            if verdict.reads:
                self.read.append((self.step, verdict.thinning))
                start = max(self.free, self.now)
                taken = takes(verdict.thinning) if callable(takes) else takes
                self.free = start + taken
                self.busy += taken
                self.queue.append((self.step, start, self.free))
            self.step += 1
            self.now += interval
        return self

    def _until(self, now):
        while self.queue and self.queue[0][1] <= now:
            step, start, end = self.queue[0]
            if self.begun != step:
                self.load.began(step, start)
                self.begun = step
            if end > now:
                return
            self.load.ended(step, end)
            self.queue.pop(0)

    def gaps(self, last):
        steps = [step for step, _ in self.read]
        return {b - a for a, b in zip(steps[-last:], steps[-last + 1 :], strict=False)}


@pytest.mark.parametrize("overload", ["skip", "subsample"])
@pytest.mark.parametrize(
    ("takes", "interval"),
    [(0.0, 1.0), (0.49, 1.0), (9.9, 20.0), (0.99 * SHORT_S, 1e-3), (0.99 * SHORT_S, 1e-6)],
)
def test_readings_that_leave_time_or_are_short_are_all_made(takes, interval, overload):
    run = Run(overload, waits=True).goes(40, takes, interval=interval)
    assert run.read == [(k, 1) for k in range(40)]
    assert run.told == []
    assert not run.load.is_high


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    ("takes", "every"), [(0.51, 2), (0.9, 2), (1.1, 4), (1.9, 4), (3.0, 8), (10.0, 32), (100.0, 256)]
)
def test_due_steps_are_passed_over_so_that_the_reader_has_time(takes, every, waits):
    run = Run(waits=waits).goes(3000, takes)
    assert run.load.every == every
    assert run.gaps(5) == {every}
    assert {thinning for _, thinning in run.read} == {1}
    assert run.read[0][0] == 0
    assert run.busy <= 1.1 * SHARE * run.now + 2 * takes
    assert len(run.queue) <= 1
    (*_, last) = run.told
    assert f"a reading takes {takes:.3g} s, one is due every 1 s: one of {every} due steps is read now" in last
    assert 'every_n_steps, fewer metrics or overload="subsample"' in last
    assert len(run.told) <= 3  # late, and the change


def test_the_first_readings_may_be_slow():
    run = Run().goes(1, 0.9).goes(20, 0.1)
    assert [step for step, _ in run.read] == list(range(21))
    assert run.told == []


def test_one_that_is_late_holds_none_up_and_is_told():
    run = Run().goes(5, 0.1).goes(1, 7.3).goes(80, 0.1)
    steps = [step for step, _ in run.read]
    assert steps[:6] == list(range(6))
    assert not {6, 7, 8, 9, 10, 11, 12} & set(steps)
    assert steps[-10:] == list(range(76, 86))
    late, less, *_, more = run.told
    assert (
        "the reading of step 5 has taken 1 s by step 6, one is due every 1 s: due steps are passed over until" in late
    )
    assert "a reading takes 7.3 s" in less
    assert "every due step is read now" in more
    assert "choose" not in more


@pytest.mark.parametrize(("slow", "every"), [(0.9, 2), (10.0, 32)])
def test_readings_that_are_fast_again_are_all_made_again(slow, every):
    run = Run().goes(400, slow)
    assert run.load.every == every
    told = len(run.told)
    run.goes(400, 0.1)
    assert run.load.every == 1
    assert run.gaps(20) == {1}
    assert run.told[-1] == "a reading takes 0.1 s, one is due every 1 s: every due step is read now"
    assert 1 <= len(run.told) - told <= 2


@pytest.mark.parametrize("takes", [0.51, 0.49, 0.26])
def test_at_the_bound_it_does_not_go_to_and_fro(takes):
    run = Run().goes(20, 0.6).goes(500, takes)
    assert run.load.every == 2
    assert len(run.told) == 1
    assert Run().goes(500, takes).load.every == (2 if takes > 0.5 else 1)


def test_readings_that_alternate_are_told_once():
    run = Run()
    for _ in range(100):
        run.goes(1, 0.9).goes(1, 0.1)
    assert len(run.told) <= 1


def test_intervals_out_of_the_way_do_not_count():
    """A validation epoch, say."""
    run = Run().goes(20, 0.9)
    for _ in range(10):
        run.goes(1, 0.9, interval=300.0).goes(6, 0.9)
    assert run.load.every == 2
    assert len(run.told) == 1


def test_a_slower_training_leaves_more_time():
    run = Run().goes(50, 0.9).goes(50, 0.9, interval=10.0)
    assert run.load.every == 1


def third_order(thinning):
    return 8.0 / thinning**3


def second_order(thinning):
    return 8.0 / thinning**2


def of_columns(thinning):
    return 3.0 if thinning < 4 else 24.0 / thinning**2


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    ("takes", "thinning"), [(lambda n: 0.9 / n, 2), (second_order, 4), (third_order, 4), (of_columns, 8)]
)
def test_rows_are_left_out_so_that_the_reader_has_time(takes, thinning, waits):
    run = Run("subsample", waits=waits).goes(200, takes)
    assert (run.load.every, run.load.thinning) == (1, thinning)
    assert run.read[-50:] == [(k, thinning) for k in range(150, 200)]
    assert f"every due step is read now, one of {thinning} rows of it; choose" in run.told[-1]
    assert 'overload="skip"' in run.told[-1]
    run.goes(200, lambda n: takes(n) / 1000)
    assert run.load.thinning == 1
    assert run.read[-1] == (399, 1)
    assert run.told[-1].endswith("every due step is read now")
    told = len(run.told)
    run.goes(100, lambda n: takes(n) / 1000)
    assert len(run.told) == told


@pytest.mark.parametrize(("rows", "least"), [(40, 2), (32, 2), (16, 1), (10, 1), (0, 1)])
def test_where_few_rows_are_left_due_steps_are_passed_over_too(rows, least):
    run = Run("subsample").goes(400, 3.0, rows=(rows,))
    assert (run.load.thinning, run.load.every) == (least, 8)
    assert run.read[-1][1] == least
    run.goes(400, 1e-4, rows=(rows,))
    assert (run.load.thinning, run.load.every) == (1, 1)


def test_a_view_keeps_rows_enough_for_the_correction():
    run = Run("subsample").goes(200, lambda n: 20.0 / n)
    assert run.load.thinning == ROWS // 16
    run.goes(4, 0.1, rows=(ROWS, 40))
    assert run.read[-1][1] == 2


def test_what_was_not_caught_is_never_passed_over_nor_what_comes_after():
    run = Run().goes(60, 2.9)
    assert run.load.every == 8
    before = run.step
    for _ in range(8):
        run.goes(1, 0.0, rows=(None,)).goes(1, 0.0).goes(3, 2.9)
    steps = {step for step, _ in run.read}
    for k in range(8):
        assert {before + 5 * k, before + 5 * k + 1} <= steps
    assert len(steps & set(range(before, before + 40))) < 30
    layers = Run().goes(60, 2.9, rows=(ROWS, ROWS))
    before = layers.step
    layers.goes(3, 0.0, rows=(ROWS, None))
    assert {step for step, _ in layers.read} >= set(range(before, before + 3))


def test_the_layers_of_a_step_are_one_reading():
    load, now = Load(), 0.0
    for step in range(10):
        verdict = load.due(step, now, (ROWS, ROWS))
        assert verdict.reads == (step < 3 or step % 2 == 0), step
        for part in range(2 if verdict.reads else 0):
            load.began(step, now + 0.3 * part)
            load.ended(step, now + 0.3 * (part + 1))
        now += 1.0
    assert load.every == 2


def test_what_is_dropped_is_not_waited_for():
    load = Load()
    for step in range(20):
        assert load.due(step, float(step), (ROWS, ROWS)).reads
        load.began(step, float(step))
        load.dropped(step)
        load.ended(step, step + 0.1)
    assert not load.is_high


def test_what_runs_without_being_asked_for_is_not_judged():
    """A reading of a step at which something was missing."""
    load = Load()
    for step in range(20):
        verdict = load.due(step, float(step), (None,))
        assert verdict.reads
        assert verdict.told == ""
        load.began(step, float(step))
        load.ended(step, step + 0.9)
    assert not load.is_high
