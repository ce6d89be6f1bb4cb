"""Each formula against 50-digit arithmetic, and each kernel of each build against the formula."""

from functools import cache

import numpy as np
import pytest
from mpmath import mp, mpf

from sklloss import kernels, losses

mp.dps = 50
DTYPES = [np.float32, np.float64]
# Bounds in ULP, of the formula as NumPy computes it (its float32 exp alone may miss by 2.5) ...
FORMULA = {"value": 3.0, "gradient": 3.0}
# ... and of the kernels; softmax on top of the rounding of its logit differences.
KERNEL = {"value": 2.0, "gradient": 2.0}
SOFTMAX = {"value": 4.0, "gradient": 2.0}
# Sums over K classes in the dtype of raw: NumPy adds pairwise.
SOFTMAX_FORMULA = {"value": 8.0, "gradient": 6.0}


exp = cache(mp.exp)


def sigmoid(z):
    return 1 / (1 + mp.exp(-z)) if z >= 0 else mp.exp(z) / (1 + mp.exp(z))


def log_loss(loss, y, z):
    s = mpf(loss.label_smoothing)
    y = y * (1 - s) + s / 2
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


def ulps(got, exact, least=0.0):
    """The error in units in the last place of the exact number, or of ``least`` where that is larger."""
    dtype = got.dtype.type
    size = dtype(max(abs(float(exact)), float(least)))
    if not np.isfinite(size):
        return 0.0 if got == dtype(float(exact)) else np.inf
    with np.errstate(over="ignore"):  # spacing looks beyond the largest number
        unit = float(np.spacing(size))
    return float(abs(mpf(float(got)) - exact) / mpf(unit))


def scores(dtype):
    """Every scale a score can have, both signs, and a few hundred ordinary ones."""
    info = np.finfo(dtype)
    fixed = [
        0.0,
        1e-300,
        1e-30,
        0.69,
        1.0,
        16.6,
        17.0,
        36.7,
        37.0,
        87.3,
        88.7,
        103.9,
        104.5,
        709.0,
        709.8,
        745.0,
    ]
    fixed += [746.0, 1e3, 1e20, info.max, info.tiny, info.smallest_subnormal]
    rng = np.random.default_rng(1)
    wide = np.exp(rng.uniform(np.log(1e-8), np.log(800.0), 150))
    z = np.concatenate([fixed, wide, rng.normal(0, 3, 100)]).astype(dtype)
    return np.concatenate([z, -z])


@pytest.fixture(params=kernels.available())
def each_build(request, monkeypatch):
    """The test runs once with each build of the kernels that this CPU can run."""
    monkeypatch.setattr(kernels, "_table", kernels.table_of(request.param))


def formula(loss, y, z):
    """Value and gradient, before any mean."""
    value, gradient = loss.formula(np, y, z)
    return value, gradient() if callable(gradient) else gradient


def test_every_registered_loss_has_a_reference():
    assert set(losses.names()) == {*SEPARABLE, "cross_entropy", "root_mean_squared_error"}


def separable_cases(loss, dtype):
    """y, z, exact value and gradient, and what the gradient's ULP is taken of, by output."""
    z = scores(dtype)
    rng = np.random.default_rng(2)
    if loss.target == "probabilities":
        targets = [np.full(z.size, t) for t in (0.0, 1.0)] + [rng.random(z.size)]
    else:
        z = z[np.abs(z) < np.sqrt(np.finfo(dtype).max) / 4]
        targets = [np.full(z.size, t) for t in (0.0, -3.5)] + [z + rng.normal(size=z.size)]
    y = np.concatenate(targets).astype(dtype)
    z = np.concatenate([z] * len(targets))
    reference = SEPARABLE[loss.name]
    values, gradients, least = [], [], []
    for t, x in zip(y, z):
        if loss.target == "probabilities":
            value, gradient = reference(loss, mpf(float(t)), mpf(float(x)))
            soft = loss.label_smoothing > 0 or 0 < t < 1
            # for a soft target, of the larger of p and y
            least.append(
                max(float(t), float(sigmoid(mpf(float(x)))), loss.label_smoothing / 2) if soft else 0.0
            )
        else:
            # on top of the rounding of z - y
            value, gradient = reference(loss, mpf(0), mpf(float(x - t)))
            least.append(0.0)
        values.append(value)
        gradients.append(gradient)
    return y, z, values, gradients, least


