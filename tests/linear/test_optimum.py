"""The linear classifiers reach the optimum: the objective against references that do not use sklloss."""

import functools
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sklloss import LogisticClassifier, SoftmaxClassifier

LOADERS = {
    "breast_cancer": load_breast_cancer,
    "digits": load_digits,
    "iris": load_iris,
    "wine": load_wine,
}
GAP = 1e-6
SOLVERS = ["newton-cholesky", "newton-cg", "lbfgs", "sgd", "adam"]


# References --------------------------------------------------------------------------------------------


def objective(X, P, coef, intercept, C, weight=None, *, softmax=False):
    """C * sum_i w_i loss_i + ||coef||**2 / 2 in extended precision; P: probabilities (n, outputs)."""
    X, P, coef, intercept = (np.asarray(a, dtype=np.longdouble) for a in (X, P, coef, intercept))
    Z = X @ coef.T + intercept
    if softmax:
        top = Z.max(axis=1, keepdims=True)
        loss = np.log(np.exp(Z - top).sum(axis=1)) + top[:, 0] - (P * Z).sum(axis=1)
    else:
        loss = (np.maximum(Z, 0) - P * Z + np.log1p(np.exp(-np.abs(Z)))).sum(axis=1)
    total = loss.sum() if weight is None else np.asarray(weight, dtype=np.longdouble) @ loss
    return float(total) if np.isinf(C) else float(C * total + (coef**2).sum() / 2)


def optimum(X, P, C, weight=None, *, softmax=False, fit_intercept=True):
    """The smallest objective, by a damped Newton method in float64, with least squares for its steps."""
    X, P = np.asarray(X, dtype=np.float64), np.asarray(P, dtype=np.float64)
    n, p = X.shape
    K = P.shape[1]
    weight = np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)
    unit = np.sqrt((X**2).mean(axis=0))
    unit[unit == 0] = 1
    A = np.column_stack([X / unit, np.ones(n)]) if fit_intercept else X / unit
    d = A.shape[1]
    ridge = np.zeros(d)
    if np.isfinite(C):
        ridge[:p] = 1 / unit**2
    scale = C if np.isfinite(C) else 1.0

    def value(w):
        intercept = w[:, p] if fit_intercept else np.zeros(K)
        return objective(X, P, w[:, :p] / unit, intercept, C, weight, softmax=softmax)

    w = np.zeros((K, d))
    found = value(w)
    for _ in range(200):
        Z = A @ w.T
        if softmax:
            Q = np.exp(Z - Z.max(axis=1, keepdims=True))
            Q /= Q.sum(axis=1, keepdims=True)
        else:
            Q = 1 / (1 + np.exp(-np.clip(Z, -700, None)))
        gradient = scale * ((Q - P) * weight[:, None]).T @ A + ridge * w
        coupled = Q[:, :, None] * (np.eye(K) - (Q[:, None, :] if softmax else np.eye(K) * Q[:, None, :]))
        hessian = scale * np.einsum("n,nkl,ni,nj->kilj", weight, coupled, A, A, optimize=True)
        hessian = hessian.reshape(K * d, K * d) + np.diag(np.tile(ridge, K))
        step = -np.linalg.lstsq(hessian, gradient.ravel(), rcond=1e-15)[0].reshape(K, d)
        decrement = -(step * gradient).sum()
        size = 1.0
        while size > 1e-12:
            new = value(w + size * step)
            if new <= found - 1e-4 * size * decrement or abs(new - found) <= 1e-15 * abs(found):
                break
            size /= 2
        w, found = w + size * step, min(new, found)
        if decrement / 2 <= 1e-15 * abs(found):
            break
    return found


def one_hot(y):
    return (np.asarray(y)[:, None] == np.unique(y)).astype(np.float64)


def probabilities_of(y):
    """The target as a matrix: one column for two classes, else one for each."""
    P = one_hot(y)
    return P[:, 1:] if P.shape[1] == 2 else P


def gap(model, X, P, best, C=1.0, weight=None, *, softmax=False):
    found = objective(X, P, model.coef_, model.intercept_, C, weight, softmax=softmax)
    return (found - best) / abs(best)


@functools.cache
def table(name, scaled, dtype):
    X, y = LOADERS[name](return_X_y=True)
    X = StandardScaler().fit_transform(X) if scaled else X
    return X.astype(dtype), y


