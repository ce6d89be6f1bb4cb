"""The losses by their definitions, with 50 digits: what formulas and kernels are measured against.

Tests and ``benchmarks/accuracy.py`` use them. A new loss needs its definition here.
"""

from functools import cache

import numpy as np
from mpmath import mp, mpf

mp.dps = 50
exp = cache(mp.exp)


def sigmoid(z):
    return 1 / (1 + mp.exp(-z)) if z >= 0 else mp.exp(z) / (1 + mp.exp(z))


def log_loss(loss, y, z):
    s = mpf(loss.label_smoothing)
    y = y * (1 - s) + s / 2
    p, q = sigmoid(z), sigmoid(-z)
    softplus = mp.log1p(mp.exp(-abs(z)))
    value = softplus + (y * max(-z, 0) + (1 - y) * max(z, 0))
    return value, (1 - y) * p - y * q, 0, max(y, p) if 0 < y < 1 else 0


def focal(loss, y, z):
    g = mpf(loss.gamma)
    p, q = sigmoid(z), sigmoid(-z)
    small = mp.log1p(mp.exp(-abs(z)))
    behind, ahead = small + max(-z, 0), small + max(z, 0)  # -log p, -log q
    value = y * q**g * behind + (1 - y) * p**g * ahead
    up, down = (1 - y) * p**g * (p + g * q * ahead), y * q**g * (q + g * p * behind)
    return value, up - down, 0, max(up, down)


def squared_error(factor):
    return lambda loss, y, d: (factor * d**2, 2 * factor * d, 0, 0)


def huber(loss, y, d):
    delta = mpf(loss.delta)
    if abs(d) <= delta:
        return d * d / 2, d, 0, 0
    return delta * (abs(d) - delta / 2), delta * mp.sign(d), 0, 0


def quantile(loss, y, d):
    slope = 1 - mpf(loss.quantile) if d > 0 else -mpf(loss.quantile) if d < 0 else mpf(0)
    return slope * d, slope, 0, 0


def log_cosh(loss, y, d):
    if abs(d) < 1e-8:
        return d**2 / 2 - d**4 / 12, d - d**3 / 3, 0, 0
    e = mp.exp(-2 * abs(d))
    far = abs(d) + mp.log1p(e) - mp.log(2)
    return far, mp.sign(d) * (1 - e) / (1 + e), 0, 0


def poisson(loss, y, z):
    mean = mp.exp(z)
    return mean - y * z, mean - y, max(mean, abs(y * z)), max(mean, y)


def gamma(loss, y, z):
    ratio = y * mp.exp(-z)
    return z + ratio, 1 - ratio, max(ratio, abs(z)), max(ratio, 1)


def squared_hinge(loss, y, z):
    sign = 2 * y - 1
    missing = max(mpf(0), 1 - sign * z)
    return missing**2, -2 * sign * missing, 0, 0


def tweedie(loss, y, z):
    a, b = 2 - mpf(loss.power), mpf(loss.power) - 1
    grown, shrunk = mp.exp(a * z), y * mp.exp(-b * z)
    return grown / a + shrunk / b, grown - shrunk, 0, max(grown, shrunk)


# By name, for one output: loss, derivative, and the sizes that their errors are relative to at least (the
# largest term of a sum that cancels). Losses of a difference get y = 0 and raw - y.
SEPARABLE = {
    "absolute_error": lambda loss, y, d: (abs(d), mp.sign(d), 0, 0),
    "focal": focal,
    "gamma": gamma,
    "huber": huber,
    "log_cosh": log_cosh,
    "log_loss": log_loss,
    "mean_squared_error": squared_error(mpf(1)),
    "poisson": poisson,
    "quantile": quantile,
    "squared_error": squared_error(mpf(1) / 2),
    "squared_hinge": squared_hinge,
    "tweedie": tweedie,
}


def cross_entropy(loss, y, z):
    """One row, y probabilities: loss, derivative, the larger of p and y."""
    s = mpf(loss.label_smoothing)
    y = [v * (1 - s) + s / len(y) for v in y]
    top = max(z)
    e = [exp(v - top) for v in z]
    first = z.index(top)
    rest = mp.fsum(e[:first] + e[first + 1 :])
    total = 1 + rest
    value = mp.log1p(rest) + mp.fsum(a * (top - b) for a, b in zip(y, z))
    gradient, size = [], []
    for k, (share, part) in enumerate(zip(y, e)):
        # p - y without cancellation where y is 1
        others = rest if k == first else total - part
        gradient.append((part * (1 - share) - share * others) / total)
        size.append(max(share, part / total))
    return value, gradient, size


