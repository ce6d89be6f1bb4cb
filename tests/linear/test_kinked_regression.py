"""Losses with a kink in a linear model: the optimum of the linear programme, to its duality gap."""

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import linprog, minimize

from sklloss import LinearRegressor, losses
from sklloss.objectives import programme
from sklloss.objectives import regression as regression_objective


def regression(n=120, p=5, seed=0, heavy=True):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * 10.0 ** rng.integers(-2, 3, p) + rng.normal(size=p)
    noise = rng.standard_t(2, size=n) if heavy else rng.normal(size=n)
    return X, (X - X.mean(axis=0)) @ (rng.normal(size=p) / X.std(axis=0)) + noise * (
        1 + np.abs(X[:, 0]) / 2
    ) + 3


def linear_programme(X, y, quantile, alpha, weight=None, scale=1.0):
    """The least mean loss plus ``alpha ||coef||_1``, by SciPy's HiGHS."""
    n, p = X.shape
    weight = np.ones(n) if weight is None else weight
    share = scale * weight / weight.sum()
    cost = np.concatenate([np.full(2 * p, alpha), [0, 0], quantile * share, (1 - quantile) * share])
    ones, eye = np.ones((n, 1)), np.eye(n)
    rows = np.hstack([X, -X, ones, -ones, eye, -eye])
    found = linprog(cost, A_eq=rows, b_eq=y, bounds=(0, None), method="highs")
    assert found.status == 0
    return found.fun


def objective(loss, model, X, y, alpha, l1_ratio, weight=None):
    coef = np.atleast_2d(model.coef_)
    penalty = l1_ratio * np.abs(coef).sum() + (1 - l1_ratio) / 2 * (coef**2).sum()
    return loss(y, X @ model.coef_.T + model.intercept_, weight) + alpha * penalty


@pytest.mark.parametrize("quantile", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("alpha", [0.0, 1e-3, 0.1])
def test_a_quantile_is_the_solution_of_the_linear_programme(quantile, alpha):
    X, y = regression()
    loss = losses.Quantile(quantile)
    model = LinearRegressor(loss, alpha=alpha, l1_ratio=1.0).fit(X, y)
    least = linear_programme(X, y, quantile, alpha)
    assert model.solver_ == "interior-point"
    assert abs(model.loss_ - least) <= 1e-7 * least
    assert objective(loss, model, X, y, alpha, 1.0) == pytest.approx(model.loss_, rel=1e-12)


@pytest.mark.parametrize("layout", ["C", "F", "csr", "float32"])
def test_sample_weights_and_layouts_reach_the_same_optimum(layout):
    X, y = regression()
    weight = np.random.default_rng(1).integers(0, 3, len(y)).astype(float)
    given = {"C": X, "F": np.asfortranarray(X), "csr": scipy.sparse.csr_array(X), "float32": X.astype("f")}[
        layout
    ]
    model = LinearRegressor("absolute_error", alpha=0.01, l1_ratio=1.0).fit(given, y, weight)
    least = linear_programme(X, y, 0.5, 0.01, weight, scale=2.0)
    assert model.loss_ == pytest.approx(least, rel=1e-6 if layout == "float32" else 1e-7)
    assert model.coef_.dtype == (np.float32 if layout == "float32" else np.float64)


def test_an_l1_penalty_gives_exact_zeros():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 30))
    y = X[:, 0] - 2 * X[:, 1] + rng.standard_t(3, size=200)
    model = LinearRegressor("absolute_error", alpha=0.1, l1_ratio=1.0).fit(X, y)
    zero = model.coef_ == 0
    assert 20 <= zero.sum() <= 28
    assert model.loss_ == pytest.approx(linear_programme(X, y, 0.5, 0.1, scale=2.0), rel=1e-7)
    assert set(np.flatnonzero(~zero)) >= {0, 1}


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])
@pytest.mark.parametrize("loss", [losses.Quantile(0.3), losses.Huber(0.2)])
def test_the_optimum_with_an_l2_penalty_has_a_subgradient_of_zero(loss, l1_ratio):
    X, y = regression(300)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    alpha = 0.05
    model = LinearRegressor(loss, alpha=alpha, l1_ratio=l1_ratio, solver="interior-point").fit(X, y)

    def value(w):
        raw = X @ w[:-1] + w[-1]
        return loss(y, raw) + alpha * (l1_ratio * np.abs(w[:-1]).sum() + (1 - l1_ratio) / 2 * w[:-1] @ w[:-1])

    w = np.append(model.coef_, model.intercept_)
    assert value(w) == pytest.approx(model.loss_, rel=1e-12)
    # No direct search from around the solution finds anything lower.
    rng = np.random.default_rng(0)
    for scale in (1e-1, 1e-3, 1e-5):
        for _ in range(20):
            assert value(w + scale * rng.normal(size=w.size)) >= model.loss_ * (1 - 1e-8)
    found = minimize(
        value, w, method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-10, "fatol": 1e-14}
    )
    assert found.fun >= model.loss_ * (1 - 1e-8)


