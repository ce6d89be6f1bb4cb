"""Threads without an OpenMP runtime: a kept pool of Python threads over code that releases the GIL.

Two rules keep results the same bits for any number of threads: work is cut into pieces by its shape
alone, and BLAS runs on one thread, so that parallelism comes from the pieces.
"""

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import threadpoolctl

_lock = threading.Lock()
_pools = {}
_blas = {"libraries": None, "before": [], "users": 0}


def _after_fork():
    # A forked child has none of the parent's threads: its pools would wait for ever, and a fit under way
    # in the parent will not end here.
    global _lock
    _lock = threading.Lock()
    _pools.clear()
    if _blas["users"]:
        _blas["users"] = 0
        _lift_limit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def count(n_threads=None):
    """The number of threads to use.

    Parameters
    ----------
    n_threads : int or None
        None takes what OMP_NUM_THREADS allows, else the CPUs that this process may use (its affinity
        and its container's share). A negative number counts back from there: -1 is all of them.

    Raises
    ------
    TypeError, ValueError
        If it is not a whole number, or 0.
    """
    if n_threads is not None:
        if isinstance(n_threads, bool) or not hasattr(n_threads, "__index__"):
            raise TypeError(f"n_threads must be an integer or None, got {n_threads!r}")
        if n_threads == 0:
            raise ValueError("n_threads must not be 0")
        if n_threads > 0:
            return int(n_threads)
    allowed = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    available = int(allowed) if allowed.isdigit() and int(allowed) > 0 else joblib.cpu_count()
    return max(1, available + 1 + int(n_threads)) if n_threads is not None else available


@contextlib.contextmanager
def single_threaded_blas():
    """Hold BLAS to one thread within the block: every library that was loaded at the first such block.

    The limit is the process's, so blocks that overlap in several threads share it: the first sets it
    and the last one lifts it.
    """
    with _lock:
        if _blas["users"] == 0:
            _limit()
        _blas["users"] += 1
    try:
        yield
    finally:
        with _lock:
            _blas["users"] -= 1
            if _blas["users"] == 0:
                _lift_limit()


def _limit():
    if _blas["libraries"] is None:
        controllers = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
        # threadpoolctl >= 3.7 lets one thread of the process control OpenBLAS, for as long as that thread
        # lives. Here any thread may come first and any may leave last, so the library is called itself.
        _blas["libraries"] = [
            (library, getattr(library, "_real_set_num_threads", library.set_num_threads))
            for library in controllers
        ]
    _blas["before"] = [library.num_threads for library, _ in _blas["libraries"]]
    for _, set_threads in _blas["libraries"]:
        set_threads(1)


def _lift_limit():
    for (_, set_threads), number in zip(_blas["libraries"], _blas["before"]):
        set_threads(number)


def share(work, pieces, n_threads):
    """Call ``work(first, last)`` over [0, pieces), cut into one range per thread.

    ``work`` must release the GIL and write only what belongs to its pieces. Returns the list of results
    in order. With one range it runs in the caller's thread and touches no pool.
    """
    ranges = min(n_threads, pieces)
    if ranges <= 1:
        return [work(0, pieces)]
    cuts = [pieces * k // ranges for k in range(ranges + 1)]
    pool = _pool(ranges - 1)
    futures = [pool.submit(work, cuts[k], cuts[k + 1]) for k in range(1, ranges)]
    try:
        results = [work(cuts[0], cuts[1])]
    finally:
        # The others write into the caller's arrays: never leave while they run.
        done = [future.exception() for future in futures]
    for error in done:
        if error is not None:
            raise error
    return results + [future.result() for future in futures]


def _pool(workers):
    with _lock:
        if workers not in _pools:
            _pools[workers] = ThreadPoolExecutor(workers, thread_name_prefix="sklloss")
        return _pools[workers]
