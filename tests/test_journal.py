import json
import math
import os

import pytest

from uniformity_callbacks import Alert, Reading, read_journal
from uniformity_callbacks.recording import JournalWriter

ALERT = Alert("constant", 120, 100, (0.97, math.nan), 0.95, "stop", "projector", "constant collapse\n…")


def reading(step, **values):
    return Reading(step, "projector", 128, {"w2": 0.5, **values}, 1.5)


def test_reads_back_what_was_written(tmp_path):
    journal = JournalWriter(tmp_path / "new" / "a.jsonl", run={"layers": ["projector"]})
    journal.reading(reading(0))
    journal.reading(reading(50, lu=math.nan, aux_loss=math.inf))
    journal.alert(ALERT)
    journal.close()
    back = read_journal(tmp_path / "new" / "a.jsonl")
    assert back.readings[0] == reading(0)
    assert back.readings[1].values["w2"] == 0.5
    assert math.isnan(back.readings[1].values["lu"])
    assert math.isnan(back.readings[1].values["aux_loss"])
    assert back.alerts[0].readings[0] == 0.97
    assert math.isnan(back.alerts[0].readings[1])
    assert back.alerts[0].message == ALERT.message
    assert back.runs[0]["layers"] == ["projector"]
    assert back.unreadable == []
    assert back.series("w2") == ([0, 50], [0.5, 0.5])
    assert back.series("w2", "encoder") == ([], [])


def test_lines_are_strict_json(tmp_path):
    journal = JournalWriter(tmp_path / "a.jsonl", run={})
    journal.reading(reading(0, lu=math.inf))
    journal.close()

    def refuse(name):
        raise AssertionError(name)

    for line in (tmp_path / "a.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_each_record_is_on_disk_when_written(tmp_path):
    journal = JournalWriter(tmp_path / "a.jsonl", run={})
    for step in range(3):
        journal.reading(reading(step))
        assert len(read_journal(tmp_path / "a.jsonl").readings) == step + 1
    journal.close()


def test_a_taken_name_is_not_shared(tmp_path):
    writers = [JournalWriter(tmp_path / "a.jsonl", run={"k": k}) for k in range(3)]
    assert [writer.path.name for writer in writers] == ["a.jsonl", "a-2.jsonl", "a-3.jsonl"]
    for k, writer in enumerate(writers):
        writer.close()
        assert read_journal(writer.path).runs[0]["k"] == k


def test_resuming_appends_and_spares_the_next_line_from_a_torn_one(tmp_path):
    path = tmp_path / "a.jsonl"
    first = JournalWriter(path, run={})
    first.reading(reading(0))
    first.close()
    with open(path, "a") as file:
        file.write('{"type": "reading", "step": 5')
    assert read_journal(path).unreadable == [3]
    second = JournalWriter(path, resume=True, run={})
    second.reading(reading(10))
    second.close()
    back = read_journal(path)
    assert [r.step for r in back.readings] == [0, 10]
    assert back.unreadable == [3]
    assert len(back.runs) == 2


@pytest.mark.parametrize(
    "line", ["", "[]", "3", '{"type": "poem"}', '{"step": 3}', '{"type": "reading", "step": 1}', "\x00"]
)
def test_a_bad_line_is_numbered(tmp_path, line):
    path = tmp_path / "a.jsonl"
    JournalWriter(path, run={}).close()
    with open(path, "a") as file:
        file.write(line + "\n")
    assert read_journal(path).unreadable == [2]


def test_no_journal(tmp_path):
    (tmp_path / "a.txt").write_text("hello\nworld\n")
    with pytest.raises(ValueError, match="is no journal: none of its 2 lines is a record"):
        read_journal(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError):
        read_journal(tmp_path / "b.txt")


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"journal .*a.jsonl' cannot be written .*give another path by journal="):
        JournalWriter(tmp_path / "file" / "a.jsonl", run={})


def test_a_line_cut_by_a_full_disk_is_written_when_there_is_room(tmp_path, caplog):
    class Full:
        """Takes half of what it is given while the disk is full."""

        def __init__(self, file):
            self.file, self.full = file, False

        def write(self, data):
            return self.file.write(data[: len(data) // 2] if self.full else data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    journal = JournalWriter(tmp_path / "a.jsonl", run={})
    journal._file = Full(journal._file)
    journal.reading(reading(0))
    journal._file.full = True
    with pytest.raises(OSError, match="No space left on device"):
        journal.reading(reading(1))
    assert read_journal(tmp_path / "a.jsonl").unreadable == []  # half a line is taken back
    assert journal.waiting == 1
    journal._file.full = False
    begin = journal.reading(reading(2))
    journal.close()
    back = read_journal(tmp_path / "a.jsonl")
    assert [r.step for r in back.readings] == [0, 1, 2]
    assert back.unreadable == []
    line = (tmp_path / "a.jsonl").read_bytes()[begin:]
    assert json.loads(line)["step"] == 2
    assert "can be written again" in caplog.text
    assert "nothing is lost" in caplog.text


def test_an_empty_file_is_a_journal_of_nothing(tmp_path):
    (tmp_path / "a.jsonl").touch()
    assert read_journal(tmp_path / "a.jsonl").readings == []


def test_a_record_that_the_disk_does_not_confirm_is_there_once(tmp_path, monkeypatch):
    journal = JournalWriter(tmp_path / "a.jsonl", run={}, durable=True)
    confirm, calls = os.fdatasync, []

    def fails(number):
        calls.append(number)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        journal.reading(reading(0))
    assert read_journal(tmp_path / "a.jsonl").readings == []
    monkeypatch.setattr(os, "fdatasync", lambda number: calls.append(number) or confirm(number))
    journal.reading(reading(1))
    journal.close()
    assert [r.step for r in read_journal(tmp_path / "a.jsonl").readings] == [0, 1]
    assert len(calls) == 3
