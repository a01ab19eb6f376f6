"""Floating-point arrays (n, d) in files, a row a sample, read in blocks: of .npy, .npz, .safetensors, .pt and .pth.

Nothing is unpickled, and no file is held in memory: each block maps it anew, so that the pages that were read are given
back. An .npz is read from its beginning to its end, unpacked on the way.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniformity_callbacks.integrations.terminal import line
from uniformity_callbacks.names import nearest

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_SAFE = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_LISTED = 8
"""Arrays of a file that an error lists."""

Blocks = Callable[[int], Iterator[Tensor]]
"""Size -> the rows, so many at a time."""


class ArrayError(ValueError):
    """What is wrong with a file or with the array in it; one line for the user."""


@dataclass(frozen=True)
class Array:
    """An array in a file, of any kind.

    Attributes:
        name: in its file; empty where that has one array without a name.
        shape: of the whole.
        dtype: as NumPy or torch calls it.
        read: its rows.
        path: of the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Blocks
    path: Path = Path()

    def __str__(self) -> str:
        return f"{self.path}:{self.name}" if self.name else str(self.path)

    @property
    def is_rows(self) -> bool:
        """Whether it is embeddings, a row a sample."""
        return self.dtype in _FLOATS and len(self.shape) == 2 and self.shape[1] > 0

    def blocks(self, size: int) -> Iterator[Tensor]:
        """Return the rows, ``size`` at a time and the rest; one block without rows if there are none.

        Raises:
            ArrayError: they cannot be read.
        """
        if self.shape[0] == 0:
            yield torch.empty(self.shape, dtype=getattr(torch, self.dtype))
            return
        with _told(self.path):
            yield from self.read(size)


def find(text: str) -> Array:
    """Return the array that is meant by ``FILE`` or ``FILE:name``.

    Raises:
        ArrayError: the file cannot be read, or it is not clear which array is meant, or that is not (n, d).
    """
    path, name = Path(text), ""
    if not path.exists() and (named := re.fullmatch(rf"(.+?\.(?:{'|'.join(_OPEN)})):(.+)", text, re.I | re.S)):
        path, name = Path(named[1]), named[2]
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _OPEN:
        known = ", ".join(f".{known}" for known in _OPEN)
        raise ArrayError(f"{path} must end in one of {known}, got {path.suffix!r}; save it as one of these")
    with _told(path):
        path.open("rb").close()  # one error for all kinds where it is not there
        arrays = [replace(array, path=path) for array in _OPEN[kind](path)]
    return _meant(path, arrays, name)


def _meant(path: Path, arrays: list[Array], name: str) -> Array:
    if name:
        found = [array for array in arrays if array.name == name]
        if not found:
            known = [array.name for array in arrays if array.name]
            if not known:
                raise ArrayError(f"{path} has one array, which has no name, got {name!r}; give {path} alone")
            raise ArrayError(f"{path} has no array {name!r}; {line(nearest(name, known))}")
        _check(found[0])
        return found[0]
    rows = [array for array in arrays if array.is_rows]
    if len(rows) == 1:
        return rows[0]
    if len(arrays) == 1:
        _check(arrays[0])
    told = ", ".join(f"{array.name} {array.shape} {array.dtype}" for array in (rows or arrays)[:_LISTED])
    told += ", ..." if len(rows or arrays) > _LISTED else ""
    if rows:
        raise ArrayError(f"{path} has {len(rows)} arrays (n, d): {told}; name one, e.g. {path}:{rows[0].name}")
    raise ArrayError(f"{path} must have a floating-point array (n, d), got {told or 'none'}; save one row a sample")


def _check(array: Array) -> None:
    """Raise unless an array is embeddings."""
    shape = array.shape
    if array.dtype not in _FLOATS:
        expected = f"{', '.join(_FLOATS[:-1])} or {_FLOATS[-1]}"
        raise ArrayError(f"{array} must be {expected}, got {array.dtype}; convert it, e.g. z.astype('float32')")
    if len(shape) < 2:
        raise ArrayError(f"{array} must be (n, d), got {shape}; one row a sample, e.g. z.reshape(-1, d)")
    if len(shape) > 2:
        if all(size == 1 for size in shape[2:]):
            mend = f"z.reshape({shape[0]}, {shape[1]})"
        else:
            mend = f"z.reshape({shape[0]}, -1), or z.mean(1) where axis 1 is tokens"
        raise ArrayError(f"{array} must be (n, d), got {shape}; one row a sample, e.g. {mend}")
    if shape[1] == 0:
        raise ArrayError(f"{array} must be (n, d) with d >= 1, got {shape}; there is nothing to measure")


