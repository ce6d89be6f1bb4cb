"""How exact the losses are: ``python benchmarks/accuracy.py``.

Every kernel, dtype and build against mpmath at 50 digits, on the same inputs: dense around 0, logarithmic
out to where the dtype ends, and the extremes. For each kernel and dtype the largest error of value and
gradient of all builds, in units in the last place (ULP), is printed with the build and the input where it was
met, as a Markdown table on stdout.

An error is counted in ULP of the exact result. Where the definition adds terms of two signs, so that a result
near 0 is all rounding of y or raw, it is counted in ULP of the largest of the terms and the result: the table
says "of terms".
"""

import argparse
import sys

import mpmath
import numpy as np

from sklloss import kernels

mpmath.mp.dps = 50
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


# Exact formulas: y, raw, parameter -> value, gradient, and the sizes that their errors are counted in -----


def _sigmoids(z):
    e = mpmath.exp(-abs(z))
    small, large = e / (1 + e), 1 / (1 + e)
    return (large, small, -mpmath.log1p(e), -z - mpmath.log1p(e)) if z >= 0 else (
        small, large, z - mpmath.log1p(e), -mpmath.log1p(e)
    )  # fmt: skip


def _log_loss(y, z, _):
    p, q, log_p, log_q = _sigmoids(z)
    value = -(y * log_p if y else 0) - ((1 - y) * log_q if y != 1 else 0)
    gradient = (1 - y) * p - y * q
    return value, gradient, value, gradient if y in (0, 1) else max(p, y)


def _focal(y, z, gamma):
    p, q, log_p, log_q = _sigmoids(z)
    gamma = mpmath.mpf(gamma)
    one = -(q**gamma) * log_p
    zero = -(p**gamma) * log_q
    down = q**gamma * (gamma * p * log_p - q)
    up = p**gamma * (p - gamma * q * log_q)
    value = (y * one if y else 0) + ((1 - y) * zero if y != 1 else 0)
    gradient = y * down + (1 - y) * up
    return value, gradient, value, gradient if y in (0, 1) else max(-y * down, (1 - y) * up)


def _squared(y, z, factor):
    d = z - y
    return factor * d * d, 2 * factor * d, factor * d * d, 2 * factor * d


def _absolute(y, z, _):
    d = z - y
    return abs(d), mpmath.sign(d), abs(d), 1


def _huber(y, z, delta):
    d, delta = z - y, mpmath.mpf(delta)
    value = d * d / 2 if abs(d) <= delta else delta * (abs(d) - delta / 2)
    gradient = max(-delta, min(delta, d))
    return value, gradient, value, gradient


def _quantile(y, z, q):
    # both slopes as the dtype holds them
    d, below, above = z - y, *map(mpmath.mpf, q)
    slope = (above if d > 0 else -below) if d else mpmath.mpf(0)
    return slope * d, slope, slope * d, slope


def _log_cosh(y, z, _):
    d = abs(z - y)
    # from exp(-2d) far out, where cosh itself is beyond any number
    value = mpmath.log(mpmath.cosh(d)) if d < 1000 else d - mpmath.log(2)
    gradient = mpmath.sign(z - y) * (mpmath.tanh(d) if d < 1000 else 1)
    return value, gradient, value, gradient


def _poisson(y, z, _):
    mu = mpmath.exp(z)
    return mu - y * z, mu - y, max(mu, abs(y * z), abs(mu - y * z)), max(mu, y, abs(mu - y))


def _gamma(y, z, _):
    ratio = y * mpmath.exp(-z)
    return z + ratio, 1 - ratio, max(abs(z), ratio, abs(z + ratio)), max(ratio, 1, abs(1 - ratio))


HARD = lambda dtype, n, rng: rng.integers(0, 2, n).astype(dtype)  # noqa: E731
SOFT = lambda dtype, n, rng: rng.random(n).astype(dtype)  # noqa: E731
VALUES = lambda dtype, n, rng: rng.normal(size=n).astype(dtype)  # noqa: E731
COUNTS = lambda dtype, n, rng: rng.poisson(3.0, n).astype(dtype)  # noqa: E731
AMOUNTS = lambda dtype, n, rng: rng.gamma(1.0, 1.0, n).astype(dtype) + np.finfo(dtype).tiny  # noqa: E731

