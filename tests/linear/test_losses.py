"""The linear classifiers with every loss that fits: focal, regression losses, and losses of one's own."""

import pickle
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from helpers import OwnLog, assert_same_model
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.svm import LinearSVC

from sklloss import LogisticClassifier, LogisticClassifierCV, MLPClassifier, SoftmaxClassifier, losses
from sklloss.losses import CrossEntropy, Focal, LogLoss, Loss

# every fit in this file is one that converges
pytestmark = pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")

TIGHT = {"tol": 1e-9, "max_iter": 2000}
CLOSE = {"rtol": 1e-6, "atol": 1e-7}


# Losses of one's own -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class OwnLogWithCurvature(OwnLog):
    def formula(self, xp, y, raw):
        return super().formula(xp, y, raw)

    def curvature(self, xp, y, raw):
        p = 1 / (1 + xp.exp(-raw))
        return p * (1 - p)


@dataclass(frozen=True)
class OwnCrossEntropy(Loss):
    """The cross-entropy, by its formula alone."""

    target: ClassVar[str] = "classes"
    reduction: ClassVar[str] = "sum"
    separable: ClassVar[bool] = False

    def formula(self, xp, y, raw):
        if y.ndim == 1:
            y = np.eye(raw.shape[1], dtype=raw.dtype)[y]
        z = raw - raw.max(axis=1, keepdims=True)
        total = xp.exp(z).sum(axis=1, keepdims=True)
        return (y * (xp.log(total) - z)).sum(axis=1), y.sum(axis=1, keepdims=True) * xp.exp(z) / total - y


@dataclass(frozen=True)
class Margin(Loss):
    """Squared hinges of the differences between the true class's score and each other: no softmax."""

    target: ClassVar[str] = "probabilities"
    reduction: ClassVar[str] = "sum"
    separable: ClassVar[bool] = False

    def formula(self, xp, y, raw):
        # short[i, k, j]: what class j lacks against class k
        short = xp.maximum(1 + raw[:, :, None] - raw[:, None, :], 0) * (1 - xp.eye(raw.shape[1]))
        value = ((short**2).sum(axis=1) * y).sum(axis=1)
        return value, 2 * (short * y[:, None, :]).sum(axis=2) - 2 * y * short.sum(axis=1)


@dataclass(frozen=True)
class Squared(Loss):
    """An outputs' mean: 2 (raw - y)**2, averaged over the outputs of a row; raw is the value itself."""

    factor: float = 2.0

    def formula(self, xp, y, raw):
        return self.factor * (raw - y) ** 2, 2 * self.factor * (raw - y)

    def curvature(self, xp, y, raw):
        return xp.full_like(raw, 2 * self.factor)

    def inverse_link(self, xp, raw):
        return xp.clip(raw, 0.0, 1.0)


@dataclass(frozen=True)
class Shifted(OwnLog):
    """The log loss less a constant, so that the objective falls below 0 and starts at it."""

    constant: float = float(np.log(2))

    def formula(self, xp, y, raw):
        value, gradient = super().formula(xp, y, raw)
        return value - self.constant, gradient


def problem(rng, n=120, p=4, K=3):
    X = rng.normal(size=(n, p))
    return X, (X[:, :1] @ np.linspace(-1, 1, K)[None] + rng.gumbel(size=(n, K))).argmax(axis=1)


def targets(kind, rng, X, y):
    """A y for LogisticClassifier."""
    return {
        "binary": y > 0,
        "soft": rng.uniform(size=len(X)),
        "one-vs-rest": y,
        "multi-label": (X[:, :3] + rng.normal(size=(len(X), 3)) > 0).astype(int),
        "soft multi-label": rng.uniform(size=(len(X), 2)),
    }[kind]


KINDS = ["binary", "soft", "one-vs-rest", "multi-label", "soft multi-label"]


