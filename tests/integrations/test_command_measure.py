"""``uniformity measure``: what it prints, how it ends, what memory it takes."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from embedded import invoke, write

from uniformity_callbacks.glossary import GLOSSARY
from uniformity_callbacks.panel import METRICS

ROOT = Path(__file__).parents[2]
KEYS = [
    "file",
    "array",
    "views",
    "rows",
    "dims",
    "dtype",
    "metrics",
    "lu_rows",
    "zero_rows",
    "repeated_rows",
    "verdict",
]
PEAK = """
import sys
from uniformity_callbacks.integrations.command import main

main(["measure", *sys.argv[1:], "--json"], standalone_mode=False)
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""
"""Not by getrusage: a child's peak is there that of the process that started it, if that had more."""


def embeddings(n=3000, d=32, *, rank=None, mean=0.0, seed=0):
    draw = np.random.default_rng(seed)
    z = draw.standard_normal((n, d if rank is None else rank))
    return ((z if rank is None else z @ draw.standard_normal((rank, d))) + mean).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("good.npy", embeddings())
    np.save("low.npy", embeddings(rank=4))
    np.save("point.npy", embeddings(mean=9.0))
    np.save("few.npy", embeddings(9))
    return tmp_path


def table(said):
    """The cells of the first table, by metric."""
    lines = said.split("\n\n")[1].splitlines()
    return {cells[0]: cells[1:] for cells in (re.split(r" {2,}", line) for line in lines)}


def test_one_file(folder):
    said = invoke("good.npy").stdout
    assert said.startswith("good.npy: 3,000 rows of 32 dimensions, float32\n\n")
    cells = table(said)
    assert cells[""] == ["value", "ideal", "one point", "few dimensions"]
    assert list(cells)[1:] == [name for name in METRICS if name != "alignment"] + ["samples", "nonfinite"]
    for name, row in cells.items():
        if name:
            entry = GLOSSARY[name]
            assert row[1:] == [text for text in (entry.ideal, entry.one_point, entry.few_dimensions) if text]
    assert cells["samples"] == ["3,000"]
    assert 0 < float(cells["w2"][0]) < 0.1
    assert "lu is of a random sample of 2,048 rows, the other numbers of all rows." in said
    assert "\nNO COLLAPSE FOUND: the outputs of good.npy are not close to one point" in said
    assert "Eval mode, in which embeddings are usually written, reads differently" in said
    assert "MoCo v2 1.06, BYOL 1.21" in said


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("good.npy", "NO COLLAPSE FOUND: "),
        ("low.npy", "DIMENSIONAL COLLAPSE: the outputs of low.npy use 3."),
        ("point.npy", "CONSTANT COLLAPSE: the outputs of point.npy are close to one point"),
        ("few.npy", "CANNOT TELL: few.npy is not close to one point"),
    ],
)
def test_the_verdict(folder, file, words):
    said = invoke(file).stdout
    assert words in said
    assert all(len(line) <= 80 for line in said.splitlines())


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.zeros((0, 4)), "CANNOT TELL: z.npy has no rows."),
        (np.ones((1, 4)), "CANNOT TELL: z.npy has one row that is finite and not zero"),
        (np.full((20, 4), np.nan), "CANNOT TELL: all 20 rows of z.npy are NaN or infinite."),
        (np.zeros((20, 4)), "CONSTANT COLLAPSE: every finite row of z.npy is zero."),
        (np.ones((20, 4)), "CONSTANT COLLAPSE: the outputs of z.npy are close to one point"),
        (np.ones((20, 1)), "CONSTANT COLLAPSE: the outputs of z.npy are close to one point"),
        (np.tile(np.eye(4), (300, 1)), "CANNOT TELL"),
        (np.r_[embeddings(), np.full((5, 32), np.inf)], "5 of 3005 rows of z.npy are NaN or infinite"),
        (np.r_[embeddings(), np.zeros((7, 32))], "\n7 rows left out: zero, which has no direction.\n"),
        (np.r_[embeddings(), embeddings()[:60]], "\n60 of 3,060 rows repeat another to the last bit;"),
    ],
)
def test_odd_rows(folder, rows, words):
    if words == "CANNOT TELL":  # four points: a quarter of 4 dimensions is fewer than they have
        rows = rows @ np.linspace(-1, 1, 4 * 64).reshape(4, 64)
    np.save("z.npy", rows)
    said = invoke("z.npy").stdout
    assert words in said
    assert "nan" not in said.replace("z.npy", "")
    (told,) = invoke("z.npy", "--json").stdout.splitlines()
    assert json.loads(told)["verdict"]["kind"] in ("constant", "unknown", "none")