def assert_close(got, exact, least, bound, what):
    errors = [ulps(g, x, size) for g, x, size in zip(got, exact, least)]
    worst = int(np.argmax(errors))
    assert errors[worst] <= bound, (
        f"{what}: {errors[worst]} ULP at {worst}: {got[worst]} for {float(exact[worst])}"
    )


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SEPARABLE)
def test_separable_loss_is_exact_for_every_size_of_score(name, dtype):
    for loss in every_variant(name):
        y, z, values, gradients, least = separable_cases(loss, dtype)
        with np.errstate(all="ignore"):
            value, gradient = formula(loss, y, z)
        what = f"{loss} {np.dtype(dtype).name}"
        none = np.zeros(z.size)
        assert_close(value, values, none, FORMULA["value"], f"formula value {what}")
        assert_close(gradient, gradients, least, FORMULA["gradient"], f"formula gradient {what}")
        assert_close(loss.per_sample(y, z), values, none, KERNEL["value"], f"kernel value {what}")
        # the gradient of a sum, not of a mean
        scores = z[:, None].copy()
        loss.evaluate_batch(scores, target=y[:, None].copy())
        assert_close(scores[:, 0], gradients, least, KERNEL["gradient"], f"kernel gradient {what}")


def every_variant(name):
    default = losses.get(name)
    return [default, type(default)(label_smoothing=0.1)] if hasattr(default, "label_smoothing") else [default]


def cross_entropy_cases(dtype):
    """Scores whose differences are exact, so that the formula alone is measured."""
    rng = np.random.default_rng(3)
    top = np.finfo(dtype).max
    for K in (2, 3, 10, 100, 1000):
        z = np.round(rng.normal(0, 10, (6 if K < 100 else 2, K)) * 64) / 64
        special = np.zeros((9, K))
        special[1, 0] = 1000.0
        special[2, 1] = top
        special[3, :] = -top
        special[4, :] = -70.0
        special[4, 0] = 0.0
        special[5, :2] = 50.0
        special[6, 0] = 40.0
        special[7, 0] = 1e20
        special[8, :] = -30.0
        special[8, K // 2] = 5.0
        yield np.concatenate([z, special[: 9 if K < 1000 else 3]]).astype(dtype)


@pytest.mark.usefixtures("each_build")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_exact_up_to_the_largest_score(smoothing, dtype):
    loss = losses.CrossEntropy(smoothing)
    rng = np.random.default_rng(4)
    for z in cross_entropy_cases(dtype):
        n, K = z.shape
        codes = rng.integers(0, K, n)
        codes[::2] = np.argmax(z[::2], axis=1)
        rows = rng.dirichlet(np.ones(K), n).astype(dtype)
        rows[0] = np.eye(K)[0]
        for y in (codes, rows):
            shares = np.eye(K)[codes] if y is codes else rows
            values, gradients, least = [], [], []
            for i in range(n):
                scores_i, shares_i = [mpf(float(v)) for v in z[i]], [mpf(float(v)) for v in shares[i]]
                value, gradient, size = cross_entropy(loss, shares_i, scores_i)
                values.append(value)
                gradients.extend(gradient)
                # a hard target's gradient is exact in its own last digits, a soft one's in those of p or y
                least.extend([0.0] * K if y is codes and not smoothing else size)
            with np.errstate(all="ignore"):
                value, gradient = formula(loss, y, z)
            what = f"{loss} {np.dtype(dtype).name} K={K} {'codes' if y is codes else 'rows'}"
            none = np.zeros(n)
            assert_close(value, values, none, SOFTMAX_FORMULA["value"], f"formula value {what}")
            assert_close(
                gradient.ravel(), gradients, least, SOFTMAX_FORMULA["gradient"], f"formula gradient {what}"
            )
            assert_close(loss.per_sample(y, z), values, none, SOFTMAX["value"], f"kernel value {what}")
            scores = z.copy()
            if y is codes:
                loss.evaluate_batch(scores, codes=codes.astype(np.intp))
            else:
                loss.evaluate_batch(scores, target=rows)
            assert_close(scores.ravel(), gradients, least, SOFTMAX["gradient"], f"kernel gradient {what}")


def root_mean_squared_error(y, z, w):
    """Value and gradient of a whole batch."""
    y, z = (np.vectorize(lambda v: mpf(float(v)), otypes=[object])(a) for a in (y, z))
    w = [mpf(float(v)) for v in w]
    n, T = y.shape
    total = mp.fsum(w[i] * (z[i, k] - y[i, k]) ** 2 for i in range(n) for k in range(T))
    value = mp.sqrt(total / (mp.fsum(w) * T))
    gradient = [w[i] * (z[i, k] - y[i, k]) / (mp.fsum(w) * T * value) for i in range(n) for k in range(T)]
    return value, gradient


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.9])
def test_root_mean_squared_error_neither_overflows_nor_underflows(dtype, exponent, rng):
    size = float(np.finfo(dtype).max if exponent > 0 else np.finfo(dtype).smallest_normal) ** abs(exponent)
    y = (size * rng.normal(size=(20, 3))).astype(dtype)
    z = (size * rng.normal(size=(20, 3))).astype(dtype)
    w = rng.integers(0, 5, 20).astype(dtype)
    loss = losses.RootMeanSquaredError()
    value, gradient = root_mean_squared_error(y, z, w)
    # float64 differences are rounded; the smallest ones are subnormal
    bound = 8.0
    mean, slope = loss.mean_formula(np, y, z, w)
    assert ulps(np.float64(mean), value, np.finfo(dtype).smallest_normal) <= (
        bound if dtype == np.float64 else 2**30 * bound
    )
    got, kernel_slope = loss.value_and_gradient(y, z, w)
    assert got == pytest.approx(float(value), rel=4e-15)
    least = [1e-3 * float(np.max(np.abs(slope)))] * len(gradient)
    assert_close(slope.ravel(), gradient, least, bound, "formula gradient")
    assert_close(kernel_slope.ravel(), gradient, least, bound, "kernel gradient")


