"""Gradients and Hessian products over a grid of shapes, each against two NumPy products of the same shapes.

Every cell of the table's shapes is printed, and the worst cell of the grid for each dtype and order of X.
"""

import itertools
import multiprocessing
import time

import machine
import measure

SHAPES = ((1077, 65, 10), (20_000, 17, 26), (60_000, 784, 10), (300_000, 20, 1))
GRID = tuple(
    (n, p, outputs)
    for n in (100, 3000, 100_000, 1_000_000)
    for p in (1, 3, 17, 65, 300, 2000)
    for outputs in (1, 2, 10, 100, 1000)
    if n * p <= 3e7 and n * outputs <= 1e7 and n * p * outputs <= 1e9
)
DTYPES = ("float64", "float32")


def run(session):
    cells = [(shape, *rest) for rest in itertools.product(DTYPES, "C", (1, 2)) for shape in SHAPES]
    if not session.quick:
        cells += [(shape, *rest) for rest in itertools.product(DTYPES, "CF", (1, 2)) for shape in GRID]
    worst = {}
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # no library of this process's takes part
        for cell, seconds in zip(cells, pool.imap(_seconds, cells), strict=True):
            shape, dtype, order, threads = cell
            two, gradient, product = seconds
            text = (
                f"{'x'.join(map(str, shape))} {dtype} {order} {threads} thread(s): two products "
                f"{1e3 * two:.3f} ms, gradient {two / gradient:.2f}x, Hessian product {two / product:.2f}x"
                f"{_share(session, cell, product)}"
            )
            if shape in SHAPES and order == "C":
                session.note(text)
            else:
                session.say(text)
                key = (dtype, order, threads)
                if key not in worst or two / product < worst[key][0]:
                    worst[key] = (two / product, text)
    for _, text in worst.values():
        session.note(f"worst of the grid: {text}")


def _share(session, cell, seconds):
    """The share that a Hessian product reaches of what the machine allows, if that is known."""
    if session.limits is None:
        return ""
    (n, p, outputs), dtype, _, threads = cell
    least = machine.Work(
        4.0 * n * p * outputs, n * p * (8 if dtype == "float64" else 4), dtype, threads=threads
    )
    return f", {session.limits.seconds(least) / seconds:.0%} of the limit"


def _seconds(cell):
    """Median seconds of two NumPy products, a gradient and a Hessian product, in turns."""
    import numpy as np
    import threadpoolctl

    from sklloss import losses
    from sklloss.data.dataset import Dataset
    from sklloss.objectives.numpy_passes import NumPyPasses

    (n, p, outputs), dtype, order, threads = cell
    rng = np.random.default_rng(0)
    X = np.asarray(rng.standard_normal((n, p), dtype=np.float32), dtype=dtype, order=order)
    w = rng.standard_normal((outputs, p + 1)) / np.sqrt(p)
    coef, slopes = np.ascontiguousarray(w[:, :p], dtype=dtype), np.full((n, outputs), 0.5, dtype=dtype)
    codes = rng.integers(0, max(outputs, 2), n)
    if outputs == 1:
        data, loss = Dataset(X, codes.astype(dtype)[:, None], None, None, 1), losses.LogLoss()
    else:
        data, loss = Dataset(X, None, codes.astype(np.intp), None, outputs), losses.CrossEntropy()
    passes = NumPyPasses(data, loss, fit_intercept=True, n_threads=threads)
    work = (
        (lambda: (X @ coef.T, slopes.T @ X), threads),
        (lambda: passes.value_and_gradient(w, keep_curvature=True), 1),
        (lambda: passes.product(w), 1),
    )
    controller = threadpoolctl.ThreadpoolController()
    found = [[] for _ in work]
    for _ in range(4):
        for (function, blas), times in zip(work, found, strict=True):
            with controller.limit(limits=blas):
                times.append(_time(function))
    return [measure.median(times[1:]) for times in found]  # the first turn warms up


def _time(function, least=0.004):
    """Seconds of one call, of as many as take ``least`` seconds."""
    calls, passed, begin = 0, 0.0, time.perf_counter()
    while passed < least:
        function()
        calls += 1
        passed = time.perf_counter() - begin
    return passed / calls
