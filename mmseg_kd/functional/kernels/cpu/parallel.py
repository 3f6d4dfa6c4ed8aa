"""Work shared between as many threads as torch uses, with a result that does not depend on their number."""
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Callable

import torch

__all__ = ['in_parallel']


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    # A forked child has the parent's pool without its threads; the process number makes it one of its own.
    return ThreadPoolExecutor(threads, thread_name_prefix='mmseg_kd')


def in_parallel(work: Callable[[int, int], None], pieces: int) -> None:
    """Call ``work(first, last)`` until 0 .. pieces - 1 are done; it releases the GIL and writes to its pieces alone."""
    threads = min(torch.get_num_threads(), pieces)
    if threads <= 1:
        work(0, pieces)
        return
    # More shares than threads: a busy core takes fewer.
    shares = min(pieces, 4 * threads)
    bounds = [pieces * share // shares for share in range(shares + 1)]
    pool = _pool(os.getpid(), threads)
    for future in [pool.submit(work, *pair) for pair in zip(bounds[:-1], bounds[1:], strict=True)]:
        future.result()
