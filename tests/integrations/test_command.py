"""The command line, by itself and as a real process."""

import io
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from journals import ALERTS, FOUND, write
from uniformity_callbacks.integrations import command
from uniformity_callbacks.integrations.command import main
from uniformity_callbacks.integrations.terminal import Progress
from uniformity_callbacks.masking import masked

ROOT = Path(__file__).parents[2]
TIGHT = """
import resource, sys
from uniformity_callbacks.integrations.command import main

resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
main(sys.argv[1:])
"""


def process(*arguments, start=("-m", "uniformity_callbacks")):
    command = [sys.executable, "-W", "error", *start, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def invoke(*arguments, code=0):
    """Run in this process; return what it said, after seeing that no error is more than its own line."""
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def test_a_journal_into_event_files_and_again(tmp_path):
    path = write(tmp_path / "a.jsonl", alerts=ALERTS)
    words = [
        f"wrote 20 points of 10 readings and 3 alerts to TensorBoard's {tmp_path / 'runs'}\n",
        f"nothing to write: TensorBoard's {tmp_path / 'runs'} has all 20 points and 3 alerts already\n",
    ]
    for text in words:
        done = process("sync", path, "--to", f"tensorboard:{tmp_path / 'runs'}")
        assert (done.returncode, done.stdout, done.stderr) == (0, text, "")
    assert len([*(tmp_path / "runs").iterdir()]) == 1


def test_a_journal_into_a_new_mlflow_store_and_again(place):
    path = write(place / "mine.jsonl", range(3000), alerts=[FOUND])
    uri = "mlflow:sqlite:///new.db"
    done = process("sync", path, "--to", uri, "--experiment", "digits")
    assert (done.returncode, done.stderr) == (0, "")  # nothing of the tables that MLflow makes
    found = re.fullmatch(
        r"wrote 6,000 points of 3,000 readings and 1 alert to MLflow run (\w{32}) \(new, in experiment digits\)\n",
        done.stdout,
    )
    write(path, [3000, 3001], resume=True)
    again = f"wrote 4 points of 2 readings to MLflow run {found[1]} (%s); 6,000 points and 1 alert were there already\n"
    assert invoke("sync", path, "--to", uri) == again % "tagged with the journal's id"
    write(path, [3002, 3003], resume=True)
    again = again.replace("6,000 points", "6,004 points")
    assert invoke("sync", path, "--to", uri, "--run-id", found[1]) == again % "by --run-id"


def test_what_is_behind_a_gap_is_told(tmp_path):
    a, b = write(tmp_path / "a.jsonl", [10, 20]), write(tmp_path / "b.jsonl", [0, 10, 20])
    target = f"tensorboard:{tmp_path / 'runs'}"
    invoke("sync", a, "--to", target)
    assert invoke("sync", b, "--to", target) == (
        f"wrote 2 points of 1 reading to TensorBoard's {tmp_path / 'runs'}; 4 points were there already, "
        "4 of which are written again: TensorBoard shows no step behind a later one\n"
    )


def test_what_is_not_written_is_told(tmp_path):
    path = write(tmp_path / "a.jsonl", range(0, 100, 10))
    write(path, range(50, 70, 10), resume=True)
    write(path, [2**63], resume=True)  # no store holds such a step
    with open(path, "a") as file:
        file.write("half a line")
    said = invoke("sync", path, "--to", f"tensorboard:{tmp_path / 'runs'}")
    assert "2 lines of the journal cannot be read, and what was in it is not written: 16, 17\n" in said
    assert "left out: 5 readings of steps that were done again\n" in said
    assert "wrote 14 points of 7 readings to" in said


def test_what_the_store_refuses_is_told(place, monkeypatch):
    monkeypatch.setattr("uniformity_callbacks.integrations.sync_mlflow.log_metrics", lambda *_: iter(["w2: not so"]))
    said = invoke("sync", write(place / "a.jsonl"), "--to", "mlflow:sqlite:///mlflow.db", code=1)
    assert "not written: w2: not so\n" in said
    assert said.endswith("Error: 1 record could not be written\n")


def test_a_journal_of_nothing(tmp_path):
    (tmp_path / "a.jsonl").touch()
    said = invoke("sync", tmp_path / "a.jsonl", "--to", f"tensorboard:{tmp_path / 'runs'}")
    assert said == "nothing to write: the journal has no readings yet\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("journal", "options", "said"),
    [
        ("none.jsonl", "--to tensorboard:runs", "'none.jsonl' cannot be read: No such file or directory; give the"),
        (".", "--to tensorboard:runs", "'.' cannot be read: Is a directory; give the .jsonl file of a run"),
        ("text", "--to tensorboard:runs", "'text' is no journal: none of its 1 lines is a record"),
        ("a.jsonl", "--to mlfow:x", "got one of kind 'mlfow'; did you mean mlflow?"),
        ("a.jsonl", "--to http://me:secret@host", "got one of kind 'http'; "),
        ("a.jsonl", "--to mlflow:", "--to mlflow: needs a place"),
        (
            "a.jsonl",
            "--to tensorboard:text",
            "cannot be read or written: NotADirectoryError: 'text' is",
        ),
        ("a.jsonl", "--to mlflow:sqlite:///none/x.db", "OperationalError: (sqlite3.OperationalError) unable to open"),
        ("a.jsonl", "--to mlflow:sqlite:///text", "DatabaseError: (sqlite3.DatabaseError) file is not a database"),
        ("a.jsonl", "--to mlflow:odd://me:secret@host", "mlflow:odd://***@host cannot be read or written: "),
        ("a.jsonl", "--to mlflow:sqlite:///mlflow.db --run-id none", "Error: the store has no run 'none', or has it"),
    ],
)
def test_bad_input_is_one_line(place, journal, options, said):
    write(place / "a.jsonl")
    (place / "text").write_text("hello\n")
    text = invoke("sync", journal, *options.split(), code=2)
    assert said in text
    assert text.startswith("Error: ")
    assert text.count("\n") == 1
    assert "secret" not in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "Missing option '--to'"),
        ("--to tensorboard:x --run-id y", "--run-id and --experiment are MLflow's; leave them out"),
        ("--to mlflow:sqlite:///x --run-id y --experiment z", "give it without --experiment"),
        ("--too tensorboard:x", "No such option"),
    ],
)
def test_bad_usage(tmp_path, options, said):
    path = write(tmp_path / "a.jsonl")
    assert said in invoke("sync", path, *options.split(), code=2)


