"""``uniformity report``: one page of journals, and one line for each error."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from journals import ALERTS, write
from uniformity_callbacks.integrations.command import main

GOOD = {"effective_dims": 5.0, "mean_resultant": 0.2, "samples": 64.0, "nonfinite": 0.0}


def report(*arguments):
    return CliRunner().invoke(main, ["report", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def journal(tmp_path):
    (tmp_path / "a").mkdir()
    return write(tmp_path / "a" / "uniformity.jsonl", alerts=ALERTS[:1], **GOOD)


def test_it_writes_the_page_and_says_the_verdict(tmp_path, journal):
    told = report(journal, "-o", tmp_path / "page.html")
    assert (told.exit_code, told.stderr) == (0, "")
    assert told.stdout == (f"{tmp_path.name}/a: Constant collapse since step 10\nwritten to {tmp_path / 'page.html'}\n")
    assert "Constant collapse since step 10" in (tmp_path / "page.html").read_text()


def test_beside_the_journal_by_default(journal):
    assert report(journal).exit_code == 0
    assert journal.with_suffix(".html").exists()


def test_several_runs_on_one_page(tmp_path, journal):
    (tmp_path / "b").mkdir()
    other = write(tmp_path / "b" / "uniformity.jsonl", **GOOD)
    assert report(journal, other).exit_code == 2
    told = report(journal, other, "-o", tmp_path / "page.html")
    assert told.stdout.startswith("a: Constant collapse since step 10\nb: ")


def test_bad_input_is_one_line_and_loses_nothing(tmp_path, journal):
    before = journal.read_bytes()
    (tmp_path / "no.jsonl").write_text("x\n")
    for arguments, said in (
        ([tmp_path / "none.jsonl"], "none.jsonl"),
        ([tmp_path / "no.jsonl"], "is no journal: none of its 1 lines is a record"),
        ([tmp_path, "-o", tmp_path / "x.html"], "Is a directory"),
        ([journal, "-o", tmp_path / "nowhere" / "x.html"], "No such file or directory"),
        ([journal, "-o", journal], "is a journal; give the page another name"),
        ([journal] * 9 + ["-o", tmp_path / "x.html"], "journals must be 1 to 8 files"),
        ([], "Missing argument 'JOURNALS...'"),
        ([journal, journal], "say where to write: -o report.html"),
    ):
        told = report(*arguments)
        assert told.exit_code == 2
        assert said in told.stderr
        assert "Traceback" not in told.stderr
        assert told.stdout == ""
    assert journal.read_bytes() == before
    assert list(tmp_path.rglob("*.html")) == []


def test_as_a_program(tmp_path, journal):
    command = [sys.executable, "-m", "uniformity_callbacks", "report", journal, "-o", tmp_path / "page.html"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    assert done.stdout.endswith("page.html\n")


def test_help_has_an_example():
    told = report("--help")
    assert told.exit_code == 0
    assert "uniformity report a/uniformity.jsonl b/uniformity.jsonl -o both.html" in told.stdout
