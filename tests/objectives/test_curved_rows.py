"""Products with the Hessian over the rows that have nearly all of its curvature."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from sklloss.data.dataset import Dataset
from sklloss.losses import CrossEntropy, LogLoss
from sklloss.objectives import curved_rows
from sklloss.objectives.linear import LinearObjective
from sklloss.objectives.passes import make_passes

N, P, K = 1500, 60, 8


def objective(rng, kind="softmax", dtype=np.float64, order="C", C=10.0, weight=None, offset=0.0, n=N):
    """An objective over rows of which some are close to a class boundary, at a point far along."""
    X = np.asarray(rng.normal(size=(n, P)) + offset, dtype=dtype, order=order)
    W = rng.normal(size=(K, P))
    scores = (X - offset) @ W.T
    if kind == "softmax":
        data, loss = Dataset(X, codes=scores.argmax(axis=1), outputs=K, weight=weight), CrossEntropy()
    else:
        data = Dataset(X, values=(scores > 0).astype(dtype), outputs=K, weight=weight)
        loss = LogLoss()
    found = LinearObjective(make_passes(data, loss, fit_intercept=True, center=True), C)
    w = np.c_[(2.0 if kind == "softmax" else 40.0) * W, np.zeros(K)]
    return found, w.reshape(found.shape)


CASES = {
    "plain": {},
    "float32": {"dtype": np.float32},
    "columns": {"order": "F"},
    "centered": {"offset": 1e4},
    "separable": {"kind": "separable"},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_rough_products_are_those_of_fewer_rows_and_never_larger(rng, case, weighted):
    arguments = dict(CASES[case])
    if weighted:
        arguments["weight"] = rng.integers(0, 3, N).astype(arguments.get("dtype", np.float64))
    found, w = objective(rng, **arguments)
    found.linearise(w)
    part = found.passes.over_curved_rows()
    assert 0 < part.n < 0.8 * N
    assert part.dtype == np.float32
    for _ in range(5):
        v = rng.normal(size=found.shape)
        exact, rough = found.product(v).copy(), found.rough_product(v).copy()
        curvature, less = np.vdot(v, exact), np.vdot(v, rough)
        assert 0.97 * curvature < less < (1 + 1e-5) * curvature
        assert np.linalg.norm(rough - exact) < 0.05 * np.linalg.norm(exact)


def test_a_later_point_has_other_rows(rng):
    found, w = objective(rng)
    counts = []
    for factor in (1.0, 0.2, 1.0):
        found.linearise(factor * w)
        v = rng.normal(size=found.shape)
        assert np.vdot(v, found.rough_product(v)) > 0.97 * np.vdot(v, found.product(v))
        counts.append(found.passes.over_curved_rows().n)
    assert counts[0] == counts[2] < counts[1]


def test_probabilities_too_close_to_0_and_1_for_float32_stay_in_float64(rng, monkeypatch):
    found, w = objective(rng)
    monkeypatch.setattr(curved_rows, "LEAST_CURVATURE", 1.0)
    found.linearise(w)
    part = found.passes.over_curved_rows()
    assert part.n < N
    assert part.dtype == np.float64


def test_columns_out_of_the_range_of_float32_stay_in_float64(rng):
    found, w = objective(rng)
    X = found.passes.X * np.where(np.arange(P) == 3, 1e-100, 1.0)
    data = Dataset(X, codes=found.passes.codes, outputs=K)
    found = LinearObjective(make_passes(data, CrossEntropy(), fit_intercept=True), 1.0)
    found.linearise(w)
    part = found.passes.over_curved_rows()
    assert part.dtype == np.float64
    assert part.n < N


def test_all_rows_are_used_where_a_choice_would_save_nothing(rng):
    small, w = objective(rng, n=100)
    small.linearise(w)
    assert small.passes.over_curved_rows() is small.passes
    single, w = objective(rng, dtype=np.float32)
    single.linearise(0 * w)
    assert single.passes.over_curved_rows() is single.passes
    data = Dataset(sp.csr_array(single.passes.X), codes=single.passes.codes, outputs=K)
    sparse = LinearObjective(make_passes(data, CrossEntropy(), fit_intercept=True), 1.0)
    sparse.linearise(w)
    assert sparse.passes.over_curved_rows() is sparse.passes


def test_products_without_a_penalty_are_exact(rng):
    found, w = objective(rng, C=np.inf)
    found.linearise(w)
    v = rng.normal(size=found.shape)
    np.testing.assert_array_equal(found.product(v).copy(), found.rough_product(v))


def test_a_wide_table_is_not_squared(rng):
    """X'X of these columns would take 5 GB."""
    X = rng.normal(size=(30, 26_000))
    data = Dataset(X, values=(X[:, :1] > 0).astype(float), outputs=1)
    found = LinearObjective(make_passes(data, LogLoss(), fit_intercept=True), 1.0)
    found.linearise(np.zeros(found.shape))
    assert found.passes.over_curved_rows().dtype == np.float32
    v = rng.normal(size=found.shape)
    exact = found.product(v).copy()
    np.testing.assert_allclose(found.rough_product(v), exact, atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize("kind", ["softmax", "separable"])
def test_numbers_beyond_float32_stay_in_float64(rng, kind):
    found, w = objective(rng, kind)
    X = found.passes.X.copy()
    X[3, 5] = 1e50
    weight = np.ones(N)
    weight[3] = 0
    targets = {"codes": found.passes.codes, "values": found.passes.data.values}
    for data in (
        Dataset(X, **targets, outputs=K, weight=weight),
        Dataset(found.passes.X, **targets, outputs=K, weight=np.full(N, 1e60)),
    ):
        large = LinearObjective(make_passes(data, found.passes.loss, fit_intercept=True), 1.0)
        large.linearise(w)
        assert large.passes.over_curved_rows().dtype == np.float64
        assert np.isfinite(large.rough_product(w)).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_compiled_products_are_those_of_python(rng, case, weighted, sparse):
    """One column is constant, which the Hessian of the loss leaves out."""
    arguments = dict(CASES[case])
    if weighted:
        arguments["weight"] = rng.integers(0, 3, N).astype(arguments.get("dtype", np.float64))
    found, w = objective(rng, **arguments)
    X = found.passes.X.copy()
    X[:, 3] = 7.0
    data = replace(found.passes.data, X=sp.csr_array(X) if sparse else X)
    found = LinearObjective(make_passes(data, found.passes.loss, fit_intercept=True, center=True), 10.0)
    found.linearise(w)
    v = rng.normal(size=found.shape)
    for rough in (False, True):
        expected = (found.rough_product if rough else found.product)(v).copy()
        np.testing.assert_allclose(found.multiplier(rough=rough)(v), expected, rtol=1e-13)


def test_blocks_of_curved_rows_leave_out_rows_that_matter_to_other_outputs_alone(rng):
    found, w = objective(rng)
    found.linearise(w)
    part = found.passes.over_curved_rows()
    coef = found.coef(w)
    blocks = part.hessian(coef, coupled=False)[2]
    part._negligible = 0.0
    every = part.hessian(coef, coupled=False)[2]
    for less, block in zip(blocks, every, strict=True):
        less, block = (np.tril(matrix) + np.tril(matrix, -1).T for matrix in (less, block))
        left_out, whole = np.linalg.eigvalsh(block - less), np.linalg.eigvalsh(block)
        assert left_out[0] > -1e-12 * whole[-1]
        assert left_out[-1] > 0
        assert left_out[-1] < 1e-2 * whole[-1]


@pytest.mark.parametrize("softmax", [False, True])
def test_curvature_that_is_not_a_number_stays_in_float64(rng, softmax):
    found, w = objective(rng)
    found.linearise(w)
    rows, X = found.passes.data, found.passes.X
    chooser = curved_rows.CurvedRows(X, found.passes.center, np.abs(X).max(axis=0))
    curvature = np.full((N, K), 1 / K)
    curvature[5, 2] = np.nan
    assert chooser.choose(rows, curvature, softmax=softmax) is None
