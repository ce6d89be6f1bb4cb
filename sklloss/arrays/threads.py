"""How many threads there are, what they share, and BLAS on one thread.

Results have the same bits for any number of threads, because work is split into pieces by its shape alone,
and because BLAS runs on one thread, so that all parallelism comes from the pieces. Passes over X share chunks
of rows by ``sklloss.kernels.sharing``, without OpenMP and without the GIL; `share` is for calls from Python.

A KeyboardInterrupt may occur between any two bytecodes of the main thread, and the next fit must work all the
same. Shared state is therefore changed in compiled code, or a change that an interrupt may have prevented is
repeated.
"""

import contextlib
import contextvars
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib
import threadpoolctl

import sklloss.kernels.sharing as sharing

_task = threading.local()  # of `side_by_side`, if this thread runs one: its ``cancellation``
_lock = threading.Lock()
_blas: dict[str, Any] = {"libraries": None, "before": None, "users": set()}


def _after_fork() -> None:
    # A forked child has none of the parent's threads, and a fit that was running in the parent never ends in
    # the child.
    global _lock
    _lock = threading.Lock()
    sharing.reset()
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
    return sharing.call_each(work, list(itertools.pairwise(boundaries)))


class _Cancellation:
    """Whether the tasks of `side_by_side` are cancelled: ``requested``, no further task begins.

    ``interrupted``, those that run end too.
    """

    def __init__(self) -> None:
        self.requested = False
        self.interrupted = False


def _is_side_by_side() -> bool:
    return getattr(_task, "cancellation", None) is not None


def check_interrupt() -> None:
    """Raise KeyboardInterrupt in a task of `side_by_side` if another one was interrupted.

    Only the main thread is told of Ctrl-C. Loops that run long in Python call this.
    """
    cancellation = getattr(_task, "cancellation", None)
    if cancellation is not None and cancellation.interrupted:
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
    cancellation, numbers = _Cancellation(), iter(range(len(tasks)))
    errors: list[BaseException | None] = [None] * len(tasks)

    def work() -> None:
        before = getattr(_task, "cancellation", None)
        _task.cancellation = cancellation
        try:
            for k in numbers:
                if cancellation.requested:
                    break
                try:
                    tasks[k]()
                except BaseException as error:
                    errors[k] = error
                    cancellation.requested = True
                    if isinstance(error, KeyboardInterrupt):
                        cancellation.interrupted = True
        finally:
            _task.cancellation = before

    interrupt = None
    workers = [
        threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
        for _ in range(min(count(n_threads), len(tasks)) - 1)
    ]
    try:
        for worker in workers:
            with contextlib.suppress(RuntimeError):  # if the system allows no more threads
                worker.start()
        work()
    except KeyboardInterrupt as error:
        cancellation.requested = cancellation.interrupted = True
        interrupt = error
    while any(worker.is_alive() for worker in workers):
        try:
            for worker in workers:
                if worker.is_alive():
                    worker.join()
        except KeyboardInterrupt as error:
            cancellation.requested = cancellation.interrupted = True
            interrupt = error
    failed = [error for error in errors if error is not None]
    if interrupt is None and cancellation.interrupted:
        interrupt = next(error for error in failed if isinstance(error, KeyboardInterrupt))
    if interrupt is not None:
        raise interrupt
    if failed:
        raise failed[0]
