"""Coefficient tables: statsmodels' numbers, and what has none."""

import numpy as np
import pytest
import scipy.sparse

from sklloss import LinearRegressor, LogisticClassifier, SoftmaxClassifier, losses
from sklloss.inspection import coefficient_table

pytest.importorskip("pandas")


def data(n=300):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3))
    return X, X @ [0.5, -0.3, 0.2] + 0.4, rng


def check(table, result):
    estimate = np.ravel(result.params, order="F")
    np.testing.assert_allclose(table["estimate"], estimate, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(table["std_error"], np.ravel(result.bse, order="F"), rtol=1e-6)
    np.testing.assert_allclose(table["p"], np.ravel(result.pvalues, order="F"), rtol=1e-4, atol=1e-8)
    bounds = np.asarray(result.conf_int()).reshape(-1, 2)
    np.testing.assert_allclose(table[["lower", "upper"]], bounds, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("covariance", ["model", "HC0", "HC1", "HC2", "HC3", "cluster"])
def test_least_squares(covariance):
    api = pytest.importorskip("statsmodels.api")
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta)) * (1 + np.abs(X[:, 0]))
    groups = rng.integers(0, 30, len(y)) if covariance == "cluster" else None
    options = {"cov_kwds": {"groups": groups}} if groups is not None else {}
    kind = "nonrobust" if covariance == "model" else covariance
    result = api.OLS(y, api.add_constant(X)).fit(cov_type=kind, **options)
    model = LinearRegressor(alpha=0.0).fit(X, y)
    check(coefficient_table(model, X, y, covariance=covariance, groups=groups), result)


@pytest.mark.parametrize("covariance", ["model", "robust", "cluster"])
@pytest.mark.parametrize("name", ["poisson", "gamma", "tweedie"])
def test_generalised_linear_models(name, covariance):
    api = pytest.importorskip("statsmodels.api")
    X, eta, rng = data()
    families, log = api.families, api.families.links.Log()
    loss, family, y = {
        "poisson": (losses.Poisson(), families.Poisson(), rng.poisson(np.exp(eta)).astype(float)),
        "gamma": (losses.Gamma(), families.Gamma(log), rng.gamma(2, np.exp(eta)) + 1e-9),
        "tweedie": (
            losses.Tweedie(1.5),
            families.Tweedie(log, var_power=1.5),
            rng.poisson(np.exp(eta)) * rng.gamma(2, np.exp(eta)),
        ),
    }[name]
    offset = 0.3 * rng.normal(size=len(y))
    weight = rng.integers(1, 4, len(y)).astype(float) if covariance == "model" else None
    groups = rng.integers(0, 30, len(y)) if covariance == "cluster" else None
    model = LinearRegressor(loss, alpha=0.0, tol=1e-7).fit(X, y, weight, offset=offset)
    fit = {"tol": 1e-12, "maxiter": 200}
    if covariance != "model":
        fit["cov_type"] = "HC0" if covariance == "robust" else "cluster"
        fit["cov_kwds"] = None if groups is None else {"groups": groups}
    result = api.GLM(y, api.add_constant(X), family=family, offset=offset, freq_weights=weight).fit(**fit)
    table = coefficient_table(model, X, y, weight, offset=offset, covariance=covariance, groups=groups)
    check(table, result)


@pytest.mark.parametrize("covariance", ["model", "robust"])
def test_logit_and_multinomial_logit(covariance):
    api = pytest.importorskip("statsmodels.api")
    X, eta, rng = data()
    kind = "nonrobust" if covariance == "model" else "HC0"
    y = (rng.uniform(size=len(eta)) < 1 / (1 + np.exp(-eta))).astype(int)
    result = api.Logit(y, api.add_constant(X)).fit(disp=0, tol=1e-12, cov_type=kind)
    model = LogisticClassifier(C=np.inf, tol=1e-7).fit(X, y)
    check(coefficient_table(model, X, y, covariance=covariance), result)
    y = np.digitize(eta + rng.logistic(size=len(eta)), [0, 1])
    result = api.MNLogit(y, api.add_constant(X)).fit(disp=0, method="newton", tol=1e-12, cov_type=kind)
    model = SoftmaxClassifier(C=np.inf, tol=1e-7).fit(X, y)
    table = coefficient_table(model, X, y, covariance=covariance)
    check(table, result)
    assert table.index.get_level_values("output").unique().tolist() == ["1", "2"]