def test_a_server_that_is_not_there(place, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the user's own patience goes
    path = write(place / "a.jsonl")
    text = invoke("sync", path, "--to", "mlflow:http://me:pass%2Fword@127.0.0.1:9", code=2)
    assert text.startswith(
        "Error: mlflow:http://***@127.0.0.1:9 cannot be read or written: MlflowException: API request"
    )
    assert "Connection refused" in text
    assert text.count("\n") == 1
    assert "me:" not in text
    assert "word" not in text


@pytest.mark.parametrize(
    ("kind", "blocked"),
    [("mlflow", "mlflow.entities"), ("tensorboard", "tensorboard.backend.event_processing.event_file_loader")],
)
def test_an_extra_that_is_not_installed(place, monkeypatch, kind, blocked):
    path = write(place / "a.jsonl")
    monkeypatch.delitem(sys.modules, f"uniformity_callbacks.integrations.sync_{kind}", raising=False)
    monkeypatch.setitem(sys.modules, blocked, None)
    text = invoke("sync", path, "--to", f"{kind}:x", code=2)
    assert text == f"Error: --to {kind} needs {kind}; pip install 'uniformity-callbacks[{kind}]'\n"


def test_a_disk_that_is_full(tmp_path):
    path = write(tmp_path / "a.jsonl", range(1000))
    done = process("sync", path, "--to", f"tensorboard:{tmp_path / 'runs'}", start=("-c", TIGHT))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"Error: tensorboard:\S+ cannot be read or written: OSError: .*File too large.*\n", done.stderr)
    said = invoke("sync", path, "--to", f"tensorboard:{tmp_path / 'runs'}")
    assert said.startswith("wrote 1,000 points")  # the first thousand was written whole, the second not at all
    assert "has all 2,000 points already" in invoke("sync", path, "--to", f"tensorboard:{tmp_path / 'runs'}")


def test_help_has_an_example_and_loads_no_store():
    text = invoke("sync", "--help")
    assert "uniformity sync logs/uniformity.jsonl --to mlflow:http://localhost:5000" in text
    assert "sync" in invoke("--help")
    heavy = {"mlflow", "tensorboard", "torch", "numpy", "scipy", "matplotlib"}  # 0.2 s instead of 2.5
    code = f"import sys; from {command.__name__} import main; main(['--help'], standalone_mode=False); "
    done = process(start=("-c", f"{code} print({heavy} & set(sys.modules))"))
    assert done.stdout.endswith("\nset()\n")


def test_the_command_is_installed():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"uniformity": f"{command.__name__}:main"}


def test_a_bar_on_a_terminal_for_what_takes_long(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return self.is_one

    Terminal.is_one, terminal = True, Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("points") as progress:
        progress(10, 30)
        assert terminal.getvalue() == ""
    monkeypatch.setattr("uniformity_callbacks.integrations.terminal._LONG_S", -1.0)
    with Progress("points") as progress:
        progress(10, 30)
        progress(30, 30)
    assert "100%" in terminal.getvalue()
    terminal.is_one, before = False, terminal.getvalue()
    with Progress("points") as progress:
        progress(10, 30)
    assert terminal.getvalue() == before


@pytest.mark.parametrize(
    ("uri", "text", "said"),
    [
        ("", "at http://me:pw@host:1/x and http://host", "at http://***@host:1/x and http://host"),
        ("", "postgresql+psycopg2://me:p@w@host/db", "postgresql+psycopg2://***@host/db"),
        ("postgresql://me:p/w@host/db", "postgresql://me:p/w@host/db", "postgresql://***@host/db"),
        ("http://me:pass%40word@host", "login me with pass@word, pass%40word", "login me with ***, ***"),
        ("http://token1234@host", "header token1234", "header ***"),
        ("", "postgresql://host/db?user=me&password=pw&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("sqlite:///a@b.db", "sqlite:///a@b.db is locked", "sqlite:///a@b.db is locked"),
        ("http://me:a@host", "a bad answer", "a bad answer"),
    ],
)
def test_credentials_are_masked(uri, text, said):
    assert masked(text, uri) == said
