"""Dense sweeps of every build of the kernels, against 80-bit arithmetic.

tests/losses/test_accuracy.py compares hand-picked extremes with mpmath; here the numbers in between are
swept, by the hundred thousand. An 80-bit reference is 2**-11 ULP of float64 away from the truth.
"""

import numpy as np
import pytest

from sklloss import kernels

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
    """Scores of both signs, dense where the loss bends and logarithmic out to where it underflows."""
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
@pytest.mark.parametrize("K", [2, 3, 10, 31, 32, 33, 100, 1000, 100_000])
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


@pytest.mark.parametrize("name", ["log_loss", "cross_entropy", "squared_error", "root_mean_squared_error"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("build", BUILDS)
def test_rows_that_do_not_fill_a_tile_are_computed_like_all_others(build, dtype, name, rng):
    kernel = kernels.table_of(build)[name, np.dtype(dtype).name]
    for n in (1, 7, 31, 32, 33, 511, 512, 513, 1025):
        for outputs in (1, 3, 40, 700):
            if n * outputs > 50_000 or (name == "cross_entropy" and outputs == 1):
                continue
            z = rng.normal(size=(n, outputs)).astype(dtype)
            y = rng.dirichlet(np.ones(outputs), n).astype(dtype)
            w = rng.integers(0, 3, n).astype(dtype)
            w[0] = 2
            kept, total = z.copy(), 0.0
            total = kernels.evaluate(kernel, kept, y, weight=w)
            repeated = np.repeat(np.arange(n), w.astype(int))
            again = z[repeated].copy()
            expected = kernels.evaluate(kernel, again, y[repeated])
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


@pytest.mark.parametrize("codes", [[0, 3], [-1, 0], [0, 2**62], [0, -(2**62)]])
@pytest.mark.parametrize("K", [3, 40])
@pytest.mark.parametrize("build", BUILDS)
def test_a_code_out_of_range_is_an_error_and_no_read(build, K, codes):
    codes = [K if c == 3 else c for c in codes]
    kernel = kernels.table_of(build)["cross_entropy", "float64"]
    with pytest.raises(ValueError, match=r"class code .* is not in \[0, "):
        kernels.evaluate(kernel, np.zeros((2, K)), None, np.array(codes, dtype=np.intp))
