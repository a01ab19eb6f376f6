import threading
import time

from uniformity_callbacks.worker import Worker


def unexpected(error):
    raise error


def test_works_in_order_on_a_thread_of_its_own():
    seen = []
    worker = Worker(
        lambda items: seen.append((*items, threading.current_thread().name)), name="w", failed=unexpected, capacity=100
    )
    assert all(worker.put(k) for k in range(50))
    assert worker.close(5.0) == 0
    assert seen == [(k, "w") for k in range(50)]


def test_refuses_what_does_not_fit_and_never_waits():
    gate = threading.Event()
    worker = Worker(lambda items: gate.wait(5.0), name="w", failed=unexpected, capacity=2)
    worker.put(0)
    while len(worker._items):
        time.sleep(0.001)  # the first is being worked on
    begin = time.monotonic()
    assert [worker.put(k) for k in (1, 2, 3)] == [True, True, False]
    assert not worker.settle(0.01)
    assert time.monotonic() - begin < 1.0
    gate.set()
    assert worker.settle(5.0)
    worker.close(1.0)


def test_close_gives_up_in_time_and_says_what_is_left():
    gate = threading.Event()
    worker = Worker(lambda items: gate.wait(30.0), name="w", failed=unexpected, capacity=10)
    for k in range(4):
        worker.put(k)
    begin = time.monotonic()
    assert worker.close(0.1) == 4
    assert time.monotonic() - begin < 2.0
    assert not worker.put(9)
    gate.set()


def test_unused_has_no_thread():
    before = threading.active_count()
    worker = Worker(print, name="w", failed=unexpected, capacity=1)
    assert threading.active_count() == before
    assert worker.close(1.0) == 0


def test_lets_go_of_an_item_when_done():
    import weakref

    class Item:
        pass

    worker = Worker(lambda items: None, name="w", failed=unexpected, capacity=1)
    item = Item()
    alive = weakref.ref(item)
    worker.put(item)
    del item
    assert worker.settle(5.0)
    assert alive() is None
    worker.close(1.0)


def test_gathers_while_it_rests_unless_there_is_a_hurry():
    calls = []
    worker = Worker(
        lambda items: calls.append(list(items)), name="w", failed=unexpected, capacity=100, at_most=3, rest=60.0
    )
    worker.put(0)
    while not calls:
        time.sleep(0.001)  # the first never waits
    for k in range(1, 6):
        worker.put(k)
    time.sleep(0.1)
    assert calls == [[0]]
    worker.put(6, hurry=True)
    while len(calls) < 3:
        time.sleep(0.001)
    worker.put(7)
    time.sleep(0.1)
    assert calls == [[0], [1, 2, 3], [4, 5, 6]]
    assert worker.settle(5.0)
    worker.put(8)
    assert worker.close(5.0) == 0
    assert calls[3:] == [[7], [8]]


def test_rests_no_longer_than_it_is_to():
    calls = []
    worker = Worker(
        lambda items: calls.append(time.monotonic()), name="w", failed=unexpected, capacity=100, at_most=10, rest=0.2
    )
    worker.put(0)
    while not calls:
        time.sleep(0.001)
    worker.put(1)
    while len(calls) < 2:
        time.sleep(0.001)
    assert 0.19 < calls[1] - calls[0] < 5.0
    worker.close(5.0)


def test_all_that_is_being_worked_on_counts_as_left():
    gate, begun = threading.Event(), threading.Event()

    def work(items):
        begun.set()
        gate.wait(30.0)

    worker = Worker(work, name="w", failed=unexpected, capacity=100, at_most=10, rest=0.2)
    worker.put(0)
    assert begun.wait(5.0)
    begun.clear()
    for k in range(1, 6):
        worker.put(k)
    gate.set()
    assert worker.settle(5.0)
    gate.clear()
    begun.clear()
    for k in range(12):
        worker.put(k, hurry=k == 11)
    assert begun.wait(5.0)
    assert worker.close(0.1) == 12
    gate.set()


def test_outlives_what_the_work_raises():
    done, errors = [], []

    def work(items):
        if items == [1]:
            raise ValueError("one")
        done.extend(items)

    worker = Worker(work, name="w", failed=errors.append, capacity=10)
    for k in range(3):
        worker.put(k)
    assert worker.close(5.0) == 0
    assert done == [0, 2]
    assert [str(error) for error in errors] == ["one"]


def test_abandon_ends_what_never_ends_but_not_what_waits():
    def never(items):
        while True:
            sum(range(100))

    told, gate = [], threading.Event()
    busy = Worker(never, name="busy", failed=told.append, capacity=1)
    stuck = Worker(lambda items: gate.wait(30.0), name="stuck", failed=told.append, capacity=1)
    for worker in (busy, stuck):
        assert worker.abandon(0.0)  # it never began
        worker.put(0)
        assert worker.close(0.1) == 1
    begin = time.monotonic()
    assert busy.abandon(5.0)
    assert not stuck.abandon(0.1)
    assert time.monotonic() - begin < 5.0
    assert {"busy", "stuck"} & {thread.name for thread in threading.enumerate()} == {"stuck"}
    gate.set()
    assert told == []
