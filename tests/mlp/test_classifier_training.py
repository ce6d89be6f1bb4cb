"""MLPClassifier: what early stopping watches, learning rate schedules, callbacks, Ctrl-C."""

import numpy as np
import pytest
from helpers import class_data
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, f1_score, log_loss, make_scorer
from sklearn.model_selection import train_test_split

from sklloss import MLPClassifier, find_learning_rate, losses, metrics

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def small(**kwargs):
    return MLPClassifier(**{"hidden_layer_sizes": (8,), "max_iter": 12, "random_state": 0, **kwargs})


X, _, P, W = class_data()
Y = np.array(["a", "b", "c"])[P.argmax(axis=1)]
LABELS = (P > 0.3).astype(int)
TRAIN, HELD = slice(0, 90), slice(90, 150)


def fit_held_out(model, y):
    return model.fit(X[TRAIN], y[TRAIN], X_val=X[HELD], y_val=y[HELD], sample_weight_val=W[HELD])


def epochs_apart(model, y):
    """The network after each of its first epochs."""
    for epoch in range(1, 13):
        yield fit_held_out(clone(model).set_params(early_stopping=False, max_iter=epoch), y)


CASES = {
    "log loss of labels": (
        Y,
        {"early_stopping": "neg_log_loss"},
        lambda m: -log_loss(Y[HELD], m.predict_proba(X[HELD]), sample_weight=W[HELD]),
    ),
    "f1 of labels": (
        Y,
        {"early_stopping": "f1_macro"},
        lambda m: f1_score(Y[HELD], m.predict(X[HELD]), average="macro", sample_weight=W[HELD]),
    ),
    "f1 of two labels": (
        Y == "a",
        {"early_stopping": make_scorer(f1_score)},
        lambda m: f1_score(Y[HELD] == "a", m.predict(X[HELD]), sample_weight=W[HELD]),
    ),
    "f1 of labels that may hold together": (
        LABELS,
        {"early_stopping": "f1_micro"},
        lambda m: f1_score(LABELS[HELD], m.predict(X[HELD]), average="micro", sample_weight=W[HELD]),
    ),
    "cross-entropy of probabilities": (
        P,
        {"early_stopping": metrics.neg_cross_entropy, "output": "softmax"},
        lambda m: -losses.CrossEntropy()(P[HELD], m.decision_function(X[HELD]), W[HELD]),
    ),
    "the loss": (
        LABELS,
        {"early_stopping": "loss", "class_weight": "balanced"},
        lambda m: -losses.LogLoss()(LABELS[HELD], m.decision_function(X[HELD]), W[HELD]),
    ),
    "our own score": (
        Y,
        {"early_stopping": True},
        lambda m: accuracy_score(Y[HELD], m.predict(X[HELD]), sample_weight=W[HELD]),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_early_stopping_keeps_the_epoch_of_the_best_score(case):
    y, parameters, score = CASES[case]
    model = small(learning_rate_init=0.05, n_iter_no_change=100, **parameters)
    scores = [score(stage) for stage in epochs_apart(model, y)]
    fit_held_out(model, y)
    np.testing.assert_allclose(model.validation_scores_, scores, rtol=1e-9)
    assert model.best_iter_ == int(np.argmax(scores)) + 1
    assert score(model) == pytest.approx(model.best_validation_score_, rel=1e-9) == max(scores)


def test_a_scorer_sees_the_rows_that_were_split_off():
    parts = train_test_split(np.arange(150), test_size=0.3, random_state=_after_start())[1]

    def scorer(estimator, rows, y, sample_weight=None):
        np.testing.assert_array_equal(rows, X[parts])
        np.testing.assert_array_equal(y, Y[parts])
        np.testing.assert_array_equal(sample_weight, W[parts])
        assert isinstance(estimator, MLPClassifier)
        assert estimator.classes_.tolist() == ["a", "b", "c"]
        return estimator.score(rows, y, sample_weight)

    given = small(early_stopping=scorer, validation_fraction=0.3, class_weight="balanced").fit(X, Y, W)
    own = small(early_stopping=True, validation_fraction=0.3, class_weight="balanced").fit(X, Y, W)
    assert given.validation_scores_ == pytest.approx(own.validation_scores_, rel=1e-12)
    np.testing.assert_array_equal(given.predict_proba(X), own.predict_proba(X))


def _after_start():
    state = np.random.RandomState(0)
    for inputs, outputs in ((6, 8), (8, 3)):
        state.uniform(size=(inputs, outputs))
        state.uniform(size=outputs)
    return state


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle"])
def test_learning_rates_that_run_reach_a_low_loss(schedule):
    rows, labels = load_digits(return_X_y=True)
    options = {
        "max_iter": 8,
        "learning_rate_init": 0.02,
        "learning_rate": schedule,
        "n_iter_no_change": np.inf,
    }
    model = MLPClassifier((32,), random_state=0, **options).fit(rows[:1200] / 16, labels[:1200])
    assert model.score(rows[1200:] / 16, labels[1200:]) > 0.88


@pytest.mark.parametrize(("y", "output"), [(Y, "auto"), (LABELS, "auto"), (P, "softmax"), (Y == "a", "auto")])
def test_the_search_for_a_learning_rate_takes_every_target(y, output):
    found = find_learning_rate(small(output=output), X, y)
    assert 1e-5 < found.suggestion < 10


def test_callbacks_see_each_epoch_with_a_classifier_that_predicts():
    callback = pytest.importorskip("sklearn.callback")
    monitor = callback.ScoringMonitor(scoring="accuracy")
    model = small().set_callbacks(monitor).fit(X, Y)
    scores = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert scores == [small(max_iter=k).fit(X, Y).score(X, Y) for k in range(1, 13)]
    assert scores[-1] == model.score(X, Y)


class Plain(losses.LogLoss):
    """The log loss without its kernel: a call of its formula for each batch."""

    kernel = None


def test_a_warm_start_keeps_the_last_finished_epoch_after_ctrl_c(press_ctrl_c):
    y = np.where(X[:, 0] > 0, "yes", "no")
    options = {"loss": Plain(), "batch_size": 50}
    model = small(warm_start=True, **options)
    # 3 batches an epoch: the eleventh is in the fourth epoch
    press_ctrl_c(Plain, 11)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert model.n_iter_ == len(model.loss_curve_) == 3
    assert model.classes_.tolist() == ["no", "yes"]
    expected = small(max_iter=3, **options).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X))


