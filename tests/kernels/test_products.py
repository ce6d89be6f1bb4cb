"""Products of a block of rows with few outputs, and Gram matrices: every build against NumPy."""

import importlib

import numpy as np
import pytest
import scipy.sparse

from sklloss import kernels, losses
from sklloss.data.dataset import Dataset
from sklloss.kernels import common
from sklloss.objectives.numpy_passes import NumPyPasses

BUILDS = kernels.available()
OUTPUTS = [1, 2, 3, 4, 5, 6, 7, 10, 11, 13]
WIDTHS = [1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 64, 70]


@pytest.fixture(params=BUILDS)
def build(request):
    """A build, whose products are in use during the test."""

    def use(name):
        common.use_products(importlib.import_module(f"sklloss.kernels.isa.{name}").products())

    use(request.param)
    yield request.param
    use(kernels.chosen)


def bound(X, y, outputs):
    return NumPyPasses(Dataset(X, y, None, None, outputs), losses.HalfSquaredError(), fit_intercept=True)


def data(rng, n, p, outputs, dtype):
    X = rng.normal(size=(n, p)).astype(dtype)
    y = rng.normal(size=(n, outputs)).astype(dtype)
    return X, y, rng.normal(size=(outputs, p + 1)).astype(dtype).astype(np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_scores_and_gradients_are_those_of_numpy(build, outputs, dtype, rng):
    tolerance = 50 * np.finfo(dtype).eps
    for p in WIDTHS:
        n = int(rng.integers(1, 300))
        X, y, w = data(rng, n, p, outputs, dtype)
        sums, gradient = bound(X, y, outputs).value_and_gradient(w)
        wide = np.column_stack([X, np.ones(n)]).astype(np.float64)
        d = wide @ w.T - y
        np.testing.assert_allclose(sums, (d**2).sum(axis=0) / 2 / outputs, rtol=tolerance)
        scale = (np.abs(d).T @ np.abs(wide)) / outputs
        np.testing.assert_array_less(np.abs(gradient - d.T @ wide / outputs), tolerance * (scale + 1e-30))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_what_lies_beside_short_rows_does_not_count(build, outputs, dtype, rng):
    for p in range(1, 17):
        for n in (1, 2, 5, 18, 101):
            X, y, w = data(rng, n, p, outputs, dtype)
            whole = bound(X, y, outputs)
            beside = np.full((n + 20, p + 3), np.nan, dtype)
            beside[:n, :p] = X
            behind = np.full((n + 20, p), np.inf, dtype)
            behind[:n] = X
            for part in (beside[:n, :p], behind[:n]):
                other = bound(part, y, outputs)
                for a, b in zip(whole.value_and_gradient(w), other.value_and_gradient(w), strict=True):
                    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_may_lie_apart(build, dtype, rng):
    X, y, w = data(rng, 100, 21, 3, dtype)
    apart = rng.normal(size=(200, 40)).astype(dtype)
    apart[::2, 7:28] = X
    whole = bound(X, y, 3)
    slices = bound(apart[::2, 7:28], y, 3)
    for a, b in zip(whole.value_and_gradient(w), slices.value_and_gradient(w), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(whole.hessian(w), slices.hessian(w), strict=True):
        np.testing.assert_array_equal(np.tril(a), np.tril(b))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_order_of_x_in_memory_does_not_change_a_bit(build, dtype, rng):
    """An X by columns is transposed in squares of 4, the last of which overlap."""
    for p in (1, 3, 4, 5, 6, 7, 9, 12):
        for n in (1, 3, 4, 5, 6, 8, 11, 70):
            X, y, w = data(rng, n, p, 2, dtype)
            by_rows, by_columns = bound(X, y, 2), bound(np.asfortranarray(X), y, 2)
            for a, b in zip(by_rows.value_and_gradient(w), by_columns.value_and_gradient(w), strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("p", "outputs"), [(1, 2), (3, 26), (17, 5), (17, 26), (40, 70), (65, 10), (300, 300)]
)
def test_softmax_hessian_products_are_those_of_numpy(build, p, outputs, order, dtype, rng):
    """The last of these shapes has more coefficients than the products of a build are meant for."""
    n = 211
    X = np.asarray(rng.normal(size=(n, p)), dtype=dtype, order=order)
    codes, weight = rng.integers(0, outputs, n), rng.random(n).astype(dtype)
    rows = NumPyPasses(Dataset(X, None, codes, weight, outputs), losses.CrossEntropy(), fit_intercept=True)
    w, v = rng.normal(size=(2, outputs, p + 1)) / np.sqrt(p)
    wide = np.column_stack([X, np.ones(n)]).astype(np.float64)
    probability = np.exp(wide @ w.T)
    probability /= probability.sum(axis=1, keepdims=True)
    rows.value_and_gradient(w, keep_curvature=True)
    u = wide @ v.T
    u = probability * (u - (probability * u).sum(axis=1, keepdims=True)) * weight[:, None]
    scale = np.abs(u).T @ np.abs(wide) + np.abs(u).max()
    error = np.abs(rows.product(v) - u.T @ wide)
    np.testing.assert_array_less(error, 300 * np.finfo(dtype).eps * scale)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("width", [1, 2, 5, 7, 8, 9, 15, 16, 17, 24, 31, 39, 47, 48, 63, 100, 127, 130, 150])
def test_hessians_are_those_of_numpy(build, width, fit_intercept, rng):
    n, outputs = 333, 2
    p = width - fit_intercept
    if p == 0:
        p = width
    X = rng.normal(size=(n, p))
    Y = rng.random((n, outputs))
    weight = rng.random(n)
    rows = NumPyPasses(Dataset(X, Y, None, weight, outputs), losses.LogLoss(), fit_intercept=fit_intercept)
    w = rng.normal(size=(outputs, rows.width)) / np.sqrt(width)
    sums, gradient, hessian = rows.hessian(w)
    wide = np.column_stack([X, np.ones(n)]) if fit_intercept else X
    q = 1 / (1 + np.exp(-(wide @ w.T)))
    expected = np.einsum("ni,nk,nj->kij", wide, q * (1 - q) * weight[:, None], wide)
    assert hessian.shape == expected.shape
    np.testing.assert_allclose(np.tril(hessian), np.tril(expected), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(gradient, ((q - Y) * weight[:, None]).T @ wide, rtol=1e-10, atol=1e-11)
    precise = rows.precise_gradient(w)
    np.testing.assert_array_equal(precise[0], sums)
    np.testing.assert_array_equal(precise[1], gradient)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("outputs", "width"), [(2, 5), (3, 17), (5, 8), (4, 33), (13, 4), (30, 2), (3, 140)])
def test_hessians_of_a_softmax_are_those_of_numpy(build, outputs, width, weighted, rng):
    n = 301  # several blocks
    X, codes = rng.normal(size=(n, width - 1)), rng.integers(0, outputs, n)
    weight = rng.random(n) * (np.arange(n) % 5 > 0) if weighted else None
    rows = NumPyPasses(
        Dataset(X, None, codes, weight, outputs), losses.CrossEntropy(), fit_intercept=True, center=True
    )
    w = rng.normal(size=(outputs, width)) / np.sqrt(width)
    wide = np.column_stack([X - rows.center, np.ones(n)])
    p = np.exp(wide @ w.T)
    p /= p.sum(axis=1, keepdims=True)
    curvature = np.eye(outputs) * p[:, :, None] - p[:, :, None] * p[:, None]
    if weighted:
        curvature *= weight[:, None, None]
    expected = np.einsum("na,nkl,nb->kalb", wide, curvature, wide, optimize=True)

    def check(found, wanted):
        np.testing.assert_allclose(np.tril(found), np.tril(wanted), rtol=1e-10, atol=1e-11)

    size = outputs * width
    check(rows.hessian(w)[2], expected.reshape(1, size, size))
    check(rows.hessian(w, coupled=False)[2], np.einsum("kakb->kab", expected))
    # and over some of the parameters, by the curvature of a pass
    rows.value_and_gradient(w, keep_curvature=True)
    sets = [np.flatnonzero(rng.random(width) < 0.7) for _ in range(outputs)]
    sets[0] = np.arange(width)
    chosen = np.concatenate([k * width + columns for k, columns in enumerate(sets)])
    (matrix,) = rows.hessian_block(sets, coupled=True)
    np.testing.assert_allclose(
        matrix, expected.reshape(size, size)[np.ix_(chosen, chosen)], rtol=1e-10, atol=1e-11
    )
    (matrix,) = rows.hessian_block(sets, coupled=False)
    start = 0
    for k, columns in enumerate(sets):
        end = start + len(columns)
        part = expected[k, :, k][np.ix_(columns, columns)]
        np.testing.assert_allclose(matrix[start:end, start:end], part, rtol=1e-10, atol=1e-11)
        start = end


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parts_of_separable_hessians_are_those_of_numpy(build, dtype, order, rng):
    n, p, outputs = 500, 37, 2
    X = np.asarray(rng.normal(size=(n, p)).astype(dtype), order=order)
    Y = rng.random((n, outputs)).astype(dtype)
    rows = NumPyPasses(Dataset(X, Y, None, None, outputs), losses.LogLoss(), fit_intercept=True)
    rows.value_and_gradient(rng.normal(size=(outputs, p + 1)), keep_curvature=True)
    wide = np.column_stack([X, np.ones(n)]).astype(np.float64)
    for sets in [np.arange(p + 1)] * 2, [np.arange(3, 20), np.array([0, 5, 6, 30, p])]:
        for k, (matrix, columns) in enumerate(
            zip(rows.hessian_block(sets, coupled=False), sets, strict=True)
        ):
            part = wide[:, columns]
            expected = part.T @ (rows._curvature[:, k : k + 1].astype(np.float64) * part)
            np.testing.assert_allclose(matrix, expected, rtol=1e-11, atol=1e-11)


def test_float32_rows_have_gradients_in_float64_too(build, rng):
    X, y, w = data(rng, 500, 30, 1, np.float32)
    rows = bound(X, y, 1)
    sums, gradient = rows.precise_gradient(w)
    wide = np.column_stack([X, np.ones(len(X))]).astype(np.float64)
    d = wide @ w.T - y
    np.testing.assert_allclose(sums, (d**2).sum(axis=0) / 2, rtol=1e-13)
    np.testing.assert_allclose(gradient, d.T @ wide, rtol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("outputs", [1, 2, 7, 8, 9, 16, 17, 24, 25, 31, 32, 33, 40])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_sparse_rows_give_what_dense_ones_do(build, outputs, dtype, index, rng):
    X, y, w = data(rng, 203, 37, outputs, dtype)
    X *= rng.random(X.shape) < 0.2
    X[5:9] = 0  # rows without a number, in the middle and at the end
    X[-1] = 0
    sparse = scipy.sparse.csr_matrix(X)
    sparse.indices, sparse.indptr = sparse.indices.astype(index), sparse.indptr.astype(index)
    rows, dense = (
        bound(sparse, y, outputs),
        bound(X.astype(np.float64), y.astype(float), outputs),
    )
    tolerance = 100 * np.finfo(dtype).eps
    sums, gradient = rows.value_and_gradient(w, keep_curvature=True)
    expected = dense.value_and_gradient(w, keep_curvature=True)
    np.testing.assert_allclose(sums, expected[0], rtol=tolerance)
    np.testing.assert_allclose(gradient, expected[1], rtol=tolerance, atol=tolerance * 30)
    for _ in range(2):  # into the same memory
        v = rng.normal(size=w.shape)
        product, exact = rows.product(v), dense.product(v)
        np.testing.assert_allclose(product, exact, rtol=tolerance, atol=tolerance * 30)
