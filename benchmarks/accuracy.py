"""How exact the losses are: ``python benchmarks/accuracy.py``.

Every kernel, dtype and build is compared with mpmath at 50 digits on the same inputs: dense around 0,
logarithmic out to where the dtype ends, and the extremes. For each loss and dtype a Markdown table on stdout
shows the largest error of value and gradient among all builds, in units in the last place (ULP), with the
build and the input at which it occurred.

An error is counted in ULP of the exact result. Where the definition adds terms of two signs, so that a result
near 0 is all rounding of y or raw, it is counted in ULP of the largest of the terms and the result: the table
says "of terms".
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from mpmath import mpf

from sklloss import kernels, losses

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from definitions import SEPARABLE, SOFTMAX, Exact, ulps

DEEPEST = {np.float32: 103.0, np.float64: 745.0}
EXTREMES = (0.0, 1e-300, 36.7, 37.0, 88.0, 103.0, 709.0, 745.0, 1e3, 1e20)


def scores(dtype, n, rng):
    """Raw scores of both signs, dense where losses bend, out to the dtype's end."""
    deepest = np.log(DEEPEST[dtype])
    info = np.finfo(dtype)
    parts = [
        np.linspace(-4, 4, n // 3),
        rng.uniform(-1, 1, n // 3) * DEEPEST[dtype],
        np.exp(rng.uniform(-40, deepest, n // 6)),
        -np.exp(rng.uniform(-40, deepest, n // 6)),
        [s * x for x in (*EXTREMES, info.max, info.tiny, info.smallest_subnormal) for s in (1, -1)],
    ]
    with np.errstate(over="ignore"):
        z = np.concatenate(parts).astype(dtype)
    return z[np.isfinite(z)]


# Targets of n scores, for each kind.
HARD = lambda dtype, n, rng: rng.integers(0, 2, n).astype(dtype)  # noqa: E731
SOFT = lambda dtype, n, rng: rng.random(n).astype(dtype)  # noqa: E731
VALUES = lambda dtype, n, rng: rng.normal(size=n).astype(dtype)  # noqa: E731
COUNTS = lambda dtype, n, rng: rng.poisson(3.0, n).astype(dtype)  # noqa: E731
AMOUNTS = lambda dtype, n, rng: rng.gamma(1.0, 1.0, n).astype(dtype) + np.finfo(dtype).tiny  # noqa: E731
CLAIMS = lambda dtype, n, rng: (rng.gamma(1.0, 1.0, n) * rng.integers(0, 2, n)).astype(dtype)  # noqa: E731

# Label, loss over single outputs, targets.
CASES = [
    ("LogLoss, hard y", losses.LogLoss(), HARD),
    ("LogLoss, soft y", losses.LogLoss(), SOFT),
    ("Focal(2), hard y", losses.Focal(2), HARD),
    ("Focal(2), soft y", losses.Focal(2), SOFT),
    ("Focal(0.5), hard y", losses.Focal(0.5), HARD),
    ("SquaredHinge", losses.SquaredHinge(), HARD),
    ("HalfSquaredError", losses.HalfSquaredError(), VALUES),
    ("MeanSquaredError", losses.MeanSquaredError(), VALUES),
    ("AbsoluteError", losses.AbsoluteError(), VALUES),
    ("Huber(1.35)", losses.Huber(1.35), VALUES),
    ("Quantile(0.9)", losses.Quantile(0.9), VALUES),
    ("LogCosh", losses.LogCosh(), VALUES),
    ("Poisson", losses.Poisson(), COUNTS),
    ("Gamma", losses.Gamma(), AMOUNTS),
    ("Tweedie(1.5)", losses.Tweedie(1.5), CLAIMS),
]
# Label, loss over classes.
SOFTMAX_CASES = [
    ("CrossEntropy", losses.CrossEntropy()),
    ("Focal(2)", losses.SoftmaxFocal(2)),
    ("GeneralizedCrossEntropy(0.7)", losses.GeneralizedCrossEntropy(0.7)),
]


def exact_separable(loss, y, z):
    """Exact values and gradients, and the sizes that errors are relative to at least."""
    y, z = [mpf(v) for v in y.tolist()], [mpf(v) for v in z.tolist()]
    if loss.target == "values" and loss.inverse_link_name is None:  # a function of the difference
        y, z = [mpf(0)] * len(z), [b - a for a, b in zip(y, z, strict=True)]
    found = zip(*(SEPARABLE[loss.name](loss, a, b) for a, b in zip(y, z, strict=True)), strict=True)
    values, gradients, least_value, least_gradient = found
    return Exact(values), Exact(gradients), np.array(least_value, float), np.array(least_gradient, float)


def exact_softmax(loss, codes, z):
    """Exact values, and exact gradients of all rows one after the other."""
    shares = [[mpf(int(code == k)) for k in range(z.shape[1])] for code in codes]
    rows = [[mpf(x) for x in row] for row in z.tolist()]
    found = [SOFTMAX[loss.kernel](loss, y, row) for y, row in zip(shares, rows, strict=True)]
    return Exact([value for value, _, _ in found]), Exact([x for _, row, _ in found for x in row])


def worst(errors, place):
    """The largest of the errors of all builds, as text; ``place`` says where the i-th error occurred."""
    build = max(errors, key=lambda build: errors[build].max())
    at = int(np.argmax(errors[build]))
    return f"{errors[build][at]:.2f} ({build}, {place(at)})"


def separable(label, loss, target, dtype, n):
    """The row of the table for a loss over single outputs."""
    rng = np.random.default_rng(0)
    z = scores(dtype, n, rng)
    y = target(dtype, len(z), rng)
    value, gradient, least_value, least_gradient = exact_separable(loss, y, z)
    of_value, of_gradient = {}, {}
    for build in kernels.available():
        kernel = kernels.table_of(build)[loss.kernel, np.dtype(dtype).name]
        each, slopes = np.empty(len(z), dtype), z[:, None].copy()
        kernels.evaluate(kernel, slopes, y[:, None].copy(), parameter=loss.kernel_parameter, per_sample=each)
        of_value[build] = ulps(each, value, least_value)
        of_gradient[build] = ulps(slopes[:, 0], gradient, least_gradient)
    if _exceeds(least_gradient, gradient):
        label += " (of terms)" if _exceeds(least_value, value) else " (gradient of terms)"

    def place(i):
        return f"y = {y[i]:.9g}, raw = {z[i]:.9g}"

    return label, np.dtype(dtype).name, worst(of_value, place), worst(of_gradient, place)


def _exceeds(least, exact):
    """Whether errors are relative to something larger than the results, beyond rounding."""
    return bool((least * (1 - 1e-9) > np.abs(exact.high)).any())


def softmax_rows(K, dtype, rng):
    """Rows of scores, multiples of 1/64 so that their differences are exact: mild, steep, tied, adverse."""
    n = max(2, min(200, 6000 // K))
    z = np.round(rng.normal(0, rng.uniform(0.3, 20, (n, 1)), (n, K)) * 64) / 64
    z[0] = -5.0  # equal terms round alike: the worst case of a plain sum
    z[0, K // 2] = 0.0
    z[1] = 0.25
    return z.astype(dtype)


def softmax(label, loss, dtype, sizes):
    """The rows of the table for a loss over classes, one for each number of classes."""
    rng = np.random.default_rng(0)
    for K in sizes:
        z = softmax_rows(K, dtype, rng)
        codes = rng.integers(0, K, len(z)).astype(np.intp)
        codes[::2] = z[::2].argmax(axis=1)
        value, gradient = exact_softmax(loss, codes, z)
        of_value, of_gradient = {}, {}
        for build in kernels.available():
            kernel = kernels.table_of(build)[loss.kernel, np.dtype(dtype).name]
            each, slopes = np.empty(len(z), dtype), z.copy()
            kernels.evaluate(kernel, slopes, None, codes, parameter=loss.kernel_parameter, per_sample=each)
            of_value[build] = ulps(each, value)
            of_gradient[build] = ulps(slopes.ravel(), gradient).reshape(z.shape).max(axis=1)
        places = [worst(errors, "row {}".format) for errors in (of_value, of_gradient)]
        yield f"{label}, K = {K}", np.dtype(dtype).name, *places


def rows(n, sizes, only=""):
    """The rows of the table, for losses whose label contains a text."""
    for dtype in (np.float32, np.float64):
        for label, loss, target in CASES:
            if only in label:
                yield separable(label, loss, target, dtype, n)
        for label, loss in SOFTMAX_CASES:
            if only in label:
                yield from softmax(label, loss, dtype, sizes)


def main(arguments=None):
    """Print the table for what the command line asks."""
    parser = argparse.ArgumentParser(prog="benchmarks/accuracy.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--points", type=int, default=20_000, help="scores per loss (default: 20000)")
    parser.add_argument(
        "--classes", type=int, nargs="*", default=[2, 10, 100, 1000], help="sizes of the softmax"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="losses whose label contains this")
    options = parser.parse_args(arguments)
    header = ("loss", "dtype", "largest error of the value, ULP", "of the gradient, ULP")
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|", flush=True)
    for row in rows(options.points, options.classes, options.only):
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
