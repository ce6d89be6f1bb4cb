"""LinearRegressorCV: the same numbers as separate fits and as scikit-learn's."""

import numpy as np
import pytest
from sklearn.linear_model import ElasticNetCV
from sklearn.metrics import mean_absolute_error, mean_poisson_deviance
from sklearn.model_selection import GroupKFold, KFold

from sklloss import LinearRegressor, LinearRegressorCV, losses


def data(n=300, p=12):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    return X, X[:, :3] @ [1.0, 2.0, -1.0], rng


def test_elastic_nets_are_those_of_scikit_learn():
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta))
    rival = ElasticNetCV(l1_ratio=[0.5, 1.0], alphas=20, tol=1e-9, max_iter=100000).fit(X, y)
    model = LinearRegressorCV(l1_ratios=[0.5, 1.0], alphas=20, eps=1e-3, tol=1e-6).fit(X, y)
    assert model.alpha_ == pytest.approx(rival.alpha_)
    assert model.l1_ratio_ == rival.l1_ratio_
    np.testing.assert_allclose(model.alphas_, rival.alphas_)
    np.testing.assert_allclose(2 * model.loss_path_, rival.mse_path_, rtol=1e-6)
    np.testing.assert_allclose(model.coef_, rival.coef_, atol=1e-6)
    assert model.score(X, y) == pytest.approx(rival.score(X, y))


@pytest.mark.parametrize("loss", ["squared_error", "poisson", "gamma", "huber", "quantile"])
@pytest.mark.parametrize("weighted", [False, True])
def test_each_point_of_the_path_is_a_fit_of_its_own(loss, weighted):
    X, eta, rng = data()
    y = np.exp(0.3 * eta + rng.normal(size=len(eta)))
    weight = rng.uniform(0.5, 2, len(y)) if weighted else None
    alphas = [1.0, 1e-3, 0.1]
    model = LinearRegressorCV(loss, alphas=alphas, cv=KFold(3)).fit(X, y, weight)
    for fold, (train, test) in enumerate(KFold(3).split(X)):
        for a, alpha in enumerate(alphas):
            w = weight if weight is None else weight[train]
            alone = LinearRegressor(loss, alpha=alpha).fit(X[train], y[train], w)
            coef = model.coefs_paths_[fold, 0, a, 0]
            np.testing.assert_allclose(coef[:-1], alone.coef_, rtol=1e-2, atol=1e-3)
            raw = X[test] @ coef[:-1] + coef[-1]
            held = losses.get(loss)(y[test], raw, weight if weight is None else weight[test])
            assert model.loss_path_[0, a, fold] == pytest.approx(held, rel=1e-9)
            assert model.scores_[fold, 0, a] == -model.loss_path_[0, a, fold]
    best = model.scores_.mean(axis=0)[0].argmax()
    assert model.alpha_ == alphas[best]
    refit = LinearRegressor(loss, alpha=model.alpha_).fit(X, y, weight)
    assert model.loss_ == pytest.approx(refit.loss_, rel=1e-6)
    assert model.solver_ == refit.solver_


def test_scorers_groups_and_jobs():
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta))
    groups = np.arange(len(y)) % 7
    one = LinearRegressorCV(alphas=5, cv=GroupKFold(3), scoring="neg_mean_absolute_error")
    two = LinearRegressorCV(alphas=5, cv=GroupKFold(3), scoring="neg_mean_absolute_error", n_jobs=2)
    one.fit(X, y, groups=groups)
    two.fit(X, y, groups=groups)
    np.testing.assert_array_equal(one.scores_, two.scores_)
    train, test = next(GroupKFold(3).split(X, y, groups))
    alone = LinearRegressor(alpha=one.alphas_[-1]).fit(X[train], y[train])
    error = mean_absolute_error(y[test], alone.predict(X[test]))
    assert one.scores_[0, 0, -1] == pytest.approx(-error, rel=1e-4)


def test_offsets_count_in_every_fold():
    X, eta, rng = data()
    offset = np.log(rng.uniform(1, 50, len(eta)))
    y = rng.poisson(np.exp(0.2 * eta + offset)).astype(float)
    model = LinearRegressorCV("poisson", alphas=[1e-3, 10.0], cv=3).fit(X, y, offset=offset)
    assert model.alpha_ == 1e-3
    with pytest.raises(ValueError, match="fitted with an offset"):
        model.predict(X)
    # a scorer sees predictions with the offset, and weights
    weight = rng.integers(0, 3, len(eta)).astype(float)
    scored = LinearRegressorCV("poisson", alphas=[1e-3, 10.0], cv=3, scoring="neg_mean_poisson_deviance")
    scored.fit(X, y, weight, offset=offset)
    train, test = next(KFold(3).split(X))
    alone = LinearRegressor("poisson", alpha=10.0).fit(
        X[train], y[train], weight[train], offset=offset[train]
    )
    predicted = alone.predict(X[test], offset[test])
    expected = -mean_poisson_deviance(y[test], predicted, sample_weight=weight[test])
    assert scored.scores_[0, 0, 1] == pytest.approx(expected, rel=1e-6)
    assert scored.alpha_ == 1e-3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alphas": []}, "alphas"),
        ({"alphas": [-1.0]}, r"alphas\[0\]"),
        ({"l1_ratios": [2.0]}, r"l1_ratios\[0\]"),
        ({"eps": 0.0}, "eps"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    X, eta, _ = data()
    with pytest.raises(ValueError, match=message):
        LinearRegressorCV(**parameters).fit(X, eta)
    for absent in ("partial_fit", "set_partial_fit_request", "warm_start"):
        assert not hasattr(LinearRegressorCV(), absent)


def test_scorers_see_numpy_arrays_of_tensors():
    xp = pytest.importorskip("array_api_strict")
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta))
    options = {"alphas": [1e-3, 10.0], "scoring": "neg_mean_absolute_error"}
    here = LinearRegressorCV(**options).fit(X, y)
    there = LinearRegressorCV(**options).fit(xp.asarray(X), xp.asarray(y))
    assert there.coef_.__array_namespace__() is xp
    np.testing.assert_allclose(np.asarray(there.scores_), here.scores_, rtol=1e-9)