@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_a_copy_of_the_log_loss_by_formula_gives_the_model_of_the_log_loss(
    rng, kind, container, class_weight
):
    X, y = problem(rng)
    X[rng.uniform(size=X.shape) < 0.3] = 0
    y, X = targets(kind, rng, X, y), container(X)
    weight = rng.uniform(0.1, 2, size=120)
    reference = LogisticClassifier(class_weight=class_weight, **TIGHT).fit(X, y, weight)
    for loss, solver, used in (
        (OwnLog(), "auto", "lbfgs"),
        (OwnLogWithCurvature(), "auto", "newton-cholesky"),
        (OwnLogWithCurvature(), "newton-cg", "newton-cg"),
    ):
        model = LogisticClassifier(loss=loss, solver=solver, class_weight=class_weight, **TIGHT)
        model.fit(X, y, weight)
        assert model.solver_ == used
        assert_same_model(model, reference)
        assert model.loss_ == pytest.approx(reference.loss_, rel=1e-12)
        np.testing.assert_array_equal(model.predict(X), reference.predict(X))
        np.testing.assert_allclose(model.predict_proba(X), reference.predict_proba(X), atol=1e-6)
        np.testing.assert_allclose(model.predict_log_proba(X), reference.predict_log_proba(X), rtol=1e-5)


