"""Where models of losses without Newton's method end, not convex ones above all, and that they get there."""

import numpy as np
import pytest
import scipy.optimize
from helpers import assert_same_model
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.preprocessing import StandardScaler

from sklloss import LogisticClassifier, SoftmaxClassifier, losses
from sklloss.losses import CrossEntropy, Focal, GeneralizedCrossEntropy, LogLoss

# every fit in this file is one that converges
pytestmark = pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")

TIGHT = {"tol": 1e-9, "max_iter": 2000}


class BareLogLoss(LogLoss):
    """As a loss of one's own: neither kernel nor second derivative."""

    def formula(self, xp, y, raw):
        return super().formula(xp, y, raw)


class BareCrossEntropy(CrossEntropy):
    """Likewise."""

    def formula(self, xp, y, raw):
        return super().formula(xp, y, raw)


def problem(rng, n=120, p=4, K=3):
    X = rng.normal(size=(n, p))
    return X, (X[:, :1] @ np.linspace(-1, 1, K)[None] + rng.gumbel(size=(n, K))).argmax(axis=1)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
@pytest.mark.parametrize("data", [load_iris, load_breast_cancer])
@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_models_are_where_a_long_fit_by_scipy_ends(data, estimator, scaled, gamma):
    X, y = data(return_X_y=True)
    if scaled:
        X = StandardScaler().fit_transform(X)
    K = y.max() + 1
    outputs = 1 if K == 2 else K
    loss = Focal(gamma=gamma)
    if K == 2:
        target = y[:, None].astype(float)
    elif estimator is LogisticClassifier:
        target = np.eye(K)[y]
    else:
        loss, target = loss.softmax(), y
    # SciPy gets columns of one size, without which it would not arrive
    size = np.abs(X).max(axis=0)

    def cost(raw):
        value, gradient = loss.value_and_gradient(target, raw)
        return len(y) * value, len(y) * gradient

    def objective(w):
        w = w.reshape(outputs, -1)
        value, gradient = cost(X @ (w[:, :-1] / size).T + w[:, -1])
        step = np.column_stack([gradient.T @ X / size + w[:, :-1] / size**2, gradient.sum(axis=0)])
        return value + 0.5 * np.sum((w[:, :-1] / size) ** 2), step.ravel()

    found = scipy.optimize.minimize(
        objective,
        np.zeros(outputs * (X.shape[1] + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20000, "maxfun": 40000, "ftol": 0, "gtol": 1e-8, "maxcor": 60},
    )
    model = estimator(loss=Focal(gamma=gamma)).fit(X, y)
    assert model.solver_ == "lbfgs"
    assert abs(model.loss_ - found.fun) <= 1e-6 * found.fun
    assert model.score(X, y) > 0.93


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(
    ("estimator", "loss"),
    [
        *[(LogisticClassifier, loss) for loss in ("focal", Focal(gamma=0.5), BareLogLoss(), "poisson")],
        *[(SoftmaxClassifier, loss) for loss in ("focal", Focal(gamma=5.0), BareCrossEntropy())],
    ],
    ids=str,
)
def test_pixels_as_they_come_converge_at_the_defaults(estimator, loss, scaled):
    X, y = load_digits(return_X_y=True)
    if scaled:
        X = StandardScaler().fit_transform(X)
    model = estimator(loss=loss, solver="lbfgs").fit(X, y)
    assert model.n_iter_.max() < 100
    # SciPy, started there, finds nothing lower
    bound = losses.get(loss)
    target = y if estimator is SoftmaxClassifier else np.eye(10)[y]
    if estimator is SoftmaxClassifier and isinstance(bound, Focal):
        bound = bound.softmax()

    def objective(w):
        w = w.reshape(10, -1)
        value, gradient = bound.value_and_gradient(target, X @ w[:, :-1].T + w[:, -1])
        step = len(y) * np.column_stack([gradient.T @ X, gradient.sum(axis=0)])
        step[:, :-1] += w[:, :-1]
        return len(y) * value + 0.5 * np.sum(w[:, :-1] ** 2), step.ravel()

    start = np.column_stack([model.coef_, model.intercept_]).ravel()
    assert objective(start)[0] == pytest.approx(model.loss_, rel=1e-12)
    further = scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 100})
    assert model.loss_ - further.fun <= 1e-6 * model.loss_


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
def test_focal_of_gamma_zero_is_the_log_loss(rng, estimator, K):
    X, y = problem(rng, K=K)
    model = estimator(loss=Focal(gamma=0.0), **TIGHT).fit(X, y)
    assert_same_model(model, estimator(**TIGHT).fit(X, y), rtol=1e-5, atol=1e-6)


