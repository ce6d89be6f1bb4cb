"""LinearRegressor with smooth losses: its optimum, its interface and its errors."""

import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn import set_config
from sklearn.base import clone
from sklearn.linear_model import (
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    PoissonRegressor,
    Ridge,
    TweedieRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklloss import LinearRegressor, losses


def data(n=400, p=6, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * 10.0 ** rng.integers(-2, 3, p) + 20 * rng.normal(size=p)
    eta = (X - X.mean(axis=0)) @ (0.4 * rng.normal(size=p) / X.std(axis=0))
    return X, eta, rng


def objective(loss, model, X, y, alpha, l1_ratio, weight=None, offset=0.0):
    coef = np.atleast_2d(model.coef_)
    penalty = l1_ratio * np.abs(coef).sum() + (1 - l1_ratio) / 2 * (coef**2).sum()
    return loss(y, X @ model.coef_.T + model.intercept_ + offset, weight) + alpha * penalty


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alpha", [1e-4, 0.1])
@pytest.mark.parametrize(
    ("loss", "rival", "sample"),
    [
        (losses.Poisson(), PoissonRegressor(), lambda rng, eta: rng.poisson(np.exp(eta)).astype(float)),
        (losses.Gamma(), GammaRegressor(), lambda rng, eta: 1e6 * rng.gamma(2, np.exp(eta)) + 1),
        (
            losses.Tweedie(1.3),
            TweedieRegressor(power=1.3, link="log"),
            lambda rng, eta: rng.poisson(np.exp(eta)) * rng.gamma(2, np.exp(eta)),
        ),
    ],
    ids=["poisson", "gamma", "tweedie"],
)
def test_generalised_linear_models_have_the_optimum_of_scikit_learn(loss, rival, sample, alpha, weighted):
    X, eta, rng = data()
    y = sample(rng, eta)
    weight = rng.uniform(0, 2, len(y)) if weighted else None
    rival = rival.set_params(alpha=alpha, tol=1e-9, max_iter=1000, solver="newton-cholesky")
    rival.fit(X, y, weight)
    model = LinearRegressor(loss, alpha=alpha).fit(X, y, weight)
    least = objective(loss, rival, X, y, alpha, 0.0, weight)
    assert objective(loss, model, X, y, alpha, 0.0, weight) <= least + 1e-9 * abs(least)
    assert model.loss_ == pytest.approx(objective(loss, model, X, y, alpha, 0.0, weight), rel=1e-12)
    assert model.loss_curve_[-1] == model.loss_
    np.testing.assert_allclose(model.predict(X), rival.predict(X), rtol=1e-4)


def test_squared_error_is_ridge():
    X, eta, rng = data()
    y, weight = eta + rng.normal(size=len(eta)), rng.uniform(0.5, 2, len(eta))
    model = LinearRegressor(alpha=0.1).fit(X, y, weight)
    ridge = Ridge(alpha=0.1 * weight.sum()).fit(X, y, weight)
    np.testing.assert_allclose(model.coef_, ridge.coef_, rtol=1e-9)
    assert isinstance(model.intercept_, float)
    assert model.intercept_ == pytest.approx(ridge.intercept_, rel=1e-9)
    assert model.score(X, y, weight) == pytest.approx(ridge.score(X, y, weight))


@pytest.mark.parametrize("alpha", [1e-4, 10.0, 300.0])
def test_huber_is_scikit_learns_at_its_scale(alpha):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 4))
    y = X @ [1.0, 2.0, 0.0, -1.0] + 3 + 2 * rng.standard_t(2, size=500)
    rival = HuberRegressor(epsilon=1.35, alpha=alpha, tol=1e-10, max_iter=10000).fit(X, y)
    model = LinearRegressor(losses.Huber(1.35 * rival.scale_), alpha=alpha * rival.scale_ / 500, tol=1e-6)
    np.testing.assert_allclose(model.fit(X, y).coef_, rival.coef_, atol=1e-4)
    assert model.intercept_ == pytest.approx(rival.intercept_, abs=1e-4)


