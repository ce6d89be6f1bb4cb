"""penalty_weights and monotonic_cst, in all linear estimators."""

import warnings

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import minimize
from sklearn.base import clone

from sklloss import (
    LinearRegressor,
    LinearRegressorCV,
    LogisticClassifier,
    LogisticClassifierCV,
    SoftmaxClassifier,
    SoftmaxClassifierCV,
    losses,
)

WEIGHTS = np.array([1.0, 0.0, 4.0, 0.25, 9.0])
SIGNS = np.array([1, 1, -1, 0, 1])


def data(n=500):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 5))
    eta = X @ [0.5, -0.3, 0.1, 0.2, 0.8]
    return X, eta, rng


def test_the_penalty_of_each_feature_is_multiplied():
    X, eta, _ = data()
    model = LinearRegressor(alpha=0.5, penalty_weights=WEIGHTS).fit(X, eta)
    Z = X - X.mean(axis=0)
    expected = np.linalg.solve(Z.T @ Z / len(eta) + 0.5 * np.diag(WEIGHTS), Z.T @ eta / len(eta))
    np.testing.assert_allclose(model.coef_, expected, rtol=1e-9)


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("layout", [np.asarray, scipy.sparse.csr_array])
def test_the_gradient_of_a_weighted_penalty_vanishes(layout, l1_ratio):
    X, eta, rng = data()
    y = (rng.uniform(size=len(eta)) < 1 / (1 + np.exp(-eta))).astype(int)
    model = LogisticClassifier(C=0.05, l1_ratio=l1_ratio, penalty_weights=WEIGHTS, tol=1e-6).fit(layout(X), y)
    w = model.coef_[0]
    slope = 0.05 * X.T @ (model.predict_proba(layout(X))[:, 1] - y) + (1 - l1_ratio) * WEIGHTS * w
    l1 = l1_ratio * WEIGHTS
    assert np.abs(slope + l1 * np.sign(w))[w != 0].max() < 1e-4
    assert (np.abs(slope)[w == 0] <= l1[w == 0] + 1e-6).all()
    assert w[1] != 0
    codes = np.digitize(eta, [-0.5, 0.5])
    model = SoftmaxClassifier(C=0.05, l1_ratio=l1_ratio, penalty_weights=WEIGHTS, tol=1e-6).fit(
        layout(X), codes
    )
    w = model.coef_
    slope = 0.05 * (model.predict_proba(layout(X)) - np.eye(3)[codes]).T @ X + (1 - l1_ratio) * WEIGHTS * w
    l1 = l1_ratio * np.tile(WEIGHTS, (3, 1))
    assert np.abs(slope + l1 * np.sign(w))[w != 0].max() < 1e-4
    assert (np.abs(slope)[w == 0] <= l1[w == 0] + 1e-6).all()


def test_the_loss_with_a_kink_takes_penalty_weights():
    X, eta, rng = data()
    y = eta + rng.standard_t(3, size=len(eta))
    model = LinearRegressor("absolute_error", alpha=0.1, l1_ratio=1.0, penalty_weights=WEIGHTS).fit(X, y)
    loss = losses.AbsoluteError()

    def value(coef, intercept):
        return loss(y, X @ coef + intercept) + 0.1 * WEIGHTS @ np.abs(coef)

    least = value(model.coef_, model.intercept_)
    assert least == pytest.approx(model.loss_, rel=1e-12)
    for scale in (1e-1, 1e-3):
        for _ in range(50):
            step = scale * rng.normal(size=6)
            assert value(model.coef_ + step[:5], model.intercept_ + step[5]) >= least * (1 - 1e-9)


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])
@pytest.mark.parametrize("loss", ["squared_error", "poisson", "huber", "log_cosh"])
def test_signs_hold_at_a_point_that_meets_the_optimality_conditions(loss, l1_ratio):
    X, eta, rng = data()
    y = rng.poisson(np.exp(eta)).astype(float) if loss == "poisson" else eta + rng.normal(size=len(eta))
    model = LinearRegressor(loss, alpha=0.01, l1_ratio=l1_ratio, monotonic_cst=SIGNS, tol=1e-6).fit(X, y)
    w = model.coef_
    assert (w * SIGNS >= 0).all()
    assert w[1] == 0
    raw = X @ w + model.intercept_
    slope = X.T @ losses.get(loss).gradient(y, raw) + 0.01 * ((1 - l1_ratio) * w + l1_ratio * np.sign(w))
    assert np.abs(slope[w != 0]).max() < 1e-5
    held = w == 0
    # What is held at 0 would leave it in the forbidden direction alone.
    assert (slope[held] * SIGNS[held] >= -0.01 * l1_ratio - 1e-8).all()


@pytest.mark.parametrize("loss", ["absolute_error", losses.Quantile(0.7)])
def test_signs_of_a_loss_with_a_kink(loss):
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta))
    model = LinearRegressor(loss, alpha=0.01, monotonic_cst=SIGNS).fit(X, y)
    free = LinearRegressor(loss, alpha=0.01).fit(X, y)
    kept = np.flatnonzero(model.coef_ != 0)
    assert (model.coef_ * SIGNS >= 0).all()
    assert model.coef_[1] == 0
    # Without the columns that are held at 0 the optimum is the same.
    without = LinearRegressor(loss, alpha=0.01).fit(X[:, kept], y)
    assert model.loss_ == pytest.approx(without.loss_, rel=1e-7)
    assert model.loss_ > free.loss_


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5, 1.0])
def test_signs_of_the_root_mean_squared_error(l1_ratio):
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta))
    model = LinearRegressor("root_mean_squared_error", alpha=0.05, l1_ratio=l1_ratio, monotonic_cst=SIGNS)
    model.fit(X, y)

    def value(w):
        root = np.sqrt(np.mean((y - X @ w[:5] - w[5]) ** 2))
        return root + 0.05 * (l1_ratio * np.abs(w[:5]).sum() + (1 - l1_ratio) / 2 * w[:5] @ w[:5])

    bounds = [{1: (0, None), -1: (None, 0), 0: (None, None)}[sign] for sign in [*SIGNS.tolist(), 0]]
    found = minimize(value, np.zeros(6), bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-9})
    assert value(np.append(model.coef_, model.intercept_)) == pytest.approx(model.loss_, rel=1e-12)
    assert model.loss_ <= found.fun * (1 + 1e-9)
    assert (model.coef_ * SIGNS >= 0).all()
    assert model.coef_[1] == 0


