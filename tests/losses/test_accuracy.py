"""Each formula against 50-digit arithmetic, and each kernel of each build against the formula."""

import numpy as np
import pytest
from mpmath import mp, mpf

from sklloss import kernels, losses

mp.dps = 50
DTYPES = [np.float32, np.float64]
# The reference has many more digits than the widest gap between the numbers it adds.
WIDE = 400


def sigmoid(z):
    return 1 / (1 + mp.exp(-z)) if z >= 0 else mp.exp(z) / (1 + mp.exp(z))


def log_loss(loss, y, z):
    y = y * (1 - loss.label_smoothing) + mpf(loss.label_smoothing) / 2
    p, q = sigmoid(z), sigmoid(-z)
    softplus = mp.log1p(mp.exp(-abs(z)))
    value = softplus + (y * max(-z, 0) + (1 - y) * max(z, 0))
    return value, (1 - y) * p - y * q


def squared_error(factor):
    return lambda loss, y, z: (factor * (z - y) ** 2, 2 * factor * (z - y))


# One output: (loss, y, z) -> loss, derivative. A new separable loss needs a line here.
SEPARABLE = {
    "log_loss": log_loss,
    "squared_error": squared_error(mpf(1) / 2),
    "mean_squared_error": squared_error(mpf(1)),
}


def cross_entropy(loss, y, z):
    """One row, y probabilities."""
    y = [v * (1 - loss.label_smoothing) + mpf(loss.label_smoothing) / len(y) for v in y]
    top = max(z)
    e = [mp.exp(v - top) for v in z]
    total = mp.fsum(e)
    value = mp.log(total) + mp.fsum(a * (top - b) for a, b in zip(y, z))
    gradient = []
    for k in range(len(z)):
        # p - y without cancellation: p (1 - y) - y (1 - p)
        others = mp.fsum(e[:k] + e[k + 1 :])
        gradient.append((e[k] * (1 - y[k]) - y[k] * others) / total)
    return value, gradient


def ulps(got, exact, least=0.0):
    """The error in units in the last place of the exact number, or of ``least`` where that is larger."""
    dtype = got.dtype.type
    size = dtype(max(abs(float(exact)), float(least)))
    if not np.isfinite(size):
        return 0.0 if got == dtype(float(exact)) else np.inf
    return float(abs(mpf(float(got)) - exact) / mpf(float(np.spacing(size))))


def scores(dtype):
    """Every scale a score can have, both signs, and a few hundred ordinary ones."""
    info = np.finfo(dtype)
    fixed = [0.0, 1e-300, 1e-30, 0.69, 1.0, 16.6, 17.0, 36.7, 37.0, 87.3, 88.7, 103.9, 104.5, 709.0, 709.8, 745.0]
    fixed += [746.0, 1e3, 1e20, info.max, info.tiny, info.smallest_subnormal]
    rng = np.random.default_rng(1)
    wide = np.exp(rng.uniform(np.log(1e-8), np.log(800.0), 150))
    z = np.concatenate([fixed, wide, rng.normal(0, 3, 100)]).astype(dtype)
    return np.concatenate([z, -z])


def test_every_registered_loss_has_a_reference():
    known = {*SEPARABLE, "cross_entropy", "root_mean_squared_error"}
    assert set(losses.names()) == known


@pytest.mark.parametrize("dtype", DTYPES)
def test_formula_of_a_separable_loss(loss, dtype, record_property):
    if loss.name not in SEPARABLE:
        assert loss.name in {"cross_entropy", "root_mean_squared_error"}
        return
    z = scores(dtype)
    probabilities = loss.target == "probabilities"
    if not probabilities:
        z = z[np.abs(z) < np.sqrt(np.finfo(dtype).max) / 4]
    rng = np.random.default_rng(2)
    targets = [0.0, 1.0, 0.5] if probabilities else [0.0, 1.0, -3.5]
    soft = rng.random(z.size) if probabilities else z + rng.normal(size=z.size)
    worst_value = worst_gradient = 0.0
    for y in [*(np.full(z.size, t, dtype) for t in targets), soft.astype(dtype)]:
        with mp.workdps(WIDE), np.errstate(all="ignore"):
            value, gradient = loss.formula(np, y, z)
            assert value.dtype == gradient.dtype == dtype
            for i in range(z.size):
                if probabilities:
                    t, x, least = mpf(float(y[i])), mpf(float(z[i])), float(y[i]) if 0 < y[i] < 1 else 0.0
                    if loss.label_smoothing:
                        least = 1.0
                else:
                    # on top of the rounding of z - y
                    t, x, least = mpf(0), mpf(float(z[i] - y[i])), 0.0
                exact, slope = SEPARABLE[loss.name](loss, t, x)
                if probabilities:
                    least = max(least, 0.0) and max(least, float(sigmoid(x)))
                worst_value = max(worst_value, ulps(value[i], exact))
                worst_gradient = max(worst_gradient, ulps(gradient[i], slope, least))
    print("ULP", loss, np.dtype(dtype).name, worst_value, worst_gradient)