@pytest.mark.parametrize("l1_ratio", [0.3, 1.0])
def test_l1_penalties_are_those_of_elastic_net_and_lasso(l1_ratio):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 150))
    y = X[:, :4] @ [3.0, -2, 1, 1] + rng.normal(size=100)
    rival = Lasso(alpha=0.2) if l1_ratio == 1 else ElasticNet(alpha=0.2, l1_ratio=l1_ratio)
    rival.set_params(tol=1e-12, max_iter=100000).fit(X, y)
    model = LinearRegressor(alpha=0.2, l1_ratio=l1_ratio, tol=1e-6).fit(X, y)
    np.testing.assert_array_equal(model.coef_ == 0, rival.coef_ == 0)
    np.testing.assert_allclose(model.coef_, rival.coef_, atol=1e-6)


@pytest.mark.parametrize("loss", ["squared_error", "huber", "log_cosh", "poisson", "gamma", "tweedie"])
@pytest.mark.parametrize(
    "solver", ["newton-cholesky", "newton-cg", "lbfgs", "sgd", "adam", "proximal-newton"]
)
def test_every_solver_reaches_the_optimum(loss, solver):
    X, eta, rng = data()
    y = eta + 0.5 * rng.normal(size=len(eta))
    y = y if losses.get(loss).domain is None else np.exp(y)
    best = LinearRegressor(loss, alpha=0.01, tol=1e-6).fit(X, y)
    model = LinearRegressor(loss, alpha=0.01, solver=solver, random_state=0).fit(X, y)
    assert abs(model.loss_ - best.loss_) <= 1e-6 * max(abs(best.loss_), 1e-3)


@pytest.mark.parametrize("loss", ["huber", "log_cosh"])
@pytest.mark.parametrize("unit", [1e-3, 1.0, 30.0, 1e6])
@pytest.mark.parametrize("l1_ratio", [0.0, 1.0])
def test_losses_that_are_linear_far_out_reach_their_optimum(loss, unit, l1_ratio):
    X, eta, rng = data()
    y = unit * (eta + rng.standard_t(2, size=len(eta)) + 1000)
    model = LinearRegressor(loss, alpha=1e-3, l1_ratio=l1_ratio).fit(X, y)
    assert model.loss_ == pytest.approx(objective(losses.get(loss), model, X, y, 1e-3, l1_ratio), rel=1e-9)
    # A duality gap says how near the optimum is.
    exact = LinearRegressor(loss, alpha=1e-3, l1_ratio=l1_ratio, solver="interior-point").fit(X, y)
    assert abs(model.loss_ - exact.loss_) <= 1e-6 * exact.loss_


