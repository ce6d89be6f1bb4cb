"""A network without a hidden layer is the linear model: same objective, at ``alpha = 1 / C``."""

import numpy as np
import pytest
from sklearn.linear_model import PoissonRegressor, Ridge, TweedieRegressor

from sklloss import LogisticClassifier, MLPClassifier, MLPRegressor, SoftmaxClassifier, losses

C = 0.3
# L-BFGS-B ends where the objective no longer falls by 2e-9 of itself, some 1e-4 from the optimum
NEAR = {"rtol": 1e-4, "atol": 3e-4}


def data(n=120, p=4):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p))
    scores = X @ rng.standard_normal((p, 3)) + 0.5 * rng.standard_normal((n, 3))
    return X, scores, rng.uniform(0.2, 2.0, n)


def network(kind, **parameters):
    common = {"solver": "lbfgs", "alpha": 1 / C, "tol": 1e-9, "max_iter": 1000, "random_state": 0}
    return kind(hidden_layer_sizes=(), **common, **parameters)


def targets():
    _, scores, _ = data()
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return {
        "two classes": (scores[:, 0] > 0, SoftmaxClassifier, {}, {}),
        "two classes of a sigmoid": (scores[:, 0] > 0, LogisticClassifier, {"output": "sigmoid"}, {}),
        "probabilities of two": (shares[:, 0], LogisticClassifier, {}, {}),
        "classes": (scores.argmax(axis=1), SoftmaxClassifier, {}, {}),
        "one-vs-rest": (scores.argmax(axis=1), LogisticClassifier, {"output": "sigmoid"}, {}),
        "class probabilities": (shares, SoftmaxClassifier, {"output": "softmax"}, {}),
        "labels": ((scores > 0).astype(int), LogisticClassifier, {}, {}),
        "soft labels": (1 / (1 + np.exp(-scores)), LogisticClassifier, {"output": "sigmoid"}, {}),
        "balanced": (scores.argmax(axis=1), SoftmaxClassifier, {}, {"class_weight": "balanced"}),
        "weighted soft": (
            shares,
            SoftmaxClassifier,
            {"output": "softmax"},
            {"class_weight": {0: 3.0, 1: 0.5, 2: 1.0}},
        ),
        "balanced labels": ((scores > 0.5).astype(int), LogisticClassifier, {}, {"class_weight": "balanced"}),
        "a weight for each label": (
            (scores > 0).astype(int),
            LogisticClassifier,
            {},
            {"class_weight": [{0: 1, 1: 4}, None, {0: 0.5, 1: 2}]},
        ),
        "smoothed": (scores.argmax(axis=1), SoftmaxClassifier, {}, {"label_smoothing": 0.2}),
        "smoothed labels": ((scores > 0).astype(int), LogisticClassifier, {}, {"label_smoothing": 0.2}),
        "squares of classes": (
            scores.argmax(axis=1),
            SoftmaxClassifier,
            {},
            {"loss": losses.HalfSquaredError(), "label_smoothing": 0.1},
        ),
    }


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", targets())
def test_a_classifier_is_the_linear_one(case, weighted):
    X, _, weight = data()
    y, linear, own, common = targets()[case]
    weights = (weight,) if weighted else ()
    ours = network(MLPClassifier, **own, **common).fit(X, y, *weights)
    expected = linear(C=C, tol=1e-8, solver="lbfgs", max_iter=1000, **common).fit(X, y, *weights)
    np.testing.assert_array_equal(ours.classes_, expected.classes_)
    np.testing.assert_allclose(ours.coefs_[0].T, expected.coef_, **NEAR)
    np.testing.assert_allclose(ours.predict_proba(X), expected.predict_proba(X), **NEAR)
    scores = [model.decision_function(X) for model in (ours, expected)]
    if linear is SoftmaxClassifier and scores[0].ndim == 2:
        # the common level of the intercepts is arbitrary
        scores = [each - each.mean(axis=1, keepdims=True) for each in scores]
    np.testing.assert_allclose(*scores, **NEAR)
    np.testing.assert_array_equal(ours.predict(X), expected.predict(X))
    assert ours.score(X, y) == expected.score(X, y)


@pytest.mark.parametrize("loss", ["log_loss", "cross_entropy"])
def test_the_objective_is_that_of_the_linear_classifier_per_unit_of_weight(loss):
    X, scores, weight = data()
    y = scores[:, 0] > 0
    ours = network(MLPClassifier, loss=loss).fit(X, y, weight)
    expected = LogisticClassifier(C=C).fit(X, y, weight)
    assert ours.loss_ == pytest.approx(expected.loss_ / (C * weight.sum()), rel=1e-8)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_regressor_on_squares_is_ridge_regression(outputs):
    X, scores, weight = data()
    y = scores[:, 0] if outputs == 1 else scores
    # several outputs share one penalty, and their mean is the loss
    expected = Ridge(alpha=outputs / C).fit(X, y, weight)
    ours = network(MLPRegressor).fit(X, y, weight)
    np.testing.assert_allclose(ours.coefs_[0].T.reshape(expected.coef_.shape), expected.coef_, **NEAR)
    np.testing.assert_allclose(ours.predict(X), expected.predict(X), **NEAR)


def test_a_regressor_on_counts_is_poisson_regression():
    X, scores, _ = data()
    y = np.random.default_rng(1).poisson(np.exp(scores[:, 0] / 2)).astype(float)
    expected = PoissonRegressor(alpha=1 / (C * len(y)), tol=1e-10, max_iter=1000).fit(X, y)
    ours = network(MLPRegressor, loss="poisson").fit(X, y)
    np.testing.assert_allclose(ours.predict(X), expected.predict(X), **NEAR)


def test_a_regressor_on_claims_is_tweedie_regression():
    X, scores, _ = data()
    rng = np.random.default_rng(1)
    y = rng.gamma(2.0, np.exp(scores[:, 0] / 2)) * rng.integers(0, 2, len(X))
    expected = TweedieRegressor(power=1.3, link="log", alpha=1 / (C * len(y)), tol=1e-10, max_iter=1000)
    ours = network(MLPRegressor, loss=losses.Tweedie(power=1.3)).fit(X, y)
    np.testing.assert_allclose(ours.predict(X), expected.fit(X, y).predict(X), **NEAR)