@pytest.mark.parametrize("K", [2, 3])
def test_a_copy_of_the_cross_entropy_gives_the_model_of_the_cross_entropy(rng, K):
    X, y = problem(rng, K=K)
    weight = rng.uniform(0.1, 2, size=120)
    names = np.array(["c", "a", "b"][:K])
    for target in (names[y], rng.dirichlet(np.ones(K), size=120)):
        reference = SoftmaxClassifier(**TIGHT).fit(X, target, weight)
        model = SoftmaxClassifier(loss=OwnCrossEntropy(), **TIGHT).fit(X, target, weight)
        assert model.solver_ == "lbfgs"
        assert_same_model(model, reference, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(model.predict(X), reference.predict(X))
        np.testing.assert_allclose(model.predict_proba(X), reference.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
def test_a_loss_of_ones_own_keeps_the_dtype_of_x(rng, estimator, dtype):
    X, y = problem(rng)
    loss = OwnCrossEntropy() if estimator is SoftmaxClassifier else OwnLogWithCurvature()
    model = estimator(loss=loss).fit(X.astype(dtype), y)
    assert model.coef_.dtype == model.predict_proba(X.astype(dtype)).dtype == dtype
    assert_same_model(model, estimator(**TIGHT).fit(X, y), rtol=2e-3, atol=2e-4)


def reference_fit(X, outputs, cost, C=1.0):
    """The minimum of C * cost(raw) + |coef|**2 / 2 from 0 by SciPy; cost gives value and gradient by raw."""
    p = X.shape[1]

    def objective(w):
        w = w.reshape(outputs, p + 1)
        value, gradient = cost(X @ w[:, :p].T + w[:, p])
        step = C * np.column_stack([gradient.T @ X, gradient.sum(axis=0)])
        step[:, :p] += w[:, :p]
        return C * value + 0.5 * np.sum(w[:, :p] ** 2), step.ravel()

    found = scipy.optimize.minimize(
        objective,
        np.zeros(outputs * (p + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20000, "maxfun": 40000, "ftol": 0, "gtol": 1e-9, "maxcor": 50},
    )
    return found.fun, found.x.reshape(outputs, p + 1)


def weighted_sum(loss, target):
    """Value and gradient of a loss's sum over rows, by its formula."""

    def cost(raw):
        value, gradient = loss.formula(np, target, raw)
        gradient = gradient() if callable(gradient) else gradient
        parts = raw.shape[1] if loss.reduction == "mean" else 1
        return value.sum() / parts, gradient / parts

    return cost


def test_two_coupled_scores_are_zero_and_the_one_that_is_learned(rng):
    X, y = problem(rng, K=2)
    for target in (np.eye(2)[y], rng.dirichlet(np.ones(2), size=120)):
        cost = weighted_sum(Margin(), target)

        def second(raw, cost=cost):
            value, gradient = cost(np.column_stack([np.zeros(120), raw[:, 0]]))
            return value, gradient[:, 1:]

        value, w = reference_fit(X, 1, second)
        model = SoftmaxClassifier(loss=Margin(), **TIGHT).fit(X, target)
        assert model.coef_.shape == (1, 4)
        assert model.decision_function(X).shape == (120,)
        assert model.loss_ == pytest.approx(value, rel=1e-9)
        np.testing.assert_allclose(model.coef_, w[:, :4], rtol=1e-4, atol=1e-5)
    hard = SoftmaxClassifier(loss=Margin(), **TIGHT).fit(X, y)
    assert_same_model(hard, SoftmaxClassifier(loss=Margin(), **TIGHT).fit(X, np.eye(2)[y]))
    np.testing.assert_array_equal(hard.predict(X), hard.decision_function(X) > 0)


@pytest.mark.parametrize("loss", ["huber", "poisson", LogLoss(), OwnLog(), Squared()], ids=str)
def test_two_classes_of_a_separable_loss_are_one_model_in_both_estimators(rng, loss):
    X, y = problem(rng, K=2)
    q = rng.uniform(size=120)
    for one, both in ((y, y), (q, np.column_stack([1 - q, q]))):
        logistic, softmax = (
            estimator(loss=loss, label_smoothing=0.1).fit(X, target)
            for estimator, target in ((LogisticClassifier, one), (SoftmaxClassifier, both))
        )
        assert_same_model(softmax, logistic, rtol=1e-9)
        np.testing.assert_array_equal(softmax.predict(X), logistic.predict(X))
        np.testing.assert_allclose(softmax.predict_proba(X), logistic.predict_proba(X), rtol=1e-9)


@pytest.mark.parametrize("loss", [Margin(), Squared(), LogLoss()], ids=str)
def test_a_loss_over_the_scores_of_all_classes_gets_rows_of_probabilities(rng, loss):
    X, y = problem(rng)
    for target in (np.eye(3)[y], rng.dirichlet(np.ones(3), size=120)):
        value, w = reference_fit(X, 3, weighted_sum(loss, target))
        model = SoftmaxClassifier(loss=loss, **TIGHT).fit(X, target)
        assert model.loss_ == pytest.approx(value, rel=1e-9)
        np.testing.assert_allclose(model.coef_, w[:, :4], rtol=1e-4, atol=1e-5)
    hard = SoftmaxClassifier(loss=loss, **TIGHT).fit(X, y)
    assert_same_model(hard, SoftmaxClassifier(loss=loss, **TIGHT).fit(X, np.eye(3)[y]))


def test_a_loss_over_classes_gets_codes_of_labels_and_rows_of_probabilities(rng):
    seen = []

    class Watched(OwnCrossEntropy):
        def formula(self, xp, y, raw):
            seen.append((y.ndim, y.dtype.kind, raw.shape[1]))
            return super().formula(xp, y, raw)

    X, y = problem(rng)
    SoftmaxClassifier(loss=Watched(), tol=0.3).fit(X, y)
    SoftmaxClassifier(loss=Watched(), tol=0.3).fit(X, y > 0)
    assert set(seen) == {(1, "i", 3), (1, "i", 2)}
    seen.clear()
    SoftmaxClassifier(loss=Watched(), tol=0.3).fit(X, rng.dirichlet(np.ones(3), size=120))
    SoftmaxClassifier(loss=Watched(), tol=0.3).fit(X, rng.dirichlet(np.ones(2), size=120))
    SoftmaxClassifier(loss=Watched(), tol=0.3, label_smoothing=0.1).fit(X, y)
    assert set(seen) == {(2, "f", 3), (2, "f", 2)}


@pytest.mark.parametrize("solver", ["newton-cholesky", "newton-cg", "lbfgs"])
def test_a_loss_that_falls_below_zero_is_followed_to_its_minimum(rng, solver):
    X, y = problem(rng, K=2)

    @dataclass(frozen=True)
    class Below(Shifted):
        def curvature(self, xp, y, raw):
            return OwnLogWithCurvature().curvature(xp, y, raw)

    reference = LogisticClassifier(**TIGHT).fit(X, y)
    model = LogisticClassifier(loss=Below(), solver=solver, **TIGHT).fit(X, y)
    assert model.loss_curve_[0] == pytest.approx(0, abs=1e-12)
    assert model.loss_ == pytest.approx(reference.loss_ - 120 * np.log(2), rel=1e-10)
    assert_same_model(model, reference)


# Which solver for which loss ---------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["newton-cholesky", "newton-cg"])
@pytest.mark.parametrize(
    ("estimator", "loss", "why"),
    [
        (LogisticClassifier, "focal", "convex"),
        (LogisticClassifier, Focal(gamma=1.0), "convex"),
        (SoftmaxClassifier, "focal", "convex"),
        (LogisticClassifier, OwnLog(), "second derivative"),
        (LogisticClassifier, "absolute_error", "second derivative"),
        (SoftmaxClassifier, OwnCrossEntropy(), "second derivatives"),
    ],
)
def test_newton_refuses_losses_without_a_second_derivative_to_rely_on(rng, estimator, loss, why, solver):
    X, y = problem(rng)
    with pytest.raises(ValueError, match=why) as caught:
        estimator(loss=loss, solver=solver).fit(X, y)
    for part in (repr(loss), solver, "solver='lbfgs'"):
        assert part in str(caught.value)
    assert estimator(loss=loss, max_iter=500).fit(X, y).solver_ == "lbfgs"


SMOOTH = [
    "squared_error",
    "mean_squared_error",
    "huber",
    "log_cosh",
    "poisson",
    OwnLogWithCurvature(),
    Squared(),
]


@pytest.mark.parametrize("loss", SMOOTH, ids=str)
@pytest.mark.parametrize("kind", ["soft", "one-vs-rest"])
def test_all_solvers_find_the_minimum_of_a_smooth_loss(rng, loss, kind):
    X, y = problem(rng)
    y = targets(kind, rng, X, y)
    models = [
        LogisticClassifier(loss=loss, solver=solver, tol=1e-7, max_iter=500).fit(X, y)
        for solver in ("auto", "newton-cholesky", "newton-cg", "lbfgs")
    ]
    assert models[0].solver_ == "newton-cholesky"
    for model in models[1:]:
        assert model.loss_ == pytest.approx(models[0].loss_, rel=1e-10)
        assert_same_model(model, models[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solver", ["auto", "newton-cholesky", "newton-cg", "lbfgs"])
@pytest.mark.parametrize("kind", ["binary", "one-vs-rest", "multi-label"])
def test_the_optimum_of_the_squared_hinge_is_that_of_a_linear_support_vector_machine(rng, kind, solver):
    X, y = problem(rng)
    y = targets(kind, rng, X, y)
    ours = LogisticClassifier(
        loss="squared_hinge", C=0.7, fit_intercept=False, solver=solver, tol=1e-8, max_iter=1000
    ).fit(X, y)
    theirs = LinearSVC(
        loss="squared_hinge", dual=False, fit_intercept=False, C=0.7, tol=1e-12, max_iter=100_000
    )
    if kind == "multi-label":
        coef = np.concatenate([clone(theirs).fit(X, column).coef_ for column in y.T])
    else:
        coef = theirs.fit(X, y).coef_
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_allclose(ours.coef_, coef, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.decision_function(X).ravel(), (X @ coef.T).ravel(), atol=1e-5)
    assert ours.solver_ == ("newton-cholesky" if solver == "auto" else solver)
    assert not hasattr(ours, "predict_proba")


def test_the_squared_hinge_takes_labels_alone(rng):
    X, y = problem(rng)
    with pytest.raises(ValueError, match="does not take y.*must hold the labels 0 and 1; row 0 has 0"):
        LogisticClassifier(loss="squared_hinge").fit(X, np.full(len(X), 0.25))
    with pytest.raises(ValueError, match=r"take y with label_smoothing=0\.1,.*must hold the labels 0 and 1"):
        LogisticClassifier(loss="squared_hinge", label_smoothing=0.1).fit(X, y)
    model = LogisticClassifierCV(loss="squared_hinge", Cs=3, cv=3).fit(X, y)
    assert not hasattr(model, "predict_proba")
    assert model.score(X, y) > 0.4


# Soft labels, weights, smoothing -----------------------------------------------------------------------


@pytest.mark.parametrize("class_weight", [None, {0: 0.3, 1: 2.0}, "balanced"])
@pytest.mark.parametrize("loss", ["log_loss", "focal", OwnLog()], ids=str)
def test_soft_binary_labels_equal_their_rows_written_out(rng, loss, class_weight):
    X, y = problem(rng, K=2)
    q = np.clip(0.8 * y + rng.uniform(0, 0.2, size=120), 0, 1)
    q[:2] = [0, 1]
    weight = rng.uniform(0.1, 2, size=120)
    model = LogisticClassifier(loss=loss, class_weight=class_weight, **TIGHT).fit(X, q, weight)
    written_out = LogisticClassifier(loss=loss, class_weight=class_weight, **TIGHT).fit(
        np.vstack([X, X]), np.repeat([1, 0], 120), np.concatenate([weight * q, weight * (1 - q)])
    )
    assert_same_model(model, written_out, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("class_weight", [None, {0: 0.3, 2: 2.0}, "balanced"])
@pytest.mark.parametrize("loss", ["cross_entropy", "focal", OwnCrossEntropy()], ids=str)
def test_class_probabilities_equal_their_rows_written_out(rng, loss, class_weight):
    X, y = problem(rng)
    P = 0.7 * np.eye(3)[y] + 0.3 * rng.dirichlet(np.ones(3), size=120)
    P[:3] = np.eye(3)
    weight = rng.uniform(0.1, 2, size=120)
    model = SoftmaxClassifier(loss=loss, class_weight=class_weight, **TIGHT).fit(X, P, weight)
    written_out = SoftmaxClassifier(loss=loss, class_weight=class_weight, **TIGHT).fit(
        np.repeat(X, 3, axis=0), np.tile(np.arange(3), 120), (P * weight[:, None]).ravel()
    )
    assert_same_model(model, written_out, rtol=1e-6, atol=1e-6)


EVERY = [
    *[(LogisticClassifier, loss) for loss in ("log_loss", "focal", "huber", "log_cosh", OwnLog(), Squared())],
    *[
        (SoftmaxClassifier, loss)
        for loss in ("cross_entropy", "focal", OwnCrossEntropy(), Margin(), LogLoss())
    ],
]


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize(("estimator", "loss"), EVERY, ids=str)
def test_weights_count_rows_and_the_order_of_rows_does_not_matter(rng, estimator, loss, K):
    X, y = problem(rng, K=K)
    weight = rng.integers(0, 3, size=120)
    model = estimator(loss=loss, **TIGHT).fit(X, y, weight)
    repeated = estimator(loss=loss, **TIGHT).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    assert_same_model(model, repeated, rtol=1e-5, atol=1e-6)
    order = rng.permutation(120)
    assert_same_model(
        model, estimator(loss=loss, **TIGHT).fit(X[order], y[order], weight[order]), rtol=1e-5, atol=1e-6
    )
    weighted = estimator(loss=loss, class_weight={0: 2.0}, **TIGHT).fit(X, y)
    by_row = estimator(loss=loss, **TIGHT).fit(X, y, np.where(y == 0, 2.0, 1.0))
    assert_same_model(weighted, by_row, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize(("estimator", "loss"), EVERY, ids=str)
def test_label_smoothing_is_that_of_the_targets_for_every_loss(rng, estimator, loss, K):
    X, y = problem(rng, K=K)
    model = estimator(loss=loss, label_smoothing=0.3, **TIGHT).fit(X, y, X_val=X, y_val=y)
    spread = 0.3 / (K if estimator is SoftmaxClassifier else 2)
    smooth = 0.7 * np.eye(K)[y] + spread
    if estimator is LogisticClassifier and K == 2:
        smooth = smooth[:, 1]
    explicit = estimator(loss=loss, **TIGHT).fit(X, smooth, X_val=X, y_val=smooth)
    assert_same_model(model, explicit, rtol=1e-5, atol=1e-6)
    assert model.validation_loss_curve_[-1] == pytest.approx(explicit.validation_loss_curve_[-1], rel=1e-6)


@pytest.mark.parametrize(("estimator", "loss"), EVERY, ids=str)
def test_smoothed_labels_keep_the_dtype_of_x(rng, estimator, loss):
    X, y = problem(rng, K=3)
    wide, narrow = (
        estimator(loss=loss, label_smoothing=0.1, **TIGHT).fit(X.astype(dtype), y)
        for dtype in (np.float64, np.float32)
    )
    assert narrow.coef_.dtype == np.float32
    assert narrow.loss_ == pytest.approx(wide.loss_, rel=1e-4)


def test_a_loss_that_smooths_labels_is_not_smoothed_twice(rng):
    X, y = problem(rng)
    for estimator, kind in ((LogisticClassifier, LogLoss), (SoftmaxClassifier, CrossEntropy)):
        reference = estimator(loss=kind(label_smoothing=0.2)).fit(X, y)
        both = estimator(loss=kind(label_smoothing=0.2), label_smoothing=0.2).fit(X, y)
        np.testing.assert_array_equal(both.coef_, reference.coef_)
    with pytest.raises(ValueError, match=r"label_smoothing=0\.1 contradicts"):
        SoftmaxClassifier(loss=LogLoss(label_smoothing=0.2), label_smoothing=0.1).fit(X, y)


# What else a fit does ----------------------------------------------------------------------------------


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize(("estimator", "loss"), EVERY, ids=str)
def test_a_fit_is_validated_warm_started_pickled_and_cloned_with_its_loss(rng, estimator, loss, K):
    X, y = problem(rng, K=K)
    model = estimator(loss=loss, warm_start=True, max_iter=500)
    model.fit(X, y, X_val=X, y_val=y)
    coef = model.coef_.copy()
    penalty = 0.5 * np.sum(model.coef_**2)
    # on the training rows the validation loss is the objective less its penalty
    assert model.validation_loss_curve_[-1] == pytest.approx((model.loss_ - penalty) / 120, rel=1e-6)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    model.fit(X, y)
    assert model.n_iter_.max() <= 3
    np.testing.assert_allclose(model.coef_, coef, rtol=1e-3, atol=1e-4)
    bare = clone(model)
    assert bare.loss == loss
    np.testing.assert_allclose(bare.fit(X, y).coef_, coef, rtol=1e-3, atol=1e-4)

    def plain(value):
        if isinstance(value, (list, np.ndarray)):
            return np.asarray(value).dtype != object
        return value is None or type(value) in (bool, int, float, str) or value is model.loss

    assert {name: value for name, value in vars(model).items() if not plain(value)} == {}


@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (LogisticClassifier, ["log_loss", "focal", Focal(gamma=1.0), "huber", OwnLog()]),
        (SoftmaxClassifier, ["cross_entropy", "focal", Focal(gamma=1.0), OwnCrossEntropy(), Margin()]),
    ],
)
def test_a_grid_search_over_losses(estimator, grid):
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(estimator(), {"loss": grid}, cv=3, error_score="raise", scoring="neg_log_loss")
    search.fit(X, y)
    assert search.best_params_["loss"] in grid
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.score(X, y) > 0.9


# Predictions -------------------------------------------------------------------------------------------


def test_a_loss_with_its_own_link_makes_the_predictions(rng):
    X, y = problem(rng)
    for labels in (y > 0, y):
        model = LogisticClassifier(loss=Squared()).fit(X, labels)
        scores = model.decision_function(X)
        p = np.clip(scores, 0, 1)
        expected = np.column_stack([1 - p, p]) if p.ndim == 1 else p / p.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-12)
        wanted = scores > 0.5 if p.ndim == 1 else p.argmax(axis=1)
        np.testing.assert_array_equal(model.predict(X), model.classes_[wanted.astype(int)])
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(model.predict_log_proba(X), np.log(expected), rtol=1e-12)
    Y = (X[:, :2] + rng.normal(size=(120, 2)) > 0).astype(int)
    model = LogisticClassifier(loss=Squared()).fit(X, Y)
    np.testing.assert_array_equal(model.predict_proba(X), np.clip(model.decision_function(X), 0, 1))
    np.testing.assert_array_equal(model.predict(X), model.decision_function(X) > 0.5)


@pytest.mark.parametrize("loss", ["squared_error", "huber", "log_cosh", "poisson", losses.AbsoluteError()])
@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
def test_a_regression_loss_predicts_the_label_nearest_to_its_value(rng, estimator, loss):
    rng = np.random.default_rng(3)
    for K in (2, 3):
        # one class for each corner, so that values near 0 and 1 can be reached
        y = rng.integers(0, K, size=200)
        X = np.eye(3)[y] + 0.1 * rng.normal(size=(200, 3))
        model = estimator(loss=loss, C=100.0, max_iter=1000).fit(X, y)
        assert model.score(X, y) > 0.97
        proba = model.predict_proba(X)
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
        assert proba.min() >= 0
        assert np.mean(proba.argmax(axis=1) == model.predict(X)) > 0.97


def test_rows_whose_values_are_all_zero_have_uniform_probabilities(rng):
    X, y = problem(rng)
    model = LogisticClassifier(loss=Squared()).fit(X, y)
    model.coef_ = np.zeros_like(model.coef_)
    model.intercept_ = np.full(3, -1.0)
    np.testing.assert_allclose(model.predict_proba(X), 1 / 3)
    assert np.isfinite(model.predict_log_proba(X)).all()


@dataclass(frozen=True)
class Hinge(Loss):
    """The squared hinge loss, from which no probabilities follow."""

    target: ClassVar[str] = "probabilities"
    reduction: ClassVar[str] = "sum"
    has_probabilities: ClassVar[bool] = False

    def formula(self, xp, y, raw):
        sign = 2 * y - 1
        short = xp.maximum(1 - sign * raw, 0)
        return short**2, -2 * sign * short


@pytest.mark.parametrize(
    "model",
    [
        LogisticClassifier(loss=Hinge()),
        SoftmaxClassifier(loss=Hinge()),
        LogisticClassifierCV(loss=Hinge(), Cs=[0.1], cv=2),
        MLPClassifier((4,), loss=Hinge(), output="sigmoid", solver="lbfgs", max_iter=2000, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("kind", ["binary", "one-vs-rest", "multi-label"])
def test_a_loss_without_probabilities_has_decisions_and_scores_alone(rng, model, kind):
    X, y = problem(rng)
    y = targets(kind, rng, X, y)
    if kind == "multi-label" and isinstance(model, SoftmaxClassifier):
        return
    for estimator in (model, clone(model).fit(X, y)):
        for method in ("predict_proba", "predict_log_proba"):
            assert not hasattr(estimator, method)
            with pytest.raises(AttributeError, match=f"has no attribute '{method}'") as caught:
                getattr(estimator, method)
            assert "Hinge() has no probabilities" in str(caught.value.__cause__)
    scores = estimator.decision_function(X)
    expected = scores.argmax(axis=1) if kind == "one-vs-rest" else (scores > 0).astype(int)
    np.testing.assert_array_equal(
        estimator.predict(X), expected if kind == "multi-label" else estimator.classes_[expected]
    )
    assert 0 < estimator.score(X, y) <= 1
    if isinstance(model, MLPClassifier):
        assert estimator.out_activation_ == "identity"


def test_a_scorer_of_probabilities_refuses_a_loss_without_them(rng):
    X, y = problem(rng)
    model = LogisticClassifierCV(loss=Hinge(), solver="lbfgs", Cs=[0.1], cv=2, scoring="neg_log_loss")
    with pytest.raises(AttributeError, match="predict_proba"):
        model.fit(X, y)


def test_probabilities_are_available_before_an_unknown_loss_is_refused():
    assert hasattr(LogisticClassifier(loss="unknown"), "predict_proba")
    assert hasattr(MLPClassifier(), "predict_log_proba")


# Losses that do not fit --------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [LogisticClassifier, SoftmaxClassifier])
def test_a_loss_that_does_not_fit_a_classification_says_so(rng, estimator):
    X, y = problem(rng)
    for loss in ("root_mean_squared_error", losses.RootMeanSquaredError()):
        with pytest.raises(ValueError, match=r"RootMeanSquaredError.*mean over rows"):
            estimator(loss=loss).fit(X, y)
    for labels in (y, y > 0):
        for loss in ("gamma", losses.Gamma()):
            with pytest.raises(ValueError, match=r"Gamma\(\) does not take y.*0"):
                estimator(loss=loss).fit(X, labels)


def test_independent_outputs_take_no_coupled_loss(rng):
    X, y = problem(rng)
    for loss in ("cross_entropy", CrossEntropy(), Focal().softmax(), OwnCrossEntropy(), Margin()):
        for labels in (y, y > 0):
            with pytest.raises(ValueError, match="does not fit independent outputs"):
                LogisticClassifier(loss=loss).fit(X, labels)