def test_huber_by_the_interior_point_is_that_of_newtons_method():
    X, y = regression(500, heavy=False)
    for alpha in (0.0, 0.1):
        newton = LinearRegressor("huber", alpha=alpha, solver="newton-cholesky").fit(X, y)
        model = LinearRegressor("huber", alpha=alpha, solver="interior-point").fit(X, y)
        assert model.loss_ == pytest.approx(newton.loss_, rel=1e-8)


@pytest.mark.parametrize("l1_ratio", [0.0, 1.0])
def test_many_rows_are_solved_over_those_near_their_kinks(l1_ratio):
    X, y = regression(30000, 4)
    loss = losses.Quantile(0.8)
    model = LinearRegressor(loss, alpha=1e-3, l1_ratio=l1_ratio).fit(X, y)
    alone = LinearRegressor(loss, alpha=1e-3, l1_ratio=l1_ratio, tol=1e-6).fit(X[::3], y[::3])
    assert objective(loss, model, X, y, 1e-3, l1_ratio) == pytest.approx(model.loss_, rel=1e-12)
    # The optimum is a sum over rows with slopes of 0.8 and -0.2, and few rows between.
    e = y - X @ model.coef_ - model.intercept_
    slopes = np.where(e > 0, 0.8, -0.2)
    free = np.abs(e) < 1e-6 * np.abs(e).max()
    assert free.sum() <= 20
    gradient = -np.append(slopes @ X, slopes.sum()) / len(y)
    gradient[:-1] += 1e-3 * (l1_ratio * np.sign(model.coef_) + (1 - l1_ratio) * model.coef_)
    slack = np.append(np.abs(X[free]).sum(axis=0), free.sum()) / len(y)
    assert (np.abs(gradient) <= slack + 1e-3 * (model.coef_ == 0).any() + 1e-9).all()
    assert alone.loss_ == pytest.approx(model.loss_, rel=0.05)


def test_several_outputs_are_the_fits_of_each():
    X, y = regression()
    Y = np.column_stack([y, -2 * y + X[:, 0], y**2])
    model = LinearRegressor("absolute_error", alpha=0.01).fit(X, Y)
    for k in range(3):
        alone = LinearRegressor("absolute_error", alpha=0.03).fit(X, Y[:, k])
        np.testing.assert_allclose(model.coef_[k], alone.coef_, rtol=1e-3, atol=1e-5)
    assert model.predict(X).shape == Y.shape


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("large units of y", lambda X, y: (X, 1e9 * y + 1e12)),
        ("mixed units of X", lambda X, y: (X * 10.0 ** np.array([-8, 8, 0, 3, -3]), y)),
        (
            "collinear and constant columns",
            lambda X, y: (np.column_stack([X, X[:, 0] * 2, np.ones(len(X))]), y),
        ),
        ("an exact fit", lambda X, y: (X, X @ np.arange(1.0, 6) + 2)),
        ("constant y", lambda X, y: (X, np.full(len(X), 7.0))),
        ("y of zeros", lambda X, y: (X, np.zeros(len(X)))),
        ("fewer rows than columns", lambda X, y: (np.random.default_rng(0).normal(size=(20, 40)), y[:20])),
        ("one row", lambda X, y: (X[:1], y[:1])),
        ("rows given twice", lambda X, y: (np.repeat(X, 2, axis=0), np.repeat(y, 2))),
    ],
)
@pytest.mark.parametrize("alpha", [0.0, 1e-3])
def test_data_as_it_comes(name, change, alpha):
    X, y = change(*regression())
    model = LinearRegressor(losses.Quantile(0.4), alpha=alpha, l1_ratio=1.0).fit(X, y)
    center, unit = np.median(y), max(np.ptp(y), 1.0)
    least = linear_programme(X, (y - center) / unit, 0.4, alpha, scale=1.0) * unit
    assert model.loss_ <= least * (1 + 1e-6) + 1e-9 * unit


