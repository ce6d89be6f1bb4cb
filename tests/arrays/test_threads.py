"""Threads: the same bits for any number, nothing left behind, safe with fork and with other fits."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse
import threadpoolctl
from helpers import run

from sklloss import LogisticClassifier, SoftmaxClassifier
from sklloss.arrays import threads
from sklloss.objectives.numpy_passes import SMALL_WORK

SOLVERS = ["newton-cholesky", "newton-cg", "lbfgs", "sgd", "adam"]


def large(K, dtype=np.float64):
    """Enough work for several chunks."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40_001, 61 if K == 2 else 21)).astype(dtype)
    y = (X[:, :1] @ np.linspace(-1, 1, K)[None] + rng.gumbel(size=(len(X), K))).argmax(axis=1)
    assert X.size * (1 if K == 2 else K) > SMALL_WORK
    return X, y


@pytest.fixture(scope="module", params=[np.float64, np.float32], ids=["float64", "float32"])
def problems(request):
    return {K: large(K, request.param) for K in (2, 3)}


def blas_threads():
    return [(lib["filepath"], lib["num_threads"]) for lib in threadpoolctl.threadpool_info()]


# The same bits -----------------------------------------------------------------------------------------


LAYOUTS = {"by rows": np.ascontiguousarray, "by columns": np.asfortranarray, "CSR": scipy.sparse.csr_array}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("K", [2, 3])
def test_any_number_of_threads_gives_the_same_bits(problems, K, layout, solver):
    X, y = problems[K]
    X = LAYOUTS[layout](X)
    estimator = LogisticClassifier if K == 2 else SoftmaxClassifier
    weight = np.random.default_rng(1).uniform(size=len(y))
    fits = [estimator(solver=solver, n_threads=n, random_state=0).fit(X, y, weight) for n in (1, 2, 7)]
    for model in fits[1:]:
        np.testing.assert_array_equal(model.coef_, fits[0].coef_)
        np.testing.assert_array_equal(model.intercept_, fits[0].intercept_)
        assert model.loss_curve_ == fits[0].loss_curve_


def test_the_bits_do_not_depend_on_how_many_threads_blas_has(problems):
    X, y = problems[2]
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        one = LogisticClassifier(n_threads=2).fit(X, y)
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        two = LogisticClassifier(n_threads=2).fit(X, y)
    np.testing.assert_array_equal(one.coef_, two.coef_)


def test_fits_in_several_threads_at_once_are_each_right(problems):
    X, y = problems[3]
    Cs = [1e-4, 1e-3, 1e-2, 1e-1]

    def fit(C):
        return SoftmaxClassifier(C=C, n_threads=2).fit(X, y).coef_

    alone = [fit(C) for C in Cs]
    before = blas_threads()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fit, Cs))
    for one, other in zip(alone, together):
        np.testing.assert_array_equal(one, other)
    assert blas_threads() == before


# BLAS --------------------------------------------------------------------------------------------------


def test_blas_has_its_threads_back_after_a_fit_and_after_an_error(rng):
    X, y = rng.normal(size=(50, 3)), np.arange(50) % 2
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        LogisticClassifier().fit(X, y)
        assert blas_threads() == before
        with pytest.raises(ValueError, match="y contains NaN"):
            LogisticClassifier().fit(X, np.full(50, np.nan))
        assert blas_threads() == before


@pytest.mark.parametrize("main_fits_first", [False, True])
@pytest.mark.parametrize("first_out", ["main", "other"])
def test_blas_is_held_to_one_thread_until_the_last_of_overlapping_blocks_ends(first_out, main_fits_first):
    # In a process of its own: threadpoolctl lets the first thread that asks control OpenBLAS, and no other.
    out = run(
        f"""
    import threading
    import numpy as np
    import scipy.linalg
    import threadpoolctl
    from sklloss.arrays import threads
    def limits():
        return {{lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"}}
    if {main_fits_first}:
        with threads.single_threaded_blas():
            assert limits() == {{1}}, limits()
    assert limits() == {{2}}, limits()
    inside, leave, left, end = (threading.Event() for _ in range(4))
    def hold():
        with threads.single_threaded_blas():
            inside.set()
            leave.wait(60)
        left.set()
        end.wait(60)  # like a thread of a pool
    threading.Thread(target=hold, daemon=True).start()
    assert inside.wait(60)
    assert limits() == {{1}}, limits()
    with threads.single_threaded_blas():
        assert limits() == {{1}}, limits()
        if {first_out == "other"}:
            leave.set()
            assert left.wait(60)
            assert limits() == {{1}}, limits()
    if {first_out == "main"}:
        assert limits() == {{1}}, limits()
        leave.set()
        assert left.wait(60)
    assert limits() == {{2}}, limits()
    print("restored")
    """,
        OPENBLAS_NUM_THREADS="2",
    )
    assert out == "restored\n"


