"""Threads without an OpenMP runtime: a few persistent Python threads over code that releases the GIL.

Two rules keep results the same bits for any number of threads: work is cut into pieces by its shape
alone, and BLAS runs on one thread, so that parallelism comes from the pieces.

A KeyboardInterrupt may strike between any two steps of the main thread, and a user at a notebook expects
the next fit to work. So everything shared here is a primitive that C updates as a whole (a lock,
SimpleQueue), and a release that an interrupt cut short is done again. ThreadPoolExecutor cannot promise that:
an interrupt in the middle of ``submit`` may leave its semaphore locked for good.
"""

import _thread
import contextlib
import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import joblib
import threadpoolctl

_lock = threading.Lock()
_workers: dict[str, Any] = {"count": 0, "jobs": queue.SimpleQueue()}
_blas: dict[str, Any] = {"libraries": None, "before": None, "users": set()}


def _after_fork() -> None:
    # A forked child has none of the parent's threads: their queue would be nobody's, and a fit under way
    # in the parent will not end here.
    global _lock
    _lock = threading.Lock()
    _workers.update(count=0, jobs=queue.SimpleQueue())
    _blas["users"].clear()
    _lift_limit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def count(n_threads: int | None = None) -> int:
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
    n_threads = check(n_threads)
    if n_threads is not None and n_threads > 0:
        return int(n_threads)
    allowed = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    available = int(allowed) if allowed.isdigit() and int(allowed) > 0 else joblib.cpu_count()
    return max(1, available + 1 + int(n_threads)) if n_threads is not None else available


def check(n_threads: int | None) -> int | None:
    """What was given, if `count` takes it; to count the CPUs costs more than a small fit should pay."""
    if n_threads is not None:
        if isinstance(n_threads, bool) or not hasattr(n_threads, "__index__"):
            raise TypeError(f"n_threads must be an integer or None, got {n_threads!r}")
        if n_threads == 0:
            raise ValueError("n_threads must not be 0")
    return n_threads


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold BLAS to one thread within the block: every library that was loaded at the first such block.

    The limit is the process's, so blocks that overlap in several threads share it: the first sets it
    and the last one lifts it.
    """
    user = object()
    try:
        with _lock:
            _blas["users"].add(user)
            if _blas["before"] is None:
                _limit()
        yield
    finally:
        interrupt = None
        while True:
            try:
                with _lock:
                    _blas["users"].discard(user)
                    if not _blas["users"]:
                        _lift_limit()
                break
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt


def _limit() -> None:
    if _blas["libraries"] is None:
        controllers = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
        # threadpoolctl >= 3.7 lets only one thread of the process control OpenBLAS, for as long as that
        # thread lives. Here any thread may enter first and any may leave last, so the library's own function
        # is called, for which there is no public name. A test notices when the private one changes.
        _blas["libraries"] = [
            (library, getattr(library, "_real_set_num_threads", library.set_num_threads))
            for library in controllers
        ]
    _blas["before"] = [library.num_threads for library, _ in _blas["libraries"]]
    for _, set_threads in _blas["libraries"]:
        set_threads(1)


def _lift_limit() -> None:
    if _blas["before"] is not None:
        for (_, set_threads), number in zip(_blas["libraries"], _blas["before"]):
            set_threads(number)
        _blas["before"] = None


def share(work: Callable[[int, int], Any], pieces: int, n_threads: int | None) -> list[Any]:
    """Call ``work(first, last)`` over [0, pieces), cut into one range per thread.

    ``work`` must release the GIL and write only what belongs to its pieces. Returns the list of results
    in order. With one range it runs in the caller's thread and touches no pool. ``n_threads`` is as for
    `count`.
    """
    if pieces <= 1:
        return [work(0, pieces)]
    ranges = min(count(n_threads), pieces)
    if ranges <= 1:
        return [work(0, pieces)]
    boundaries = [pieces * k // ranges for k in range(ranges + 1)]
    _hire(ranges - 1)
    jobs = [_Job(work, first, last) for first, last in itertools.pairwise(boundaries)]
    interrupt = None
    try:
        for job in jobs[1:]:
            _workers["jobs"].put(job)
        for job in jobs:
            job.run("caller")
    finally:
        # The workers write into the caller's arrays: never leave while they run.
        while True:
            try:
                for job in jobs:
                    job.end()
                break
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
    for job in jobs:
        if job.error is not None:
            raise job.error
    return [job.result for job in jobs]


class _Job:
    """One range of pieces, run by whoever claims it first: a worker, or the caller that shares its work."""

    __slots__ = ("_claim", "_ended", "_range", "_work", "error", "result")

    def __init__(self, work: Callable[[int, int], Any], first: int, last: int) -> None:
        self._work, self._range = work, (first, last)
        self._claim: dict[str, str] = {}
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self, me: str) -> None:
        if self._claim.setdefault("by", me) == me:
            try:
                self.result = self._work(*self._range)
            except BaseException as error:
                self.error = error
            if me == "worker":
                self._ended.release()

    def end(self) -> None:
        """Wait for it, if a worker has begun it; from now on none will."""
        if self._claim.setdefault("by", "nobody") == "worker":
            with self._ended:
                pass


def _hire(workers: int) -> None:
    with _lock:
        while _workers["count"] < workers:
            try:
                _thread.start_new_thread(_serve, (_workers["jobs"],))
            except RuntimeError:  # the system has no more threads to give: the caller does it all
                break
            _workers["count"] += 1


def _serve(jobs: "queue.SimpleQueue[_Job]") -> None:
    while True:
        jobs.get().run("worker")