def _npy(path: Path) -> Iterator[Array]:
    whole = np.lib.format.open_memmap(path, mode="r")

    def blocks(size: int) -> Iterator[Tensor]:
        for at in range(0, whole_shape[0], size):
            yield _tensor(np.lib.format.open_memmap(path, mode="r")[at : at + size])

    whole_shape = whole.shape
    yield Array("", whole_shape, whole.dtype.name, blocks)


def _npz(path: Path) -> Iterator[Array]:
    def array(member: str) -> Array:
        name = member.removesuffix(".npy")
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            shape, by_columns, dtype = _header(stream)

        def blocks(size: int) -> Iterator[Tensor]:
            if by_columns:  # a row is all over it
                with np.load(path, allow_pickle=False) as arrays:
                    whole = arrays[name]
                for at in range(0, shape[0], size):
                    yield _tensor(whole[at : at + size])
                return
            with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
                _header(stream)
                for at in range(0, shape[0], size):
                    rows = (min(size, shape[0] - at), *shape[1:])
                    # Shorter than said: numpy tells it when the block is shaped.
                    data = stream.read(int(np.prod(rows)) * dtype.itemsize)
                    yield _tensor(np.frombuffer(data, dtype=dtype).reshape(rows))

        return Array(name, shape, dtype.name, blocks)

    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.namelist() if member.endswith(".npy")]
    yield from map(array, members)


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    # A later version is for names of fields beyond latin-1, which numbers do not have.
    first = version == (1, 0)
    found = np.lib.format.read_array_header_1_0(stream) if first else np.lib.format.read_array_header_2_0(stream)
    shape, by_columns, dtype = found
    return tuple(shape), bool(by_columns), dtype


def _safetensors(path: Path) -> Iterator[Array]:
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ArrayError(f"{path} needs safetensors; pip install 'uniformity-callbacks[safetensors]'") from error

    def array(name: str, part: Any) -> Array:
        def blocks(size: int) -> Iterator[Tensor]:
            for at in range(0, shape[0], size):
                with safe_open(path, framework="pt") as file:
                    yield file.get_slice(name)[at : at + size].clone()

        shape, dtype = tuple(part.get_shape()), part.get_dtype()
        return Array(name, shape, _SAFE.get(dtype, dtype), blocks)

    with safe_open(path, framework="pt") as file:
        yield from [array(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118 - no mapping


def _pt(path: Path) -> Iterator[Array]:
    def array(name: str, tensor: Tensor) -> Array:
        def blocks(size: int) -> Iterator[Tensor]:
            for at in range(0, shape[0], size):
                yield _saved(path)[name].detach()[at : at + size].clone()

        shape, kind = tuple(tensor.shape), "" if tensor.layout is torch.strided else f"{tensor.layout} "
        return Array(name, shape, kind + str(tensor.dtype).removeprefix("torch."), blocks)

    yield from [array(name, tensor) for name, tensor in _saved(path).items()]


def _saved(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, mapped into memory; one that stands alone has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is wrong with a file is an error here
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if isinstance(held, Tensor):
        return {"": held}
    if not isinstance(held, Mapping):
        got = type(held).__name__
        raise ArrayError(f"{path} must hold a tensor or a dict of tensors, got a {got}; torch.save one of these")
    return {str(name): tensor for name, tensor in held.items() if isinstance(tensor, Tensor)}


_OPEN: dict[str, Callable[[Path], Iterator[Array]]] = {
    "npy": _npy,
    "npz": _npz,
    "safetensors": _safetensors,
    "pt": _pt,
    "pth": _pt,
}
"""Suffix -> what lists the arrays of a file."""

_MENDS = {
    "npy": "write it with numpy.save(path, z), z a floating-point array (n, d)",
    "npz": "write it with numpy.savez(path, z=z), z a floating-point array (n, d)",
    "safetensors": "write it with safetensors.torch.save_file({'z': z}, path)",
    "pt": "write it with torch.save(z, path), z a tensor or a dict of tensors",
}


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell in one line whatever a format's library raises for a file."""
    kind = path.suffix.lower().removeprefix(".")
    mend = _MENDS["pt" if kind == "pth" else kind]
    try:
        yield
    except ArrayError:
        raise
    except pickle.UnpicklingError as error:
        # torch's own words are a page, and advise to run what is in the file.
        what = "must hold nothing but tensors, got other objects or no such file at all, which is not unpickled"
        raise ArrayError(f"{path} {what}; {mend}") from error
    except OSError as error:
        what = error.strerror or line(str(error))
        raise ArrayError(f"{path} cannot be read: {what}; give a file that is there and can be read") from error
    except Exception as error:
        what = line(f"{type(error).__name__}: {error}")
        raise ArrayError(f"{path} must be a whole .{kind}, got one that cannot be read ({what}); {mend}") from error


def _tensor(block: Any) -> Tensor:
    """Return a copy of a block as a tensor, in the machine's order of bytes."""
    return torch.from_numpy(np.array(block, dtype=block.dtype.newbyteorder("="), order="C"))
