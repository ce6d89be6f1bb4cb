"""MLPClassifier against scikit-learn's: the same training to rounding, for each kind of target."""

import itertools

import numpy as np
import pytest
import scipy.sparse
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier as Original

from sklloss import MLPClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# scikit-learn's networks take sample weights from 1.7 on
WEIGHTED = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 7)
KINDS = ["two classes", "classes", "labels"]


def data(kind, n=150, p=6, dtype=np.float64):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p))
    scores = np.sin(X[:, :4]) + X[:, 1:5] * X[:, 2:6] + 0.3 * rng.standard_normal((n, 4))
    y = {
        # before 1.7 early stopping failed on strings
        "two classes": np.where(scores[:, 0] > 0.2, *(("yes", "no") if WEIGHTED else (5, 2))),
        "classes": np.array([3, 1, 4, 2])[scores.argmax(axis=1)],
        "labels": (scores > 0).astype(int),
    }[kind]
    return X.astype(dtype), y, rng.uniform(0.2, 2.0, n)


def assert_same_training(ours, theirs, X, y):
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.t_ == theirs.t_
    assert ours.n_layers_ == theirs.n_layers_
    assert ours.n_outputs_ == theirs.n_outputs_
    assert ours.out_activation_ == theirs.out_activation_
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    # of objects scikit-learn makes strings
    assert ours.classes_.dtype in (theirs.classes_.dtype, np.dtype(object))
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-8)
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_):
        assert mine.shape == other.shape
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-9)
    np.testing.assert_allclose(ours.predict_log_proba(X), theirs.predict_log_proba(X), rtol=1e-7, atol=1e-9)
    predicted = ours.predict(X)
    np.testing.assert_array_equal(predicted, theirs.predict(X))
    assert predicted.dtype in (theirs.predict(X).dtype, ours.classes_.dtype)
    assert ours.score(X, y) == theirs.score(X, y)
    if theirs.early_stopping:
        np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=1e-12)
        assert ours.best_validation_score_ == pytest.approx(theirs.best_validation_score_)
        assert ours.best_loss_ is None
    else:
        assert ours.best_loss_ == pytest.approx(theirs.best_loss_)
        assert ours.validation_scores_ is None
        assert ours.best_validation_score_ is None


GRID = list(
    itertools.product(
        KINDS,
        [
            ("adam", {}),
            ("sgd", {}),
            ("sgd", {"nesterovs_momentum": False}),
            ("sgd", {"learning_rate": "invscaling"}),
            ("sgd", {"learning_rate": "adaptive", "tol": 0.02}),
        ],
        ["relu", "tanh"],
        [{"hidden_layer_sizes": (12,), "batch_size": 32}, {"hidden_layer_sizes": (7, 5), "alpha": 0.8}],
        [{}, {"early_stopping": True, "validation_fraction": 0.2}],
        [False, True] if WEIGHTED else [False],
    )
)


