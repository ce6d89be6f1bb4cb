"""MLPRegressor with every loss: what is minimised, what is predicted, what y may be."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.optimize
import sklearn
import sklearn.neural_network
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sklloss import MLPRegressor, losses

NAMES = [name for name in losses.names() if losses.get(name).target == "values"]
SMOOTH = [name for name in NAMES if name not in ("absolute_error", "quantile")]


@dataclass(frozen=True)
class Cauchy(losses.Loss):
    """A loss of one's own, as the documentation writes it."""

    scale: float = 1.0

    def formula(self, xp, y, raw):
        d = (raw - y) / self.scale
        return xp.log1p(d * d), 2 * d / (1 + d * d) / self.scale


def data(name, n=120, outputs=None, dtype=np.float64):
    """X and a y in the domain of the loss."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, 4)).astype(dtype)
    mean = X @ rng.normal(size=(4, outputs or 1)) / 3
    if name == "poisson":
        y = rng.poisson(np.exp(mean))
    elif name in ("gamma", "tweedie"):
        y = rng.gamma(2.0, np.exp(mean) / 2)
    else:
        y = mean + 0.3 * rng.standard_t(2, size=mean.shape)
    return X, (y if outputs else y[:, 0]).astype(dtype)


@pytest.mark.parametrize("outputs", [None, 2])
@pytest.mark.parametrize("name", SMOOTH)
def test_without_hidden_layers_lbfgs_finds_the_optimum_of_the_loss(name, outputs):
    X, y = data(name, outputs=outputs)
    loss = losses.get(name)
    weight = np.random.default_rng(4).uniform(0.5, 2.0, len(X))
    model = MLPRegressor(
        name, hidden_layer_sizes=(), solver="lbfgs", alpha=0.5, tol=1e-9, max_iter=2000, random_state=0
    ).fit(X, y, weight)
    T = outputs or 1

    def objective(w):
        raw = X @ w[: 4 * T].reshape(4, T) + w[4 * T :]
        penalty = 0.25 * (w[: 4 * T] ** 2).sum() / weight.sum()
        return loss(y, raw if outputs else raw[:, 0], weight) + penalty

    best = scipy.optimize.minimize(objective, np.zeros(5 * T), method="BFGS", options={"gtol": 1e-7})
    assert model.loss_ == pytest.approx(best.fun, rel=1e-8, abs=1e-12)
    w = np.concatenate([model.coefs_[0].ravel(), model.intercepts_[0]])
    assert objective(w) == pytest.approx(model.loss_, rel=1e-12)
    raw = X @ model.coefs_[0] + model.intercepts_[0]
    expected = loss.predict(raw)
    np.testing.assert_allclose(model.predict(X), expected if outputs else expected[:, 0], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("name", NAMES)
def test_training_lowers_the_loss_and_the_curves_are_its_values(name, solver, dtype):
    X, y = data(name, dtype=dtype)
    model = MLPRegressor(
        name, hidden_layer_sizes=(8,), solver=solver, learning_rate_init=0.01, max_iter=30, tol=0.0,
        n_iter_no_change=100, random_state=0, alpha=0.0, batch_size=len(X), shuffle=False,
    )  # fmt: skip
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        model.fit(X, y, X_val=X, y_val=y)
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert model.predict(X).dtype == dtype
    # the loss before a step is the validation loss after the one before it
    rtol = 1e-5 if dtype is np.float32 else 1e-10
    np.testing.assert_allclose(model.validation_loss_curve_[:-1], model.loss_curve_[1:], rtol=rtol)


@pytest.mark.skipif(
    "loss" not in sklearn.neural_network.MLPRegressor().get_params(), reason="scikit-learn has it since 1.7"
)
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_poisson_is_scikit_learns_with_the_same_random_state(solver):
    X, y = data("poisson", n=300)
    parameters = {
        "loss": "poisson",
        "hidden_layer_sizes": (10,),
        "solver": solver,
        "max_iter": 20,
        "random_state": 1,
        "tol": 1e-6,
    }
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        ours = MLPRegressor(**parameters).fit(X, y)
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        theirs = sklearn.neural_network.MLPRegressor(**parameters).fit(X, y)
    for one, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6)
    assert ours.out_activation_ == theirs.out_activation_ == "exp"


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_quantile_predicts_the_quantile(quantile):
    rng = np.random.default_rng(0)
    y = rng.exponential(size=4000)
    X = np.zeros((len(y), 1))
    loss = losses.Quantile(quantile)
    model = MLPRegressor(
        loss, hidden_layer_sizes=(), learning_rate_init=0.02, max_iter=60, n_iter_no_change=60, random_state=0
    )
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        model.fit(X, y)
    assert np.mean(y <= model.predict(X)) == pytest.approx(quantile, abs=0.02)


def test_robust_losses_follow_the_bulk_and_squared_error_the_outliers():
    rng = np.random.default_rng(1)
    X = rng.uniform(-1, 1, (400, 1))
    y = 2 * X[:, 0] + 0.1 * rng.normal(size=400)
    y[:20] += 50
    parameters = {"hidden_layer_sizes": (), "solver": "lbfgs", "alpha": 0.0, "max_iter": 500, "tol": 1e-8}
    errors = {
        name: abs(float(MLPRegressor(name, **parameters).fit(X, y).predict([[0.0]])[0]))
        for name in ("squared_error", "huber", "log_cosh")
    }
    assert errors["squared_error"] > 2
    assert errors["huber"] < 0.2
    assert errors["log_cosh"] < 0.2


@pytest.mark.parametrize("outputs", [None, 2])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_loss_of_ones_own_trains_as_the_same_built_in_one(solver, outputs):
    @dataclass(frozen=True)
    class Half(losses.Loss):
        def formula(self, xp, y, raw):
            return (raw - y) ** 2 / 2, raw - y

    X, y = data("squared_error", outputs=outputs)
    parameters = {
        "hidden_layer_sizes": (6,),
        "solver": solver,
        "max_iter": 15,
        "random_state": 0,
        "batch_size": 32,
    }
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        own = MLPRegressor(Half(), **parameters).fit(X, y)
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        built_in = MLPRegressor("squared_error", **parameters).fit(X, y)
    np.testing.assert_allclose(own.predict(X), built_in.predict(X), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(own.loss_curve_, built_in.loss_curve_, rtol=1e-9)


def test_a_loss_of_ones_own_is_pickled_cloned_and_searched_over():
    X, y = data("squared_error")
    grid = {"loss": ["huber", Cauchy(), Cauchy(0.5), losses.Huber(0.2)]}
    search = GridSearchCV(MLPRegressor(hidden_layer_sizes=(), solver="lbfgs"), grid, cv=2).fit(X, y)
    model = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(model.predict(X), search.predict(X))
    assert clone(MLPRegressor(Cauchy(2.0))).loss == Cauchy(2.0)


def test_a_loss_over_probabilities_fits_fractions():
    X, _ = data("squared_error")
    y = np.random.default_rng(0).uniform(size=len(X))
    parameters = {"hidden_layer_sizes": (), "solver": "lbfgs", "tol": 1e-8}
    model = MLPRegressor(losses.LogLoss(), **parameters).fit(X, y)
    assert model.out_activation_ == "logistic"
    assert ((model.predict(X) > 0) & (model.predict(X) < 1)).all()
    np.testing.assert_allclose(model.predict(X).mean(), y.mean(), rtol=1e-5)
    with pytest.raises(ValueError, match=r"y must hold labels or probabilities in \[0, 1\]; row 3 has 1\.5"):
        model.fit(X, np.where(np.arange(len(X)) == 3, 1.5, y))


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [("poisson", -1.0, "row 7"), ("gamma", 0.0, "row 7"), ("gamma", -2.0, "row 7")],
)
def test_targets_outside_the_domain_are_refused_and_the_fit_before_is_kept(name, bad, message):
    X, y = data(name)
    model = MLPRegressor(name, hidden_layer_sizes=(), random_state=0, solver="lbfgs").fit(X, y)
    before = model.predict(X)
    wrong = y.copy()
    wrong[7] = bad
    for call in (
        lambda: model.fit(X, wrong),
        lambda: model.fit(X, y, X_val=X, y_val=wrong),
        lambda: clone(model).set_params(solver="adam").partial_fit(X, wrong),
    ):
        with pytest.raises(ValueError, match=rf"{message} has {bad}"):
            call()
    with pytest.raises(ValueError, match="y_val"):
        model.fit(X, y, X_val=X, y_val=wrong)
    np.testing.assert_array_equal(model.predict(X), before)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("log_loss", "is for classification; MLPRegressor has absolute_error, gamma, huber"),
        ("focal", "is for classification"),
        (losses.CrossEntropy(), "needs class codes"),
    ],
)
def test_a_loss_for_classes_is_refused(loss, message):
    X, y = data("squared_error")
    with pytest.raises(ValueError, match=message):
        MLPRegressor(loss).fit(X, y)


def test_predictions_keep_the_link_of_the_fit():
    X, y = data("poisson")
    model = MLPRegressor("poisson", solver="lbfgs", hidden_layer_sizes=()).fit(X, y)
    before = model.predict(X)
    model.set_params(loss="squared_error", activation="tanh")
    np.testing.assert_array_equal(model.predict(X), before)
