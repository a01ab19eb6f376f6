"""Files that are not what they should be: a line each, and nothing in them is run."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from embedded import invoke, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from uniformity_callbacks.integrations.arrays import ArrayError, find

Z = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))


def refused(path):
    """Return the one line that is said of a file."""
    said = invoke(path, code=2)
    assert (said.stdout, said.stderr.count("\n")) == ("", 1)
    assert said.stderr.startswith("Error: ")
    assert str(path) in said.stderr
    assert len(said.stderr) < 600
    return said.stderr


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["npy", "bare npy", "npz", "pt", "pth", "bare pt", "pt of several"])
def test_nothing_is_unpickled(tmp_path, kind):
    bomb, path = Bomb(tmp_path / "ran"), tmp_path / f"z.{kind.removeprefix('bare ').split()[0]}"
    held = np.array([bomb, bomb], dtype=object)
    if kind == "npy":
        np.save(path, held, allow_pickle=True)
    elif kind == "npz":
        np.savez(path, z=held)
    elif kind.startswith("bare"):
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save({"z": Z, "bomb": bomb} if "several" in kind else bomb, path)
    said = refused(path)
    assert "write it with" in said or "must have a floating-point array" in said or "convert it" in said
    assert not (tmp_path / "ran").exists()
    if kind == "npy":
        np.load(path, allow_pickle=True)
        assert (tmp_path / "ran").exists(), "it would run"
    elif kind.startswith("pt"):
        torch.load(path, weights_only=False)
        assert (tmp_path / "ran").exists(), "it would run"


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        (
            "z.npy",
            np.arange(12).reshape(6, 2),
            "must be float16, bfloat16, float32 or float64, got int64; convert it",
        ),
        ("z.npy", np.zeros((6, 2), complex), "got complex128; convert it, e.g. z.astype('float32')"),
        ("z.npy", np.zeros((6, 2), bool), "got bool; convert it"),
        ("z.npy", np.zeros(6), "must be (n, d), got (6,); one row a sample, e.g. z.reshape(-1, d)"),
        ("z.npy", np.zeros(()), "must be (n, d), got ()"),
        ("z.npy", np.zeros((6, 3, 1, 1)), "must be (n, d), got (6, 3, 1, 1); one row a sample, e.g. z.reshape(6, 3)"),
        ("z.npy", np.zeros((6, 3, 5)), "e.g. z.reshape(6, -1), or z.mean(1) where axis 1 is tokens"),
        ("z.npy", np.zeros((6, 0)), "must be (n, d) with d >= 1, got (6, 0); there is nothing to measure"),
        ("z.npz", {}, "z.npz must have a floating-point array (n, d), got none; save one row a sample"),
        ("z.npz", {"a": np.zeros(3), "b": np.zeros((3, 2), int)}, "got a (3,) float64, b (3, 2) int64; save one row"),
        ("z.npz", {"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}, "has 2 arrays (n, d): a (3, 2) float64, b (4, 2) "),
        ("z.npz", {"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}, "; name one, e.g. "),
        ("z.npz", {f"a{k}": np.zeros((3, 2)) for k in range(30)}, "a7 (3, 2) float64, ...; name one"),
        ("z.pt", [Z], "z.pt must hold a tensor or a dict of tensors, got a list; torch.save one of these"),
        ("z.pt", {"epoch": 3}, "z.pt must have a floating-point array (n, d), got none"),
        ("z.pt", Z.to_sparse(), "got torch.sparse_coo float32; convert it"),
        ("z.pt", {"a": Z, "b": Z}, "z.pt has 2 arrays (n, d): a (64, 8) float32, b (64, 8) float32; name one"),
        ("z.txt", None, "must end in one of .npy, .npz, .safetensors, .pt, .pth, got '.txt'; save it as one of these"),
        ("z.npy", None, "z.npy cannot be read: No such file or directory; give a file that is there"),
        ("folder.npy", "folder", "folder.npy cannot be read: Is a directory"),
        ("folder.pt", "folder", "folder.pt cannot be read: Is a directory"),
        ("z.npy", b"", "z.npy must be a whole .npy, got one that cannot be read ("),
        ("z.npz", b"PK\x03\x04 and no more", "must be a whole .npz, got one that cannot be read (BadZipFile: "),
        ("z.safetensors", b"no header", "must be a whole .safetensors, got one that cannot be read ("),
        ("z.pt", b"no archive", "write it with torch.save(z, path), z a tensor or a dict of tensors"),
        ("z.pth", b"", "z.pth"),
    ],
)
def test_what_a_file_must_have(tmp_path, name, array, words):
    path = tmp_path / name
    if isinstance(array, bytes):
        path.write_bytes(array)
    elif isinstance(array, str):
        path.mkdir()
    elif isinstance(array, dict) and name.endswith("z"):
        np.savez(path, **array)
    elif isinstance(array, np.ndarray):
        np.save(path, array)
    elif array is not None:
        torch.save(array, path)
    assert words in refused(path)


def test_the_wrong_suffix(tmp_path):
    np.save(tmp_path / "z.npy", Z.numpy())
    for kind in ("npz", "safetensors", "pt"):
        (tmp_path / f"z.{kind}").write_bytes((tmp_path / "z.npy").read_bytes())
        assert "write it with" in refused(tmp_path / f"z.{kind}")
    torch.save(Z, tmp_path / "z.npy")
    assert "must be a whole .npy" in refused(tmp_path / "z.npy")


@pytest.mark.parametrize("form", ["npy", "npz", "safetensors", "pt"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_a_file_cut_off(tmp_path, form, share):
    path = Path(str(write(tmp_path, form, Z.clone())).removesuffix(":z"))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(path)


def test_an_archive_whose_array_is_shorter_than_it_says(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 8)})
    with zipfile.ZipFile(tmp_path / "z.npz", "w") as archive:
        archive.writestr("z.npy", stream.getvalue() + Z.numpy().tobytes())
    assert "cannot be read (ValueError: cannot reshape" in refused(tmp_path / "z.npz")


def test_an_archive_that_is_corrupt_in_the_middle(tmp_path):
    np.savez(tmp_path / "z.npz", z=Z.numpy())
    data = bytearray((tmp_path / "z.npz").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "z.npz").write_bytes(data)
    assert "BadZipFile: Bad CRC-32 for file 'z.npy'" in refused(tmp_path / "z.npz")


def test_the_old_format_of_torch(tmp_path):
    torch.save(Z, tmp_path / "z.pt", _use_new_zipfile_serialization=False)
    assert "write it with torch.save(z, path)" in refused(tmp_path / "z.pt")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a", None),
        ("b", "b must be (n, d), got (3,)"),
        ("aa", "has no array 'aa'; did you mean a?"),
        ("zzz", "has no array 'zzz'; known are a, b"),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "safetensors", "pt"])
def test_an_array_by_its_name(tmp_path, kind, name, words):
    path, held = tmp_path / f"z.{kind}", {"a": Z.clone(), "b": torch.zeros(3)}
    if kind == "npz":
        np.savez(path, **{key: value.numpy() for key, value in held.items()})
    else:
        save_file(held, path) if kind == "safetensors" else torch.save(held, path)
    if words is None:
        assert f"{path}:a: 64 rows of 8 dimensions, float32" in invoke(f"{path}:{name}").stdout
    else:
        assert words in invoke(f"{path}:{name}", code=2).stderr


def test_a_name_for_an_array_that_has_none(tmp_path):
    np.save(tmp_path / "z.npy", Z.numpy())
    said = invoke(f"{tmp_path / 'z.npy'}:a", code=2).stderr
    assert "has one array, which has no name, got 'a'; give " in said


def test_names_with_colons_and_odd_letters(tmp_path):
    np.save(tmp_path / "a.npy:b.npy", Z.numpy())
    assert "a.npy:b.npy: 64 rows" in invoke(tmp_path / "a.npy:b.npy").stdout
    odd = os.fsencode(tmp_path) + b"/\xff.NPY"
    (tmp_path / "a.npy:b.npy").rename(os.fsdecode(odd))
    assert "/?.NPY: 64 rows" in invoke(os.fsdecode(odd)).stdout
    assert "/?.npy cannot be read" in invoke(os.fsdecode(odd.replace(b"NPY", b"npy")), code=2).stderr


def test_safetensors_that_is_not_installed(tmp_path, monkeypatch):
    path = write(tmp_path, "safetensors", Z)
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    said = invoke(path, code=2).stderr
    assert said.endswith("z.safetensors needs safetensors; pip install 'uniformity-callbacks[safetensors]'\n")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    forms = ("npy", "npz", "safetensors", "pt of several")
    paths = {form: Path(str(write(folder, form, Z.clone())).removesuffix(":z")) for form in forms}
    return {form: (path.suffix, path.read_bytes()) for form, path in paths.items()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("form", ["npy", "npz", "safetensors", "pt of several"])
@given(data=st.data())
def test_changed_bytes_are_read_or_told(tmp_path, whole, form, data):
    suffix, content = whole[form]
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1) | st.integers(0, min(200, len(changed) - 1)))
        changed[at] = data.draw(st.integers(0, 255))
    path = tmp_path / f"z{suffix}"
    path.write_bytes(changed[: data.draw(st.just(len(changed)) | st.integers(0, len(changed)))])
    try:
        for block in find(str(path)).blocks(20):
            assert block.ndim == 2
    except ArrayError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either will do
