"""Embeddings in files of every format, and the command that measures them."""

import inspect

import numpy as np
import torch
from click.testing import CliRunner

from uniformity_callbacks.integrations.command import main

FORMATS = ("npy", "npy by columns", "npz", "npz by columns", "safetensors", "pt", "pt of several", "pth strided")


def write(folder, form, z):
    """Write a tensor (n, d) and return what names it on the command line."""
    kind = form.split()[0]
    path = folder / f"z.{kind}"
    if kind == "npy":
        np.save(path, np.asarray(z.numpy(), order="F" if "columns" in form else "C"))
    elif kind == "npz":
        whole = np.asarray(z.numpy(), order="F" if "columns" in form else "C")
        (np.savez_compressed if "columns" in form else np.savez)(path, labels=np.arange(len(z)), z=whole)
        return path  # the only one that can be meant
    elif kind == "safetensors":
        from safetensors.torch import save_file

        save_file({"z": z.contiguous(), "other": z[:3].clone()}, path)
        return f"{path}:z"
    elif form == "pt":
        torch.save(z.requires_grad_(), path)
    elif form == "pt of several":
        torch.save({"epoch": 3, "z": z, "other": z[:3].clone()}, path)
        return f"{path}:z"
    else:
        torch.save(torch.cat([z, z], dim=1)[:, : z.shape[1]], path)
    return path


def invoke(*arguments, code=0):
    """Run ``uniformity measure`` in this process and return what it said, after seeing how it ended."""
    apart = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}  # click 8.1
    result = CliRunner(**apart).invoke(main, ["measure", *map(str, arguments)])
    assert result.exit_code == code, result.stdout + result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result
