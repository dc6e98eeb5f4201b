"""Threads for compiled kernels that release the interpreter's lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

_pools: dict[int, ThreadPoolExecutor] = {}
# Threads do not survive a fork, the objects that stand for them do: a forked data loader must start its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)


def in_parallel(count: int, grain: int, work: Callable[[int, int], Any]) -> None:
    """Run ``work(start, stop)`` over ``[0, count)`` in pieces of at least ``grain``, on torch's number of threads."""
    threads = torch.get_num_threads()
    piece = max(grain, -(-count // (8 * threads)))
    starts = range(0, count, piece)
    if threads == 1 or len(starts) == 1:
        work(0, count)
        return
    pool = _pools.setdefault(threads, ThreadPoolExecutor(threads, "ddf_tomo"))
    for future in [pool.submit(work, start, min(start + piece, count)) for start in starts]:
        future.result()