def softmax_focal(loss, y, z):
    """The same of the softmax focal loss, the size being that of the larger of two terms."""
    g = mpf(loss.gamma)
    top = max(z)
    e = [exp(v - top) for v in z]
    first = z.index(top)
    rest = mp.fsum(e[:first] + e[first + 1 :])
    total = 1 + rest
    value, parts, others = mpf(0), [], []
    for k, share in enumerate(y):
        others.append((rest if k == first else total - e[k]) / total)
        if share:
            surprise = mp.log1p(rest) + (top - z[k])
            value += share * others[k] ** g * surprise
            parts.append(share * others[k] ** g * (1 + g * (e[k] / total) * surprise / others[k]))
        else:
            parts.append(mpf(0))
    whole = mp.fsum(parts)
    up = [part / total * (whole - own) for part, own in zip(e, parts)]
    down = [own * other for own, other in zip(parts, others)]
    return value, [a - b for a, b in zip(up, down)], [max(a, b) for a, b in zip(up, down)]


def generalized_cross_entropy(loss, y, z):
    """The same of the generalized cross-entropy."""
    q = mpf(loss.q)
    top = max(z)
    e = [exp(v - top) for v in z]
    first = z.index(top)
    rest = mp.fsum(e[:first] + e[first + 1 :])
    total = 1 + rest
    value, parts = mpf(0), []
    for k, share in enumerate(y):
        surprise = mp.log1p(rest) + (top - z[k])
        value += -share * mp.expm1(-q * surprise) / q
        parts.append(share * exp(-q * surprise))
    up = [own / total * mp.fsum(parts[:k] + parts[k + 1 :]) for k, own in enumerate(e)]
    others = [rest if k == first else total - own for k, own in enumerate(e)]
    down = [part * other / total for part, other in zip(parts, others)]
    return value, [a - b for a, b in zip(up, down)], [max(a, b) for a, b in zip(up, down)]


# By kernel, for a row of raw scores and the probabilities of its classes.
SOFTMAX = {
    "cross_entropy": cross_entropy,
    "softmax_focal": softmax_focal,
    "generalized_cross_entropy": generalized_cross_entropy,
}


def root_mean_squared_error(y, z, w):
    """Value and gradient of a whole batch."""
    y, z = (np.vectorize(lambda v: mpf(float(v)), otypes=[object])(a) for a in (y, z))
    w = [mpf(float(v)) for v in w]
    n, T = y.shape
    total = mp.fsum(w[i] * (z[i, k] - y[i, k]) ** 2 for i in range(n) for k in range(T))
    value = mp.sqrt(total / (mp.fsum(w) * T))
    gradient = [w[i] * (z[i, k] - y[i, k]) / (mp.fsum(w) * T * value) for i in range(n) for k in range(T)]
    return value, gradient


def last_place(numbers):
    """The unit in the last place of each number, as float64; `numpy.spacing` overflows at the largest."""
    largest = np.nextafter(np.finfo(numbers.dtype).max, numbers.dtype.type(0))
    return np.spacing(np.minimum(np.abs(numbers), largest)).astype(float)


class Exact:
    """Numbers of 50 digits as arrays, so that errors are worked out by array.

    Attributes
    ----------
    high : ndarray
        The numbers, rounded to float64.
    rest : ndarray
        What the rounding took away, in units in the last place of ``high``.
    """

    def __init__(self, numbers):
        self.high = np.array([float(x) for x in numbers])
        units = last_place(self.high)
        self.rest = np.array(
            [float((x - mpf(h)) / u) if np.isfinite(h) else 0.0 for x, h, u in zip(numbers, self.high, units)]
        )


def ulps(got, exact, least=0.0):
    """Errors in units in the last place of the exact numbers, or of ``least`` where that is larger."""
    with np.errstate(over="ignore", invalid="ignore"):  # infinite results
        size = np.maximum(np.abs(exact.high), least).astype(got.dtype)
        unit = last_place(size)
        error = np.abs((got - exact.high) / unit - exact.rest * (last_place(exact.high) / unit))
        same = np.where(got == exact.high.astype(got.dtype), 0.0, np.inf)
    return np.where(np.isfinite(size), error, same)
