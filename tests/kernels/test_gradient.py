"""The passes over X: chunks, codes out of range, and sums that do not depend on how the rows are cut."""

import numpy as np
import pytest
import scipy.sparse

from sklloss import losses
from sklloss.data.dataset import Dataset
from sklloss.objectives import numpy_passes
from sklloss.objectives.numpy_passes import SMALL_WORK, NumPyPasses

LAYOUTS = {"by rows": np.ascontiguousarray, "by columns": np.asfortranarray, "CSR": scipy.sparse.csr_array}


def make(n, p, K, layout="by rows", dtype=np.float64, loss=None, codes=None, n_threads=1, weight=None):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p)).astype(dtype)
    if codes is None:
        codes = rng.integers(0, K, size=n)
    loss = losses.CrossEntropy() if loss is None else loss
    return NumPyPasses(
        Dataset(LAYOUTS[layout](X), None, codes, weight, K), loss, fit_intercept=True, n_threads=n_threads
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("loss", [losses.CrossEntropy(), losses.LogLoss()], ids=["softmax", "one-vs-rest"])
@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(("row", "bad"), [(0, -1), (40, 3), (59_999, 10**6), (30_000, -(2**62))])
def test_a_code_out_of_range_is_an_error_that_names_the_row(layout, loss, n_threads, row, bad):
    codes = np.zeros(60_000, dtype=np.intp)
    codes[row] = bad
    passes = make(60_000, 15, 3, layout, loss=loss, codes=codes, n_threads=n_threads)
    assert SMALL_WORK < 60_000 * 15 * 3
    for call in (passes.value_and_gradient, passes.hessian):
        with pytest.raises(ValueError, match=f"code {bad} in row {row} "):
            call(np.zeros((3, 16)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n_threads", [1, 2, 8])
def test_of_several_bad_codes_the_first_is_named(layout, n_threads):
    codes = np.zeros(60_000, dtype=np.intp)
    codes[[7_001, 7_500, 20_000, 40_000, 59_999]] = [3, 4, 5, 6, 7]
    passes = make(60_000, 15, 3, layout, codes=codes, n_threads=n_threads)
    for _ in range(5):
        for call in (passes.value_and_gradient, passes.hessian):
            with pytest.raises(ValueError, match="code 3 in row 7001 "):
                call(np.zeros((3, 16)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_pass_has_the_same_bits_with_any_number_of_threads(layout, K, dtype):
    loss = losses.LogLoss() if K == 1 else losses.CrossEntropy()
    w, v = np.random.default_rng(1).normal(size=(2, K, 21))
    sets = [np.array([0, 3, 20], dtype=np.intp)] * K
    expected = None
    for n_threads in range(1, 9):
        codes = np.random.default_rng(2).integers(0, K, size=20_000)
        passes = make(20_000, 20, K, layout, dtype, loss, codes, n_threads)
        slopes = passes.empty_slopes()
        found = [
            *passes.value_and_gradient(w, keep_curvature=True, slopes=slopes), slopes, passes.product(v),
            *passes.hessian_block(sets, coupled=K > 1), *passes.hessian(w),
        ]  # fmt: skip
        assert min(chunks.count for chunks in passes._kept_chunks.values()) > 1
        if expected is None:
            expected = [np.copy(array) for array in found]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("K", [1, 4])
@pytest.mark.parametrize("n", [1, 31, 32, 33, 5_000, 80_003])
def test_a_pass_is_the_sum_over_its_rows_however_it_is_cut(n, K, layout, dtype):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n, 9)).astype(dtype)
    weight = rng.uniform(size=n).astype(dtype)
    loss = losses.LogLoss() if K == 1 else losses.CrossEntropy()
    P = rng.uniform(size=(n, 1)) if K == 1 else rng.dirichlet(np.ones(K), size=n)
    P = np.ascontiguousarray(P, dtype=dtype)
    w = rng.normal(size=(K, 10))
    passes = NumPyPasses(
        Dataset(LAYOUTS[layout](X), P, None, weight, K), loss, fit_intercept=True, n_threads=2
    )
    sums, gradient = passes.value_and_gradient(w)
    wide, target, weight = X.astype(np.float64), P.astype(np.float64), weight.astype(np.float64)
    Z = wide @ w[:, :9].T + w[:, 9]
    if K == 1:
        values, slopes = np.logaddexp(0, Z) - target * Z, 1 / (1 + np.exp(-Z)) - target
        values = values[:, 0]
    else:
        total = np.exp(Z).sum(axis=1, keepdims=True)
        values = np.log(total[:, 0]) * target.sum(axis=1) - (target * Z).sum(axis=1)
        slopes = np.exp(Z) / total * target.sum(axis=1, keepdims=True) - target
    slopes *= weight[:, None]
    expected = np.column_stack([slopes.T @ wide, slopes.sum(axis=0)])
    tolerance = 1e-11 if dtype == np.float64 else 2e-5
    np.testing.assert_allclose(sums.sum(), weight @ values, rtol=tolerance)
    np.testing.assert_allclose(gradient, expected, rtol=tolerance, atol=tolerance * np.abs(slopes).sum())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sums_over_many_rows_keep_the_precision_of_a_few(layout, dtype):
    # terms of one sign, which is where rounding adds up most
    n = 1 << 18
    row = np.random.default_rng(0).normal(size=(1, 9)).astype(dtype)
    X = np.repeat(row, n, axis=0)
    w = np.random.default_rng(1).normal(size=(3, 10))
    codes = np.zeros(n, dtype=np.intp)
    many = NumPyPasses(
        Dataset(LAYOUTS[layout](X), None, codes, None, 3),
        losses.CrossEntropy(),
        fit_intercept=True,
        n_threads=2,
    )
    few = NumPyPasses(
        Dataset(LAYOUTS[layout](X[:64]), None, codes[:64], None, 3), losses.CrossEntropy(), fit_intercept=True
    )
    sums, gradient = many.value_and_gradient(w)
    sums_64, gradient_64 = few.value_and_gradient(w)
    tolerance = 1e-12 if dtype == np.float64 else 1e-6
    np.testing.assert_allclose(sums, n / 64 * sums_64, rtol=tolerance)
    np.testing.assert_allclose(gradient[:, -1], n / 64 * gradient_64[:, -1], rtol=tolerance)
    # within a chunk the coefficients' gradient is added in X's dtype
    np.testing.assert_allclose(
        gradient, n / 64 * gradient_64, rtol=tolerance if dtype == np.float64 else 1e-4
    )


@pytest.mark.parametrize("n", [1, 100, 3_000, 50_000, 1_000_001])
@pytest.mark.parametrize(("p", "K"), [(1, 1), (30, 1), (784, 10), (5, 1000)])
def test_chunks_cover_the_rows_once_in_order(n, p, K):
    X = np.lib.stride_tricks.as_strided(np.zeros(1), shape=(n, p), strides=(0, 0))
    codes = np.zeros(n, dtype=np.intp)
    passes = NumPyPasses(Dataset(X, None, codes, None, K), losses.CrossEntropy(), fit_intercept=True)
    block = passes._block_rows()
    cuts = passes._chunk_bounds(p * K, p * K, block)
    assert cuts[0] == 0
    assert cuts[-1] == n
    assert np.all(np.diff(cuts) > 0)
    assert len(cuts) - 1 <= numpy_passes.MOST_CHUNKS
    assert block % 32 == 0
    if n * p * K <= SMALL_WORK:
        assert len(cuts) == 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_of_weight_zero_add_nothing_whatever_they_hold(layout):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(64, 5))
    far = X.copy()
    weight = np.ones(64)
    weight[10:20] = 0
    far[10:20] = 1e200
    codes = rng.integers(0, 3, size=64)
    w = rng.normal(size=(3, 6))
    results = []
    for rows in (X, far):
        passes = NumPyPasses(
            Dataset(LAYOUTS[layout](rows), None, codes, weight, 3), losses.CrossEntropy(), fit_intercept=True
        )
        results.append((*passes.value_and_gradient(w), *passes.hessian(w)))
    for one, other in zip(*results):
        np.testing.assert_allclose(
            np.tril(one) if one.ndim > 1 else one, np.tril(other) if other.ndim > 1 else other
        )
