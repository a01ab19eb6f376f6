"""A journal into event files: everything is shown by key and step, and a second time adds nothing."""

import json
import math
import re
import shutil
import struct
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from journals import AGAIN, ALERTS, BEGAN, OVER, written
from uniformity_callbacks.integrations.events import to_tensorboard
from uniformity_callbacks.integrations.sync_tensorboard import EventFiles
from uniformity_callbacks.integrations.syncing import sync

STEPS = list(range(0, 100, 10))


def read(directory):
    accumulator = EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def curve(directory, key="uniformity/w2"):
    """Steps and values of a curve."""
    return [(event.step, round(event.value, 4)) for event in read(directory).Scalars(key)]


def expected(steps=STEPS):
    return [(step, round(step / 7, 4)) for step in steps]


def add(directory, steps, key="uniformity/w2", alerts=()):
    """Write an event file as a training does, the last by name, and return its path."""
    before = [*directory.glob("*tfevents*")]
    summary = SummaryWriter(str(directory))
    for step in steps:
        summary.add_scalar(key, step / 7, step)
    for alert in alerts:
        to_tensorboard(summary, alert, "uniformity/")
    summary.close()
    (file,) = (path for path in directory.glob("*tfevents*") if path not in before)
    return file.rename(file.with_name(f"events.out.tfevents.{1000 + len(before)}.host.1.0"))


def test_everything_is_there_and_a_second_time_makes_no_file(tmp_path):
    journal = written(tmp_path / "a.jsonl", alerts=ALERTS, odd=math.inf, huge=1e300)
    outcome = sync(journal, EventFiles(tmp_path / "runs"))
    assert (outcome.points, outcome.readings, outcome.alerts) == (40, 10, 3)
    (file,) = (tmp_path / "runs").iterdir()
    assert curve(tmp_path / "runs") == expected()
    events = read(tmp_path / "runs")
    assert [event.wall_time for event in events.Scalars("uniformity/w2")] == [BEGAN + step for step in STEPS]
    assert all(math.isnan(event.value) for event in events.Scalars("uniformity/odd"))
    assert all(event.value == math.inf for event in events.Scalars("uniformity/huge"))  # it has 32 bits
    texts = events.Tensors("uniformity/alerts/constant/text_summary")
    assert [(event.step, event.wall_time) for event in texts] == [(s, BEGAN + s) for s in (20, 40, 60)]
    assert texts[0].tensor_proto.string_val[0] == b"    all is one point\n      seen: 0.99"
    before = file.read_bytes()
    outcome = sync(journal, EventFiles(str(tmp_path / "runs")))
    assert (outcome.points, outcome.alerts, outcome.points_there, outcome.alerts_there) == (0, 0, 40, 3)
    assert [*(tmp_path / "runs").iterdir()] == [file]
    assert file.read_bytes() == before


def test_what_is_missing_goes_behind_what_is_there(tmp_path):
    journal = written(tmp_path / "a.jsonl", alerts=ALERTS)
    shutil.copytree(add(tmp_path / "runs", range(0, 60, 10), alerts=ALERTS[:2]).parent, tmp_path / "runs" / "below")
    add(tmp_path / "runs" / "below", range(0, 100, 10))  # another run
    outcome = sync(journal, EventFiles(tmp_path / "runs"))
    assert (outcome.points, outcome.points_there, outcome.again) == (14, 6, 0)
    assert (outcome.alerts, outcome.alerts_there) == (1, 2)
    assert curve(tmp_path / "runs") == expected()
    assert len([*(tmp_path / "runs").glob("*tfevents*")]) == 2


