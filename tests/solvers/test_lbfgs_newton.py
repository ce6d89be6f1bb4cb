"""Where "auto" begins by L-BFGS."""

import numpy as np
import pytest

from sklloss import LogisticClassifier, SoftmaxClassifier
from sklloss.solvers.lbfgs_newton import SHORT


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("columns", "outputs"), [(220, 1), (70, 3)])
def test_auto_begins_by_lbfgs_over_a_large_dense_x(rng, columns, outputs, dtype):
    X = rng.normal(size=(11_000, columns)).astype(dtype)
    scores = X @ rng.normal(size=(columns, outputs)) * (2 / np.sqrt(columns))
    y = (scores + rng.logistic(size=scores.shape) > 0).astype(int)
    y = y[:, 0] if outputs == 1 else y
    model = LogisticClassifier(tol=1e-5).fit(X, y)
    newton = LogisticClassifier(tol=1e-5, solver="newton-cg").fit(X, y)
    assert model.solver_ == "lbfgs"
    assert model.n_iter_.max() <= SHORT
    assert model.loss_ <= newton.loss_ * (1 + 1e-6)
    np.testing.assert_allclose(model.coef_, newton.coef_, rtol=0, atol=2e-4)
    # a softmax, few rows and a start near the end have Newton's method from the first
    classes = np.digitize(scores[:, 0], [-0.5, 0.5])
    assert SoftmaxClassifier().fit(X, classes).solver_ == "newton-cg"
    few = LogisticClassifier().fit(X[:500], y[:500])
    assert few.solver_ == ("newton-cg" if columns > 200 else "newton-cholesky")
    again = LogisticClassifier(warm_start=True).fit(X, y).fit(X, y)
    assert again.solver_ == ("newton-cg" if columns > 200 else "newton-cholesky")


def test_separable_rows_without_a_penalty_end_where_newton_ends(rng):
    X = rng.normal(size=(11_000, 220))
    y = X[:, 0] > 0
    with pytest.warns(UserWarning, match="can be separated without error"):
        model = LogisticClassifier(C=np.inf).fit(X, y)
    assert model.loss_ < 1e-8 * len(X)
    assert model.loss_ > 1e-14 * len(X)
    assert np.isfinite(model.coef_).all()