def test_signs_in_classifiers():
    X, eta, rng = data()
    y = (rng.uniform(size=len(eta)) < 1 / (1 + np.exp(-eta))).astype(int)
    model = LogisticClassifier(monotonic_cst=SIGNS, tol=1e-6).fit(X, y)
    w = model.coef_[0]
    slope = X.T @ (model.predict_proba(X)[:, 1] - y) + w
    assert (w * SIGNS >= 0).all()
    assert w[1] == 0
    assert slope[1] > 0
    assert np.abs(slope[w != 0]).max() < 1e-3
    three = SoftmaxClassifier(monotonic_cst=SIGNS).fit(X, np.digitize(eta, [-0.5, 0.5]))
    assert (three.coef_ * SIGNS >= 0).all()


@pytest.mark.parametrize("estimator", [LogisticClassifierCV, SoftmaxClassifierCV])
def test_cross_validation_takes_both(estimator):
    X, eta, _ = data()
    y = (eta > 0).astype(int)
    model = estimator(Cs=[0.1, 1.0], penalty_weights=WEIGHTS, monotonic_cst=SIGNS).fit(X, y)
    plain = {LogisticClassifierCV: LogisticClassifier, SoftmaxClassifierCV: SoftmaxClassifier}[estimator]
    alone = plain(C=model.C_, penalty_weights=WEIGHTS, monotonic_cst=SIGNS).fit(X, y)
    np.testing.assert_allclose(model.coef_, alone.coef_, rtol=1e-2, atol=1e-3)
    assert (model.coef_ * SIGNS >= 0).all()


def test_features_go_by_name():
    pandas = pytest.importorskip("pandas")
    X, eta, _ = data()
    frame = pandas.DataFrame(X, columns=list("abcde"))
    named = LinearRegressor(monotonic_cst={"b": 1}, penalty_weights={"a": 0.0}).fit(frame, eta)
    listed = LinearRegressor(monotonic_cst=[0, 1, 0, 0, 0], penalty_weights=[0, 1, 1, 1, 1]).fit(X, eta)
    np.testing.assert_allclose(named.coef_, listed.coef_, rtol=1e-12)
    with pytest.raises(ValueError, match="got -1.0 for feature 'b'"):
        LinearRegressor(penalty_weights={"b": -1.0}).fit(frame, eta)
    with pytest.raises(ValueError, match=r"monotonic_cst names features that X does not have: \['z'\]"):
        LinearRegressor(monotonic_cst={"z": 1}).fit(frame, eta)


def test_cross_validation_takes_names_and_scorers():
    pandas = pytest.importorskip("pandas")
    X, eta, _ = data()
    frame = pandas.DataFrame(X, columns=list("abcde"))
    for estimator, y, scoring in (
        (LogisticClassifierCV(Cs=2), (eta > 0).astype(int), "f1"),
        (LinearRegressorCV(alphas=2), eta, "r2"),
    ):
        estimator.set_params(scoring=scoring, penalty_weights={"a": 0.0}, monotonic_cst={"b": 1})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            named = clone(estimator).fit(frame, y)
        listed = estimator.set_params(penalty_weights=[0, 1, 1, 1, 1], monotonic_cst=[0, 1, 0, 0, 0]).fit(
            X, y
        )
        np.testing.assert_allclose(named.scores_, listed.scores_)
        assert named.feature_names_in_.tolist() == list("abcde")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"penalty_weights": [1, -1, 1, 1, 1]},
            "penalty_weights must be finite and not negative, got -1.0 for feature 1",
        ),
        ({"penalty_weights": [1, 1]}, r"penalty_weights must have shape \(5,\)"),
        ({"penalty_weights": {"a": 1}}, "X has none"),
        ({"monotonic_cst": [0, 2, 0, 0, 0]}, "monotonic_cst must be -1, 0 or 1, got 2 for feature 1"),
        ({"monotonic_cst": SIGNS, "solver": "lbfgs"}, "monotonic_cst asks for constraints"),
    ],
)
def test_bad_values_are_named(parameters, message):
    X, eta, _ = data()
    for estimator, y in ((LinearRegressor, eta), (LogisticClassifier, (eta > 0).astype(int))):
        with pytest.raises(ValueError, match=message):
            estimator(**parameters).fit(X, y)


def test_a_sign_needs_a_convex_loss_and_no_partial_fit():
    X, eta, _ = data()
    with pytest.raises(ValueError, match="monotonic_cst does not fit .*; use monotonic_cst=None"):
        LogisticClassifier(loss="focal", monotonic_cst=SIGNS).fit(X, (eta > 0).astype(int))
    assert not hasattr(LinearRegressor(monotonic_cst=SIGNS), "partial_fit")