def test_several_files_side_by_side(folder):
    said = invoke("good.npy", "low.npy", "point.npy", "few.npy").stdout
    assert said.startswith("[1] good.npy: 3,000 rows of 32 dimensions, float32\n[2] low.npy: ")
    assert table(said)[""] == ["[1]", "[2]", "[3]", "ideal", "one point"]
    assert table(said)["w2"][0] == table(invoke("good.npy").stdout)["w2"][0]
    second = said.split("\n\n")[2].splitlines()
    assert re.split(r" {2,}", second[0]) == ["", "[4]", "ideal", "one point", "few dimensions"]
    assert "[1] [2] [3] lu is of a random sample of 2,048 rows" in said
    assert "[4] -: what such a sample does not tell." in said
    for words in ("[1] NO COLLAPSE", "[2] DIMENSIONAL", "[3] CONSTANT", "[4] CANNOT"):
        assert words in said
    assert all(len(line) <= 80 for line in said.splitlines())


def test_json(folder):
    np.savez("two.npz", a=embeddings(40), b=embeddings(9))
    told = [json.loads(line) for line in invoke("good.npy", "two.npz:b", "--json").stdout.splitlines()]
    assert [list(one) for one in told] == [KEYS, KEYS]
    first, second = told
    assert (first["file"], first["array"], first["rows"], first["dims"]) == ("good.npy", None, 3000, 32)
    assert (second["file"], second["array"], second["dtype"]) == ("two.npz", "b", "float32")
    assert second["views"] == [{"file": "two.npz", "array": "b"}]
    assert set(first["metrics"]) == {*METRICS, "samples", "nonfinite"} - {"alignment"}
    assert second["metrics"]["w2_corrected"] is None  # of nine rows
    assert (first["lu_rows"], second["lu_rows"]) == (2048, 9)
    assert first["verdict"]["kind"] == "none"
    assert (second["verdict"]["kind"], second["verdict"]["title"]) == ("unknown", "cannot tell")


def test_chosen_metrics(folder):
    said = invoke("low.npy", "--metrics", "rankme, w2").stdout
    assert list(table(said)) == ["", "rankme", "w2", "samples", "nonfinite"]
    assert "DIMENSIONAL COLLAPSE" in said  # whatever is shown
    assert "random sample" not in said
    metrics = json.loads(invoke("low.npy", "--metrics", "w2", "--json").stdout)["metrics"]
    assert list(metrics) == ["w2", "samples", "nonfinite"]


def test_two_views(folder):
    np.save("other.npy", embeddings() + 0.1 * embeddings(seed=1))
    said = invoke("--views", 2, "good.npy", "other.npy").stdout
    assert said.startswith("good.npy and other.npy: 3,000 rows of 32 dimensions, float32\n")
    assert 0.005 < float(table(said)["alignment"][0]) < 0.02
    assert table(said)["samples"] == ["6,000"]
    assert "2,048 rows of each view" in said
    told = json.loads(invoke("--views", 2, "good.npy", "other.npy", "--json").stdout)
    assert (told["rows"], told["metrics"]["samples"]) == (3000, 6000)
    assert told["views"] == [{"file": "good.npy", "array": None}, {"file": "other.npy", "array": None}]


def test_what_cannot_be_read_keeps_the_others_from_nothing(folder):
    Path("broken.npy").write_bytes(b"hello")
    result = invoke("none.npy", "good.npy", "broken.npy", "low.npy", "--json", code=2)
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()] == ["good.npy", "low.npy"]
    assert [line.split()[1] for line in result.stderr.splitlines()] == ["none.npy", "broken.npy"]
    result = invoke("good.npy", "broken.npy", code=2)
    assert "NO COLLAPSE FOUND" in result.stdout
    assert invoke("none.npy", "broken.npy", code=2).stdout == ""


