"""A writer that takes many readings, away for a while: what waits, what arrives, and what is said."""

import threading
import time

import pytest

from journals import ALERTS, BEGAN
from uniformity_callbacks import Reading, feeds, outage
from uniformity_callbacks.feeds import Feed
from uniformity_callbacks.recording import JournalWriter


class Store:
    """Takes readings and alerts while it is up."""

    target = "mlflow:http://here"

    def __init__(self, up=True):
        self.up, self.got, self.told, self.closed, self.tries = up, [], [], 0, 0

    def __call__(self, values, step):
        raise AssertionError("it takes many")

    def many(self, readings):
        self.tries += 1
        self._check()
        self.got += [(values, step, time) for values, step, time in readings]

    def alert(self, alert, key):
        self._check()
        self.told.append((alert, key))

    def close(self):
        self.closed += 1

    def _check(self):
        if not self.up:
            raise OSError("nobody there")

    @property
    def steps(self):
        return [step for _, step, _ in self.got]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(outage, "_FIRST_REST_S", 0.01)
    monkeypatch.setattr(outage, "_LONGEST_REST_S", 0.05)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(feeds, "_CAPACITY", 5)
    monkeypatch.setattr(feeds, "_AT_MOST", 7)


@pytest.fixture
def journal(tmp_path):
    journal = JournalWriter(tmp_path / "run.jsonl", run={})
    yield journal
    journal.close()


def put(feed, journal, steps):
    for step in steps:
        reading = Reading(step, "projector", 8, {"w2": step / 7}, BEGAN + step)
        begin = journal.reading(reading)
        feed.put({"uniformity/w2": step / 7}, step, reading.time, begin=begin)


def made(store, journal):
    return Feed(store, journal, lambda reading: "uniformity/")


def until(true):
    deadline = time.monotonic() + 10.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_has_no_room_comes_from_the_journal(journal, small, caplog):
    feed = made(store := Store(up=False), journal)
    put(feed, journal, range(100))
    until(lambda: store.tries > 3)
    assert len(feed._worker._items) <= 5
    store.up = True
    until(lambda: set(store.steps) == set(range(100)))
    put(feed, journal, range(100, 103))
    feed.close(10.0)
    assert {(step, values["uniformity/w2"], time) for values, step, time in store.got} == {
        (step, step / 7, BEGAN + step) for step in range(103)
    }
    assert feed.faults.count == 0
    assert store.closed == 1
    assert caplog.text.count("training goes on") == caplog.text.count("takes readings again") == 1
    assert "waiting" not in caplog.text


def test_all_of_it_is_written_before_the_end(journal, small):
    feed = made(store := Store(up=False), journal)
    put(feed, journal, range(30))
    threading.Timer(0.3, setattr, (store, "up", True)).start()
    feed.close(10.0)
    assert set(store.steps) == set(range(30))
    assert store.closed == 1


def test_an_alert_finds_room_beside_the_readings(journal, small):
    feed = made(store := Store(up=False), journal)
    put(feed, journal, range(30))
    for alert in ALERTS:
        feed.alert(alert, "uniformity/")
    store.up = True
    feed.close(10.0)
    assert store.told == [(alert, "uniformity/") for alert in ALERTS]
    assert feed.faults.count == 0


def test_what_waits_at_the_end_is_told_with_what_to_do(journal, caplog):
    feed = made(store := Store(up=False), journal)
    put(feed, journal, range(4))
    feed.alert(ALERTS[0], "uniformity/")
    feed.finish()  # as the reader does before it closes
    feed.close(0.2)
    assert store.closed == 0
    assert (
        "writer Store: 5 were still waiting after 0 s (OSError: nobody there); all are in the journal "
        f"{journal.path}; to write what is missing: uniformity sync {journal.path} --to mlflow:http://here"
    ) in caplog.text


def test_what_had_no_room_is_told_too(journal, small, caplog):
    feed = made(Store(up=False), journal)
    put(feed, journal, range(50))
    feed.close(0.2)
    assert "still waiting after 0 s (OSError: nobody there), older ones had no room; all are in" in caplog.text


def test_a_journal_that_was_taken_away_costs_what_had_no_room_alone(journal, small, caplog):
    feed = made(store := Store(up=False), journal)
    put(feed, journal, range(50))
    journal.path.unlink()
    store.up = True
    feed.close(10.0)
    assert store.closed == 1
    assert {0, 1} <= set(store.steps) < set(range(50))
    assert "older readings: FileNotFoundError" in caplog.text


def test_a_close_that_hangs_is_told(journal, caplog):
    gate = threading.Event()
    store = Store()
    store.close = lambda: gate.wait(30.0)
    feed = made(store, journal)
    put(feed, journal, range(2))
    feed.close(0.2)
    gate.set()
    assert store.steps == [0, 1]
    assert "writer Store: could not be closed in 0 s" in caplog.text


def test_the_last_reason_counts(journal, caplog):
    feed = made(store := Store(up=False), journal)
    put(feed, journal, [0])
    until(lambda: store.tries > 1)
    store.many = lambda readings: 1 / 0
    until(lambda: "ZeroDivision" in feed._outage.why)
    feed.close(0.1)
    assert "1 were still waiting after 0 s (ZeroDivisionError: division by zero)" in caplog.text


def test_rests_grow_up_to_the_longest():
    pause = outage.Outage("why")
    assert [pause.rest() for _ in range(5)] == [0.01, 0.02, 0.04, 0.05, 0.05]
    assert pause.rest(brief=True) == 0.01