# Sharing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [0, 1, 2, 5, 16])
@pytest.mark.parametrize("n_threads", [1, 2, 3, 40])
def test_every_piece_is_worked_on_once_and_results_keep_their_order(pieces, n_threads):
    seen = []

    def work(first, last):
        seen.extend(range(first, last))
        return first, last

    results = threads.share(work, pieces, n_threads)
    assert sorted(seen) == list(range(pieces))
    assert results == sorted(results)
    assert len(results) <= max(1, min(pieces, n_threads))


def test_one_piece_stays_in_the_callers_thread():
    assert threads.share(lambda first, last: threading.get_ident(), 1, 8) == [threading.get_ident()]


@pytest.mark.parametrize("failing", [0, 3])
def test_an_error_in_any_thread_comes_out_after_all_that_began_have_ended(failing):
    begun, ended = [], []

    def work(first, last):
        begun.append(first)
        if first <= failing < last:
            raise ZeroDivisionError(first)
        ended.append(first)

    with pytest.raises(ZeroDivisionError):
        threads.share(work, 4, 4)
    assert sorted(begun) == sorted([*ended, failing])
    assert len(threads.share(lambda first, last: first, 4, 4)) == 4


def test_the_caller_does_what_no_worker_is_free_for():
    out = run(
        """
    import _thread, threading
    def refuse(*arguments):
        raise RuntimeError("can't start new thread")
    _thread.start_new_thread = refuse
    from sklloss.arrays import threads
    me = threading.get_ident()
    done = threads.share(lambda first, last: (first, threading.get_ident()), 3, 3)
    assert done == [(k, me) for k in range(3)]
    print("done")
    """
    )
    assert out == "done\n"


def test_the_first_range_is_the_callers_own():
    for _ in range(50):
        assert threads.share(lambda first, last: threading.get_ident(), 5, 5)[0] == threading.get_ident()


def test_work_shared_from_within_shared_work_ends():
    def outer(first, last):
        return sum(threads.share(lambda first, last: last - first, 10, 3))

    assert threads.share(outer, 3, 3) == [10, 10, 10]


def test_work_shared_at_many_levels_at_once_ends():
    def deep(level):
        return 1 if level == 0 else sum(threads.share(lambda first, last: deep(level - 1), 2, 2))

    # more levels than there are places for work that is shared at a time
    assert deep(6) == 2**6
    nested = [0]

    def chain(first, last):
        nested[0] += first == 0
        return first if first or nested[0] > 40 else threads.share(chain, 2, 2)

    threads.share(chain, 2, 2)
    assert nested[0] == 41


def test_many_threads_that_share_work_at_once_each_get_their_own():
    def one(k):
        for _ in range(20):
            assert threads.share(lambda first, last: (k, first), 3, 3) == [(k, 0), (k, 1), (k, 2)]
        return k

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(one, range(48))) == list(range(48))


def test_of_several_errors_the_first_in_order_comes_out():
    def work(first, last):
        raise ValueError(first)

    for _ in range(20):
        with pytest.raises(ValueError, match="^0$"):
            threads.share(work, 4, 4)


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["awake", "asleep"])
def test_a_process_ends_with_many_threads(pause):
    out = run(
        f"""
    import time
    from sklloss.arrays import threads
    assert threads.share(lambda first, last: first, 64, 64) == list(range(64))
    time.sleep({pause})
    print("done")
    """
    )
    assert out == "done\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_child_forked_from_a_worker_and_its_children_share_work():
    out = run(
        """
    import os, sys
    from sklloss.arrays import threads
    def fork(depth):
        child = os.fork()
        if child == 0:
            try:
                assert threads.share(lambda first, last: first, 4, 4) == [0, 1, 2, 3]
                if depth:
                    threads.share(lambda first, last: fork(depth - 1) if first == 0 else None, 2, 2)
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    threads.share(lambda first, last: fork(2), 3, 3)
    print("done")
    """
    )
    assert out == "done\n"


