"""Ranks: real processes in a gloo group, forked, so that a test can say what they do in a function of its own."""

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


def spread(size, work, *args, timeout=WATCHDOG_S):
    """Return what ``work(rank, *args)`` returns on each of ``size`` ranks; fails if one does, or hangs."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_rank, args=(rank, size, f"{folder}/store", results, timeout, work, args))
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        got, until = {}, time.monotonic() + timeout + 5
        with contextlib.suppress(queue.Empty):
            while len(got) < size:
                rank, result, error = results.get(timeout=max(0.1, until - time.monotonic()))
                assert error is None, f"rank {rank}: {error}"
                got[rank] = pickle.loads(result)
        for process in processes:
            process.join(5)
            process.kill()
    assert len(got) == size, f"ranks {sorted(set(range(size)) - set(got))} hung; their stacks are above"
    return [got[rank] for rank in range(size)]


def _rank(rank, size, store, results, timeout, work, args):
    faulthandler.dump_traceback_later(timeout, exit=True)
    torch.set_num_threads(1)  # threads of the parent's pool do not live here
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
    os._exit(0)  # nothing that the parent would do at its end