# loss, kernel, parameter, target, exact formula, whether the definition subtracts terms
CASES = [
    ("LogLoss, hard y", "log_loss", 0.0, HARD, _log_loss, ""),
    ("LogLoss, soft y", "log_loss", 0.0, SOFT, _log_loss, "gradient"),
    ("Focal(2), hard y", "focal", 2.0, HARD, _focal, ""),
    ("Focal(2), soft y", "focal", 2.0, SOFT, _focal, "gradient"),
    ("Focal(0.5), hard y", "focal", 0.5, HARD, _focal, ""),
    ("HalfSquaredError", "squared_error", 0.5, VALUES, _squared, ""),
    ("MeanSquaredError", "squared_error", 1.0, VALUES, _squared, ""),
    ("AbsoluteError", "absolute_error", 0.0, VALUES, _absolute, ""),
    ("Huber(1.35)", "huber", 1.35, VALUES, _huber, ""),
    ("Quantile(0.9)", "quantile", 0.9, VALUES, _quantile, ""),
    ("LogCosh", "log_cosh", 0.0, VALUES, _log_cosh, ""),
    ("Poisson", "poisson", 0.0, COUNTS, _poisson, "both"),
    ("Gamma", "gamma", 0.0, AMOUNTS, _gamma, "both"),
]


def ulps(got, exact, size, dtype):
    """The error of one number in ULP of size; None where the exact result is beyond the dtype."""
    largest = mpmath.mpf(float(np.finfo(dtype).max))
    if abs(exact) > largest:
        return 0.0 if np.isinf(got) or abs(got) == np.finfo(dtype).max else float("inf")
    if not np.isfinite(got):
        # rounds to infinity within half a unit of the largest number
        return 0.0 if abs(exact) > largest * (1 - mpmath.mpf(2) ** -24) else float("inf")
    size = dtype(min(abs(size), largest))
    unit = np.spacing(size) if size < np.finfo(dtype).max else size - np.nextafter(size, dtype(0))
    return float(abs(mpmath.mpf(float(got)) - exact) / mpmath.mpf(float(unit)))


def worst(errors, place):
    """The largest of the errors of all builds, as text: a dict of lists, and what says where the i-th is."""
    build = max(errors, key=lambda build: max(errors[build]))
    at = int(np.argmax(errors[build]))
    return f"{errors[build][at]:.2f} ({build}, {place(at)})"


def separable(name, kernel, parameter, target, exact, dtype, n, rng):
    """The row of the table for one loss over single outputs."""
    if (kernel, np.dtype(dtype).name) not in kernels.table_of(kernels.available()[0]):
        return
    z = scores(dtype, n, rng)
    y = target(dtype, len(z), rng)
    # the parameter reaches the kernel as a double and is used in the dtype
    used = float(dtype(parameter))
    if kernel == "quantile":
        used = (used, float(dtype(1 - parameter)))
    inputs = list(zip(y.tolist(), z.tolist(), strict=True))
    truth = [exact(mpmath.mpf(a), mpmath.mpf(b), used) for a, b in inputs]
    of_value, of_gradient = {}, {}
    for build in kernels.available():
        function = kernels.table_of(build)[kernel, np.dtype(dtype).name]
        value, gradient = np.empty(len(z), dtype), z[:, None].copy()
        kernels.evaluate(function, gradient, y[:, None].copy(), parameter=parameter, per_sample=value)
        of_value[build] = [ulps(v, t[0], t[2], dtype) for v, t in zip(value, truth, strict=True)]
        of_gradient[build] = [ulps(g, t[1], t[3], dtype) for g, t in zip(gradient[:, 0], truth, strict=True)]

    def place(i):
        return f"y = {inputs[i][0]:.9g}, raw = {inputs[i][1]:.9g}"

    yield name, np.dtype(dtype).name, worst(of_value, place), worst(of_gradient, place)