@pytest.mark.parametrize("loss", ["huber", "log_cosh"])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize(("alpha", "l1_ratio"), [(1e-4, 0.0), (0.1, 0.0), (0.1, 0.5), (0.1, 1.0)])
def test_errors_that_are_fitted_away_do_not_choose_the_solver(loss, scale, alpha, l1_ratio):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 40))
    y = scale * (X[:, :3].sum(axis=1) + rng.standard_t(2, size=30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LinearRegressor(loss, alpha=alpha, l1_ratio=l1_ratio).fit(X, y)
    exact = LinearRegressor(loss, alpha=alpha, l1_ratio=l1_ratio, solver="interior-point", tol=1e-5).fit(X, y)
    assert model.loss_ <= exact.loss_ * (1 + 1e-6)


def test_root_mean_squared_error_is_one_problem_over_all_outputs():
    X, eta, rng = data()
    X = StandardScaler().fit_transform(X)
    Y = np.column_stack([eta, -eta, eta**2]) + rng.normal(size=(len(eta), 3))
    loss = losses.RootMeanSquaredError()
    model = LinearRegressor(loss, alpha=0.01).fit(X, Y)
    value = objective(loss, model, X, Y, 0.01, 0.0)
    assert model.loss_ == pytest.approx(value, rel=1e-10)
    assert model.coef_.shape == (3, 6)
    for _ in range(20):
        other = clone(model)
        other.coef_ = model.coef_ + 1e-3 * rng.normal(size=(3, 6))
        other.intercept_ = model.intercept_ + 1e-3 * rng.normal(size=3)
        assert objective(loss, other, X, Y, 0.01, 0.0) > value


@pytest.mark.parametrize("loss", ["squared_error", "poisson", "absolute_error"])
def test_layouts_and_dtypes_agree(loss):
    X, eta, rng = data()
    X = StandardScaler().fit_transform(X)
    y = np.abs(eta + rng.normal(size=len(eta)))
    expected = LinearRegressor(loss, alpha=0.01).fit(X, y)
    for other in (np.asfortranarray(X), scipy.sparse.csr_array(X), scipy.sparse.csc_array(X)):
        model = LinearRegressor(loss, alpha=0.01).fit(other, y)
        np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(model.predict(other), expected.predict(X), rtol=1e-3, atol=1e-5)
    single = LinearRegressor(loss, alpha=0.01).fit(X.astype(np.float32), y.astype(np.float32))
    assert single.coef_.dtype == np.float32
    assert single.predict(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(single.coef_, expected.coef_, rtol=1e-3, atol=1e-4)


def test_tensors_stay_tensors():
    torch = pytest.importorskip("torch")
    X, eta, _ = data()
    X = StandardScaler().fit_transform(X)
    for loss in ("squared_error", "absolute_error"):
        expected = LinearRegressor(loss).fit(X, eta)
        for device in (None, torch.device("cpu")):
            model = LinearRegressor(loss, device=device).fit(torch.tensor(X), torch.tensor(eta))
            assert isinstance(model.coef_, torch.Tensor)
            np.testing.assert_allclose(model.coef_.numpy(), expected.coef_, rtol=1e-4, atol=1e-6)
            assert isinstance(model.predict(torch.tensor(X)), torch.Tensor)
            on_host = model.to("numpy")
            np.testing.assert_allclose(on_host.predict(X), expected.predict(X), rtol=1e-4, atol=1e-5)


def test_a_warm_start_begins_at_the_last_optimum():
    X, eta, rng = data()
    y = rng.poisson(np.exp(eta)).astype(float)
    model = LinearRegressor("poisson", warm_start=True, solver="lbfgs").fit(X, y)
    first = model.n_iter_[0]
    assert model.fit(X, y).n_iter_[0] < first
    with pytest.raises(ValueError, match="warm_start=True"):
        model.fit(X[:, :3], y)


@pytest.mark.parametrize("alpha", [0.0, 1e-3])
@pytest.mark.parametrize("solver", ["newton-cholesky", "newton-cg", "lbfgs", "proximal-newton"])
@pytest.mark.parametrize("loss", ["poisson", "gamma", "tweedie"])
def test_targets_that_are_reproduced_are_no_failure_to_converge(loss, solver, alpha):
    X, _, _ = data(100)
    for constant in (np.e, 1e6, 1e-6):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = LinearRegressor(loss, alpha=alpha, solver=solver).fit(X, np.full(len(X), constant))
        np.testing.assert_allclose(model.predict(X), constant, rtol=1e-7)


@pytest.mark.parametrize("seed", [22, 112, 140, 187])
def test_scores_whose_terms_cancel_are_no_failure_to_converge(seed):
    # Large columns without a penalty: passes with and without a Hessian round the value differently.
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(30, 40)) * 10.0 ** rng.integers(-3, 4, 40)
    X += rng.normal(size=40) * 10.0 ** rng.integers(-2, 3, 40)
    y = 1000 * rng.normal(size=30)
    weights = (rng.uniform(size=40) < 0.8).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LinearRegressor(alpha=0.01, penalty_weights=weights).fit(X, y)
    assert model.n_iter_[0] <= 5


@pytest.mark.parametrize("loss", ["squared_error", "huber", "log_cosh"])
@pytest.mark.parametrize("solver", ["newton-cholesky", "newton-cg", "lbfgs", "sgd"])
@pytest.mark.parametrize("noise", [1e-3, 1e-5, 1e-7])
def test_little_noise_is_no_perfect_fit(loss, solver, noise):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 6))
    y = X @ rng.normal(size=6) + 1 + noise * rng.normal(size=500)
    Z = np.column_stack([X, np.ones(500)])
    least = np.mean((Z @ np.linalg.lstsq(Z, y)[0] - y) ** 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LinearRegressor(loss, alpha=0.0, solver=solver, random_state=0).fit(X, y)
    assert np.mean((model.predict(X) - y) ** 2) <= least * (1 + 1e-6)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6])