def test_standard_errors_are_the_spread_of_estimates():
    X, eta, rng = data(400)
    for loss, noise in (
        ("huber", lambda: rng.standard_t(3, size=400)),
        ("log_cosh", lambda: rng.normal(size=400)),
    ):
        estimates, errors = [], []
        for _ in range(150):
            y = eta + noise()
            model = LinearRegressor(loss, alpha=0.0).fit(X, y)
            estimates.append(model.coef_)
            errors.append(coefficient_table(model, X, y)["std_error"][1:])
        np.testing.assert_allclose(np.std(estimates, axis=0), np.mean(errors, axis=0), rtol=0.2)


def test_weights_count_rows_and_layouts_agree():
    X, eta, rng = data()
    y = rng.poisson(np.exp(eta)).astype(float)
    weight = rng.integers(1, 4, len(y))
    often = np.repeat(np.arange(len(y)), weight)
    for covariance in ("model", "robust", "HC1"):
        model = LinearRegressor("poisson", alpha=0.1).fit(X, y, weight)
        one = coefficient_table(model, X, y, weight, covariance=covariance)
        two = coefficient_table(model, X[often], y[often], covariance=covariance)
        np.testing.assert_allclose(one, two, rtol=1e-9)
        sparse = coefficient_table(model, scipy.sparse.csr_array(X), y, weight, covariance=covariance)
        np.testing.assert_allclose(one, sparse, rtol=1e-9)


def test_a_penalty_is_told_of():
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta))
    free = coefficient_table(LinearRegressor(alpha=0.0).fit(X, y), X, y)
    ridge = coefficient_table(LinearRegressor(alpha=0.5).fit(X, y), X, y)
    assert free.attrs["note"] == ""
    assert "biased" in ridge.attrs["note"]
    assert (ridge["std_error"][1:] < free["std_error"][1:]).all()


def test_outputs_and_names():
    pandas = pytest.importorskip("pandas")
    X, eta, rng = data()
    frame = pandas.DataFrame(X, columns=list("abc"))
    Y = np.column_stack([eta, -eta]) + rng.normal(size=(len(eta), 2))
    table = coefficient_table(LinearRegressor(alpha=0.0).fit(frame, Y), frame, Y)
    assert table.loc["1"].index.tolist() == ["(intercept)", "a", "b", "c"]
    alone = coefficient_table(LinearRegressor(alpha=0.0).fit(frame, Y[:, 1]), frame, Y[:, 1])
    np.testing.assert_allclose(table.loc["1"], alone, rtol=1e-9)


def test_what_has_no_standard_errors_is_named():
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta))
    with pytest.raises(ValueError, match="L1 penalty"):
        coefficient_table(LinearRegressor(l1_ratio=0.5).fit(X, y), X, y)
    with pytest.raises(ValueError, match="states no second derivative"):
        coefficient_table(LinearRegressor("absolute_error").fit(X, y), X, y)
    twice = np.column_stack([X, X[:, 0] - X[:, 1]])
    with pytest.raises(ValueError, match="column 0, column 1, column 3: columns depend"):
        coefficient_table(LinearRegressor(alpha=0.0).fit(twice, y), twice, y)
    labels = (X[:, 0] > 0).astype(int)
    with pytest.warns(Warning, match="separated"):
        model = LogisticClassifier(C=np.inf).fit(X, labels)
    with pytest.raises(ValueError, match="separated without error"):
        coefficient_table(model, X, labels)
    model = LinearRegressor(alpha=0.0).fit(X, y)
    with pytest.raises(ValueError, match="covariance must be one of"):
        coefficient_table(model, X, y, covariance="HC9")
    with pytest.raises(ValueError, match="groups"):
        coefficient_table(model, X, y, covariance="cluster")
    with pytest.raises(ValueError, match="pass the offset"):
        coefficient_table(model, X, y, offset=np.zeros(len(y)))
