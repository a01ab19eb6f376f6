import threading
import time

from uniformity_callbacks.worker import Worker


def test_works_in_order_on_a_thread_of_its_own():
    seen = []
    worker = Worker(lambda item: seen.append((item, threading.current_thread().name)), name="w", capacity=100)
    assert all(worker.put(k) for k in range(50))
    assert worker.close(5.0) == 0
    assert seen == [(k, "w") for k in range(50)]


def test_refuses_what_does_not_fit_and_never_waits():
    gate = threading.Event()
    worker = Worker(lambda item: gate.wait(5.0), name="w", capacity=2)
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
    worker = Worker(lambda item: gate.wait(30.0), name="w", capacity=10)
    for k in range(4):
        worker.put(k)
    begin = time.monotonic()
    assert worker.close(0.1) == 4
    assert time.monotonic() - begin < 2.0
    assert not worker.put(9)
    gate.set()


def test_unused_has_no_thread():
    before = threading.active_count()
    worker = Worker(print, name="w", capacity=1)
    assert threading.active_count() == before
    assert worker.close(1.0) == 0


def test_lets_go_of_an_item_when_done():
    import weakref

    class Item:
        pass

    worker = Worker(lambda item: None, name="w", capacity=1)
    item = Item()
    alive = weakref.ref(item)
    worker.put(item)
    del item
    assert worker.settle(5.0)
    assert alive() is None
    worker.close(1.0)
