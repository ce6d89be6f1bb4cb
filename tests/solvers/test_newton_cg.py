"""Newton-CG on many rows: samples of them give the start and the preconditioner."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from sklloss import LogisticClassifier, SoftmaxClassifier

GAP = 1e-6


def best(X, y, C):
    """The optimum by whole Hessians."""
    return SoftmaxClassifier(C=C, solver="newton-cholesky", tol=1e-7).fit(X, y).loss_


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "p", "K"), [(3_000, 260, 2), (6_000, 36, 6)])
def test_many_rows_reach_the_optimum_with_the_same_bits(rng, n, p, K, dtype):
    X = rng.normal(size=(n, p)) @ (np.eye(p) + 0.3 * rng.normal(size=(p, p)) / np.sqrt(p))
    y = np.argmax(X @ rng.normal(size=(p, K)) * (3 / np.sqrt(p)) + rng.gumbel(size=(n, K)), axis=1)
    X = X.astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = SoftmaxClassifier(C=10.0, n_threads=2).fit(X, y)
    assert model.solver_ == "newton-cg"
    expected = best(X.astype(np.float64), y, 10.0)
    assert abs(model.loss_ - expected) < GAP * expected
    one = SoftmaxClassifier(C=10.0, n_threads=1).fit(X, y)
    np.testing.assert_array_equal(one.coef_, model.coef_)


@pytest.mark.parametrize("C", [100.0, np.inf])
def test_a_sample_that_misses_the_few_rows_with_curvature_does_no_harm(rng, C):
    # away from the margin the curvature vanishes
    X = rng.normal(size=(20_000, 20))
    margin = X[:, 0] > 0
    X[:, 0] += np.where(margin, 8.0, -8.0)
    X[::997, 0] = rng.normal(size=len(X[::997]))
    y = np.where(rng.random(len(X)) < 0.5, margin, 2 * margin)
    y[::997] = rng.integers(0, 3, size=len(y[::997]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = SoftmaxClassifier(C=C, solver="newton-cg").fit(X, y)
    expected = best(X, y, C)
    assert abs(model.loss_ - expected) < GAP * expected


@pytest.mark.parametrize("solver", ["newton-cg", "auto"])
@pytest.mark.parametrize("separable", [True, False])
def test_few_positives_and_columns_without_rank_in_units_far_apart_converge(separable, solver):
    rng = np.random.default_rng(0 if separable else 1)
    X = rng.normal(size=(8_000, 40)) @ rng.normal(size=(40, 280)) + 1e-6 * rng.normal(size=(8_000, 280))
    X *= 10.0 ** rng.uniform(-8, 8, 280)
    X[:, ::7] = X[:, 1:2] * np.arange(1, 41)
    y = np.zeros(len(X), dtype=int)
    y[rng.choice(len(X), 22, replace=False)] = 1
    X[y == 1, 5] += 10 * X[:, 5].std()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = LogisticClassifier(solver=solver).fit(X, y)
    expected = LogisticClassifier(solver="newton-cholesky").fit(X, y).loss_
    assert (0 < expected < 0.1) == separable
    assert abs(model.loss_ - expected) < GAP * expected


def test_rare_columns_without_a_penalty_converge(rng):
    # in a sample such columns may separate the classes
    X = (rng.random((15_000, 20)) < np.linspace(0.001, 0.3, 20)).astype(np.float64)
    y = np.argmax(X @ rng.normal(size=(20, 6)) * 3 + rng.gumbel(size=(15_000, 6)), axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = SoftmaxClassifier(C=np.inf, solver="newton-cg").fit(X, y)
    expected = best(X, y, np.inf)
    assert abs(model.loss_ - expected) < GAP * expected


def test_few_rows_far_out_do_not_end_a_fit_early(rng):
    X = rng.normal(size=(6_000, 20))
    X[rng.choice(len(X), 5)] *= 300
    y = np.argmax(X @ rng.normal(size=(20, 6)) / X.std(axis=0).mean() + rng.gumbel(size=(6_000, 6)), axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = SoftmaxClassifier(C=100.0, solver="newton-cg").fit(X.astype(np.float32), y)
    expected = best(X.astype(np.float32).astype(np.float64), y, 100.0)
    assert abs(model.loss_ - expected) < GAP * expected


def test_steps_that_stall_with_a_poor_preconditioner_get_a_better_one(rng):
    # Few rows with entries far larger than the others, whose curvature vanishes as they are classified.
    X = np.round(rng.standard_normal((27, 52)))
    X[rng.random(X.shape) < 0.1] *= 1000
    y = rng.integers(10, size=27)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = SoftmaxClassifier(C=1000.0, solver="newton-cg").fit(X, y)
    expected = SoftmaxClassifier(C=1000.0, solver="newton-cholesky", tol=1e-8, max_iter=1000).fit(X, y).loss_
    assert abs(model.loss_ - expected) < GAP * expected
    assert model.n_iter_ < 40
