"""D² of any loss."""

import numpy as np
import pytest
from sklearn.metrics import d2_absolute_error_score, d2_pinball_score, d2_tweedie_score, make_scorer, r2_score
from sklearn.model_selection import cross_val_score

from sklloss import LinearRegressor, losses
from sklloss.metrics import d2_loss


def data(positive=False):
    rng = np.random.default_rng(0)
    y = rng.gamma(2, size=50) if positive else rng.normal(size=50)
    predicted = y + rng.normal(size=50) * 0.3 if not positive else y * rng.uniform(0.5, 1.5, 50)
    return y, predicted, rng.uniform(0, 2, 50)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "score", "positive"),
    [
        ("squared_error", r2_score, False),
        ("mean_squared_error", r2_score, False),
        ("absolute_error", d2_absolute_error_score, False),
        ("quantile", d2_pinball_score, False),
        (losses.Quantile(0.8), lambda *y, **k: d2_pinball_score(*y, alpha=0.8, **k), False),
        ("poisson", lambda *y, **k: d2_tweedie_score(*y, power=1, **k), True),
        ("gamma", lambda *y, **k: d2_tweedie_score(*y, power=2, **k), True),
        (losses.Tweedie(1.4), lambda *y, **k: d2_tweedie_score(*y, power=1.4, **k), True),
    ],
)
def test_it_is_the_score_of_scikit_learn(loss, score, positive, weighted):
    y, predicted, weight = data(positive)
    weight = weight if weighted else None
    found = d2_loss(y, predicted, loss=loss, sample_weight=weight)
    assert found == pytest.approx(score(y, predicted, sample_weight=weight), rel=1e-10)


@pytest.mark.parametrize(
    "loss", [losses.Huber(0.3), losses.LogCosh(), losses.AbsoluteError(), losses.Tweedie(1.7)]
)
def test_it_is_0_for_the_best_constant_and_1_for_a_perfect_prediction(loss):
    y, _, weight = data(positive=True)
    assert d2_loss(y, y, loss=loss, sample_weight=weight) == pytest.approx(1.0, abs=1e-12)
    grid = np.linspace(y.min(), y.max(), 501)
    scores = [d2_loss(y, np.full(50, constant), loss=loss, sample_weight=weight) for constant in grid]
    assert max(scores) <= 1e-12
    assert max(scores) == pytest.approx(0.0, abs=1e-3)


def test_outputs_and_quantiles_are_averaged():
    y, predicted, _ = data()
    both = d2_loss(np.column_stack([y, -y]), np.column_stack([predicted, predicted]), loss="huber")
    parts = d2_loss(y, predicted, loss="huber"), d2_loss(-y, predicted, loss="huber")
    assert both == pytest.approx(np.mean(parts))
    levels = losses.Quantile([0.2, 0.8])
    found = d2_loss(y, np.column_stack([predicted - 1, predicted + 1]), loss=levels)
    parts = (
        d2_loss(y, predicted - 1, loss=losses.Quantile(0.2)),
        d2_loss(y, predicted + 1, loss=losses.Quantile(0.8)),
    )
    assert found == pytest.approx(np.mean(parts))


def test_it_makes_a_scorer():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    y = rng.poisson(np.exp(X[:, 0])).astype(float)
    scores = cross_val_score(LinearRegressor("poisson"), X, y, scoring=make_scorer(d2_loss, loss="poisson"))
    assert (scores > 0.3).all()


def test_constant_targets_and_bad_input():
    assert d2_loss(np.ones(5), np.ones(5)) == 1.0
    assert d2_loss(np.ones(5), np.zeros(5)) == 0.0
    with pytest.warns(Warning, match="fewer than two"):
        assert np.isnan(d2_loss([1.0], [1.0]))
    with pytest.raises(ValueError, match="for classification"):
        d2_loss(np.ones(5), np.ones(5), loss="cross_entropy")
    with pytest.raises(ValueError, match="as many outputs"):
        d2_loss(np.ones((5, 2)), np.ones((5, 3)))
    with pytest.raises(ValueError, match="row 0"):
        d2_loss(-np.ones(5), np.ones(5), loss="poisson")
