"""Threads without an OpenMP runtime: a few persistent Python threads over code that releases the GIL.

Results have the same bits for any number of threads, because work is split into pieces by its shape alone,
and because BLAS runs on one thread, so that all parallelism comes from the pieces.

A KeyboardInterrupt may occur between any two bytecodes of the main thread, and the next fit must work all the
same. Shared state is therefore changed only by operations that are atomic in C (of locks, SimpleQueue, dict),
and a release that an interrupt may have prevented is repeated. ThreadPoolExecutor does not guarantee this: an
interrupt during ``submit`` may leave its semaphore locked forever.
"""

import _thread
import contextlib
import contextvars
import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib
import threadpoolctl

from sklloss.kernels.common import Event

# How long a thread stays awake for the next job, or for the end of one. To fall asleep and wake up takes as
# long as a pass over X of a small problem, and passes follow each other at shorter intervals than this.
AWAKE_SECONDS = 1e-4
# How long the caller takes from posting jobs to its own work without the GIL. A worker that asked for the GIL
# before would fall asleep.
POSTING_SECONDS = 8e-6

_side_by_side = threading.local()
_lock = threading.Lock()
_workers: dict[str, Any] = {"count": 0, "jobs": queue.SimpleQueue(), "posted": Event()}
_blas: dict[str, Any] = {"libraries": None, "before": None, "users": set()}


def _after_fork() -> None:
    # A forked child has none of the parent's threads: nobody would serve their queue, and a fit that was
    # running in the parent never ends in the child.
    global _lock
    _lock = threading.Lock()
    _workers.update(count=0, jobs=queue.SimpleQueue(), posted=Event())
    _blas["users"].clear()
    _lift_limit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def count(n_threads: int | None = None) -> int:
    """The number of threads to use.

    Parameters
    ----------
    n_threads : int or None
        None is OMP_NUM_THREADS if that is set, else the number of CPUs that this process may use, given its
        affinity and the limits of its container. Negative numbers count back from that: -1 is all of them.
        A task of `side_by_side` has one thread, whatever it asks for.

    Raises
    ------
    TypeError, ValueError
        If it is not an integer, or 0.
    """
    n_threads = check(n_threads)
    if _is_side_by_side():
        return 1
    if n_threads is not None and n_threads > 0:
        return int(n_threads)
    allowed = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    available = int(allowed) if allowed.isdigit() and int(allowed) > 0 else joblib.cpu_count()
    return max(1, available + 1 + int(n_threads)) if n_threads is not None else available


