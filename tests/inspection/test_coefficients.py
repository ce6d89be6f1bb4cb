"""Coefficient tables: statsmodels' numbers, and what has none."""

import sys
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

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


class Logistic(losses.Loss):
    """The negative log likelihood of errors with a logistic distribution, less that of no error."""

    def formula(self, xp, y, raw):
        error = raw - y
        return 2 * xp.log(xp.cosh(error / 2)), xp.tanh(error / 2)

    def curvature(self, xp, y, raw):
        return 0.5 / xp.cosh((raw - y) / 2) ** 2


class NoCurvature(Logistic):
    """The same, without its second derivative."""

    def formula(self, xp, y, raw):
        return super().formula(xp, y, raw)


def reference(loss, coef, Z, y, weight, ridge):
    """Standard errors of White, with derivatives of `loss.gradient` by finite differences."""
    outputs, width = coef.shape

    def gradients(flat):
        raw = Z @ flat.reshape(outputs, width).T
        raw = raw if outputs > 1 else raw[:, 0]
        slope = loss.gradient(y, raw).reshape(len(Z), outputs) * len(Z)
        return np.einsum("ik,ij->ikj", slope, Z).reshape(len(Z), -1)

    flat, step = coef.ravel(), 1e-5
    hessian = np.empty((flat.size, flat.size))
    for k, direction in enumerate(step * np.eye(flat.size)):
        change = gradients(flat + direction) - gradients(flat - direction)
        hessian[k] = weight @ change / (2 * step)
    scores = gradients(flat)
    penalty = np.diag(np.tile(np.append(0.0, np.full(width - 1, ridge)), outputs))
    inverse = np.linalg.pinv((hessian + hessian.T) / 2 + penalty, rcond=1e-6)
    cov = inverse @ (scores.T @ (weight[:, None] * scores)) @ inverse
    if outputs > 1:
        contrast = np.kron(np.column_stack([-np.ones(outputs - 1), np.eye(outputs - 1)]), np.eye(width))
        cov = contrast @ cov @ contrast.T
    return np.sqrt(cov.diagonal())


@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize("loss", ["huber", "log_cosh", "poisson", "gamma", losses.Tweedie(1.3), Logistic()])
def test_robust_errors_of_regressors_have_exact_derivatives(loss, alpha):
    X, eta, rng = data()
    y = rng.gamma(2, np.exp(eta))
    weight = rng.integers(1, 4, len(y)).astype(float)
    model = LinearRegressor(loss, alpha=alpha, tol=1e-7).fit(X, y, weight)
    table = coefficient_table(model, X, y, weight, covariance="robust")
    coef = np.append(model.intercept_, model.coef_)[None]
    expected = reference(
        losses.get(loss), coef, np.column_stack([np.ones(len(X)), X]), y, weight, alpha * weight.sum()
    )
    np.testing.assert_allclose(table["std_error"], expected, rtol=1e-5)


@pytest.mark.parametrize("C", [np.inf, 0.5])
@pytest.mark.parametrize(
    ("loss", "smoothing", "classes"),
    [
        ("focal", 0.0, 2),
        ("squared_hinge", 0.0, 2),
        ("log_loss", 0.1, 2),
        (losses.Focal(1.0), 0.0, 3),
        ("cross_entropy", 0.1, 3),
        (losses.GeneralizedCrossEntropy(0.3), 0.0, 3),
    ],
)
def test_losses_of_classes_that_are_no_likelihood_have_robust_errors(loss, smoothing, classes, C):
    X, eta, rng = data()
    y = np.digitize(eta + rng.logistic(size=len(eta)), [0, 1][: classes - 1])
    weight = rng.integers(1, 4, len(y)).astype(float)
    kind = LogisticClassifier if classes == 2 else SoftmaxClassifier
    model = kind(loss=loss, label_smoothing=smoothing, C=C, tol=1e-7, max_iter=500).fit(X, y, weight)
    table = coefficient_table(model, X, y, weight)
    assert "robust" in table.attrs["note"]
    np.testing.assert_array_equal(table, coefficient_table(model, X, y, weight, covariance="robust"))
    known = losses.get(loss)
    known = known.softmax() if classes > 2 and hasattr(known, "softmax") else known
    known = type(known)(smoothing) if smoothing else known
    coef = np.column_stack([model.intercept_, model.coef_])
    Z = np.column_stack([np.ones(len(X)), X])
    y = y if classes > 2 else y.astype(float)
    np.testing.assert_allclose(table["std_error"], reference(known, coef, Z, y, weight, 1 / C), rtol=1e-5)


def test_one_versus_rest_is_named_by_class():
    X, eta, rng = data()
    y = np.array(["low", "middle", "high"])[np.digitize(eta + rng.logistic(size=len(eta)), [0, 1])]
    table = coefficient_table(LogisticClassifier(C=np.inf).fit(X, y), X, y)
    assert table.index.unique("output").tolist() == ["high", "low", "middle"]
    alone = coefficient_table(LogisticClassifier(C=np.inf).fit(X, y == "low"), X, y == "low")
    np.testing.assert_allclose(table.loc["low"], alone, rtol=1e-4)