def test_the_root_of_a_mean_ends_where_y_is_reproduced(unit):
    X, _, rng = data()
    y = unit * (X[:, 0] + rng.normal(size=len(X)))
    weight = (np.arange(len(y)) < 5).astype(float)
    model = LinearRegressor("root_mean_squared_error", alpha=0.0).fit(X, y, weight)
    assert model.n_iter_[0] <= 5
    np.testing.assert_allclose(model.predict(X[:5]), y[:5], rtol=1e-6)


def test_the_same_bits_for_any_number_of_threads():
    X, eta, rng = data(5000, 20)
    y = rng.poisson(np.exp(eta)).astype(float)
    for loss in ("poisson", "absolute_error"):
        one, two = (LinearRegressor(loss, n_threads=threads).fit(X, y) for threads in (1, 2))
        np.testing.assert_array_equal(one.coef_, two.coef_)


@pytest.mark.parametrize("loss", ["squared_error", "poisson", "huber"])
@pytest.mark.parametrize("solver", ["auto", "adam"])
def test_partial_fit_approaches_the_optimum(loss, solver):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20000, 5))
    eta = X @ [0.5, 0.2, -0.3, 0.0, 0.1] + 3
    y = rng.poisson(np.exp(eta)).astype(float) if loss == "poisson" else 1000 + eta + rng.normal(size=20000)
    model = LinearRegressor(loss, solver=solver, random_state=0)
    for first in range(0, 20000, 500):
        model.partial_fit(X[first : first + 500], y[first : first + 500])
    expected = LinearRegressor(loss).fit(X, y)
    assert np.abs(model.coef_ - expected.coef_).max() < 0.05
    assert abs(model.intercept_ - expected.intercept_) < 0.05
    assert model.t_ == 20000


# Offsets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["newton-cholesky", "newton-cg", "lbfgs", "sgd", "proximal-newton"])
@pytest.mark.parametrize("layout", [np.asarray, scipy.sparse.csr_array, lambda X: X.astype(np.float32)])
def test_an_exposure_is_an_offset_or_a_weight(solver, layout):
    X, eta, rng = data()
    X = StandardScaler().fit_transform(X)
    exposure = rng.uniform(0.1, 50, len(eta))
    y = rng.poisson(exposure * np.exp(eta)).astype(float)
    expected = LinearRegressor("poisson", alpha=0.0).fit(X, y / exposure, exposure)
    model = LinearRegressor("poisson", alpha=0.0, solver=solver, random_state=0)
    model.fit(layout(X), y, offset=np.log(exposure))
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-3, atol=1e-3)
    predicted = model.predict(layout(X), offset=np.log(exposure))
    np.testing.assert_allclose(predicted, exposure * expected.predict(X), rtol=1e-2)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "log_cosh"])
def test_an_offset_of_a_loss_of_the_error_shifts_the_targets(loss):
    X, eta, rng = data()
    y, offset = eta + rng.normal(size=len(eta)), 100 * rng.normal(size=len(eta))
    model = LinearRegressor(loss, alpha=0.01).fit(X, y + offset, offset=offset)
    expected = LinearRegressor(loss, alpha=0.01).fit(X, y)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-6)


def test_offsets_of_tensors_and_of_several_outputs():
    torch = pytest.importorskip("torch")
    X, eta, rng = data()
    X = StandardScaler().fit_transform(X)
    Y = rng.poisson(np.exp(np.column_stack([eta, -eta]))).astype(float)
    offset = rng.normal(size=(len(eta), 2))
    expected = LinearRegressor("poisson").fit(X, Y, offset=offset)
    device = torch.device("cpu")
    model = LinearRegressor("poisson", device=device).fit(
        torch.tensor(X), torch.tensor(Y), offset=torch.tensor(offset)
    )
    np.testing.assert_allclose(model.coef_.numpy(), expected.coef_, rtol=1e-6)
    predicted = model.predict(torch.tensor(X), offset=torch.tensor(offset))
    np.testing.assert_allclose(predicted.numpy(), expected.predict(X, offset=offset), rtol=1e-6)
    one, column = offset[:, 0], offset[:, :1]
    model = LinearRegressor("poisson").fit(X, Y, offset=one)
    again = LinearRegressor("poisson").fit(X, Y, offset=column)
    np.testing.assert_array_equal(model.coef_, again.coef_)
    np.testing.assert_array_equal(model.predict(X, offset=one), model.predict(X, offset=column))