def check(n_threads: int | None) -> int | None:
    """Raise for a value that `count` does not take; counting the CPUs would cost too much in a small fit."""
    if n_threads is not None:
        if isinstance(n_threads, bool) or not hasattr(n_threads, "__index__"):
            raise TypeError(f"n_threads must be an integer or None, got {n_threads!r}")
        if n_threads == 0:
            raise ValueError("n_threads must not be 0")
    return n_threads


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[None]:
    """A context that limits BLAS to one thread, for all libraries that were loaded when it was first used.

    The limit applies to the process, so contexts that overlap in several threads share it: the first one sets
    it and the last one lifts it.
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
        # From threadpoolctl 3.7 on, only one thread of the process may control OpenBLAS for as long as that
        # thread lives. Here any thread may enter first and any other leave last, so the library's own
        # function is called, which has no public name. A test notices if the private one changes.
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
    """Call ``work(first, last)`` on [0, pieces), split into one range per thread.

    Parameters
    ----------
    work : callable
        It must release the GIL and write only what belongs to its pieces.
    pieces : int
    n_threads : int or None
        See `count`. With a single range, no other thread is involved.

    Returns
    -------
    list
        The results, in order.
    """
    if pieces <= 1:
        return [work(0, pieces)]
    ranges = min(count(n_threads), pieces)
    if ranges <= 1:
        return [work(0, pieces)]
    boundaries = [pieces * k // ranges for k in range(ranges + 1)]
    _start_workers(ranges - 1)
    jobs = [_Job(work, first, last) for first, last in itertools.pairwise(boundaries)]
    interrupt = None
    try:
        for job in jobs[1:]:
            _workers["jobs"].put(job)
        _workers["posted"].happen()
        for job in jobs:
            job.run("caller")
    finally:
        # The workers write to the caller's arrays: do not return while they run.
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
    """One range of pieces, run by whichever claims it first: a worker or the caller."""

    __slots__ = ("_claim", "_ended", "_range", "_work", "done", "error", "result")

    def __init__(self, work: Callable[[int, int], Any], first: int, last: int) -> None:
        self._work, self._range = work, (first, last)
        self._claim: dict[str, str] = {}
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        self.done = Event()
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
        """Wait for the worker that has begun it, if any, and prevent others from beginning it."""
        if self._claim.setdefault("by", "nobody") == "worker":
            self.done.soon(0, AWAKE_SECONDS)
            with self._ended:
                pass


def _start_workers(workers: int) -> None:
    with _lock:
        while _workers["count"] < workers:
            try:
                _thread.start_new_thread(_serve, (_workers["jobs"], _workers["posted"]))
            except RuntimeError:  # the system allows no more threads: the caller runs the remaining jobs
                break
            _workers["count"] += 1


def _serve(jobs: "queue.SimpleQueue[_Job]", posted: Event) -> None:
    while True:
        job: _Job | None = jobs.get()
        while job is not None:
            job.run("worker")
            count = posted.count()
            job = _next_job(jobs, job.done) or (
                _next_job(jobs) if posted.soon(count, AWAKE_SECONDS, job.done, POSTING_SECONDS) else None
            )


def _next_job(jobs: "queue.SimpleQueue[_Job]", done: Event | None = None) -> "_Job | None":
    """A job that waits, if any; then the one that ended before it is ``done``."""
    try:
        job = jobs.get_nowait()
    except queue.Empty:
        return None
    if done is not None:
        done.happen()
    return job


class _Halt:
    """Whether the tasks of `side_by_side` end: none is begun any more, or those that run stop too."""

    def __init__(self) -> None:
        self.begun = False
        self.interrupted = False


def _is_side_by_side() -> bool:
    return getattr(_side_by_side, "halt", None) is not None


def check_interrupt() -> None:
    """Raise KeyboardInterrupt in a task of `side_by_side` if another one was interrupted.

    Only the main thread is told of Ctrl-C. Loops that run long in Python call this.
    """
    halt = getattr(_side_by_side, "halt", None)
    if halt is not None and halt.interrupted:
        raise KeyboardInterrupt


def side_by_side(tasks: Sequence[Callable[[], None]], n_threads: int | None) -> None:
    """Run tasks, each of them on one of a few threads: a thread that is done takes the next.

    Parameters
    ----------
    tasks : sequence of callable
        They spend their time in code that releases the GIL.
    n_threads : int or None
        See `count`.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, once all threads have stopped.
    BaseException
        What the first task of the sequence that failed has raised. None is begun after an error.
    """
    halt, numbers = _Halt(), iter(range(len(tasks)))
    errors: list[BaseException | None] = [None] * len(tasks)

    def work() -> None:
        _side_by_side.halt = halt
        try:
            for k in numbers:
                if halt.begun:
                    break
                try:
                    tasks[k]()
                except BaseException as error:
                    errors[k] = error
                    halt.begun = True
                    halt.interrupted |= isinstance(error, KeyboardInterrupt)
        finally:
            _side_by_side.halt = None

    workers, interrupt = [], None
    for _ in range(min(count(n_threads), len(tasks)) - 1):
        worker = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
        try:
            worker.start()
        except RuntimeError:  # the system allows no more threads
            break
        workers.append(worker)
    try:
        work()
    except KeyboardInterrupt as error:
        halt.begun = halt.interrupted = True
        interrupt = error
    while any(worker.is_alive() for worker in workers):
        try:
            for worker in workers:
                worker.join()
        except KeyboardInterrupt as error:
            halt.begun = halt.interrupted = True
            interrupt = error
    failed = [error for error in errors if error is not None]
    if interrupt is None and halt.interrupted:
        interrupt = next(error for error in failed if isinstance(error, KeyboardInterrupt))
    if interrupt is not None:
        raise interrupt
    if failed:
        raise failed[0]