def test_kinds_of_input_give_the_same_table():
    polars, xp = pytest.importorskip("polars"), pytest.importorskip("array_api_strict")
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta))
    expected = coefficient_table(LinearRegressor(alpha=0.0).fit(X, y), X, y)
    for rows, target in (
        (polars.DataFrame(X, schema=["x0", "x1", "x2"]), polars.Series(y)),
        (xp.asarray(X), xp.asarray(y)),
        (scipy.sparse.csr_matrix(X), y),
        (X.tolist(), y.tolist()),
    ):
        table = coefficient_table(LinearRegressor(alpha=0.0).fit(rows, target), rows, target)
        assert table.index.tolist() == expected.index.tolist()
        np.testing.assert_allclose(table, expected, rtol=1e-6)
    single = coefficient_table(LinearRegressor(alpha=0.0).fit(X.astype("f4"), y), X.astype("f4"), y)
    np.testing.assert_allclose(single["std_error"], expected["std_error"], rtol=1e-4)


def test_the_last_step_of_a_pipeline():
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta))
    pipeline = make_pipeline(StandardScaler(), LinearRegressor(alpha=0.0)).fit(X, y)
    table = coefficient_table(pipeline[-1], pipeline[:-1].transform(X), y)
    unscaled = coefficient_table(LinearRegressor(alpha=0.0).fit(X, y), X, y)
    np.testing.assert_allclose(table["z"][1:], unscaled["z"][1:], rtol=1e-6)


def test_without_pandas_the_table_is_a_dict(monkeypatch):
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta))
    model = LinearRegressor(alpha=0.0).fit(X, y)
    expected = coefficient_table(model, X, y)
    monkeypatch.setitem(sys.modules, "pandas", None)
    table = coefficient_table(model, X, y)
    assert table["coefficient"] == ["(intercept)", "x0", "x1", "x2"]
    assert table["note"] == ""
    assert table["std_error"] == expected["std_error"].tolist()


@pytest.mark.parametrize("covariance", ["model", "robust"])
def test_rows_that_can_be_separated_are_named(covariance):
    X, eta, rng = data(3000)
    rare = np.flatnonzero(rng.uniform(size=len(X)) < 0.01)
    X[:, 2] = 0.0
    X[rare, 2] = 1.0
    labels = (rng.uniform(size=len(eta)) < 1 / (1 + np.exp(-eta))).astype(int)
    labels[rare] = 1
    model = LogisticClassifier(C=np.inf).fit(X, labels)
    with pytest.raises(ValueError, match="separated without error, at least in some rows"):
        coefficient_table(model, X, labels, covariance=covariance)
    labels[rare] = 2
    model = SoftmaxClassifier(C=np.inf).fit(X, labels)
    with pytest.raises(ValueError, match="separated without error, at least in some rows"):
        coefficient_table(model, X, labels, covariance=covariance)
    counts = rng.poisson(np.exp(eta)).astype(float)
    counts[rare] = 0
    model = LinearRegressor("poisson", alpha=0.0).fit(X, counts)
    with pytest.raises(ValueError, match="rows with y = 0 apart"):
        coefficient_table(model, X, counts, covariance=covariance)
    # one row of the other kind, and all coefficients have an optimum
    counts[rare[0]], labels[rare] = 1, 1
    labels[rare[0]] = 0
    model = LinearRegressor("poisson", alpha=0.0).fit(X, counts)
    assert np.isfinite(coefficient_table(model, X, counts, covariance=covariance)).all(axis=None)
    model = LogisticClassifier(C=np.inf).fit(X, labels)
    assert np.isfinite(coefficient_table(model, X, labels, covariance=covariance)).all(axis=None)


def test_too_few_rows_are_named():
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta))
    for n, alpha, covariance in ((4, 0.0, "model"), (3, 0.1, "model"), (3, 0.1, "HC1")):
        model = LinearRegressor(alpha=alpha).fit(X[:n], y[:n])
        with pytest.raises(ValueError, match=f"4 coefficients leave nothing of {n} rows"):
            coefficient_table(model, X[:n], y[:n], covariance=covariance)
    alone = np.column_stack([X, np.arange(len(y)) == 7])
    model = LinearRegressor(alpha=0.0).fit(alone, y)
    with pytest.raises(ValueError, match="row 7 alone determines a coefficient"):
        coefficient_table(model, alone, y, covariance="HC3")


def test_other_rows_than_those_of_the_fit_are_warned_of():
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta))
    model = LinearRegressor(alpha=0.0).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coefficient_table(model, X, y)
        exact = LinearRegressor(alpha=0.0).fit(X, eta)
        coefficient_table(exact, X, eta)
    with pytest.warns(ConvergenceWarning, match="more than a standard error from the optimum"):
        coefficient_table(model, X[::-1], y)


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_missing_groups_are_named(missing):
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta))
    model = LinearRegressor(alpha=0.0).fit(X, y)
    with pytest.raises(ValueError, match="groups must be numbers or strings, without missing values"):
        coefficient_table(model, X, y, covariance="cluster", groups=[missing, 1.0, 2.0] * 100)


def test_what_has_no_standard_errors_is_named():
    X, eta, rng = data()
    y = eta + rng.normal(size=len(eta))
    with pytest.raises(ValueError, match="L1 penalty"):
        coefficient_table(LinearRegressor(l1_ratio=0.5).fit(X, y), X, y)
    with pytest.raises(ValueError, match="states no second derivative"):
        coefficient_table(LinearRegressor("absolute_error").fit(X, y), X, y)
    with pytest.raises(ValueError, match="states no second derivative"):
        coefficient_table(LinearRegressor(NoCurvature(), alpha=0.0).fit(X, y), X, y)
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