@pytest.mark.parametrize("y", [Y, LABELS], ids=["classes", "labels"])
def test_decoupled_weight_decay_takes_a_share_of_each_weight_off_in_each_step(y):
    common = {"batch_size": 150, "max_iter": 1, "shuffle": False}
    start = small(solver="adam", alpha=0.0, learning_rate_init=1e-300, **common).fit(X, y)
    plain = small(solver="adam", alpha=0.0, learning_rate_init=0.01, **common).fit(X, y)
    model = small(solver="adamw", alpha=0.5, learning_rate_init=0.01, **common).fit(X, y)
    for before, after, decayed in zip(start.coefs_, plain.coefs_, model.coefs_):
        np.testing.assert_allclose(decayed, after - 0.01 * 0.5 * before, rtol=1e-12, atol=1e-15)
    for after, kept in zip(plain.intercepts_, model.intercepts_):
        np.testing.assert_array_equal(kept, after)
    assert model.loss_ == pytest.approx(start.loss_, rel=1e-12)


def test_threads_do_not_change_a_bit():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3000, 200))
    labels = rng.integers(0, 10, 3000)
    options = {"hidden_layer_sizes": (256,), "batch_size": 500, "max_iter": 2}
    one, two = (small(n_threads=k, **options).fit(rows, labels) for k in (1, 2))
    assert one.loss_curve_ == two.loss_curve_
    np.testing.assert_array_equal(one.predict_proba(rows), two.predict_proba(rows))