@pytest.mark.parametrize(("kind", "solver", "activation", "shape", "stopping", "weighted"), GRID)
def test_training_is_scikit_learns_to_rounding(kind, solver, activation, shape, stopping, weighted):
    X, y, weight = data(kind)
    name, options = solver
    parameters = {
        "solver": name, "activation": activation, "max_iter": 16, "random_state": 5, "n_iter_no_change": 3,
        "learning_rate_init": 0.01, **options, **shape, **stopping,
    }  # fmt: skip
    weights = (weight,) if weighted else ()
    ours = MLPClassifier(**parameters).fit(X, y, *weights)
    theirs = Original(**parameters).fit(X, y, *weights)
    assert_same_training(ours, theirs, X, y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic"])
@pytest.mark.parametrize("weighted", [False, True] if WEIGHTED else [False])
def test_lbfgs_takes_scikit_learns_steps(kind, activation, weighted):
    X, y, weight = data(kind)
    weights = (weight,) if weighted else ()
    parameters = {"solver": "lbfgs", "activation": activation, "random_state": 0, "max_iter": 10}
    ours = MLPClassifier(**parameters).fit(X, y, *weights)
    theirs = Original(**parameters).fit(X, y, *weights)
    assert ours.n_iter_ == theirs.n_iter_ == len(ours.loss_curve_)
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-8)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fit_is_scikit_learns_to_rounding(kind, solver):
    X, y, _ = data(kind)
    parameters = {"solver": solver, "learning_rate": "adaptive", "batch_size": 20, "tol": 0.1}
    classes = np.arange(4) if kind == "labels" else np.unique(y)
    ours, theirs = (
        model(**parameters, random_state=0, n_iter_no_change=1) for model in (MLPClassifier, Original)
    )
    for k in range(12):
        part = slice(50 * (k % 3), 50 * (k % 3) + 50)
        first = {"classes": classes} if k == 0 else {}
        ours.partial_fit(X[part], y[part], **first)
        theirs.partial_fit(X[part], y[part], **first)
    assert_same_training(ours, theirs, X, y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_a_warm_start_is_scikit_learns_to_rounding(kind, solver):
    X, y, _ = data(kind)
    ours, theirs = (
        model(solver=solver, random_state=0, max_iter=5, warm_start=True)
        for model in (MLPClassifier, Original)
    )
    for _ in range(3):
        ours.fit(X, y)
        theirs.fit(X, y)
    assert len(ours.loss_curve_) == 15
    assert_same_training(ours, theirs, X, y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.csc_matrix])
def test_sparse_rows_are_trained_as_scikit_learn_trains_them(kind, container):
    X, y, _ = data(kind)
    X[np.abs(X) < 0.8] = 0
    X = container(X)
    ours, theirs = (model(random_state=0, max_iter=10).fit(X, y) for model in (MLPClassifier, Original))
    assert_same_training(ours, theirs, X, y)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_trained_in_float32(kind):
    X, y, _ = data(kind, dtype=np.float32)
    ours, theirs = (model(random_state=0, max_iter=30).fit(X, y) for model in (MLPClassifier, Original))
    assert {part.dtype for part in ours.coefs_ + ours.intercepts_} == {np.dtype(np.float32)}
    assert ours.predict_proba(X).dtype == ours.predict_log_proba(X).dtype == np.float32
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize(
    "y",
    [
        [True, False] * 10,
        np.array(["a", "b"] * 10, dtype=object),
        [1.0, 2.0] * 10,
        [[0, 1], [1, 1]] * 10,
        [[True, False], [True, True]] * 10,
        np.array([[1], [0]] * 10),
    ],
    ids=["bool", "object", "float", "list of lists", "bool matrix", "column"],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_labels_of_any_type_are_taken_as_scikit_learn_takes_them(y):
    X = np.random.default_rng(0).standard_normal((20, 3))
    ours, theirs = (model(random_state=0, max_iter=3).fit(X, y) for model in (MLPClassifier, Original))
    assert_same_training(ours, theirs, X, y)


def test_errors_of_a_warm_start_with_other_classes_are_scikit_learns():
    X, y, _ = data("classes")
    for model in (MLPClassifier, Original):
        fitted = model(random_state=0, max_iter=2, warm_start=True).fit(X, y)
        for other in (y + 1, np.where(y == 4, 3, y)):
            with pytest.raises(
                ValueError, match="warm_start can only be used where `y` has the same classes"
            ):
                fitted.fit(X, other)


def test_errors_of_partial_fit_are_scikit_learns():
    X, y, _ = data("classes")
    for model in (MLPClassifier, Original):
        with pytest.raises(ValueError, match=r"classes must be passed on the first call to partial_fit\."):
            model().partial_fit(X, y)
        with pytest.raises(ValueError, match="is not the same as on last call to partial_fit, was"):
            model().partial_fit(X, y, classes=[1, 2, 3, 4]).partial_fit(X, y, classes=[1, 2, 3])
        with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
            model(early_stopping=True).partial_fit(X, y, classes=[1, 2, 3, 4])


@pytest.mark.parametrize("kind", KINDS)
def test_running_out_of_epochs_warns_as_scikit_learn_does(kind):
    X, y, _ = data(kind)
    with pytest.warns(ConvergenceWarning, match=r"Stochastic Optimizer: Maximum iterations \(3\) reached"):
        MLPClassifier(max_iter=3).fit(X, y)