def test_two_classes_of_a_focal_softmax_are_one_focal_sigmoid(rng):
    X, y = problem(rng, K=2)
    one = LogisticClassifier(loss="focal", **TIGHT).fit(X, y)
    for loss in ("focal", Focal(), Focal().softmax()):
        assert_same_model(SoftmaxClassifier(loss=loss, **TIGHT).fit(X, y), one, rtol=1e-12)
    P = np.column_stack([1 - y, y])
    assert_same_model(SoftmaxClassifier(loss="focal", **TIGHT).fit(X, P), one, rtol=1e-9)


def test_focal_means_the_softmax_form_in_a_softmax(rng):
    X, y = problem(rng)
    one = SoftmaxClassifier(loss="focal", **TIGHT).fit(X, y)
    for loss in (Focal(), Focal(gamma=2.0).softmax()):
        np.testing.assert_array_equal(SoftmaxClassifier(loss=loss, **TIGHT).fit(X, y).coef_, one.coef_)
    np.testing.assert_allclose(one.predict_proba(X), CrossEntropy().predict(one.decision_function(X)))


@pytest.mark.parametrize("kind", ["two classes", "classes", "probabilities"])
@pytest.mark.parametrize("q", [0.3, 0.7])
def test_a_generalized_cross_entropy_ends_where_a_long_fit_by_scipy_does(kind, q, rng):
    K = 2 if kind == "two classes" else 3
    X, y = problem(rng, K=K)
    loss = GeneralizedCrossEntropy(q=q)
    target = y = rng.dirichlet(np.full(K, 0.3), len(X)) if kind == "probabilities" else y
    outputs = K if K > 2 else 1

    def objective(w):
        w = w.reshape(outputs, -1)
        raw = X @ w[:, :-1].T + w[:, -1]
        raw = raw if K > 2 else np.column_stack([np.zeros(len(X)), raw])
        value, gradient = loss.value_and_gradient(target, raw)
        gradient = len(X) * gradient[:, K - outputs :]
        step = np.column_stack([gradient.T @ X + w[:, :-1], gradient.sum(axis=0)])
        return len(X) * value + 0.5 * np.sum(w[:, :-1] ** 2), step.ravel()

    found = scipy.optimize.minimize(
        objective, np.zeros(outputs * 5), jac=True, method="L-BFGS-B", options={"ftol": 0, "gtol": 1e-10}
    )
    model = SoftmaxClassifier(loss=loss, **TIGHT).fit(X, y)
    assert model.solver_ == "lbfgs"
    assert model.loss_ == pytest.approx(found.fun, rel=1e-9)
    np.testing.assert_allclose(model.coef_, found.x.reshape(outputs, -1)[:, :-1], atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)


def test_a_generalized_cross_entropy_of_small_q_is_the_cross_entropy(rng):
    X, y = problem(rng)
    one = SoftmaxClassifier(loss=GeneralizedCrossEntropy(q=1e-9), **TIGHT).fit(X, y)
    assert_same_model(one, SoftmaxClassifier(**TIGHT).fit(X, y), rtol=1e-5, atol=1e-6)


def test_wrong_labels_mislead_a_generalized_cross_entropy_less(rng):
    X = problem(rng, n=2000)[0]
    truth = (X[:, :1] @ np.linspace(-1, 1, 3)[None] * 4).argmax(axis=1)
    noisy = np.where(rng.random(len(X)) < 0.4, 0, truth)
    robust = SoftmaxClassifier(loss="generalized_cross_entropy", C=10).fit(X, noisy)
    usual = SoftmaxClassifier(C=10).fit(X, noisy)
    assert robust.score(X, truth) > usual.score(X, truth)


@pytest.mark.parametrize("solver", ["newton-cg", "newton-cholesky", "proximal-newton"])
def test_newtons_method_refuses_a_generalized_cross_entropy(rng, solver):
    X, y = problem(rng)
    model = SoftmaxClassifier(
        loss="generalized_cross_entropy", solver=solver, l1_ratio=1.0 if solver == "proximal-newton" else 0.0
    )
    with pytest.raises(ValueError, match="is not convex"):
        model.fit(X, y)
