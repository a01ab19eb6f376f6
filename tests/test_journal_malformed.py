"""A journal of anything: nothing that is in the file may be an exception, or hold the reader up."""

import gc
import json
import math
import time

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from journals import real
from malformed import check_journal, lines_of
from uniformity_callbacks import read_journal

pytestmark = pytest.mark.usefixtures("unchecked")  # or it is jaxtyping that answers
MANY = settings(max_examples=2000, deadline=None)
ODD = (None, True, 0, -1, 1.5, 10**13, 10**400, 2**63, 1e300, math.nan, math.inf)
ODD += ("", "1", "\ud800", [], [None], {}, {"a": [1]})
NAMES = (
    "layers",
    "id",
    "prefix",
    "step",
    "layer",
    "dims",
    "values",
    "time",
    "stage",
    "why",
    "kind",
    "since",
    "readings",
    "spectrum",
    "alerts",
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("malformed") / "a.jsonl"


def damaged(random):
    """Return a real journal with bytes changed, put in, left out or doubled."""
    data = bytearray(b"".join(random.sample(real(), 8)))
    for _ in range(random.randint(1, 6)):
        at, size = random.randrange(len(data)), random.randint(1, 40)
        new = random.choice([random.randbytes(2), b"\n", b'"', b"9" * size, data[at : at + size], b""])
        data[at : at + random.choice([0, len(new), size])] = new
    return bytes(data)


def changed(random):
    """Return real lines in any order, in some of which a value is of another kind, or gone, or one too many."""
    records = [json.loads(random.choice(real())) for _ in range(random.randint(1, 8))]
    for record in random.sample(records, random.randint(0, len(records))):
        inner = random.choice([record, *(value for value in record.values() if isinstance(value, dict) and value)])
        inner[random.choice([*inner, "other"])] = random.choice(ODD)
        if random.random() < 0.2:
            del record[random.choice([*record])]
    return "\n".join(map(json.dumps, records)).encode()


def made(random):
    """Return records that have nothing of ours but the names."""
    kinds = ["run", "reading", "alert", "store", "other", None]
    records = [
        {"type": random.choice(kinds)} | {name: random.choice(ODD) for name in random.sample(NAMES, 6)}
        for _ in range(5)
    ]
    return "\n".join(map(json.dumps, records)).encode()


# Hypothesis draws the generator: values one by one would take twenty times as long.
RANDOM = st.randoms(use_true_random=True)


@MANY
@given(st.one_of(st.binary(max_size=200), st.text(max_size=99).map(str.encode), RANDOM.map(made)))
def test_anything_is_a_journal_or_is_told_to_be_none(file, data):
    check_journal(file, data)


@MANY
@given(RANDOM.map(damaged))
def test_a_damaged_journal_keeps_its_other_lines(file, data):
    back = check_journal(file, data)
    whole = sum(line + b"\n" in real() for line in data.split(b"\n"))
    assert whole <= lines_of(data) - (len(back.unreadable) if back else lines_of(data))


@MANY
@given(RANDOM.map(changed))
def test_a_value_of_another_kind_costs_its_line(file, data):
    check_journal(file, data)


READING = {"type": "reading", "step": 1, "layer": "a", "dims": 8, "values": {"w2": 0.5}, "time": 1.5, "stage": "train"}
ALERT = {"type": "alert", "kind": "constant", "step": 1, "since": 0, "readings": [0.9], "threshold": 0.95}
ALERT |= {"action": "warn", "layer": "a", "message": "m", "recovered": False}
RUN = {"type": "run", "id": "a", "time": 1.5, "prefix": "uniformity", "layers": ["a"]}
WRONG = [
    *((READING, "values", {"w2": value}) for value in (10**400, True, "0.5", [], {})),
    *((READING, "values", value) for value in (None, 3, [1], "w2")),
    *((READING, name, value) for name in ("step", "dims") for value in (None, True, 1.0, "1", -1, 2**63)),
    *((READING, "time", value) for value in (None, True, "1", -1, 1e300, 10**400, float("nan"), [])),
    *((READING, name, value) for name in ("layer", "stage", "why") for value in (None, 3, ["a"])),
    *((READING, "spectrum", value) for value in (None, 3, "12345678", [1.0], ["a"] * 8, [10**400] * 8)),
    *((ALERT, name, value) for name in ("kind", "action", "layer", "message") for value in (None, 3, ["a"])),
    *((ALERT, name, value) for name in ("step", "since") for value in (None, True, 1.0, "1", -1, 2**63)),
    *((ALERT, "readings", value) for value in (None, 3, ["a"], [10**400], "12")),
    *((ALERT, "threshold", value) for value in ("a", 10**400, [])),
    *((ALERT, "recovered", value) for value in (None, 1, "true")),
    *((RUN, "layers", value) for value in (None, 3, "ab", {"a": 1}, [1])),
    *((RUN, "alerts", value) for value in (None, 3, "ab", {"a": 1})),
    *((RUN, name, value) for name in ("id", "prefix") for value in (None, 3, ["a"])),
    *((RUN, "time", value) for value in (None, "1", -1, float("nan"))),
    (READING, "other", 1),
    (ALERT, "other", 1),
]


@pytest.mark.parametrize(("record", "name", "value"), WRONG, ids=lambda x: str(x)[:20])
def test_what_is_not_as_we_write_it(tmp_path, record, name, value):
    lines = [RUN, record, {**record, name: value}, READING | {"step": 5}]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert read_journal(path).unreadable == [3]


@pytest.mark.parametrize(
    "token", ["9" * 5000, "[" * 100_000, '{"a":' * 100_000, "1e999999", "-" * 9, '"' + "x" * 10**6]
)
def test_tokens_that_are_out_of_all_bounds(tmp_path, token):
    path = tmp_path / "a.jsonl"
    text = json.dumps(READING).replace("0.5", token)
    path.write_text(f"{json.dumps(RUN)}\n{text}\n{json.dumps(READING)}\n")
    check_journal(path, path.read_bytes())


def taken(path):
    gc.collect()
    gc.disable()  # its walk through all that a whole suite has loaded would be counted
    try:
        began = time.process_time()
        assert read_journal(path).unreadable == []
        return time.process_time() - began
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "lines",
    [
        lambda n: [RUN if k % 2 else READING | {"step": k} for k in range(n)],
        lambda n: [READING | {"step": k, "layer": "a" if k < n // 2 else str(k)} for k in range(n)],
        lambda n: [READING | {"step": k * (k < n // 2), "layer": "ab"[k >= n // 2]} for k in range(n)],
        lambda n: [RUN if k % 3 == 0 else (READING, ALERT)[k % 3 - 1] | {"step": n - k} for k in range(n)],
    ],
    ids=["resumed at each step", "as many layers as steps", "the same step over and over", "each earlier"],
)
def test_what_is_set_apart_takes_no_longer_for_a_longer_journal(tmp_path, lines):
    seconds = []
    for n in (1000, 16_000):
        path = tmp_path / f"{n}.jsonl"
        path.write_text("\n".join(map(json.dumps, lines(n))))
        seconds.append(min(taken(path) for _ in range(3)))
    assert seconds[1] < 16 * 5 * seconds[0]  # by the square it would be 256 times
