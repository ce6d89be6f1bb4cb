"""Warm starts: which scores are compared, and what a float32 network cannot hold."""

import numpy as np
import pytest
from helpers import regression_data, small_classifier, small_regressor
from sklearn.metrics import r2_score

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


X, Y, W = regression_data()
TRAIN, HELD, OTHER = slice(0, 80), slice(80, 115), slice(115, 150)


def validated(model, y, rows, y_val, **kwargs):
    return model.fit(X[TRAIN], y[TRAIN], X_val=X[rows], y_val=y_val[rows], **kwargs)


def watching(**kwargs):
    return small_regressor(
        early_stopping=True, warm_start=True, learning_rate_init=0.05, max_iter=40, **kwargs
    )


# Scores of other rows ----------------------------------------------------------------------------------


def test_a_warm_start_forgets_scores_of_other_validation_rows():
    model = validated(watching(), Y, HELD, Y)
    before, epochs = model.best_validation_score_, len(model.loss_curve_)
    # what was right is wrong now: the old score cannot be reached
    start = r2_score(-Y[OTHER], model.predict(X[OTHER]))
    validated(model.set_params(max_iter=15), -Y, OTHER, -Y)
    assert len(model.validation_scores_) == model.n_iter_ == 15
    assert start < model.best_validation_score_ == max(model.validation_scores_) < before
    assert model.best_iter_ == epochs + np.argmax(model.validation_scores_) + 1
    score = r2_score(-Y[OTHER], model.predict(X[OTHER]))
    assert score == pytest.approx(model.best_validation_score_, rel=1e-12)


def test_a_warm_start_keeps_its_start_if_no_epoch_is_better_on_the_rows_that_it_is_given():
    model = validated(watching(), Y, HELD, Y)
    expected, epoch = model.predict(X), model.best_iter_
    # training away from what validation asks for
    validated(model.set_params(max_iter=5), -Y, TRAIN, Y)
    np.testing.assert_array_equal(model.predict(X), expected)
    assert model.best_iter_ == epoch
    assert model.n_iter_ == len(model.validation_scores_) == 5
    assert model.best_validation_score_ == pytest.approx(r2_score(Y[TRAIN], expected[TRAIN]), rel=1e-12)
    assert max(model.validation_scores_) < model.best_validation_score_


def test_a_warm_start_on_the_same_validation_rows_goes_on_with_their_scores():
    model = validated(watching().set_params(max_iter=300), Y, HELD, Y)
    scores, best = list(model.validation_scores_), model.best_validation_score_
    stalled = model._no_improvement_count
    assert stalled
    # no epoch of such steps gains anything: the count of those without progress goes on
    validated(model.set_params(learning_rate_init=1e-12, n_iter_no_change=stalled + 1), Y, HELD, Y)
    assert model.validation_scores_[: len(scores)] == scores
    assert model.n_iter_ == len(model.validation_scores_) - len(scores) == 2
    assert model.best_validation_score_ >= best


def test_a_score_of_given_rows_is_not_compared_with_that_of_a_split():
    model = validated(watching(), Y, HELD, Y)
    model.set_params(max_iter=3).fit(X, -Y)
    assert len(model.validation_scores_) == 3
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert model.best_iter_ > len(model.loss_curve_) - 3


def not_a_number(estimator, X, y):
    return float("nan")


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("watched", [True, False])
def test_scores_that_are_all_nan_are_an_error_of_a_warm_start_too(watched, given):
    model = small_regressor(warm_start=True, early_stopping=watched).fit(X, Y)
    before = vars(model).copy()
    model.set_params(early_stopping=not_a_number)
    with pytest.raises(ValueError, match="the validation score was NaN after every epoch"):
        model.fit(X, Y, **({"X_val": X, "y_val": Y} if given else {}))
    assert vars(model.set_params(early_stopping=watched)) == before


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_validation_losses_stay_beside_the_losses_of_their_epochs(solver):
    model = small_regressor(warm_start=True, solver=solver, max_iter=3, tol=0.0).fit(X[TRAIN], Y[TRAIN])
    validated(model, Y, HELD, Y)
    assert len(model.validation_loss_curve_) == len(model.loss_curve_) == 6
    assert np.isnan(model.validation_loss_curve_).tolist() == [True] * 3 + [False] * 3
    model.fit(X[TRAIN], Y[TRAIN])
    assert model.validation_loss_curve_ is None
    validated(model, Y, HELD, Y)
    assert np.isnan(model.validation_loss_curve_).tolist() == [True] * 9 + [False] * 3
    expected = 0.5 * np.mean((model.predict(X[HELD]) - Y[HELD]) ** 2)
    assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-12)


# L-BFGS without an iteration ---------------------------------------------------------------------------


def test_lbfgs_that_has_nothing_to_do_states_the_loss_of_its_start():
    model = small_regressor(solver="lbfgs", tol=1e9, alpha=0.5, warm_start=True).fit(X, Y)
    assert model.n_iter_ == model.best_iter_ == 0
    assert model.loss_curve_ == []
    squares = sum((coef**2).sum() for coef in model.coefs_)
    expected = 0.5 * np.mean((model.predict(X) - Y) ** 2) + 0.25 * squares / len(X)
    assert model.best_loss_ == model.loss_ == pytest.approx(expected, rel=1e-12)
    model.set_params(tol=1e-4).fit(X, Y)
    assert model.best_iter_ == model.n_iter_ == len(model.loss_curve_) == 8
    assert model.best_loss_ == min(model.loss_curve_) < expected


# The dtype of the network ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((X * 1e200, Y), "Input X contains infinity"),
        ((X, Y * 1e200), "y is out of the range of float32, the dtype of the network"),
        ((X, Y, W * 1e-60), "sample_weight is out of the range of float32, the dtype of the network"),
        ((X, Y, W * 1e60), "sample_weight is out of the range of float32, the dtype of the network"),
    ],
)
def test_rows_that_a_float32_network_has_no_room_for_are_named(rows, message):
    model = small_regressor(warm_start=True).fit(X.astype(np.float32), Y)
    before = vars(model).copy()
    for method in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=message):
            method(*rows)
        assert vars(model) == before
    names = ("X_val", "y_val", "sample_weight_val")
    for name in names:
        message = message.replace(name[:-4] + " ", name + " ")
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, **dict(zip(names, rows)))
    assert vars(model) == before


def test_a_y_that_rounds_to_0_leaves_the_domain_of_a_loss():
    model = small_regressor(loss="gamma").partial_fit(X.astype(np.float32), np.exp(Y))
    tiny = np.exp(Y)
    tiny[7] = 1e-60
    with pytest.raises(ValueError, match=r"loss=Gamma\(\): Gamma needs y > 0; row 7"):
        model.partial_fit(X, tiny)
    small_regressor(loss="gamma").partial_fit(X, tiny)


def test_weights_that_a_float32_classifier_has_no_room_for_are_named():
    model = small_classifier().partial_fit(X.astype(np.float32), Y > 0, classes=[False, True])
    with pytest.raises(ValueError, match="sample_weight is out of the range of float32"):
        model.partial_fit(X, Y > 0, W * 1e-60)
    model.partial_fit(X, Y > 0, np.where(W > 1, W, 1e-60))
