"""Dense sweeps of every build of the kernels, against 80-bit arithmetic.

tests/losses/test_accuracy.py compares hand-picked extremes with mpmath; here the numbers in between are
swept, by the hundred thousand. An 80-bit reference is 2**-11 ULP of float64 away from the truth.
"""

from functools import cache

import numpy as np
import pytest

from sklloss import kernels, losses

DTYPES = [np.float32, np.float64]
BUILDS = kernels.available()
WIDE = np.longdouble

pytestmark = pytest.mark.skipif(
    np.finfo(WIDE).nmant < 63, reason="needs a long double that is wider than double for its reference"
)


def ulps(got, exact, size=None):
    """The error in units in the last place of the exact number, or of ``size``, as an array."""
    of = np.abs(exact if size is None else size).astype(got.dtype)
    unit = np.spacing(np.maximum(of, np.finfo(got.dtype).smallest_subnormal)).astype(WIDE)
    return np.abs(got.astype(WIDE) - exact) / unit


def score_sweep(dtype, n=60_000):
    """Scores of both signs, dense where the loss is curved and logarithmic out to where it underflows."""
    rng = np.random.default_rng(0)
    deepest = 745.0 if dtype is np.float64 else 103.0
    parts = [
        np.linspace(-4, 4, n // 3),
        rng.uniform(-deepest, deepest, n // 3),
        np.exp(rng.uniform(-40, np.log(deepest), n // 6)),
        -np.exp(rng.uniform(-40, np.log(deepest), n // 6)),
    ]
    return np.concatenate(parts).astype(dtype)


def exact_log_loss(y, z):
    """Loss, p and q in extended precision, without cancellation."""
    z, y = z.astype(WIDE), y.astype(WIDE)
    e = np.exp(-np.abs(z))
    small, large = e / (1 + e), 1 / (1 + e)
    p, q = np.where(z >= 0, large, small), np.where(z >= 0, small, large)
    against = np.where(z >= 0, 1 - y, y)
    return np.log1p(e) + against * np.abs(z), p, q


@pytest.mark.parametrize("target", ["zeros", "ones", "soft", "near certain"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_log_loss_and_gradient_stay_within_two_ulp(build, dtype, target, rng):
    z = score_sweep(dtype)
    y = {
        "zeros": np.zeros(z.size),
        "ones": np.ones(z.size),
        "soft": rng.random(z.size),
        "near certain": np.where(rng.random(z.size) < 0.5, 1e-6, 1 - 1e-6) * rng.uniform(0.9, 1.0, z.size),
    }[target].astype(dtype)
    kernel = kernels.table_of(build)["log_loss", np.dtype(dtype).name]
    value, gradient = np.empty(z.size, dtype), z[:, None].copy()
    kernels.evaluate(kernel, gradient, y[:, None], per_sample=value)
    loss, p, q = exact_log_loss(y, z)
    assert ulps(value, loss).max() <= 2
    exact = (1 - y.astype(WIDE)) * p - y.astype(WIDE) * q
    size = np.maximum(p, y) if target in ("soft", "near certain") else None
    assert ulps(gradient[:, 0], exact, size).max() <= 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_log_loss_curvature_is_p_times_one_minus_p(build, dtype):
    z = score_sweep(dtype, 6000)
    kernel = kernels.table_of(build)["log_loss", np.dtype(dtype).name]
    curvature = np.empty((z.size, 1), dtype)
    kernels.evaluate(kernel, z[:, None].copy(), np.zeros((z.size, 1), dtype), curvature=curvature)
    _, p, q = exact_log_loss(np.zeros(1, dtype), z)
    assert ulps(curvature[:, 0], p * q).max() <= 4


def exact_softmax(z):
    """Probabilities, those of all other classes together, and log1p of the sum without the maximum."""
    z = z.astype(WIDE)
    d = z - z.max(axis=1, keepdims=True)
    e = np.exp(d)
    top = d.argmax(axis=1)
    rows = np.arange(len(z))
    others = e.copy()
    others[rows, top] = 0
    rest = others.sum(axis=1)
    total = 1 + rest
    p = e / total[:, None]
    not_p = (total[:, None] - e) / total[:, None]
    not_p[rows, top] = rest / total
    return p, not_p, np.log1p(rest), -d


def softmax_scores(K, dtype, rng):
    """Multiples of 1/64, so that differences are exact: common ones, steep ones, ties, and adverse sums."""
    n = 400 if K <= 100 else 12 if K <= 1000 else 2
    z = np.round(rng.normal(0, rng.uniform(0.3, 20, (n, 1)), (n, K)) * 64) / 64
    z[0] = 0.25
    z[1] = -5.0  # equal terms round alike: the worst case of a plain sum
    z[1, K // 2] = 0.0
    return z.astype(dtype)


@pytest.mark.parametrize("kind", ["codes", "probabilities"])
@pytest.mark.parametrize("K", [2, 3, 10, 31, 32, 33, 100, 128, 129, 1000, 100_000])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_cross_entropy_stays_within_four_ulp_and_its_gradient_within_two(build, dtype, K, kind, rng):
    z = softmax_scores(K, dtype, rng)
    n = len(z)
    kernel = kernels.table_of(build)["cross_entropy", np.dtype(dtype).name]
    p, not_p, base, behind = exact_softmax(z)
    value, gradient = np.empty(n, dtype), z.copy()
    rows = np.arange(n)
    if kind == "codes":
        codes = rng.integers(0, K, n)
        codes[::2] = z[::2].argmax(axis=1)
        kernels.evaluate(kernel, gradient, None, codes.astype(np.intp), per_sample=value)
        exact = p.copy()
        exact[rows, codes] = -not_p[rows, codes]
        assert ulps(value, base + behind[rows, codes]).max() <= 4
        assert ulps(gradient, exact).max() <= 2
    else:
        y = rng.dirichlet(np.ones(K), n).astype(dtype)
        y[0] = 0
        y[0, 1] = 1
        kernels.evaluate(kernel, gradient, y, per_sample=value)
        wide = y.astype(WIDE)
        assert ulps(value, base + (wide * behind).sum(axis=1)).max() <= 4
        assert ulps(gradient, p - wide, np.maximum(p, wide)).max() <= 2


@pytest.mark.parametrize("K", [2, 3, 10, 100, 129, 1000, 100_000])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_the_loss_of_a_confident_row_is_as_accurate_however_small(build, dtype, K):
    depth = np.concatenate(
        [np.arange(1.0, 60.0), np.arange(60.0, 85.0 if dtype is np.float32 else 690.0, 9.0)]
    )
    depth = depth[:: 1 if K <= 1000 else 30]
    z = -np.repeat(depth[:, None], K, axis=1).astype(dtype)  # equal terms, whose sum rounds one way
    z[:, K // 3] = 0.0
    z[::2, 0] += K > 2
    _, not_p, base, _ = exact_softmax(z)
    value, gradient, codes = np.empty(len(z), dtype), z.copy(), np.full(len(z), K // 3)
    kernel = kernels.table_of(build)["cross_entropy", np.dtype(dtype).name]
    kernels.evaluate(kernel, gradient, None, codes, per_sample=value)
    assert ulps(value, base).max() <= 2
    assert ulps(gradient[:, K // 3], -not_p[:, K // 3]).max() <= 2


# Every kernel, with the parameter that the tests of all of them use.
PARAMETER = {
    "log_loss": 0.0,
    "cross_entropy": 0.0,
    "squared_error": 0.5,
    "root_mean_squared_error": 0.0,
    "absolute_error": 0.0,
    "huber": 1.35,
    "quantile": 0.3,
    "log_cosh": 0.0,
    "poisson": 0.0,
    "gamma": 0.0,
    "tweedie": 1.5,
    "squared_hinge": 0.0,
    "focal": 2.0,
    "softmax_focal": 2.0,
    "generalized_cross_entropy": 0.7,
}
SOFTMAX = ("cross_entropy", "softmax_focal", "generalized_cross_entropy")


def test_every_build_has_every_kernel_in_both_dtypes():
    for build in BUILDS:
        assert set(kernels.table_of(build)) == {
            (name, d) for name in PARAMETER for d in ("float32", "float64")
        }


@pytest.mark.parametrize("name", PARAMETER)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_rows_that_do_not_fill_a_tile_are_computed_like_all_others(build, dtype, name, rng):
    kernel = kernels.table_of(build)[name, np.dtype(dtype).name]
    for n in (1, 7, 31, 32, 33, 511, 512, 513, 1025):
        for outputs in (1, 3, 40, 700):
            if n * outputs > 50_000 or (name in SOFTMAX and outputs == 1):
                continue
            z = rng.normal(size=(n, outputs)).astype(dtype)
            y = rng.dirichlet(np.ones(outputs), n).astype(dtype)
            w = rng.integers(0, 3, n).astype(dtype)
            w[0] = 2
            kept, total = z.copy(), 0.0
            total = kernels.evaluate(kernel, kept, y, weight=w, parameter=PARAMETER[name])
            repeated = np.repeat(np.arange(n), w.astype(int))
            again = z[repeated].copy()
            expected = kernels.evaluate(kernel, again, y[repeated], parameter=PARAMETER[name])
            np.testing.assert_allclose(total, expected, rtol=1e-5 if dtype is np.float32 else 1e-13)
            assert not kept[w == 0].any()
            added = np.zeros((n, outputs))
            np.add.at(added, repeated, again)
            np.testing.assert_allclose(kept, added, rtol=1e-4 if dtype is np.float32 else 1e-12, atol=1e-30)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_weight_zero_leaves_out_even_an_infinite_loss(build, dtype):
    table = kernels.table_of(build)
    z = np.array([[np.inf], [-np.inf], [0.0]], dtype)
    y, w = np.array([[0.0], [1.0], [1.0]], dtype), np.array([0, 0, 1], dtype)
    total = kernels.evaluate(table["log_loss", np.dtype(dtype).name], z, y, weight=w)
    np.testing.assert_allclose(total, np.log(2), rtol=1e-6)
    assert z[:2].tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(
    "name", ["squared_error", "huber", "quantile", "log_cosh", "absolute_error", "gamma"]
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_weight_zero_leaves_out_an_infinite_error(build, dtype, name):
    kernel = kernels.table_of(build)[name, np.dtype(dtype).name]
    z = np.array([[np.inf, 1.0], [0.5, 0.25]], dtype)
    y, w = np.ones((2, 2), dtype), np.array([0, 3], dtype)
    curvature, alone, exact_curvature = np.empty_like(z), z[1:].copy(), np.empty((1, 2), dtype)
    total = kernels.evaluate(kernel, z, y, weight=w, parameter=0.5, curvature=curvature)
    expected = kernels.evaluate(kernel, alone, y[1:], parameter=0.5, curvature=exact_curvature)
    np.testing.assert_allclose(total, 3 * expected, rtol=1e-6)
    np.testing.assert_allclose(z[1:], 3 * alone, rtol=1e-6)
    np.testing.assert_allclose(curvature[1:], 3 * exact_curvature, rtol=1e-6)
    assert not z[0].any()
    assert not curvature[0].any()


@pytest.mark.parametrize(
    "name", ["squared_error", "huber", "quantile", "log_cosh", "absolute_error", "poisson"]
)
@pytest.mark.parametrize("outputs", [3, 700])
@pytest.mark.parametrize("build", BUILDS)
def test_losses_of_values_are_averaged_over_the_outputs(build, outputs, name, rng):
    kernel = kernels.table_of(build)[name, "float64"]
    z, y = rng.normal(size=(5, outputs)), rng.gamma(2.0, size=(5, outputs))
    single, cost, exact_curvature = z.reshape(-1, 1).copy(), np.empty(z.size), np.empty((z.size, 1))
    kernels.evaluate(kernel, single, y.reshape(-1, 1).copy(), None, None, 0.5, cost, exact_curvature)
    rows, curvature = np.empty(5), np.empty_like(z)
    total = kernels.evaluate(kernel, z, y, None, None, 0.5, rows, curvature)
    np.testing.assert_allclose(rows, cost.reshape(5, outputs).mean(axis=1), rtol=1e-13)
    np.testing.assert_allclose(total, rows.sum(), rtol=1e-13)
    np.testing.assert_allclose(z, single.reshape(z.shape) / outputs, rtol=1e-15)
    np.testing.assert_allclose(curvature, exact_curvature.reshape(z.shape) / outputs, rtol=1e-15)


# Losses of values --------------------------------------------------------------------------------------


def exact_log_cosh(d):
    size = np.abs(d)
    e = np.exp(-2 * size)
    near = np.log1p(2 * np.sinh(np.minimum(size, 5) / 2) ** 2)
    value = np.where(size < 5, near, size - np.log(WIDE(2)) + np.log1p(e))
    return value, np.tanh(d), 4 * e / (1 + e) ** 2


def exact_value_loss(name, z, y, a):
    """Value, derivative, second derivative, and the larger term of the first two where they may cancel."""
    z, y, a = z.astype(WIDE), y.astype(WIDE), WIDE(a)
    d = z - y
    size = np.abs(d)
    if name == "absolute_error":
        return size, np.sign(d), 0 * d, None, None
    if name == "quantile":
        slope = np.where(d > 0, 1 - a, np.where(d < 0, -a, 0))
        return slope * d, slope, 0 * d, None, None
    if name == "huber":
        cut = np.minimum(size, a)
        return cut * (size - cut / 2), np.copysign(cut, d), WIDE(1) * (size <= a), None, None
    if name == "log_cosh":
        return *exact_log_cosh(d), None, None
    if name == "squared_hinge":
        missing = np.maximum(1 - (2 * y - 1) * z, 0)
        return missing**2, -2 * (2 * y - 1) * missing, WIDE(2) * (missing > 0), None, None
    if name == "poisson":
        e, linear = np.exp(z), y * z
        larger = np.maximum(np.maximum(e, np.abs(linear)), np.abs(e - linear))
        return e - linear, e - y, e, larger, np.maximum(e, y)
    if name == "tweedie":
        grown, shrunk = np.exp((2 - a) * z), y * np.exp((1 - a) * z)
        value, exact_curvature = grown / (2 - a) + shrunk / (a - 1), (2 - a) * grown + (a - 1) * shrunk
        return value, grown - shrunk, exact_curvature, None, np.maximum(grown, shrunk)
    ratio = y * np.exp(-z)
    larger = np.maximum(np.maximum(np.abs(z), ratio), np.abs(z + ratio))
    return z + ratio, 1 - ratio, ratio, larger, np.maximum(ratio, 1)


@cache
def value_cases(name, parameter, dtype):
    """Scores, targets and what `exact_value_loss` says of them, where that is finite in the dtype."""
    rng = np.random.default_rng(5)
    z = score_sweep(dtype, 20_000)
    n = z.size
    domain = losses.get(name).domain
    if domain in ("positive", "non-negative"):
        near = np.exp(np.clip(z.astype(float), -80, 80)) * rng.uniform(0.5, 2, n)
        targets = [rng.integers(1, 6, n), near, np.exp(rng.uniform(-20, 20, n))]
    elif domain == "labels":
        targets = [0 * z, 0 * z + 1]
    else:
        targets = [0 * z, 100 * rng.normal(size=n), z + rng.normal(size=n) * np.exp(rng.uniform(-30, 2, n))]
    y = np.concatenate(targets).astype(dtype)
    z = np.tile(z, len(targets))
    exact = exact_value_loss(name, z, y, parameter)
    top = np.finfo(dtype).max
    finite = (np.abs(exact[0]) < top) & (np.abs(exact[1]) < top) & (exact[2] < top)
    kept = [None if part is None else part[finite] for part in exact]
    return z[finite], y[finite], *kept


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("absolute_error", 0.0),
        ("quantile", 0.5),
        ("quantile", 0.9),
        ("huber", 1.35),
        ("huber", 20.0),
        ("log_cosh", 0.0),
        ("poisson", 0.0),
        ("gamma", 0.0),
        ("tweedie", 1.5),
        ("tweedie", 1.1),
        ("tweedie", 1.9),
        ("squared_hinge", 0.0),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_losses_of_values_stay_within_two_ulp(build, dtype, name, parameter):
    z, y, value, slope, exact_curvature, value_size, slope_size = value_cases(name, parameter, dtype)
    kernel = kernels.table_of(build)[name, np.dtype(dtype).name]
    rows, scores, curvature = np.empty(z.size, dtype), z[:, None].copy(), np.empty((z.size, 1), dtype)
    kernels.evaluate(kernel, scores, y[:, None], None, None, parameter, rows, curvature)
    assert ulps(rows, value, value_size).max() <= 2
    assert ulps(scores[:, 0], slope, slope_size).max() <= 2
    if name == "huber":  # a difference within rounding of delta may be taken for either side
        clear = np.abs(np.abs(z.astype(WIDE) - y) - parameter) > 1e-5
        assert (curvature[clear, 0] == exact_curvature[clear]).all()
    else:
        assert ulps(curvature[:, 0], exact_curvature).max() <= (5 if name == "log_cosh" else 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_losses_of_values_at_infinite_missing_and_largest_scores(build, dtype):
    table, top, inf = kernels.table_of(build), np.finfo(dtype).max, np.inf

    def at(name, z, y, parameter=0.3):
        scores, rows = np.array([[z]], dtype), np.empty(1, dtype)
        kernel = table[name, np.dtype(dtype).name]
        kernels.evaluate(kernel, scores, np.array([[y]], dtype), None, None, parameter, rows)
        return rows[0], scores[0, 0]

    # A part of a difference that overflows need not overflow.
    part, most = dtype(0.3), dtype(0.7)
    assert at("quantile", -top, top) == (pytest.approx(0.6 * float(top), rel=1e-6), -part)
    assert at("huber", top, -top) == (pytest.approx(0.6 * float(top), rel=1e-6), part)
    assert at("absolute_error", top, -top) == (inf, 1)
    assert at("log_cosh", top, 0) == (top, 1)
    for name, slope in {"absolute_error": 1, "huber": part, "quantile": most, "log_cosh": 1}.items():
        assert at(name, inf, 0) == (inf, slope)
    assert at("poisson", -inf, 0) == (0, 0)
    assert at("poisson", -inf, 2) == (inf, -2)
    assert at("poisson", -top, 0) == (0, 0)
    assert at("poisson", inf, 2) == (inf, inf)
    assert at("poisson", 1e4, 2) == (inf, inf)
    assert at("gamma", inf, 2) == (inf, 1)
    assert at("gamma", top, 2) == (top, 1)
    assert at("gamma", -inf, 2) == (inf, -inf)
    assert at("gamma", -inf, 1e-30) == (inf, -inf)
    # exp overflows, y exp(-z) does not
    deep = -720.0 if dtype is np.float64 else -100.0
    exact = 1e-30 * np.exp(WIDE(-deep))
    assert at("gamma", deep, 1e-30)[1] == pytest.approx(float(-exact), rel=1e-5)
    for name in ("absolute_error", "huber", "quantile", "log_cosh", "poisson", "gamma"):
        assert np.isnan(at(name, np.nan, 1)).all()


# Focal losses ------------------------------------------------------------------------------------------


@cache
def focal_cases(gamma, dtype):
    """Scores and targets; loss, derivative, second derivative, and the larger term of each derivative."""
    rng = np.random.default_rng(6)
    z = score_sweep(dtype, 9_000)
    n = z.size
    y = np.concatenate([np.zeros(n), np.ones(n), rng.random(n), np.full(n, 1e-6)]).astype(dtype)
    z = np.tile(z, 4)
    wide, g = z.astype(WIDE), WIDE(gamma)
    size = np.abs(wide)
    against = np.where(np.signbit(z), y.astype(WIDE), 1 - y.astype(WIDE))
    e = np.exp(-size)
    s, b, near = e / (1 + e), 1 / (1 + e), np.log1p(e)
    far = size + near
    if gamma == int(gamma):
        right, wrong = s ** int(gamma), b ** int(gamma)
    else:
        right, wrong = np.exp(-g * far), np.exp(-g * near)
    up, down = against * wrong * (g * s * far + b), (1 - against) * right * (g * b * near + s)
    parts_of_curvature = (
        (1 - against) * right * b * np.stack([g * g * b * near, (2 * g + 1) * s, -g * s * near])
    )
    parts_of_curvature += against * wrong * s * np.stack([g * g * s * far, (2 * g + 1) * b, -g * b * far])
    value = against * wrong * far + (1 - against) * right * near
    slope = np.where(np.signbit(z), down - up, up - down)
    return (
        z,
        y,
        value,
        slope,
        parts_of_curvature.sum(axis=0),
        np.maximum(up, down),
        np.abs(parts_of_curvature).max(axis=0),
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 2.7, 3.0, 5.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_focal_loss_and_gradient_stay_within_two_ulp_up_to_gamma_three(build, dtype, gamma):
    z, y, value, slope, exact_curvature, slope_size, curvature_size = focal_cases(gamma, dtype)
    kernel = kernels.table_of(build)["focal", np.dtype(dtype).name]
    rows, scores, curvature = np.empty(z.size, dtype), z[:, None].copy(), np.empty((z.size, 1), dtype)
    kernels.evaluate(kernel, scores, y[:, None], None, None, gamma, rows, curvature)
    hard = (y == 0) | (y == 1)
    bound = 2 + 0.2 * max(gamma - 3, 0)
    assert ulps(rows, value).max() <= bound
    assert ulps(scores[hard, 0], slope[hard]).max() <= bound
    assert ulps(scores[:, 0], slope, slope_size).max() <= bound
    normal = (np.abs(z) < (700 if dtype is np.float64 else 85)) & (curvature_size > np.finfo(dtype).tiny)
    assert ulps(curvature[normal, 0], exact_curvature[normal], curvature_size[normal]).max() <= 8


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_focal_loss_at_infinite_and_missing_scores(build, dtype, gamma):
    kernel = kernels.table_of(build)["focal", np.dtype(dtype).name]
    top = np.finfo(dtype).max
    z = np.array([np.inf, np.inf, -np.inf, np.inf, top, -top, np.nan], dtype)[:, None]
    y = np.array([1, 0, 0, 0.5, 0, 0.5, 1], dtype)[:, None]
    rows = np.empty(7, dtype)
    kernels.evaluate(kernel, z, y, None, None, gamma, rows)
    np.testing.assert_array_equal(rows, np.array([0, np.inf, 0, np.inf, top, top / 2, np.nan], dtype))
    slopes = [0, 1, 0, 0.5, 1, -0.5, np.nan]
    np.testing.assert_array_equal(z[:, 0], np.array(slopes, dtype))


def assert_softmax_kernel_is_within_four_ulp(build, dtype, K, kind, rng, kernel, parameter, of_cross_entropy):
    """Compare with a function of p, 1 - p and l = -log p, which gives f(l) and f'(l) for each class."""
    z = softmax_scores(K, dtype, rng)[:100]
    n = len(z)
    p, not_p, base, behind = exact_softmax(z)
    codes = rng.integers(0, K, n)
    codes[::2] = z[::2].argmax(axis=1)
    certain = np.eye(K, dtype=dtype)[codes]
    y = certain
    given = (None, codes.astype(np.intp))
    if kind == "probabilities":
        y = rng.dirichlet(np.ones(K), n).astype(dtype)
        y[:10] = certain[:10]
        given = (y, None)
    value, gradient = np.empty(n, dtype), z.copy()
    table = kernels.table_of(build)
    kernels.evaluate(table[kernel, np.dtype(dtype).name], gradient, *given, None, parameter, value)
    cost, slope = of_cross_entropy(p, not_p, base[:, None] + behind)
    part = y * slope
    others = np.stack([np.delete(part, k, axis=1).sum(axis=1) for k in range(K)], axis=1)
    up, down = p * others, part * not_p
    assert ulps(value, (y * cost).sum(axis=1)).max() <= 4
    size = None if kind == "codes" else np.maximum(up, down)
    assert ulps(gradient, up - down, size).max() <= 4


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["codes", "probabilities"])
@pytest.mark.parametrize("K", [2, 3, 10, 32, 33, 100, 300])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_softmax_focal_loss_and_gradient_stay_within_four_ulp(build, dtype, K, kind, gamma, rng):
    def focal(p, not_p, cost):
        power = not_p ** WIDE(gamma)
        return power * cost, power * (1 + gamma * p * (cost / np.where(not_p > 0, not_p, 1)))

    assert_softmax_kernel_is_within_four_ulp(build, dtype, K, kind, rng, "softmax_focal", gamma, focal)


# The generalized cross-entropy -------------------------------------------------------------------------


@pytest.mark.parametrize("q", [0.01, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("kind", ["codes", "probabilities"])
@pytest.mark.parametrize("K", [2, 3, 10, 32, 33, 100, 300])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_generalized_cross_entropy_and_its_gradient_stay_within_four_ulp(build, dtype, K, kind, q, rng):
    def generalized(p, not_p, cost):
        return -np.expm1(-WIDE(q) * cost) / WIDE(q), np.exp(-WIDE(q) * cost)

    assert_softmax_kernel_is_within_four_ulp(
        build, dtype, K, kind, rng, "generalized_cross_entropy", q, generalized
    )


@pytest.mark.parametrize("q", [0.01, 0.7, 1.0])
@pytest.mark.parametrize("K", [3, 40])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_generalized_cross_entropy_at_infinite_and_missing_scores(build, dtype, K, q):
    kernel = kernels.table_of(build)["generalized_cross_entropy", np.dtype(dtype).name]
    top = np.finfo(dtype).max
    for score in (np.inf, top):
        z = np.zeros((5, K), dtype)
        z[:4, 1] = [score, score, -score, -score]
        z[4, 2] = np.nan
        codes = np.array([1, 0, 1, 0, 1])
        for y in (None, np.eye(K, dtype=dtype)[codes]):
            gradient, rows = z.copy(), np.empty(5, dtype)
            kernels.evaluate(kernel, gradient, y, None if y is not None else codes, None, q, rows)
            rest = -np.expm1(-q * np.log(K - 1)) / q
            expected = np.array([0, 1 / q, 1 / q, rest, np.nan])
            np.testing.assert_allclose(rows, expected, rtol=8 * np.finfo(dtype).eps)
            assert not gradient[:3].any()
            assert not np.isnan(gradient[3]).any()
            assert np.isnan(gradient[4]).all()


@pytest.mark.parametrize("codes", [[0, 3], [-1, 0], [0, 2**62], [0, -(2**62)]])
@pytest.mark.parametrize("K", [3, 40])
@pytest.mark.parametrize("build", BUILDS)
def test_a_code_out_of_range_is_an_error_and_no_read(build, K, codes):
    codes = [K if c == 3 else c for c in codes]
    kernel = kernels.table_of(build)["cross_entropy", "float64"]
    with pytest.raises(ValueError, match=r"class code .* is not in \[0, "):
        kernels.evaluate(kernel, np.zeros((2, K)), None, np.array(codes, dtype=np.intp))