def test_what_cannot_be_computed_is_a_line(folder, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("not enough memory:\n  you tried to allocate 8 TB")

    monkeypatch.setattr("uniformity_callbacks.panel.measure", fail)
    said = invoke("good.npy", code=2).stderr
    assert (
        said == "Error: good.npy could not be measured: RuntimeError: not enough memory: you tried to allocate 8 TB\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "Missing argument 'FILE...'"),
        ("good.npy --views 3", "3 is not in the range"),
        ("good.npy --views 2", "--views 2 is for two FILEs, row i of each of one image, got 1"),
        ("good.npy few.npy --views 2", "views must have one shape, got (3000, 32) of good.npy and (9, 32) of few.npy"),
        ("good.npy --metrics w3", "--metrics has no 'w3'; did you mean w2?"),
        ("good.npy --metrics ,", "--metrics has no ''"),
        ("good.npy --metrics alignment", "--metrics has alignment, which is between two views; give two FILEs with"),
    ],
)
def test_bad_usage(folder, arguments, words):
    said = invoke(*arguments.split(), code=2)
    assert words in said.stderr
    assert said.stdout == ""


def test_help_has_examples_that_work(folder):
    said = invoke("--help").stdout
    examples = [line.split() for line in said.splitlines() if line.startswith("    uniformity measure ")]
    assert len(examples) == 5
    page = (ROOT / "docs" / "command_line.md").read_text()
    assert all(" ".join(example) in page for example in examples)
    z = torch.from_numpy(embeddings(60))
    for path in ("features.npy", "before.pt", "after.pt", "view0.safetensors", "view1.safetensors"):
        Path(write(folder, path.split(".")[1], z.clone()).__str__().removesuffix(":z")).rename(path)
    for path in ("view0.safetensors", "view1.safetensors"):
        from safetensors.torch import save_file

        save_file({"z": z}, path)
    np.savez("features.npz", a=z.numpy(), b=z.numpy())
    for example in examples:
        arguments = example[2 : example.index("|")] if "|" in example else example[2:]
        invoke(*arguments)


def test_the_readme_has_the_same_values():
    rows = [line[1:-1].split("|") for line in (ROOT / "README.md").read_text().splitlines() if line[:3] == "| `"]
    seen = {}
    for row in rows:
        keys, _, *values = [cell.strip().strip("`") for cell in row]
        for key in keys.replace("`", "").split(", "):
            seen[key] = values
    for key, values in seen.items():
        entry = GLOSSARY[key]
        assert [entry.ideal, entry.one_point, entry.few_dimensions] == values, key
    assert {"w2", "effective_dims", "rankme", "lu"} <= set(seen)


def test_memory_does_not_grow_with_the_rows(tmp_path):
    peaks = []
    for n in (16_000, 128_000):  # 112,000 rows of 256 numbers: 115 MB more in each file
        z, files = torch.from_numpy(embeddings(8_000, 256)).repeat(n // 8_000, 1), []
        for form in ("npy", "npz", "safetensors", "pt"):
            (tmp_path / f"{form}{n}").mkdir()
            files.append(write(tmp_path / f"{form}{n}", form, z.detach()))
        command = [sys.executable, "-W", "error", "-c", PEAK, *map(str, files), "--metrics", "w2,lu"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
        *told, peak = done.stdout.splitlines()
        assert [json.loads(line)["rows"] for line in told] == [n] * 4
        assert json.loads(told[0])["repeated_rows"] == n - 8_000
        peaks.append(float(peak) / 1024)
    assert peaks[1] - peaks[0] < 40, peaks


def test_a_bar_on_a_terminal_and_an_interruption(tmp_path):
    with open(tmp_path / "z.npy", "wb") as file:  # sparse: 4 GB of zeros that take no room, and a minute
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (4_000_000, 256)})
        file.truncate(file.tell() + 4_000_000 * 256 * 4)
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "uniformity_callbacks", "measure", str(tmp_path / "z.npy")],
        stdout=subprocess.PIPE, stderr=end, text=True,
    )  # fmt: skip
    os.close(end)
    said, until = "", time.monotonic() + 100
    while "rows  [" not in said and time.monotonic() < until:
        said += os.read(terminal, 4096).decode()
    assert re.search(r"rows {2}\[[#-]+\] +\d+%", said), said
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    while True:
        try:
            said += (more := os.read(terminal, 4096).decode())
        except OSError:  # the other end is closed
            break
        if not more:
            break
    os.close(terminal)
    assert (process.returncode, out) == (1, "")
    assert said.rstrip().endswith("Aborted!")
    assert "Traceback" not in said
