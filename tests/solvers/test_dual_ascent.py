"""Dual coordinate ascent on sparse problems, and Newton's method started from its result."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse

from sklloss import LogisticClassifier, SoftmaxClassifier, losses
from sklloss.data.dataset import Dataset
from sklloss.objectives import numpy_passes
from sklloss.objectives.linear import WIDEST_GRAM, LinearObjective
from sklloss.objectives.linear_stochastic import DualAscent
from sklloss.objectives.numpy_passes import NumPyPasses
from sklloss.solvers.newton import newton_cholesky
from sklloss.solvers.newton_cg import dual_start, newton_cg

KINDS = ["binary", "multilabel", "one-vs-rest", "softmax codes", "softmax rows"]


def sparse(n, p, seed=0, numbers=6):
    """Rows of a few numbers each, some columns more frequent than others, one row empty."""
    rng = np.random.default_rng(seed)
    columns = (p * rng.uniform(size=(n, numbers)) ** 2).astype(int)
    X = scipy.sparse.coo_array(
        (rng.uniform(0.1, 0.6, size=n * numbers), (np.repeat(np.arange(n), numbers), columns.ravel())), (n, p)
    ).tocsr()
    X.sum_duplicates()
    X.data[X.indptr[3] : X.indptr[4]] = 0.0
    X.eliminate_zeros()
    return X


def objective(
    kind, weights="none", dtype=np.float64, *, fit_intercept=True, C=1.0, n=300, p=40, index=np.int32
):
    rng = np.random.default_rng(1)
    X = sparse(n, p).astype(dtype)
    X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
    outputs = 1 if kind == "binary" else 3
    values = codes = None
    if kind in ("one-vs-rest", "softmax codes"):
        codes = rng.integers(0, outputs, size=n)
    elif kind == "softmax rows":
        values = rng.dirichlet(np.ones(outputs), size=n).astype(dtype)
    else:
        values = (rng.uniform(size=(n, outputs)) < 0.3).astype(dtype)
    weight = None
    if weights == "rows" or (weights == "outputs" and kind.startswith("softmax")):
        weight = rng.gamma(0.7, size=n).astype(dtype)
        weight[5] = 0.0
    elif weights == "outputs":
        weight = rng.gamma(0.7, size=(n, outputs)).astype(dtype)
    loss = losses.CrossEntropy() if kind.startswith("softmax") else losses.LogLoss()
    rows = NumPyPasses(Dataset(X, values, codes, weight, outputs), loss, fit_intercept=fit_intercept)
    return LinearObjective(rows, C)


def run(found, epochs):
    ascent = DualAscent.of(found)
    random_state = np.random.RandomState(0)
    for _ in range(epochs):
        value, predicted = ascent.epoch(random_state)
    return ascent, value, predicted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", ["none", "rows", "outputs"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_dual_variables_lead_to_the_minimum(kind, weights, dtype, fit_intercept):
    problem = objective(kind, weights, dtype, fit_intercept=fit_intercept, C=0.5)
    best = newton_cholesky(problem, np.zeros(problem.shape), tol=1e-7, max_iter=50)
    start = problem.value_and_gradient(np.zeros(problem.shape))[0]
    ascent, _, predicted = run(problem, 60)
    w = problem.without_shift(ascent.parameters())
    value = problem.hessian(w)[0]
    near = 1e-6 if dtype == np.float32 else 1e-9
    assert np.all(value - best.value <= near * (start - best.value) + 4e-7 * (dtype == np.float32) * start)
    assert predicted.shape == value.shape
    assert np.all(predicted <= 10 * near * start)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("kind", KINDS)
def test_the_coefficients_are_the_rows_times_their_dual_variables(kind, index):
    problem = objective(kind, index=index)
    ascent, _, _ = run(problem, 3)
    w, _, balance, variables = ascent._state
    X = problem.passes.X
    assert np.abs(variables).max() > 0.1
    np.testing.assert_allclose(w[:, : problem.passes.outputs], X.T @ variables, atol=1e-13)
    np.testing.assert_allclose(balance, variables.sum(axis=0), atol=1e-12)
    np.testing.assert_array_equal(problem.coef(ascent.parameters())[:, :-1], w[:, : problem.passes.outputs].T)


@pytest.mark.parametrize("kind", ["one-vs-rest", "softmax codes"])
def test_at_the_minimum_a_dual_variable_is_minus_the_derivative_of_its_loss(kind):
    problem = objective(kind, C=2.0)
    ascent, _, _ = run(problem, 80)
    rows, variables = problem.passes, ascent._state[3].copy()
    slopes = np.empty((rows.n, rows.outputs))
    rows.value_and_gradient(problem.coef(problem.without_shift(ascent.parameters())), slopes=slopes)
    np.testing.assert_allclose(variables, -2.0 * slopes, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_predicted_decrease_is_about_the_remaining_gap(kind):
    problem = objective(kind, n=2000, p=3000)
    best = newton_cg_value(problem)
    for epochs in (2, 4):
        ascent, _, predicted = run(problem, epochs)
        left = problem.value_and_gradient(problem.without_shift(ascent.parameters()))[0].sum() - best
        assert left / 10 < predicted.sum() < 10 * left


def newton_cg_value(problem):
    problem.dual_ascent = lambda: None
    return newton_cg(problem, np.zeros(problem.shape), tol=1e-7, max_iter=100).value.sum()


def test_identical_rows_are_visited_one_by_one():
    n = 400
    X = scipy.sparse.csr_array(np.ones((n, 3)))
    y = (np.arange(n) % 4 == 0).astype(float)[:, None]
    problem = LinearObjective(
        NumPyPasses(Dataset(X, y, None, None, 1), losses.LogLoss(), fit_intercept=False), 0.5
    )
    assert problem.passes.dual_sizes()[2] == pytest.approx(1.0)
    best = newton_cholesky(problem, np.zeros(problem.shape), tol=1e-7, max_iter=50)
    ascent, _, _ = run(problem, 40)
    assert problem.value_and_gradient(ascent.parameters())[0] <= best.value * (1 + 1e-5)


@pytest.mark.parametrize("row", [0, 57, 299])
@pytest.mark.parametrize("kind", ["one-vs-rest", "softmax codes"])
def test_a_code_out_of_range_is_an_error_that_names_the_row(kind, row):
    problem = objective(kind)
    problem.passes.codes[row] = 7
    with pytest.raises(ValueError, match=f"class code 7 in row {row} is not in"):
        run(problem, 1)


def test_no_dual_ascent_is_offered_where_it_would_be_slow_or_wrong():
    def none(problem):
        return DualAscent.of(problem) is None

    assert not none(objective("binary"))
    assert none(objective("binary", C=np.inf))
    assert none(objective("binary", C=1e4))
    rows = objective("binary").passes
    assert none(LinearObjective(rows, 1.0, l1_ratio=0.5))
    dense = NumPyPasses(
        Dataset(rows.X.toarray(), rows.data.values, None, None, 1),
        losses.LogLoss(),
        fit_intercept=True,
        center=False,
    )
    assert none(LinearObjective(dense, 1.0))
    # with a Gram matrix the preconditioner is better
    assert objective("binary", p=WIDEST_GRAM - 1).dual_ascent() is None
    assert objective("binary", p=WIDEST_GRAM).dual_ascent() is not None
    huge = NumPyPasses(
        Dataset(rows.X * 1e200, rows.data.values, None, None, 1), losses.LogLoss(), fit_intercept=True
    )
    assert none(LinearObjective(huge, 1.0))


def test_a_dual_ascent_without_progress_is_discarded():
    problem = objective("binary")

    class Lost:
        slow = 0.5

        def epoch(self, random_state):
            return np.array([100.0]), np.array([50.0])

    problem.dual_ascent = Lost
    w = np.zeros(problem.shape)
    assert dual_start(problem, w, 1e-4) is w


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("softmax", [True, False])
def test_a_wide_sparse_fit_ends_at_the_minimum_with_the_same_bits_for_any_number_of_threads(
    monkeypatch, softmax, dtype
):
    monkeypatch.setattr(numpy_passes, "SMALL_WORK", 0)
    monkeypatch.setattr(numpy_passes, "SPARSE_CHUNK_WORK", 1e-6)
    rng = np.random.default_rng(0)
    X = sparse(3000, 4000).astype(dtype)
    y = np.argmax(X[:, :4] @ np.eye(4) + 0.2 * rng.gumbel(size=(3000, 4)), axis=1)
    make = SoftmaxClassifier if softmax else LogisticClassifier
    fits = [make(n_threads=n).fit(X, y) for n in (1, 2, 7)]
    for fit in fits:
        assert fit.solver_ == "newton-cg"
        assert fit.coef_.tobytes() == fits[0].coef_.tobytes()
        assert fit.intercept_.tobytes() == fits[0].intercept_.tobytes()
    lbfgs = make(solver="lbfgs", tol=1e-6, max_iter=1000).fit(X.astype(np.float64), y)
    np.testing.assert_allclose(fits[0].loss_, lbfgs.loss_, rtol=1e-6)
    assert np.max(fits[0].n_iter_) <= 3


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_the_squares_of_sparse_columns_need_no_copy_of_them(dtype, index):
    X = sparse(4000, 500, numbers=40).astype(dtype)
    X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
    weight = np.random.default_rng(0).uniform(size=4000).astype(dtype)
    rows = NumPyPasses(
        Dataset(X, np.zeros((4000, 1), dtype), None, weight, 1), losses.LogLoss(), fit_intercept=True
    )
    tracemalloc.start()
    squares = rows.squared_columns
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    wide = weight.astype(np.float64)
    expected = (X.toarray().astype(np.float64) ** 2).T @ wide
    np.testing.assert_allclose(squares, [*expected, wide.sum()], rtol=1e-12)
    assert peak < X.data.nbytes / 4