def softmax_rows(K, dtype, rng):
    """Rows of scores, multiples of 1/64 so that their differences are exact: mild, steep, tied, adverse."""
    n = max(2, min(200, 6000 // K))
    z = np.round(rng.normal(0, rng.uniform(0.3, 20, (n, 1)), (n, K)) * 64) / 64
    z[0] = -5.0  # equal terms round alike: the worst case of a plain sum
    z[0, K // 2] = 0.0
    z[1] = 0.25
    return z.astype(dtype)


def softmax(name, kernel, parameter, dtype, rng, sizes):
    """Rows of the table for a loss over classes, one for each number of classes."""
    if (kernel, np.dtype(dtype).name) not in kernels.table_of(kernels.available()[0]):
        return
    for K in sizes:
        z = softmax_rows(K, dtype, rng)
        codes = rng.integers(0, K, len(z)).astype(np.intp)
        codes[::2] = z[::2].argmax(axis=1)
        truth = [_exact_softmax(row, code, mpmath.mpf(parameter)) for row, code in zip(z, codes, strict=True)]
        of_value, of_gradient = {}, {}
        for build in kernels.available():
            function = kernels.table_of(build)[kernel, np.dtype(dtype).name]
            value, gradient = np.empty(len(z), dtype), z.copy()
            kernels.evaluate(function, gradient, None, codes, parameter=parameter, per_sample=value)
            of_value[build] = [ulps(v, t[0], t[0], dtype) for v, t in zip(value, truth, strict=True)]
            of_gradient[build] = [
                max(ulps(g, e, e, dtype) for g, e in zip(row, t[1], strict=True))
                for row, t in zip(gradient, truth, strict=True)
            ]
        places = [worst(errors, "row {}".format) for errors in (of_value, of_gradient)]
        yield f"{name}, K = {K}", np.dtype(dtype).name, *places


def _exact_softmax(z, code, gamma):
    """Loss and gradient of one row: cross-entropy where gamma is 0, focal otherwise."""
    e = [mpmath.exp(mpmath.mpf(float(x)) - mpmath.mpf(float(z.max()))) for x in z]
    total = mpmath.fsum(e)
    others = mpmath.fsum(x for k, x in enumerate(e) if k != code) / total
    log_p = mpmath.log1p(-others) if others < 0.5 else mpmath.log(e[code] / total)
    own = e[code] / total
    # d loss / d log p of the class, then log p by the scores
    slope = -(others**gamma) + (gamma * others ** (gamma - 1) * own * log_p if gamma and others else 0)
    gradient = [slope * (others if k == code else -x / total) for k, x in enumerate(e)]
    return -(others**gamma) * log_p, gradient


def table(n, sizes, out=sys.stdout):
    """Print the table, a row as soon as it is known."""
    coupled = (("CrossEntropy", "cross_entropy", 0.0), ("Focal(2)", "softmax_focal", 2.0))
    header = ("loss", "dtype", "largest error of the value, ULP", "of the gradient, ULP")
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|", file=out, flush=True)
    for dtype in (np.float32, np.float64):
        for name, kernel, parameter, target, exact, subtracts in CASES:
            rng = np.random.default_rng(0)
            label = name + {"": "", "gradient": " (gradient of terms)", "both": " (of terms)"}[subtracts]
            for row in separable(label, kernel, parameter, target, exact, dtype, n, rng):
                print("| " + " | ".join(row) + " |", file=out, flush=True)
        for name, kernel, parameter in coupled:
            for row in softmax(name, kernel, parameter, dtype, np.random.default_rng(0), sizes):
                print("| " + " | ".join(row) + " |", file=out, flush=True)


def main(arguments=None):
    """Print the table for what the command line asks."""
    parser = argparse.ArgumentParser(prog="benchmarks/accuracy.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--points", type=int, default=20_000, help="scores per loss (default: 20000)")
    parser.add_argument(
        "--classes", type=int, nargs="*", default=[2, 10, 100, 1000], help="sizes of the softmax"
    )
    options = parser.parse_args(arguments)
    table(options.points, options.classes)


if __name__ == "__main__":
    main()