def test_offsets_are_checked_and_needed_again():
    X, eta, _ = data()
    n = len(eta)
    model = LinearRegressor().fit(X, eta, offset=np.zeros(n))
    before = model.coef_
    with pytest.raises(ValueError, match="was fitted with an offset"):
        model.predict(X)
    with pytest.raises(ValueError, match="was fitted with an offset"):
        model.score(X, eta)
    with pytest.raises(ValueError, match="does not continue a fit with an offset"):
        model.partial_fit(X, eta)
    with pytest.raises(ValueError, match="offset must have shape"):
        model.fit(X, eta, offset=np.zeros(n - 1))
    with pytest.raises(ValueError, match="offset contains NaN"):
        model.fit(X, eta, offset=np.full(n, np.nan))
    with pytest.raises(ValueError, match="offset must have shape"):
        model.predict(X, offset=np.zeros((n, 2)))
    with pytest.raises(ValueError, match="offset_val"):
        model.fit(X, eta, offset=np.zeros(n), X_val=X, y_val=eta)
    with pytest.raises(ValueError, match="offset_val is given without X_val and y_val"):
        model.fit(X, eta, offset=np.zeros(n), offset_val=np.zeros(n))
    assert model.coef_ is before


def test_offsets_are_routed():
    X, eta, rng = data()
    offset = rng.normal(size=len(eta))
    y = rng.poisson(np.exp(eta + offset)).astype(float)
    set_config(enable_metadata_routing=True)
    try:
        model = LinearRegressor("poisson").set_fit_request(offset=True).set_predict_request(offset=True)
        pipeline = make_pipeline(StandardScaler(), model).fit(X, y, offset=offset)
        predicted = pipeline.predict(X, offset=offset)
    finally:
        set_config(enable_metadata_routing=False)
    alone = LinearRegressor("poisson").fit(StandardScaler().fit_transform(X), y, offset=offset)
    np.testing.assert_allclose(predicted, alone.predict(StandardScaler().fit_transform(X), offset=offset))


# Errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "y", "message"),
    [
        ({"loss": "poisson"}, [1.0, -1.0, 2.0], "row 1 has -1.0"),
        ({"loss": "gamma"}, [1.0, 1.0, 0.0], "row 2 has 0.0"),
        ({"alpha": -1.0}, [1.0, 2.0, 3.0], "alpha must be in"),
        ({"loss": "log_loss"}, [1.0, 0.0, 1.0], "is for classification"),
        ({"l1_ratio": 2.0}, [1.0, 2.0, 3.0], "l1_ratio must be in"),
        ({"solver": "saga"}, [1.0, 2.0, 3.0], "solver must be one of"),
        ({"l1_ratio": 0.5, "solver": "lbfgs"}, [1.0, 2.0, 3.0], "asks for an L1 penalty"),
    ],
)
def test_bad_input_is_named_and_leaves_the_model(parameters, y, message):
    X = np.arange(6.0).reshape(3, 2)
    model = LinearRegressor().fit(X, [1.0, 2.0, 4.0])
    before = model.coef_
    model.set_params(**parameters)
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)
    assert model.coef_ is before


@pytest.mark.parametrize("solver", ["newton-cholesky", "newton-cg", "lbfgs"])
def test_a_first_step_whose_loss_overflows_is_halved(solver):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 5)) + 3.0
    y = 1e9 * np.exp(X @ rng.normal(size=5))
    model = LinearRegressor("poisson", fit_intercept=False, solver=solver).fit(X, y)
    far = LinearRegressor("poisson", fit_intercept=False, tol=1e-6, max_iter=1000).fit(X, y)
    saturated = losses.Poisson()(y, np.log(y))
    assert model.loss_ - far.loss_ <= 1e-6 * (far.loss_ - saturated)
