"""Ranks: real processes in a gloo group, forked from a server that has imported what they need and computed nothing.

Forked from pytest itself they hang now and then: in a lock that a thread of the parent's held.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import queue
import tempfile
import time
import traceback

import torch
import torch.distributed as dist

WATCHDOG_S = 60.0
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pytest", "torch.distributed", "uniformity_callbacks", "lightning.pytorch"])


def spread(size, work, *args, timeout=WATCHDOG_S):
    """Return what ``work(rank, *args)`` returns on each of ``size`` ranks; fails if one does, or hangs.

    ``work`` is a function of a test module; it and its arguments are pickled.
    """
    results = _CONTEXT.Queue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            _CONTEXT.Process(target=_rank, args=(rank, size, f"{folder}/store", results, timeout, work, args))
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        got, until = {}, time.monotonic() + timeout + 15
        try:
            with contextlib.suppress(queue.Empty):
                while len(got) < size:
                    rank, result, error = results.get(timeout=max(0.1, until - time.monotonic()))
                    assert error is None, f"rank {rank}: {error}"
                    got[rank] = pickle.loads(result)
        finally:
            for process in processes:
                process.join(5 if len(got) == size else 0.2)
                process.kill()
    assert len(got) == size, f"ranks {sorted(set(range(size)) - set(got))} hung; their stacks are above"
    return [got[rank] for rank in range(size)]


def _rank(rank, size, store, results, timeout, work, args):
    faulthandler.dump_traceback_later(timeout, exit=True)
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": str(size)}
    result = error = None
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
        torch.manual_seed(0)
        result = work(rank, *args)
        dist.barrier()
    except BaseException:
        error = traceback.format_exc()
    # Pickled here: the queue would pass tensors as files that end with this process.
    results.put((rank, pickle.dumps(result), error))
    results.close()
    results.join_thread()
    os._exit(0)  # a rank that waits for another for ever must not keep this one
