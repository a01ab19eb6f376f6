"""How a thread of ours computes, and how it is made to end."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

import torch


def compute_alone() -> None:
    """Have torch compute on the calling thread alone, from now on; nothing changes for any other thread.

    A thread whose operations run in parallel gets workers of its own. With those of the training thread they are more
    than there are processors, and from then on OpenMP puts all of them to sleep between any two operations: a training
    on two cores had its small operations take eight times as long for the rest of its life (measured), for a reading
    every minute. ``torch.set_num_threads`` is no way out: threads that start later, such as a loader's, take it over.
    """
    torch.get_num_threads()  # sets what a new thread has by itself, which would undo ours when it computes first
    for library, name in _SETTERS:
        try:
            getattr(ctypes.CDLL(library), name)(1)
        except (OSError, AttributeError):  # a torch that is built otherwise, without OpenMP or MKL
            continue


def interrupt(thread: threading.Thread, timeout: float) -> bool:
    """Raise SystemExit on a thread, which ends it between two operations; return whether it ended within ``timeout`` s.

    A daemon thread that is amid torch's operations when the interpreter ends aborts the process (SIGABRT, "terminate
    called without an active exception", instead of the exit code): up to Python 3.13 a thread that asks for the
    interpreter then is unwound, which torch's code does not allow. One that waits in C, for a server say, is safe.
    """
    if thread.ident is not None and thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
        thread.join(timeout)
    return not thread.is_alive()


_TORCH = str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")
_SETTERS = ((_TORCH, "omp_set_num_threads"), (_TORCH, "MKL_Set_Num_Threads_Local"))
"""Both are of the calling thread alone."""
