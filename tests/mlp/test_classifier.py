"""MLPClassifier: targets, losses, class weights and validation."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from helpers import assert_same_probabilities, class_data, small_classifier
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklloss import MLPClassifier, MLPRegressor, losses

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def whole(**kwargs):
    """One batch holds all rows, so that only what the loss sums to can differ."""
    return small_classifier(batch_size=10**6, **kwargs)


X, Y, P, W = class_data()
LABELS = (P > 0.3).astype(int)
HOT = np.eye(3)[Y]

ignore_clipping = pytest.mark.filterwarnings("ignore:Got `batch_size`")


# Targets -----------------------------------------------------------------------------------------------


def test_one_hot_rows_are_the_labels_if_the_output_is_a_softmax():
    assert_same_probabilities(small_classifier(output="softmax").fit(X, HOT), small_classifier().fit(X, Y), X)


def test_zeros_and_ones_are_labels_that_may_hold_together():
    model = small_classifier().fit(X, LABELS)
    assert model.out_activation_ == "logistic"
    assert model.predict(X).shape == LABELS.shape
    assert not np.allclose(model.predict_proba(X).sum(axis=1), 1)
    assert_same_probabilities(model, small_classifier(output="sigmoid").fit(X, LABELS.astype(bool)), X)


@pytest.mark.parametrize("y", [P, P.astype(np.float32), LABELS * 0.5 + 0.25, P.tolist()])
def test_a_matrix_of_fractions_needs_to_be_told_what_it_is(y):
    for fit in (small_classifier().fit, small_classifier().partial_fit):
        with pytest.raises(ValueError, match=r'between 0 and 1 .*output="softmax".*output="sigmoid"'):
            fit(X, y)


@ignore_clipping
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("parameters", [{}, {"loss": "focal"}, {"label_smoothing": 0.1}])
def test_class_probabilities_are_rows_for_each_class_weighted_by_them(solver, parameters):
    soft = whole(output="softmax", solver=solver, **parameters).fit(X, P, W)
    written_out = whole(solver=solver, **parameters).fit(
        np.repeat(X, 3, axis=0), np.tile(np.arange(3), len(X)), (P * W[:, None]).ravel()
    )
    assert_same_probabilities(soft, written_out, X, 1e-7)
    np.testing.assert_allclose(soft.loss_curve_, written_out.loss_curve_, rtol=1e-7)


@ignore_clipping
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("loss", ["auto", "focal"])
def test_probabilities_of_two_classes_are_rows_for_both(solver, loss):
    p = P[:, 0]
    soft = whole(solver=solver, loss=loss).fit(X, p, W)
    assert soft.n_outputs_ == 1
    rows, labels = np.repeat(X, 2, axis=0), np.tile([0, 1], len(X))
    weights = (np.stack([1 - p, p], axis=1) * W[:, None]).ravel()
    assert_same_probabilities(soft, whole(solver=solver, loss=loss).fit(rows, labels, weights), X, 1e-7)
    assert_same_probabilities(soft, whole(solver=solver, loss=loss, output="sigmoid").fit(X, p, W), X)
    pair = np.stack([1 - p, p], axis=1)
    assert_same_probabilities(
        soft, whole(solver=solver, loss=loss, output="softmax").fit(X, pair, W), X, 1e-7
    )


@ignore_clipping
@pytest.mark.parametrize("loss", ["auto", "focal"])
def test_soft_labels_that_may_hold_together_are_rows_with_and_without_each(loss):
    soft = whole(output="sigmoid", loss=loss).fit(X, P)
    # every combination of labels, by its probability if the labels are independent
    combinations = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    chances = np.prod(np.where(combinations, P[:, None], 1 - P[:, None]), axis=2)
    expected = whole(loss=loss).fit(
        np.repeat(X, 8, axis=0), np.tile(combinations, (len(X), 1)), chances.ravel()
    )
    assert_same_probabilities(soft, expected, X, 1e-7)


def test_labels_with_sigmoids_are_one_vs_rest():
    model = small_classifier(output="sigmoid").fit(X, Y)
    labels = small_classifier().fit(X, HOT.astype(int))
    np.testing.assert_allclose(model.decision_function(X), labels.decision_function(X), atol=1e-12)
    each = labels.predict_proba(X)
    np.testing.assert_allclose(model.predict_proba(X), each / each.sum(axis=1, keepdims=True), atol=1e-12)
    np.testing.assert_array_equal(model.predict(X), each.argmax(axis=1))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_column_names_of_probabilities_are_the_classes(library):
    frames = pytest.importorskip(library)
    soft = frames.DataFrame(dict(zip(["c", "a", "b"], P.T)))
    model = small_classifier(output="softmax", max_iter=30).fit(X, soft)
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert set(model.predict(X)) <= {"a", "b", "c"}
    hard = np.array(["c", "a", "b"])[P.argmax(axis=1)]
    assert model.score(X, soft) == model.score(X, hard) == np.mean(model.predict(X) == hard)
    assert_same_probabilities(
        model, small_classifier(output="softmax", max_iter=30).fit(X, P[:, [1, 2, 0]]), X
    )


def test_the_score_of_soft_rows_is_accuracy_against_their_likeliest_class():
    model = small_classifier(output="softmax", max_iter=30).fit(X, P)
    expected = np.average(model.predict(X) == P.argmax(axis=1), weights=W)
    assert model.score(X, P, W) == pytest.approx(expected)
    labels = small_classifier(output="sigmoid").fit(X, P)
    assert labels.score(X, P) == np.mean((labels.predict(X) == (P > 0.5)).all(axis=1))


def test_a_sparse_matrix_of_labels_is_taken():
    assert_same_probabilities(
        small_classifier().fit(X, scipy.sparse.csr_array(LABELS)), small_classifier().fit(X, LABELS), X
    )


# Losses ------------------------------------------------------------------------------------------------


def test_logarithms_of_probabilities_are_exact_where_these_round_to_zero():
    for y in (Y == 1, Y, LABELS):
        model = small_classifier(max_iter=3).fit(X, y)
        far = 1e4 * X[:20]
        logs = model.predict_log_proba(far)
        assert np.isfinite(logs).all()
        assert (logs < -800).any()
        raw = model.decision_function(far)
        if y is Y:
            assert np.abs(logs - raw + raw.max(axis=1, keepdims=True)).max() < 2
        near = model.predict_proba(X)
        np.testing.assert_allclose(model.predict_log_proba(X), np.log(near), rtol=1e-9, atol=1e-12)


def test_a_certain_wrong_answer_costs_its_logit():
    # scikit-learn clips the probability: 36.04 and not 400
    far = np.array([[-200.0], [200.0]])
    for y in ([1, 0], ["b", "a"]):
        model = MLPClassifier((), activation="identity", random_state=0, max_iter=1, learning_rate_init=1e-12)
        model.fit(far, y)
        p = model.decision_function(far)
        expected = np.mean(np.logaddexp(0, np.where(np.array(y) == model.classes_[1], -p, p)))
        assert model.loss_ == pytest.approx(expected, rel=1e-6)


def test_the_names_of_losses_choose_what_auto_chooses():
    assert_same_probabilities(
        small_classifier(loss="cross_entropy").fit(X, Y), small_classifier().fit(X, Y), X
    )
    assert_same_probabilities(
        small_classifier(loss="log_loss").fit(X, LABELS), small_classifier().fit(X, LABELS), X
    )
    two = small_classifier().fit(X, Y == 1)
    for loss in ("log_loss", "cross_entropy", losses.LogLoss(), losses.CrossEntropy()):
        assert_same_probabilities(small_classifier(loss=loss).fit(X, Y == 1), two, X)


@pytest.mark.parametrize("y", [Y == 1, Y, LABELS], ids=["two classes", "classes", "labels"])
def test_a_focal_loss_of_gamma_zero_is_the_plain_loss(y):
    assert_same_probabilities(
        small_classifier(loss=losses.Focal(gamma=0.0)).fit(X, y), small_classifier().fit(X, y), X, 1e-7
    )
    strong = small_classifier(loss=losses.Focal(gamma=4.0), max_iter=40).fit(X, y)
    plain = small_classifier(max_iter=40).fit(X, y)
    assert np.abs(strong.decision_function(X)).mean() < np.abs(plain.decision_function(X)).mean()


@pytest.mark.parametrize("loss", ["auto", "focal"])
@pytest.mark.parametrize(
    ("y", "output", "share"),
    [(HOT, "softmax", 1 / 3), (LABELS, "sigmoid", 1 / 2)],
    ids=["softmax", "sigmoid"],
)
def test_label_smoothing_is_training_on_smoothed_targets(y, output, share, loss):
    smoothed = small_classifier(label_smoothing=0.2, output=output, loss=loss).fit(X, y)
    assert_same_probabilities(
        smoothed, small_classifier(output=output, loss=loss).fit(X, 0.8 * y + 0.2 * share), X, 1e-8
    )


@pytest.mark.parametrize("y", [Y == 1, Y, P], ids=["two classes", "classes", "probabilities"])
def test_a_network_minimises_the_generalized_cross_entropy(y):
    # of a smooth network: L-BFGS may stop at a kink of relu
    loss = losses.GeneralizedCrossEntropy(q=0.7)
    output = "softmax" if y is P else "auto"
    model = small_classifier(
        loss=loss, solver="lbfgs", activation="tanh", max_iter=1000, tol=1e-10, alpha=0.1, output=output
    ).fit(X, y)
    shapes = [a.shape for a in (*model.coefs_, *model.intercepts_)]
    ends = np.cumsum([np.prod(shape) for shape in shapes])

    def objective(w):
        parts = [a.reshape(s) for a, s in zip(np.split(w, ends[:-1]), shapes)]
        (first, last), (bias, last_bias) = parts[:2], parts[2:]
        raw = np.tanh(X @ first + bias) @ last + last_bias
        raw = raw if raw.shape[1] > 1 else np.column_stack([np.zeros(len(X)), raw])
        target = y.astype(int) if y.ndim == 1 else y
        return loss(target, raw) + 0.05 / len(X) * (np.sum(first**2) + np.sum(last**2))

    found = np.concatenate([a.ravel() for a in (*model.coefs_, *model.intercepts_)])
    assert objective(found) == pytest.approx(model.loss_, rel=1e-10)
    # SciPy, started there, finds nothing lower
    further = scipy.optimize.minimize(objective, found, method="L-BFGS-B", options={"maxiter": 20})
    assert model.loss_ - further.fun <= 1e-6 * model.loss_
    named = small_classifier(loss="generalized_cross_entropy", output=output).fit(X, y)
    assert_same_probabilities(named, small_classifier(loss=loss, output=output).fit(X, y), X)


def test_label_smoothing_may_be_the_losss_own():
    model = small_classifier(loss=losses.CrossEntropy(label_smoothing=0.2)).fit(X, Y)
    assert_same_probabilities(model, small_classifier(label_smoothing=0.2).fit(X, Y), X)
    with pytest.raises(ValueError, match="label_smoothing=0.1 contradicts loss="):
        small_classifier(loss=losses.CrossEntropy(label_smoothing=0.2), label_smoothing=0.1).fit(X, Y)


@dataclass(frozen=True)
class Own(losses.Loss):
    """The cross-entropy of a softmax, in one method and without a kernel."""

    target = "classes"
    reduction = "sum"
    separable = False

    def formula(self, xp, y, raw):
        if y.ndim == 1:
            y = xp.astype(y[:, None] == xp.arange(raw.shape[1]), raw.dtype)
        z = raw - xp.max(raw, axis=1, keepdims=True)
        e = xp.exp(z)
        total = xp.sum(e, axis=1, keepdims=True)
        return xp.sum(y * (xp.log(total) - z), axis=1), e / total - y


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("y", [Y, Y == 1], ids=["classes", "two classes"])
def test_a_loss_of_ones_own_trains_like_a_kernel(solver, y):
    options = {"solver": solver, "batch_size": 40, "early_stopping": True}
    own = small_classifier(loss=Own(), **options).fit(X, y, W, X_val=X, y_val=y)
    compiled = small_classifier(**options).fit(X, y, W, X_val=X, y_val=y)
    assert_same_probabilities(own, compiled, X, 1e-8)
    np.testing.assert_allclose(own.validation_loss_curve_, compiled.validation_loss_curve_, rtol=1e-8)
    assert own.validation_scores_ == compiled.validation_scores_


def test_a_regression_loss_predicts_by_its_own_link():
    model = small_classifier(loss="squared_error", solver="lbfgs", max_iter=100).fit(X, Y == 1)
    expected = MLPRegressor(
        hidden_layer_sizes=(8,), solver="lbfgs", max_iter=100, random_state=0
    ).fit(X, (Y == 1).astype(float))  # fmt: skip
    raw = expected.predict(X)
    np.testing.assert_allclose(model.decision_function(X), raw, rtol=1e-9)
    np.testing.assert_allclose(model.predict_proba(X)[:, 1], np.clip(raw, 0, 1), rtol=1e-9)
    np.testing.assert_array_equal(model.predict(X), raw > 0.5)
    assert model.out_activation_ == "identity"


@pytest.mark.parametrize(
    ("y", "parameters", "message"),
    [
        (Y, {"loss": "log_loss"}, "loss='log_loss' is for independent sigmoids.*cross_entropy"),
        (Y, {"loss": losses.LogLoss()}, "is for independent sigmoids"),
        (LABELS, {"loss": "cross_entropy"}, "does not fit independent outputs.*output='softmax'"),
        (Y, {"loss": "cross_entropy", "output": "sigmoid"}, "does not fit independent outputs"),
        (LABELS, {"loss": losses.Focal().softmax()}, "does not fit independent outputs"),
        (Y, {"loss": "root_mean_squared_error"}, "does not fit a classifier: it is not a mean over rows"),
        (Y, {"loss": "gamma"}, "does not take y, where labels count as 0 and 1"),
    ],
)
def test_a_loss_that_does_not_fit_the_target_says_so(y, parameters, message):
    with pytest.raises(ValueError, match=message):
        small_classifier(**parameters).fit(X, y)


# Class weights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("y", [Y, Y == 1], ids=["classes", "two classes"])
def test_class_weights_multiply_sample_weights(y, solver):
    names = np.array(["x", "y", "z"])[y.astype(int)]
    given = {"x": 1.0, "y": 3.0, "z": 0.5}
    weights = W * np.array([given[name] for name in names])
    model = small_classifier(class_weight=given, solver=solver, batch_size=32).fit(X, names, W)
    assert_same_probabilities(model, small_classifier(solver=solver, batch_size=32).fit(X, names, weights), X)


def test_balanced_classes_weigh_the_same():
    masses = np.bincount(Y, weights=W)
    weights = W * (W.sum() / (3 * masses))[Y]
    assert_same_probabilities(
        small_classifier(class_weight="balanced").fit(X, Y, W), small_classifier().fit(X, Y, weights), X
    )


@ignore_clipping
def test_class_weights_of_soft_rows_are_those_of_the_rows_written_out():
    given = {0: 1.0, 1: 3.0, 2: 0.5}
    soft = whole(class_weight=given, output="softmax").fit(X, P)
    rows, labels = np.repeat(X, 3, axis=0), np.tile(np.arange(3), len(X))
    assert_same_probabilities(soft, whole(class_weight=given).fit(rows, labels, P.ravel()), X, 1e-7)


@pytest.mark.parametrize("batch_size", [40, 150])
def test_class_weights_of_each_label_weigh_its_own_loss(batch_size):
    # the step of plain descent from known weights: a gradient with known factors
    given = [{0: 1.0, 1: 3.0}, None, {0: 0.5, 1: 2.0}]
    factors = np.stack([np.where(LABELS[:, 0], 3.0, 1.0), np.ones(150), np.where(LABELS[:, 2], 2.0, 0.5)], 1)
    common = {"solver": "sgd", "momentum": 0.0, "shuffle": False, "alpha": 0.0, "max_iter": 1}
    model = MLPClassifier((), class_weight=given, random_state=0, batch_size=batch_size, **common)
    model.set_params(learning_rate_init=1e-300).fit(X, LABELS, W)
    coef, intercept = model.coefs_[0], model.intercepts_[0]
    model.set_params(warm_start=True, learning_rate_init=0.1).fit(X, LABELS, W)
    for first in range(0, 150, batch_size):
        part = slice(first, min(first + batch_size, 150))
        weight = W[part, None] * factors[part]
        slope = weight * (1 / (1 + np.exp(-X[part] @ coef - intercept)) - LABELS[part])
        coef = coef - 0.1 * X[part].T @ slope / (weight.sum() / 3)
        intercept = intercept - 0.1 * slope.sum(axis=0) / (weight.sum() / 3)
    np.testing.assert_allclose(model.coefs_[0], coef, rtol=1e-10)
    np.testing.assert_allclose(model.intercepts_[0], intercept, rtol=1e-10)


def test_validation_rows_know_no_class_weights():
    given = {0: 1.0, 1: 30.0, 2: 0.5}
    options = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 100}
    model = small_classifier(class_weight=given, **options).fit(X, Y, W)
    # as scikit-learn draws them: after the weights, and not stratified for more than two classes
    rest = train_test_split(np.arange(150), test_size=0.3, random_state=_after_start())[1]
    best = int(np.argmax(model.validation_scores_))
    right = model.predict(X[rest]) == Y[rest]
    assert model.validation_scores_[best] == pytest.approx(np.average(right, weights=W[rest]), rel=1e-12)
    soft = small_classifier(class_weight=given, output="softmax", **options).fit(X, HOT, W)
    np.testing.assert_allclose(soft.validation_loss_curve_, model.validation_loss_curve_, rtol=1e-9)


def _after_start():
    state = np.random.RandomState(0)
    for inputs, outputs in ((6, 8), (8, 3)):
        state.uniform(size=(inputs, outputs))
        state.uniform(size=outputs)
    return state


@pytest.mark.parametrize(
    ("y", "class_weight", "error", "message"),
    [
        (Y, "even", ValueError, 'class_weight must be a dict, "balanced"'),
        (Y, [1, 2, 3], TypeError, 'class_weight must be a dict, "balanced"'),
        (Y, {0: 1.0, 1: -2.0}, ValueError, r"class_weight\[1\] must be in"),
        (Y, {0: 1.0, 7: 2.0}, ValueError, r"no weight for the classes \[1, 2\], but has some for \[7\]"),
        (Y, {0: 0, 1: 0, 2: 0}, ValueError, "leave no row with a positive weight"),
        (LABELS, [{0: 1, 1: 2}], ValueError, "class_weight has 1 entries, y has 3 labels"),
    ],
)
def test_bad_class_weights_are_named(y, class_weight, error, message):
    with pytest.raises(error, match=message):
        small_classifier(class_weight=class_weight).fit(X, y)


def test_partial_fit_does_not_balance_what_it_cannot_count():
    with pytest.raises(ValueError, match="class_weight='balanced' is not for partial_fit"):
        small_classifier(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])
    given = {0: 1.0, 1: 3.0, 2: 0.5}
    model = small_classifier(class_weight=given).partial_fit(X, Y, classes=[0, 1, 2])
    weights = np.array([1.0, 3.0, 0.5])[Y]
    assert_same_probabilities(model, small_classifier().partial_fit(X, Y, weights, classes=[0, 1, 2]), X)


# Validation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize(
    ("y", "output"), [(Y, "auto"), (LABELS, "auto"), (P, "softmax"), (P, "sigmoid"), (Y == 1, "auto")]
)
def test_the_validation_loss_is_recorded_without_early_stopping(y, output, solver):
    model = small_classifier(solver=solver, alpha=3.0, output=output)
    model.fit(X[:100], y[:100], X_val=X[100:], y_val=y[100:], sample_weight_val=W[100:])
    assert len(model.validation_loss_curve_) == model.n_iter_
    loss = losses.CrossEntropy() if model.out_activation_ == "softmax" else losses.LogLoss()
    expected = loss(y[100:], model.decision_function(X[100:]), W[100:])
    assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-10)
    assert model.validation_scores_ is None
    plain = small_classifier(solver=solver, alpha=3.0, output=output).fit(X[:100], y[:100])
    assert plain.validation_loss_curve_ is None
    np.testing.assert_array_equal(plain.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(("y", "output"), [(Y, "auto"), (LABELS, "auto"), (P, "softmax"), (Y == 1, "auto")])
def test_early_stopping_watches_the_accuracy_on_the_given_rows(y, output):
    model = small_classifier(
        early_stopping=True, max_iter=300, learning_rate_init=0.05, n_iter_no_change=4, output=output
    )
    model.fit(X[:80], y[:80], X_val=X[80:], y_val=y[80:], sample_weight_val=W[80:])
    assert model.n_iter_ < 300
    assert model.t_ == 80 * model.n_iter_  # no row was split off
    assert len(model.validation_scores_) == len(model.validation_loss_curve_) == model.n_iter_
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert model.score(X[80:], y[80:], W[80:]) == pytest.approx(model.best_validation_score_, rel=1e-12)


def test_labels_may_be_validated_on_probabilities_and_the_other_way_round():
    model = small_classifier().fit(X, Y, X_val=X, y_val=P)
    assert model.validation_loss_curve_[-1] == pytest.approx(
        losses.CrossEntropy()(P, model.decision_function(X)), rel=1e-10
    )
    model = small_classifier(output="softmax").fit(X, P, X_val=X, y_val=Y)
    assert model.validation_loss_curve_[-1] == pytest.approx(log_loss(Y, model.predict_proba(X)), rel=1e-10)


# Bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        (
            {"output": "linear"},
            ValueError,
            "output must be one of 'auto', 'softmax', 'sigmoid', got 'linear'",
        ),
        ({"loss": "nonsense"}, ValueError, "unknown loss 'nonsense'; known losses"),
        ({"loss": 3}, TypeError, "loss must be a name or a losses.Loss"),
        ({"label_smoothing": 1.0}, ValueError, "label_smoothing must be in"),
        ({"label_smoothing": "some"}, TypeError, "label_smoothing must be a real number"),
        ({"hidden_layer_sizes": (5, 0)}, ValueError, r"hidden_layer_sizes must be > 0, got \[5, 0\]"),
        ({"n_threads": 0}, ValueError, "n_threads must not be 0"),
        ({"n_threads": 1.5}, TypeError, "n_threads must be an integer or None"),
        ({"early_stopping": True, "validation_fraction": 0.001}, ValueError, "test_size|too small"),
    ],
)
def test_a_bad_parameter_is_named_and_changes_nothing(parameters, error, message):
    y = Y == 1
    model = small_classifier().fit(X, y)
    before, expected = vars(model).copy(), model.predict_proba(X)
    with pytest.raises(error, match=message):
        model.set_params(**parameters).fit(X, y)
    model.set_params(**{name: small_classifier().get_params()[name] for name in parameters})
    np.testing.assert_array_equal(model.predict_proba(X), expected)
    assert vars(model) == before


@pytest.mark.parametrize("value", [0, 1.5])
def test_the_regressor_checks_n_threads_too(value):
    with pytest.raises((ValueError, TypeError), match="n_threads must"):
        MLPRegressor(n_threads=value).fit(X, P)


NEGATIVE = np.where(P > 0.6, -P, P)
BAD_ROWS = [
    ((X[:, :0], Y), {}, "0 feature"),
    ((X[:3], Y), {}, "same number of rows"),
    ((np.where(X > 2, np.nan, X), Y), {}, "NaN"),
    ((X, None), {}, "y"),
    ((X, np.where(Y > 1, np.nan, Y)), {}, "NaN"),
    ((X, Y * 0), {}, "only one class: 0"),
    ((X[:1], Y[:1]), {}, "only one class"),
    ((X, X[:, 0]), {}, "Unknown label type: continuous"),
    ((X, Y[:, None, None]), {}, "y must be 1-D or 2-D"),
    ((X, LABELS + 1), {}, "must hold 0/1 labels or probabilities"),
    ((X, np.where(P > 0.6, np.nan, P)), {}, r"y contains NaN or infinity: row \d+"),
    ((X, Y, W[:3]), {}, "sample_weight must have shape"),
    ((X, Y, -W), {}, "sample_weight must not be negative"),
    ((X, Y, W * 0), {}, "sample_weight must not be all zero"),
    ((X, Y), {"X_val": X}, "X_val is given without y_val"),
    ((X, Y), {"y_val": Y}, "y_val is given without X_val"),
    ((X, Y), {"X_val": X[:, :2], "y_val": Y}, "X_val: X has 2 features"),
    ((X, Y), {"X_val": X, "y_val": Y + 1}, r"y_val contains labels that are not among the classes: \[3\]"),
    ((X, Y), {"X_val": X, "y_val": HOT[:, :2]}, "y_val"),
    ((X, LABELS), {"X_val": X, "y_val": Y}, r"y_val must have shape \(n, 3\) as in training"),
    ((X, LABELS), {"X_val": X, "y_val": LABELS[:, :2]}, "y_val has 2 columns, but there are 3 labels"),
    ((X, Y), {"X_val": X, "y_val": Y, "sample_weight_val": -W}, "sample_weight_val must not be negative"),
    ((X, Y), {"X_val": X, "y_val": Y, "sample_weight_val": 0 * W}, "sample_weight_val must not be all zero"),
]


@pytest.mark.parametrize(("rows", "validation", "message"), BAD_ROWS)
def test_bad_rows_are_named_and_change_nothing(rows, validation, message):
    model = small_classifier().fit(X, Y)
    before = vars(model).copy()
    with pytest.raises(ValueError, match=message):
        model.fit(*rows, **validation)
    assert vars(model) == before


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (2 * P, r"each row of y must sum to 1; row 0 sums to 2\. Divide the rows .*sample_weight"),
        (NEGATIVE, r"y must hold class probabilities; row \d+ has a negative value"),
        (P.astype(str), "y is 2-D and must hold class probabilities, got dtype"),
    ],
)
def test_rows_that_are_no_probabilities_are_named(y, message):
    with pytest.raises(ValueError, match=message):
        small_classifier(output="softmax").fit(X, y)


def test_a_batch_larger_than_the_data_is_clipped_with_a_warning():
    with pytest.warns(UserWarning, match="It is going to be clipped") as caught:
        clipped = small_classifier(batch_size=1000).fit(X, Y)
    assert {one.filename for one in caught} == {__file__}
    assert_same_probabilities(clipped, small_classifier(batch_size=150).fit(X, Y), X)


def test_predicting_before_fitting_is_an_error():
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        with pytest.raises(NotFittedError):
            getattr(small_classifier(), method)(X)


def test_a_diverging_training_names_the_epoch_and_changes_nothing():
    model = small_classifier().fit(X, Y)
    coefs = model.coefs_
    model.set_params(solver="sgd", learning_rate_init=1e200, activation="identity", max_iter=500)
    with pytest.raises(ValueError, match=r"became .* in epoch \d+.*columns of X \(in a regression y too\)"):
        model.fit(X, Y)
    assert model.coefs_ is coefs


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_ctrl_c_stops_within_an_epoch_and_changes_nothing(solver, press_ctrl_c):
    model = small_classifier(loss=Own(), solver=solver, batch_size=50).fit(X, Y)
    before = vars(model).copy()
    press_ctrl_c(Own, 5)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert vars(model) == before


# Other -------------------------------------------------------------------------------------------------


def test_a_fitted_estimator_holds_arrays_and_plain_values_only():
    def plain(value):
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(part) for key, part in value.items())
        if isinstance(value, (list, tuple)):
            return all(map(plain, value))
        return value is None or type(value) in (int, float, str, bool, np.ndarray)

    for parameters in ({}, {"early_stopping": True}, {"solver": "lbfgs"}, {"loss": "focal"}):
        model = small_classifier(**parameters).fit(X, Y)
        assert {name: value for name, value in vars(model).items() if not plain(value)} == {}
        assert type(model.n_iter_) is int
        assert type(model.loss_) is float
        assert type(model.score(X, Y)) is float
        assert model.solver_ == model.solver


def test_a_pickle_predicts_the_same_and_trains_on_the_same():
    model = small_classifier(max_iter=3).fit(X, Y)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
    copy.partial_fit(X, Y)
    np.testing.assert_array_equal(copy.predict_proba(X), model.partial_fit(X, Y).predict_proba(X))


def test_the_same_random_state_gives_the_same_bits():
    for parameters in ({}, {"solver": "sgd", "early_stopping": True}, {"solver": "lbfgs"}):
        first, second = (clone(small_classifier(**parameters)).fit(X, Y, W) for _ in range(2))
        np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
        assert first.loss_curve_ == second.loss_curve_


def test_it_is_tuned_scored_and_chained_by_scikit_learn():
    rows, labels = load_iris(return_X_y=True)
    labels = load_iris().target_names[labels]
    pipeline = make_pipeline(StandardScaler(), small_classifier(solver="lbfgs", max_iter=100))
    search = GridSearchCV(
        pipeline, {"mlpclassifier__alpha": [0.1, 1.0], "mlpclassifier__label_smoothing": [0.0, 0.1]}, cv=3
    ).fit(rows, labels)
    assert search.best_score_ > 0.9
    assert cross_val_score(pipeline, rows, labels, scoring="neg_log_loss", cv=3).mean() > -0.5
    chain = ClassifierChain(small_classifier(solver="lbfgs")).fit(X, LABELS)
    assert chain.predict(X).shape == LABELS.shape


@pytest.mark.parametrize("parameters", [{"batch_size": 16}, {"early_stopping": True}, {"solver": "lbfgs"}])
@pytest.mark.parametrize("y", [Y, Y == 1, LABELS], ids=["classes", "two classes", "labels"])
def test_rows_of_weight_zero_count_as_left_out(parameters, y):
    weight = W.copy()
    weight[::3] = 0
    kept = weight > 0
    wild = np.where(kept[:, None], X, 1e3)
    model = small_classifier(**parameters).fit(wild, y, weight)
    assert_same_probabilities(model, small_classifier(**parameters).fit(X[kept], y[kept], weight[kept]), X)


def test_a_warm_start_with_another_loss_measures_progress_anew():
    model = small_classifier(warm_start=True, max_iter=20).fit(X, Y)
    model.fit(X, Y)
    assert len(model.loss_curve_) == 40
    model.set_params(loss="focal").fit(X, Y)
    assert len(model.loss_curve_) == model.n_iter_
    model.set_params(label_smoothing=0.1).fit(X, Y)
    assert len(model.loss_curve_) == model.n_iter_


def test_a_warm_start_goes_on_with_soft_rows_of_the_same_classes():
    model = small_classifier(warm_start=True, output="softmax").fit(X, np.array(["a", "b", "c"])[Y])
    first = model.loss_
    model.fit(X, HOT)
    assert model.loss_ < first
    assert model.classes_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="y has 2 columns, but there are 3 classes"):
        model.fit(X, HOT[:, :2] + [[0, 1]] * HOT[:, 2:])