# Every build ------------------------------------------------------------------------------------------


def run(loss, build, y, raw, weight=None):
    """(weighted sum, gradient, per sample) of a build's kernel."""
    kernel = kernels.table_of(build)[loss.kernel, raw.dtype.name]
    scores = raw.reshape(raw.shape[0], -1).copy()
    rows = np.zeros(raw.shape[0], raw.dtype)
    target = {"codes": y.astype(np.intp)} if y.ndim < scores.ndim and loss.target == "classes" else {}
    if not target:
        target = {"target": np.ascontiguousarray(y.reshape(scores.shape))}
    total = kernels.evaluate(
        kernel, scores, **target, weight=weight, parameter=loss.kernel_parameter,
        per_sample=rows if loss.additive else None,
    )  # fmt: skip
    return total, scores.reshape(raw.shape), rows


@pytest.mark.parametrize("build", kernels.available())
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_build_of_the_kernel_computes_the_formula(loss, build, dtype, batches, weights):
    if loss.kernel is None:
        return
    eps = float(np.finfo(dtype).eps)
    for form, y, raw in batches.all(loss, dtype=dtype):
        for w in (None, weights.astype(dtype)):
            value, gradient = loss.mean_formula(np, y, raw, w)
            total, slope, rows = run(loss, build, y, raw, w)
            norm = len(raw) if w is None else np.sum(w, dtype=np.float64)
            assert total / norm == pytest.approx(float(value), rel=4 * eps), form
            scale = np.max(np.abs(gradient))
            np.testing.assert_allclose(
                slope / norm, gradient, rtol=16 * eps, atol=8 * eps * scale, err_msg=form
            )
            if loss.additive and w is None:
                np.testing.assert_allclose(rows, loss._rows(np, loss.formula(np, y, raw)[0]), rtol=16 * eps)


@pytest.mark.parametrize("build", kernels.available())
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_build_agrees_with_the_formula_where_scores_are_infinite_or_nan(loss, build, dtype):
    if loss.kernel is None or not loss.additive:
        return
    raw = np.array(
        [
            [np.inf, 1, 2],
            [-np.inf, 1, 2],
            [np.inf, np.inf, 0],
            [-np.inf] * 3,
            [np.inf, -np.inf, 0],
            [np.nan, 1, 2],
        ]
    ).astype(dtype)
    targets = [np.zeros_like(raw), np.eye(3, dtype=dtype)[[0, 1, 2, 0, 1, 2]]]
    if loss.target == "classes":
        targets = [np.array([0, 1, 2, 0, 1, 2]), np.array([1, 0, 0, 2, 0, 1]), targets[1]]
        targets.append(np.full_like(raw, 1 / 3))
    for y in targets:
        with np.errstate(all="ignore"):
            value, gradient = formula(loss, y, raw)
            value = loss._rows(np, value)
            if loss.reduction == "mean" and loss.separable:
                gradient = gradient / raw.shape[1]
        _, slope, rows = run(loss, build, y, raw)
        tolerance = 8 * np.finfo(dtype).eps
        if loss.target != "values":
            assert not np.isnan(value[:5]).any()
            assert not np.isnan(gradient[:5]).any()
        np.testing.assert_allclose(rows, value, rtol=tolerance)
        np.testing.assert_allclose(slope, gradient, rtol=tolerance, atol=tolerance)
