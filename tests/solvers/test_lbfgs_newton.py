"""When "auto" begins with L-BFGS."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning

from sklloss import LogisticClassifier, SoftmaxClassifier
from sklloss.solvers.newton_cg import LBFGS_ITERATIONS

ROWS = 11_000


@pytest.fixture(params=[(220, 1), (70, 3)], ids=["columns", "outputs"])
def data(request, rng):
    """A large X, and labels: of many columns, or of some columns and several outputs."""
    columns, outputs = request.param
    X = rng.normal(size=(ROWS, columns))
    scores = X @ rng.normal(size=(columns, outputs)) * (2 / np.sqrt(columns))
    y = (scores + rng.logistic(size=scores.shape) > 0).astype(int)
    return X, y[:, 0] if outputs == 1 else y


def newton(y):
    """Newton's method for labels of one output over many columns, or of several over some."""
    return "newton-cg" if y.ndim == 1 else "newton-cholesky"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lbfgs_reaches_newtons_optimum_for_a_large_dense_X(data, dtype):
    X, y = data[0].astype(dtype), data[1]
    model = LogisticClassifier(tol=1e-5).fit(X, y)
    other = LogisticClassifier(tol=1e-5, solver="newton-cg").fit(X, y)
    assert model.solver_ == "lbfgs"
    assert model.n_iter_.max() <= LBFGS_ITERATIONS
    assert model.loss_ <= other.loss_ * (1 + 1e-6)
    np.testing.assert_allclose(model.coef_, other.coef_, rtol=0, atol=2e-4)


def test_few_rows_and_warm_starts_begin_with_newton(data):
    X, y = data
    assert LogisticClassifier().fit(X[:500], y[:500]).solver_ == newton(y)
    assert LogisticClassifier(warm_start=True).fit(X, y).fit(X, y).solver_ == newton(y)


def test_a_softmax_begins_with_newton(data):
    classes = np.digitize(data[0][:, 0], [-0.5, 0.5])
    assert SoftmaxClassifier().fit(data[0], classes).solver_ == "newton-cg"


def test_a_sparse_X_begins_with_newton(data):
    X, y = data
    X = scipy.sparse.csr_array(np.where(X > 1.5, X, 0.0))
    assert LogisticClassifier().fit(X, y).solver_ == newton(y)


def test_more_columns_than_a_gram_matrix_has_begin_with_newton(rng):
    X = rng.normal(size=(1_100, 2_100)).astype(np.float32)
    assert LogisticClassifier().fit(X, X[:, 0] + rng.normal(size=1_100) > 0).solver_ == "newton-cg"


@pytest.mark.parametrize(("max_iter", "last"), [(3, "newton-cg"), (4, "newton-cg"), (100, "lbfgs")])
def test_the_solver_that_ran_last_is_named(data, max_iter, last):
    X, y = data
    model = LogisticClassifier(max_iter=max_iter, tol=1e-8 if max_iter < 100 else 1e-3)
    if max_iter == 100:
        model.fit(X, y)
    else:
        with pytest.warns(ConvergenceWarning, match=f"solver='{last}'"):
            model.fit(X, y)
    assert model.solver_ == last
    assert len(model.loss_curve_) == model.n_iter_.max() + 1


def test_separable_rows_without_a_penalty_end_where_newton_ends(rng):
    X = rng.normal(size=(ROWS, 220))
    y = X[:, 0] > 0
    with pytest.warns(ConvergenceWarning, match="can be separated without error"):
        model = LogisticClassifier(C=np.inf).fit(X, y)
    assert 1e-14 * ROWS < model.loss_ < 1e-8 * ROWS
    assert np.isfinite(model.coef_).all()
