"""Several quantiles in one loss."""

import pickle

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import make_scorer
from sklearn.model_selection import KFold, cross_val_score

from sklloss import LinearRegressor, LinearRegressorCV, MLPRegressor, losses
from sklloss.metrics import d2_loss

LEVELS = (0.05, 0.5, 0.95)


def heteroscedastic(n=800):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3))
    return X, X @ [1.0, 2.0, 3.0] + rng.normal(size=n) * (1 + np.abs(X[:, 0]))


def test_a_list_is_a_value_as_every_loss_is():
    loss = losses.Quantile(list(LEVELS))
    assert loss == losses.Quantile(LEVELS)
    assert hash(loss) == hash(losses.Quantile(LEVELS))
    assert loss != losses.Quantile(0.5)
    assert repr(loss) == "Quantile(quantile=(0.05, 0.5, 0.95))"
    assert pickle.loads(pickle.dumps(loss)) == loss


def test_a_list_of_one_is_its_number():
    assert losses.Quantile([0.3]) == losses.Quantile(0.3) == losses.Quantile(np.array(0.3))
    assert losses.Quantile([0.3])([1.0], [2.0]) == pytest.approx(0.7)


def test_the_loss_is_the_mean_over_quantiles():
    rng = np.random.default_rng(0)
    y, raw, weight = rng.normal(size=20), rng.normal(size=(20, 3)), rng.uniform(size=20)
    loss = losses.Quantile(LEVELS)
    alone = [losses.Quantile(level) for level in LEVELS]
    parts = [one(y, raw[:, k], weight) for k, one in enumerate(alone)]
    assert loss(y, raw, weight) == pytest.approx(np.mean(parts))
    gradients = [one.gradient(y, raw[:, k], weight) / 3 for k, one in enumerate(alone)]
    np.testing.assert_allclose(loss.gradient(y, raw, weight), np.transpose(gradients), rtol=1e-12)
    rows = [one.per_sample(y, raw[:, k]) for k, one in enumerate(alone)]
    np.testing.assert_allclose(loss.per_sample(y, raw), np.mean(rows, axis=0), rtol=1e-12)


def test_predictions_are_sorted_within_a_row():
    raw = np.array([[3.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    np.testing.assert_array_equal(losses.Quantile(LEVELS).predict(raw), [[1, 2, 3], [0, 1, 2]])


def test_scorers_get_one_target_for_all_quantiles():
    X, y = heteroscedastic(200)
    loss = losses.Quantile(LEVELS)
    scorer = make_scorer(d2_loss, loss=loss)
    model = LinearRegressorCV(loss, alphas=[1e-3], cv=KFold(3), scoring=scorer).fit(X, y)
    expected = cross_val_score(LinearRegressor(loss, alpha=1e-3), X, y, scoring=scorer, cv=KFold(3))
    np.testing.assert_allclose(model.scores_[:, 0, 0], expected, rtol=1e-6)
    network = MLPRegressor(loss, early_stopping=scorer, max_iter=2, random_state=0)
    with pytest.warns(ConvergenceWarning):
        network.fit(X, y)
    assert np.isfinite(network.validation_scores_).all()


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([0.5, 0.2], "ascending"),
        ([0.5, 0.5], "ascending"),
        ([], "not empty"),
        ([0.0, 0.5], "quantile\\[0\\] must be in \\(0, 1\\)"),
        ([0.5, 1.0], "quantile\\[1\\] must be in \\(0, 1\\)"),
    ],
)
def test_bad_levels_are_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        losses.Quantile(levels)


def test_raw_needs_a_column_for_each_quantile():
    with pytest.raises(ValueError, match="a column for each quantile"):
        losses.Quantile(LEVELS)(np.zeros(4), np.zeros((4, 2)))


def test_one_linear_fit_has_the_quantiles_of_three():
    X, y = heteroscedastic()
    model = LinearRegressor(losses.Quantile(LEVELS), alpha=1e-3).fit(X, y)
    assert model.coef_.shape == (3, 3)
    for k, level in enumerate(LEVELS):
        alone = LinearRegressor(losses.Quantile(level), alpha=3e-3).fit(X, y)
        np.testing.assert_allclose(model.coef_[k], alone.coef_, rtol=1e-6)
    predicted = model.predict(5 * X)
    assert predicted.shape == (800, 3)
    assert (np.diff(predicted, axis=1) >= 0).all()
    assert np.abs((y[:, None] < model.predict(X)).mean(axis=0) - LEVELS).max() < 0.02
    with pytest.raises(ValueError, match=r"y must have shape \(n,\)"):
        model.fit(X, np.column_stack([y, y]))


def test_a_network_shares_its_hidden_layers():
    X, y = heteroscedastic()
    model = MLPRegressor(
        losses.Quantile(LEVELS),
        hidden_layer_sizes=(10,),
        max_iter=100,
        learning_rate_init=0.02,
        random_state=0,
    )
    model.fit(X, y)
    predicted = model.predict(X)
    assert predicted.shape == (800, 3)
    assert (np.diff(predicted, axis=1) >= 0).all()
    assert np.abs((y[:, None] < predicted).mean(axis=0) - LEVELS).max() < 0.1
    assert model.score(X, y) < 1