def test_many_rows_of_zeros_are_reproduced():
    X, _ = regression(3000)
    for loss in ("absolute_error", losses.Quantile([0.1, 0.9])):
        model = LinearRegressor(loss).fit(X, np.zeros(len(X)))
        assert model.loss_ == 0
        assert not model.coef_.any()


def test_reaching_max_iter_warns():
    X, y = regression()
    with pytest.warns(Warning, match="has not converged: it stopped after max_iter=2"):
        LinearRegressor("absolute_error", max_iter=2).fit(X, y)


def test_interior_point_is_for_losses_with_a_kink():
    X, y = regression()
    with pytest.raises(ValueError, match="interior-point"):
        LinearRegressor("poisson", solver="interior-point").fit(X, np.abs(y))


@pytest.mark.parametrize("layout", [np.asarray, scipy.sparse.csr_array])
@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_many_columns_are_solved_over_those_that_are_not_zero(layout, quantile):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 700))
    y = X[:, :3] @ [3.0, -2.0, 1.0] + rng.standard_t(3, size=60) + 5
    model = LinearRegressor(losses.Quantile(quantile), alpha=0.05, l1_ratio=1.0).fit(layout(X), y)
    assert model.loss_ == pytest.approx(linear_programme(X, y, quantile, 0.05), rel=1e-7)
    assert 0 < np.count_nonzero(model.coef_) < 60


@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])
def test_many_columns_with_an_l2_penalty_meet_the_optimality_conditions(l1_ratio):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 700))
    y = X[:, :3] @ [3.0, -2.0, 1.0] + rng.standard_t(3, size=60) + 5
    model = LinearRegressor(losses.Huber(0.5), alpha=0.1, l1_ratio=l1_ratio, solver="interior-point").fit(
        X, y
    )
    slope = X.T @ losses.Huber(0.5).gradient(y, X @ model.coef_ + model.intercept_)
    slope += 0.1 * (1 - l1_ratio) * model.coef_
    held = model.coef_ == 0
    assert np.abs(slope + 0.1 * l1_ratio * np.sign(model.coef_))[~held].max() < 1e-3
    assert (np.abs(slope[held]) <= 0.1 * l1_ratio + 1e-4).all()
    newton = LinearRegressor(losses.Huber(0.5), alpha=0.1, l1_ratio=l1_ratio, tol=1e-6)
    newton.set_params(solver="proximal-newton" if l1_ratio else "newton-cg").fit(X, y)
    assert model.loss_ == pytest.approx(newton.loss_, rel=1e-6)


def test_a_matrix_that_is_too_large_is_refused_and_never_made(monkeypatch):
    for module in (programme, regression_objective):
        monkeypatch.setattr(module, "MOST_ORDER", 50)
    X, y = regression(n=80, p=60)
    model = LinearRegressor(losses.Quantile(0.3))
    with pytest.raises(
        ValueError, match=r"quantile=0\.3.* here 80 and 61, without an L1 penalty; use l1_ratio"
    ):
        model.fit(X, y)
    assert LinearRegressor(losses.Quantile(0.3), l1_ratio=0.5).fit(X, y).solver_ == "interior-point"
    assert LinearRegressor(losses.Quantile(0.3)).fit(X[:40], y[:40]).solver_ == "interior-point"
    assert LinearRegressor(losses.Huber(0.3)).fit(X, y).solver_ != "interior-point"
    with pytest.raises(ValueError, match=r"delta=0\.3.*fewer features"):
        LinearRegressor(losses.Huber(0.3), solver="interior-point").fit(X, y)