def shown(directory, keys):
    """What TensorBoard shows of a run: the steps of each curve and of each text."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(directory), "--port", "0", "--host=127.0.0.1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = next(re.search(r"http://\S+:\d+/", line)[0] for line in process.stderr if "http://127" in line)

            def steps(path, key):
                with urlopen(f"{address}data/plugin/{path}?tag={key}&run=.", timeout=20) as answer:
                    rows = json.load(answer)
                return [row[1] if isinstance(row, list) else row["step"] for row in rows]

            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                time.sleep(0.5)
                try:
                    before = [steps(*key) for key in keys]
                    time.sleep(1.0)
                    if all(before) and before == [steps(*key) for key in keys]:
                        return before
                except OSError:  # not read yet
                    continue
            raise AssertionError("TensorBoard shows nothing")
        finally:
            process.terminate()


def test_a_gap_is_filled_so_that_tensorboard_shows_what_comes_after_it(tmp_path):
    """It ends a curve where a later record is of an earlier step: what comes after must come again."""
    journal = written(tmp_path / "a.jsonl", alerts=ALERTS)
    add(tmp_path / "runs", [0, 10, 50, 60, 70], alerts=[OVER, AGAIN])
    outcome = sync(journal, EventFiles(tmp_path / "runs"))
    assert (outcome.points, outcome.points_there, outcome.again) == (15, 5, 3)
    assert (outcome.alerts, outcome.alerts_there) == (1, 2)
    outcome = sync(journal, EventFiles(tmp_path / "runs"))
    assert (outcome.points, outcome.points_there, outcome.alerts, outcome.again) == (0, 20, 0, 0)
    assert len([*(tmp_path / "runs").iterdir()]) == 2
    scalars, texts = "scalars/scalars", "text/text"
    keys = [(scalars, "uniformity/w2"), (scalars, "uniformity/lu"), (texts, "uniformity/alerts/constant/text_summary")]
    assert shown(tmp_path / "runs", keys) == [STEPS, STEPS, [20, 40, 60]]


def test_what_tensorboard_does_not_show_is_missing(tmp_path):
    """As where a resumed run, or this command while the run went on, wrote an earlier step."""
    add(tmp_path / "runs", range(0, 60, 10))
    add(tmp_path / "runs", [20])
    assert shown(tmp_path / "runs", [("scalars/scalars", "uniformity/w2")]) == [[0, 10, 20]]
    assert EventFiles(tmp_path / "runs").steps(["uniformity/w2", "x"]) == {"uniformity/w2": {0, 10, 20}}


def test_the_new_file_is_read_last_whatever_the_clock_says(tmp_path):
    journal = written(tmp_path / "a.jsonl")
    file = add(tmp_path / "runs", [0, 50])
    last = file.rename(file.with_name("events.out.tfevents.9999999999.host.1.0"))
    sync(journal, EventFiles(tmp_path / "runs"))
    first, second = sorted((tmp_path / "runs").iterdir())
    assert first == last
    assert re.fullmatch(r"events.out.tfevents.9999999999.host.1.0.sync-\w{8}", second.name)
    assert sync(journal, EventFiles(tmp_path / "runs")).points == 0


@pytest.mark.parametrize("harm", ["torn", "corrupt", "garbage", "empty", "no event"])
def test_event_files_that_are_not_whole(tmp_path, harm):
    journal = written(tmp_path / "a.jsonl")
    file = add(tmp_path / "runs", STEPS)
    data = file.read_bytes()
    if harm == "torn":
        file.write_bytes(data[:-10])
    elif harm == "corrupt":
        file.write_bytes(data[: len(data) // 2] + b"\xff" + data[len(data) // 2 + 1 :])
    elif harm == "garbage":
        file.write_bytes(b"\x00\x01not an event file" * 50)
    elif harm == "empty":
        file.write_bytes(b"")
    else:
        from tensorboard.summary.writer.record_writer import RecordWriter

        with open(file, "ab") as end:
            RecordWriter(end).write(struct.pack("<Q", 2**64 - 1))
    outcome = sync(journal, EventFiles(tmp_path / "runs"))
    assert outcome.points + outcome.points_there == 20
    assert outcome.points > 0
    there = EventFiles(tmp_path / "runs").steps(["uniformity/w2", "uniformity/lu"])
    assert there == {"uniformity/w2": set(STEPS), "uniformity/lu": set(STEPS)}
    assert sync(journal, EventFiles(tmp_path / "runs")).points == 0


def test_several_layers_in_batches(tmp_path):
    journal = written(tmp_path / "a.jsonl", range(700), layers=("projector", "heads[0]"))
    told = []
    sync(journal, EventFiles(tmp_path / "runs"), lambda *progress: told.append(progress))
    assert told == [(1000, 2800), (2000, 2800), (2800, 2800)]
    assert curve(tmp_path / "runs", "uniformity/heads[0]/w2") == expected(range(700))


def test_no_directory(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="file' is no directory; give the one with the event files"):
        EventFiles(tmp_path / "file")