# How many ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_workers_may_use_the_cpus_of_the_thread_that_wakes_them():
    run(
        """
    import os
    import time
    from sklloss.arrays import threads
    def masks():
        return {frozenset(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")}
    before = masks()
    def work(first, last):
        return last - first
    def share():
        for _ in range(30):
            assert sum(threads.share(work, 8, 4)) == 8
            time.sleep(0.003)  # workers fall asleep
    def settle(expected):
        # a worker that has just been woken takes back what it may use as soon as it runs
        for _ in range(1000):
            if masks() <= expected:
                return
            time.sleep(0.01)
        raise AssertionError((masks(), expected))
    share()
    settle(before)
    one = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {one})
    share()
    settle({*before, frozenset({one})})
    """,
        OPENBLAS_NUM_THREADS="1",
    )


def test_the_number_of_threads_follows_the_argument_then_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads.count() == 3
    assert threads.count(5) == 5
    assert threads.count(np.int64(2)) == 2
    assert threads.count(-1) == 3
    assert threads.count(-2) == 2
    assert threads.count(-100) == 1
    for unusable in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", unusable)
        assert threads.count() >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert threads.count() == 4
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= threads.count() <= os.cpu_count()


@pytest.mark.parametrize("solver", ["newton-cholesky", "newton-cg"])
def test_a_fit_counts_the_cpus_once(problems, solver, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    counts = []
    monkeypatch.setattr(threads.joblib, "cpu_count", lambda: counts.append(2) or 2)
    SoftmaxClassifier(solver=solver).fit(*problems[3])
    assert len(counts) == 1


@pytest.mark.parametrize(
    ("bad", "error"), [(0, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)]
)
def test_invalid_numbers_of_threads_are_errors(bad, error):
    with pytest.raises(error, match="n_threads"):
        threads.count(bad)


# Fork --------------------------------------------------------------------------------------------------


PROBLEM = """
    import multiprocessing, os, threading
    import numpy as np
    from sklloss import LogisticClassifier
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40_000, 60))
    y = X[:, 0] + rng.normal(size=len(X)) > 0
    def fit():
        return LogisticClassifier(n_threads=2).fit(X, y).coef_
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_of_a_threaded_parent_fits():
    out = run(
        PROBLEM
        + """
    expected = fit()
    def child():
        assert np.array_equal(fit(), expected)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=child) for _ in range(2)]
    for process in children:
        process.start()
    for process in children:
        process.join(60)
        assert process.exitcode == 0, process.exitcode
    assert np.array_equal(fit(), expected)
    print("fitted")
    """
    )
    assert out == "fitted\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_child_forked_in_the_middle_of_a_fit_fits_and_has_blas_to_itself():
    out = run(
        PROBLEM
        + """
    import threadpoolctl
    from sklloss.arrays import threads
    inside, leave = threading.Event(), threading.Event()
    def hold():
        with threads.single_threaded_blas():
            fit()
            inside.set()
            leave.wait(60)
    threading.Thread(target=hold, daemon=True).start()
    assert inside.wait(60)
    def child():
        fit()
        limits = {lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"}
        assert limits == {2}, limits
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    code = process.exitcode
    if code is None:
        process.kill()
    assert code == 0, code
    print("fitted")
    """,
        OPENBLAS_NUM_THREADS="2",
    )
    assert out == "fitted\n"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_an_interrupt_in_the_middle_of_threaded_work_gives_everything_back():
    out = run(
        """
    import signal
    import numpy as np
    import threadpoolctl
    from sklloss import LogisticClassifier
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60_000, 60))
    y = X[:, 0] + rng.normal(size=len(X)) > 0
    model = LogisticClassifier(n_threads=2).fit(X, y)
    before = {name: np.copy(value) for name, value in vars(model).items()}
    limits = [lib["num_threads"] for lib in threadpoolctl.threadpool_info()]
    interrupts = 0
    for delay in np.linspace(0.001, 0.05, 25):
        signal.setitimer(signal.ITIMER_REAL, delay)
        try:
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            for _ in range(1000):
                LogisticClassifier(n_threads=2, tol=1e-12).fit(X, y)
        except KeyboardInterrupt:
            interrupts += 1
        now = [lib["num_threads"] for lib in threadpoolctl.threadpool_info()]
        assert now == limits, (delay, now, limits)
    assert interrupts == 25
    again = LogisticClassifier(n_threads=2).fit(X, y)
    assert np.array_equal(again.coef_, before["coef_"])
    print("done")
    """
    )
    assert out == "done\n"


def test_threadpoolctl_still_has_the_private_function_that_blas_is_held_by():
    """From 3.7 on, its public one controls OpenBLAS from a single thread of the process alone."""
    version = tuple(int(part) for part in threadpoolctl.__version__.split(".")[:2])
    private = getattr(threadpoolctl.OpenBLASController, "_real_set_num_threads", None)
    assert callable(private) or version < (3, 7)