@functools.cache
def best_of_scikit_learn(name, scaled, dtype, C):
    """The objective of a scikit-learn run far past its defaults, on the float64 values of the same X."""
    X, y = table(name, scaled, dtype)
    X = X.astype(np.float64)
    solver = "newton-cholesky"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LogisticRegression(C=C, solver=solver, random_state=0, tol=1e-10, max_iter=1000).fit(X, y)
    P = probabilities_of(y)
    return objective(X, P, model.coef_, model.intercept_, C, softmax=P.shape[1] > 1)


def classifier_for(y):
    return LogisticClassifier if len(np.unique(y)) == 2 else SoftmaxClassifier


def noisy(rng, n, p, K, dtype=np.float64):
    """Labels that no linear model separates, so that an optimum exists without a penalty."""
    X = rng.normal(size=(n, p))
    y = (X @ rng.normal(size=(p, K)) + rng.gumbel(size=(n, K)) * 2).argmax(axis=1)
    return X.astype(dtype), y


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# Real tables -------------------------------------------------------------------------------------------


def test_the_two_references_agree():
    X, y = table("breast_cancer", True, np.float64)
    np.testing.assert_allclose(
        best_of_scikit_learn("breast_cancer", True, np.float64, 1.0), optimum(X, y[:, None], 1.0), rtol=1e-12
    )
    X, y = table("wine", True, np.float64)
    np.testing.assert_allclose(
        best_of_scikit_learn("wine", True, np.float64, 1.0),
        optimum(X, one_hot(y), 1.0, softmax=True),
        rtol=1e-12,
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scaled", [False, True], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("name", LOADERS)
def test_the_defaults_reach_the_optimum_without_a_warning(name, scaled, dtype):
    X, y = table(name, scaled, dtype)
    model = classifier_for(y)().fit(X, y)
    P = probabilities_of(y)
    best = best_of_scikit_learn(name, scaled, dtype, 1.0)
    assert abs(gap(model, X, P, best, softmax=P.shape[1] > 1)) < GAP
    np.testing.assert_allclose(model.loss_, best, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scaled", [False, True], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("name", LOADERS)
def test_every_solver_reaches_the_optimum_at_the_default_tolerance(name, scaled, solver, dtype):
    X, y = table(name, scaled, dtype)
    model = classifier_for(y)(solver=solver, random_state=0, max_iter=20_000).fit(X, y)
    P = probabilities_of(y)
    assert gap(model, X, P, best_of_scikit_learn(name, scaled, dtype, 1.0), softmax=P.shape[1] > 1) < GAP
    assert model.solver_ == solver


@pytest.mark.parametrize("C", [1e-10, 1e-4, 1e-2, 1e2, 1e4])
@pytest.mark.parametrize("solver", ["auto", "lbfgs"])
@pytest.mark.parametrize("scaled", [False, True], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("name", ["breast_cancer", "iris"])
def test_every_strength_of_penalty_reaches_the_optimum(name, scaled, solver, C):
    X, y = table(name, scaled, np.float64)
    P = probabilities_of(y)
    softmax = P.shape[1] > 1
    model = classifier_for(y)(C=C, solver=solver, random_state=0, max_iter=20_000).fit(X, y)
    assert gap(model, X, P, optimum(X, P, C, softmax=softmax), C, softmax=softmax) < GAP


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("K", [2, 4])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_without_a_penalty_the_maximum_likelihood_is_reached(rng, K, solver, dtype, fit_intercept):
    X, y = noisy(rng, 300, 5, K, dtype)
    P = probabilities_of(y)
    model = classifier_for(y)(
        C=np.inf, solver=solver, random_state=0, fit_intercept=fit_intercept, max_iter=1000
    ).fit(X, y)
    best = optimum(X, P, np.inf, softmax=K > 2, fit_intercept=fit_intercept)
    assert abs(gap(model, X, P, best, np.inf, softmax=K > 2)) < GAP


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("K", [2, 3])
def test_sample_weights_and_no_intercept_reach_the_optimum(rng, K, solver):
    X, y = noisy(rng, 300, 4, K)
    P = probabilities_of(y)
    weight = rng.uniform(0, 3, size=300)
    model = classifier_for(y)(fit_intercept=False, solver=solver, random_state=0, max_iter=1000).fit(
        X, y, weight
    )
    best = optimum(X, P, 1.0, weight, softmax=K > 2, fit_intercept=False)
    assert abs(gap(model, X, P, best, 1.0, weight, softmax=K > 2)) < GAP
    assert not model.intercept_.any()
    assert model.intercept_.shape == (len(model.coef_),)


def test_more_parameters_than_a_hessian_should_have_reach_the_optimum_by_another_solver(rng):
    X, y = noisy(rng, 300, 150, 8)
    model = SoftmaxClassifier().fit(X, y)
    assert model.solver_ not in ("auto", "newton-cholesky")
    other = SoftmaxClassifier(solver="newton-cholesky").fit(X, y)
    assert gap(model, X, one_hot(y), other.loss_, softmax=True) < GAP
    reference = LogisticRegression(tol=1e-10, solver="newton-cholesky").fit(X, y)
    best = objective(X, one_hot(y), reference.coef_, reference.intercept_, 1.0, softmax=True)
    assert abs(gap(other, X, one_hot(y), best, softmax=True)) < GAP


@pytest.mark.parametrize("class_weight", ["balanced", {0: 0.3, 1: 5.0, 2: 1.5}, {1: 2.5}])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("K", [2, 3])
def test_class_weights_mean_what_they_mean_in_scikit_learn(rng, K, weighted, class_weight):
    if isinstance(class_weight, dict):
        class_weight = {label: w for label, w in class_weight.items() if label < K}
    X, y = noisy(rng, 200, 4, K)
    weight = rng.uniform(0.1, 3, size=200) if weighted else None
    ours = classifier_for(y)(class_weight=class_weight, tol=1e-8).fit(X, y, weight)
    full = class_weight
    if isinstance(class_weight, dict):
        full = {label: class_weight.get(label, 1.0) for label in range(K)}
    if full == "balanced" and weighted:
        # scikit-learn < 1.8 counted rows, not weights
        masses = np.bincount(y, weights=weight)
        full = dict(enumerate(masses.sum() / (K * masses)))
    theirs = LogisticRegression(class_weight=full, tol=1e-10, solver="newton-cholesky").fit(X, y, weight)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-6, atol=1e-8)


# Difficult data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("K", [2, 3])
def test_columns_in_units_far_apart_do_not_matter(rng, K, solver):
    X, y = noisy(rng, 300, 6, K)
    X *= [1e6, 1e-6, 1, 1e6, 1e-6, 1]
    X[:, 2] += 1e4
    P = probabilities_of(y)
    model = classifier_for(y)(solver=solver, random_state=0, max_iter=2000).fit(X, y)
    assert gap(model, X, P, optimum(X, P, 1.0, softmax=K > 2), softmax=K > 2) < GAP


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("K", [2, 3])
def test_constant_duplicate_and_empty_columns_do_not_matter_without_a_penalty(rng, K, solver, dtype):
    X, y = noisy(rng, 300, 4, K, dtype)
    group = rng.integers(0, 3, size=300)[:, None] == np.arange(3)
    X = np.column_stack([X, group[:, 1:]]).astype(dtype)
    # exactly dependent also in float32: a copy, a constant, zeros, and dummies that sum to 1
    wide = np.column_stack([X, X[:, 0], np.full(300, 3), np.zeros(300), group[:, 0]]).astype(dtype)
    P = probabilities_of(y)
    model = classifier_for(y)(C=np.inf, solver=solver, random_state=0, max_iter=2000).fit(wide, y)
    assert abs(gap(model, wide, P, optimum(X, P, np.inf, softmax=K > 2), np.inf, softmax=K > 2)) < GAP
    assert np.abs(model.coef_).max() < 1e4


@pytest.mark.parametrize("solver", ["auto", "newton-cg"])
@pytest.mark.parametrize("C", [1e10, 1e12])
def test_a_tiny_penalty_reaches_the_optimum(rng, solver, C):
    X, y = load_digits(return_X_y=True)
    X = X[:, 1:25] * 10 ** rng.uniform(-3, 3, 24)
    y = np.where(rng.uniform(size=len(y)) < 0.3, rng.integers(0, 10, size=len(y)), y)
    free = SoftmaxClassifier(C=np.inf, solver=solver).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        held = SoftmaxClassifier(C=C, solver=solver, max_iter=40).fit(X, y)
    assert held.loss_ / C == pytest.approx(free.loss_, rel=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("C", [1.0, 1e4])
def test_fewer_rows_than_columns_reach_the_optimum(rng, K, solver, C):
    X, y = noisy(rng, 30, 40, K)
    P = probabilities_of(y)
    model = classifier_for(y)(solver=solver, random_state=0, max_iter=2000, C=C).fit(X, y)
    assert gap(model, X, P, optimum(X, P, C, softmax=K > 2), C, softmax=K > 2) < GAP


@pytest.mark.parametrize("solver", SOLVERS)
def test_weights_far_apart_reach_the_optimum(rng, solver):
    X, y = noisy(rng, 200, 3, 2)
    weight = 10.0 ** rng.uniform(-6, 6, size=200)
    model = LogisticClassifier(solver=solver, random_state=0, max_iter=2000).fit(X, y, weight)
    assert gap(model, X, y[:, None], optimum(X, y[:, None], 1.0, weight), weight=weight) < GAP


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("K", [2, 3])
def test_a_huge_C_is_as_good_as_no_penalty(rng, K, solver):
    X, y = noisy(rng, 300, 4, K)
    P = probabilities_of(y)
    model = classifier_for(y)(solver=solver, random_state=0, C=1e10, max_iter=2000).fit(X, y)
    best = optimum(X, P, np.inf, softmax=K > 2)
    assert gap(model, X, P, best, np.inf, softmax=K > 2) < GAP


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("C", [1e10, np.inf])
def test_separable_data_end_finite_and_separated(rng, K, solver, C):
    centres = 8 * rng.normal(size=(K, 3))
    y = np.arange(90) % K
    X = centres[y] + rng.normal(size=(90, 3)) / 4
    model = classifier_for(y)(C=C, solver=solver, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert np.isfinite(model.intercept_).all()
    assert np.isfinite(model.loss_)
    assert model.score(X, y) == 1.0


def test_one_column_and_sixty_classes_reach_the_optimum(rng):
    X = rng.normal(size=(600, 1))
    y = np.clip(((X[:, 0] + rng.normal(size=600)) * 12 + 30).astype(int), 0, 59)
    model = SoftmaxClassifier().fit(X, y)
    assert len(model.classes_) > 40
    best = LogisticRegression(tol=1e-10, max_iter=1000, solver="newton-cholesky").fit(X, y)
    best = objective(X, one_hot(y), best.coef_, best.intercept_, 1.0, softmax=True)
    assert abs(gap(model, X, one_hot(y), best, softmax=True)) < GAP


@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
@pytest.mark.parametrize("solver", SOLVERS)
def test_too_few_iterations_are_a_convergence_warning(rng, estimator, solver):
    X, y = noisy(rng, 200, 4, 3)
    with pytest.warns(ConvergenceWarning, match="max_iter=1 "):
        model = estimator(max_iter=1, solver=solver, random_state=0).fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert model.n_iter_.max() == 1
    with pytest.warns(ConvergenceWarning, match="max_iter=0 "):
        model = estimator(max_iter=0, solver=solver, random_state=0).fit(X, y)
    assert not model.coef_.any()
    assert model.n_iter_.max() == 0


@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_matrix_of_zeros_learns_the_shares_of_the_classes(estimator, solver):
    X = np.zeros((12, 3))
    y = np.array([0] * 6 + [1] * 4 + [2] * 2)
    for rows in (X, scipy.sparse.csr_array(X)):
        model = estimator(solver=solver, random_state=0, tol=1e-8).fit(rows, y)
        assert not model.coef_.any()
        np.testing.assert_allclose(model.predict_proba(rows)[0], np.array([6, 4, 2]) / 12, rtol=1e-6)


# Invariances -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [2, 3])
def test_whole_weights_are_repeated_rows_and_weight_zero_is_no_row(rng, K):
    X, y = noisy(rng, 150, 4, K)
    weight = rng.integers(0, 4, size=150)
    estimator = classifier_for(y)(tol=1e-8)
    weighted = estimator.fit(X, y, weight)
    coef, intercept = weighted.coef_.copy(), weighted.intercept_.copy()
    repeated = estimator.fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    np.testing.assert_allclose(coef, repeated.coef_, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(intercept, repeated.intercept_, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("factor", [1e-6, 7.0, 1e6])
def test_only_the_product_of_C_and_the_weights_counts(rng, K, factor):
    X, y = noisy(rng, 150, 4, K)
    weight = rng.uniform(0.5, 2, size=150)
    estimator = classifier_for(y)
    one = estimator(tol=1e-8).fit(X, y, weight)
    other = estimator(tol=1e-8, C=factor).fit(X, y, weight / factor)
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_rows_far_on_the_right_side_and_empty_weights_leave_no_trace(rng, K, solver):
    X, y = noisy(rng, 150, 4, K)
    far = np.vstack([X, np.full((5, 4), 1e30)])
    labels = np.append(y, np.zeros(5, dtype=int))
    weight = np.append(np.ones(150), np.zeros(5))
    estimator = classifier_for(y)(solver=solver, random_state=0, max_iter=1000)
    plain = estimator.fit(X, y).coef_.copy()
    np.testing.assert_allclose(estimator.fit(far, labels, weight).coef_, plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_start_where_the_loss_is_flat_ends_at_the_optimum_or_with_a_warning(rng, solver, dtype):
    X, y = noisy(rng, 200, 4, 2)
    X = X.astype(dtype)
    model = classifier_for(y)(solver=solver, random_state=0, C=np.inf, warm_start=True, max_iter=500).fit(
        X, y
    )
    best = model.loss_
    model.coef_ = model.coef_ * dtype(-1e7)
    model.intercept_ = model.intercept_ + dtype(1e3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y)
    warned = any(issubclass(w.category, ConvergenceWarning) for w in caught)
    assert warned or model.loss_ <= best * (1 + 1e-6)


@pytest.mark.parametrize("offset", [1e4, 1e6, 1e8])
def test_columns_far_from_zero_reach_the_optimum(rng, offset):
    X, y = noisy(rng, 300, 4, 2)
    model = LogisticClassifier().fit(X + offset, y)
    near = LogisticClassifier().fit(X, y)
    np.testing.assert_allclose(model.loss_, near.loss_, rtol=1e-6)
    np.testing.assert_allclose(model.coef_, near.coef_, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_columns_too_large_to_multiply_are_an_error(rng, solver):
    X, y = noisy(rng, 80, 4, 2)
    with pytest.raises(ValueError, match="rescale"):
        LogisticClassifier(solver=solver, random_state=0).fit(X * 1e200, y)


# Many rows: a sample of them shows the way -------------------------------------------------------------


def many(rng, n=60_000, p=12, outputs=1):
    X = rng.normal(size=(n, p)) * np.logspace(-2, 2, p)
    Z = X / np.logspace(-2, 2, p) @ rng.normal(size=(p, outputs)) - 1
    return X, (rng.random((n, outputs)) < 1 / (1 + np.exp(-Z))).astype(int)


def certified(model, X, Y, weight=None):
    """An upper bound of the relative gap, from the gradient and the Hessian by NumPy alone."""
    wide = np.column_stack([X, np.ones(len(X))])
    weight = np.ones(len(X)) if weight is None else weight
    gap = value = 0.0
    for y, coef, intercept in zip(Y.T, model.coef_, model.intercept_, strict=True):
        w = np.append(coef, intercept).astype(np.float64)
        ridge = np.append(np.ones(len(coef)), 0.0)
        z = wide @ w
        q = 1 / (1 + np.exp(-z))
        gradient = model.C * wide.T @ (weight * (q - y)) + ridge * w
        hessian = model.C * (wide.T * (weight * q * (1 - q))) @ wide + np.diag(ridge)
        gap += gradient @ np.linalg.solve(hessian, gradient) / 2
        value += model.C * weight @ (np.logaddexp(0, z) - y * z) + ridge * w @ w / 2
    return gap / value


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("layout", ["C", "F", "csr"])
def test_many_rows_reach_the_optimum(rng, layout, dtype):
    X, Y = many(rng)
    X = X.astype(dtype)
    given = {"C": np.ascontiguousarray, "F": np.asfortranarray, "csr": scipy.sparse.csr_matrix}[layout](X)
    model = LogisticClassifier().fit(given, Y[:, 0])
    assert model.solver_ == "newton-cholesky"
    assert certified(model, X.astype(np.float64), Y) < 1e-8
    one = LogisticClassifier(n_threads=1).fit(given, Y[:, 0])
    np.testing.assert_array_equal(one.coef_, model.coef_)


def test_many_rows_in_an_order_that_a_sample_does_not_see_reach_the_optimum(rng):
    X, Y = many(rng, outputs=3)
    # sorted by class; weights that leave out most of any regular sample; a label that a sample does not have
    order = np.argsort(Y[:, 0], kind="stable")
    X, Y = X[order], Y[order]
    Y[:, 2] = 0
    Y[7:40:11, 2] = 1
    weight = rng.random(len(X)) * (np.arange(len(X)) % 2)
    model = LogisticClassifier(max_iter=200).fit(X, Y, weight)
    assert certified(model, X, Y, weight) < 1e-7
    weight[np.arange(len(X)) % 3 == 0] = 0
    model.fit(X, Y, weight)
    assert certified(model, X, Y, weight) < 1e-7
