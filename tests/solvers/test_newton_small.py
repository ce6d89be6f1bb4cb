"""Newton's steps over few rows in one compiled call, against the same steps by the solver."""

import warnings

import numpy as np
import pytest

from sklloss import LinearRegressor, LogisticClassifier, SoftmaxClassifier
from sklloss.kernels.linear import small_newton
from sklloss.objectives.linear import LinearObjective


def table(seed=0, n=150, p=5, classes=3, noise=1.0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * np.logspace(-1, 1, p) + np.linspace(-3, 3, p)
    scores = (X - X.mean(axis=0)) / X.std(axis=0) @ rng.normal(size=(p, classes)) + noise * rng.gumbel(
        size=(n, classes)
    )
    return X, scores.argmax(axis=1), rng.uniform(0.1, 3.0, size=n) * (rng.uniform(size=n) < 0.9)


def fit(model, X, y, weight=None, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = model(**options).fit(X, y, weight)
    return model, [str(one.message) for one in caught]


def one_by_one(monkeypatch):
    monkeypatch.setattr(LinearObjective, "newton_steps", lambda self, points, values, *rule: None)


def soft(y, classes):
    return 0.8 * np.eye(classes)[y] + 0.2 / classes


CASES = {
    "three classes": {},
    "no intercept": {"fit_intercept": False},
    "no penalty": {"C": np.inf},
    "small C": {"C": 1e-6},
    "large C": {"C": 1e6},
    "smoothing": {"label_smoothing": 0.1},
    "class weights": {"class_weight": "balanced"},
    "few steps": {"max_iter": 2},
    "no step": {"max_iter": 0},
    "loose": {"tol": 0.1},
    "close": {"tol": 1e-12},
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("p", [2, 5, 12])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_compiled_steps_are_those_of_the_solver(monkeypatch, case, classes, p, dtype):
    X, y, weight = table(p=p, classes=classes)
    X = X.astype(dtype)
    weight = weight if p == 5 else None
    fast, said = fit(SoftmaxClassifier, X, y, weight, **CASES[case])
    one_by_one(monkeypatch)
    slow, expected = fit(SoftmaxClassifier, X, y, weight, **CASES[case])
    assert fast.solver_ == slow.solver_ == "newton-cholesky"
    assert said == expected
    ours, expected = fast.coef_, slow.coef_
    if classes > 2:  # rounding moves the common shift of a softmax, which little determines
        ours, expected = ours - ours.mean(axis=0), expected - expected.mean(axis=0)
    rounding = 1e-9 if dtype == np.float64 else 1e-6
    np.testing.assert_allclose(ours, expected, rtol=0, atol=rounding * (1 + np.abs(expected).max()))
    if case != "close":  # there rounding decides which step is the last
        np.testing.assert_array_equal(fast.n_iter_, slow.n_iter_)
        np.testing.assert_allclose(fast.loss_curve_, slow.loss_curve_, rtol=1e-12)


def unusual(name):
    X, y, _ = table(n=90)
    y2 = (y > 0).astype(int)
    if name == "separable":
        return LogisticClassifier, X, (X[:, 4] > np.median(X[:, 4])).astype(int), {"C": np.inf}
    if name == "separable softmax":
        return SoftmaxClassifier, X, np.digitize(X[:, 4], np.quantile(X[:, 4], [0.3, 0.6])), {"C": np.inf}
    if name == "constant and twice":
        X[:, 1], X[:, 2] = 3.0, X[:, 0]
        return SoftmaxClassifier, X, y, {"C": np.inf}
    if name == "column of zeros":
        X[:, 1] = 0.0
        return SoftmaxClassifier, X, y, {"C": np.inf}
    if name == "units":
        return SoftmaxClassifier, X * np.logspace(-8, 8, 5), y, {}
    if name == "far off":
        return LogisticClassifier, X + 1e6, y2, {}
    if name == "more columns than rows":
        X = np.random.default_rng(3).normal(size=(20, 60))
        return LogisticClassifier, X, y2[:20], {"C": 1e4}
    if name == "one spike":
        X[:, 2] = 0.0
        X[7, 2] = 1e6
        return LogisticClassifier, X, y2, {"C": 1e3}
    if name == "columns in order":
        return SoftmaxClassifier, np.asfortranarray(X), y, {}
    if name == "probabilities":
        return SoftmaxClassifier, X, soft(y, 3), {}
    if name == "probability of one":
        return LogisticClassifier, X, soft(y2, 2)[:, 1], {}
    assert name == "squared error"
    return LogisticClassifier, X, y2, {"loss": "squared_error"}


@pytest.mark.parametrize(
    "name",
    [
        "separable", "separable softmax", "constant and twice", "column of zeros", "units", "far off",
        "more columns than rows", "one spike", "columns in order", "probabilities", "probability of one",
        "squared error",
    ],
)  # fmt: skip
def test_unusual_problems_end_as_they_do_with_the_solver(monkeypatch, name):
    model, X, y, options = unusual(name)
    fast, said = fit(model, X, y, **options)
    one_by_one(monkeypatch)
    slow, expected = fit(model, X, y, **options)
    assert said == expected
    np.testing.assert_array_equal(fast.n_iter_, slow.n_iter_)
    np.testing.assert_allclose(
        fast.loss_curve_, slow.loss_curve_, rtol=1e-4, atol=1e-11 * slow.loss_curve_[0]
    )
    scores = slow.decision_function(X)
    np.testing.assert_allclose(fast.decision_function(X), scores, rtol=0, atol=1e-5 * np.abs(scores).max())


def test_a_step_that_is_too_long_is_halved(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.standard_cauchy((200, 3))
    y = (np.clip(X, -3, 3) @ rng.normal(size=3) + rng.normal(size=200) > 0).astype(int)
    solved = []
    true = small_newton.newton_steps
    monkeypatch.setattr(small_newton, "newton_steps", lambda *args: solved.append(true(*args)) or solved[-1])
    results = []
    for _ in range(2):
        model = LogisticClassifier(warm_start=True, C=10.0).fit(X, y)
        model.coef_[0, 1] *= 5
        results.append(model.fit(X, y))
        one_by_one(monkeypatch)
    assert solved[1] == (0, False)
    fast, slow = results
    assert fast.loss_curve_[0] < 10 * len(X) * np.log(2)  # the start was better than 0
    assert fast.n_iter_ == slow.n_iter_
    np.testing.assert_allclose(fast.loss_curve_, slow.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(fast.coef_, slow.coef_, rtol=1e-9)


def test_a_warm_start_at_the_optimum_takes_the_same_step(monkeypatch):
    X, y, _ = table()
    curves = []
    for _ in range(2):
        model = SoftmaxClassifier(warm_start=True).fit(X, y)
        curves.append(model.fit(X, y).loss_curve_)
        one_by_one(monkeypatch)
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-13)


def test_numbers_too_large_are_the_same_error(monkeypatch):
    X, y, _ = table()
    for _ in range(2):
        with pytest.raises(ValueError, match="rescale"):
            SoftmaxClassifier().fit(X * 1e200, y)
        one_by_one(monkeypatch)


def test_a_callback_is_called_after_each_step(capsys):
    X, y, _ = table()
    model = SoftmaxClassifier(verbose=1).fit(X, y)
    assert capsys.readouterr().out.count("iteration") == model.n_iter_[0]
    quiet = SoftmaxClassifier().fit(X, y)
    assert quiet.loss_curve_ == model.loss_curve_


def test_only_small_problems_take_compiled_steps(monkeypatch):
    taken = []
    true = small_newton.newton_steps
    monkeypatch.setattr(small_newton, "newton_steps", lambda *args: taken.append(args[1].rows) or true(*args))
    X, y, _ = table()
    SoftmaxClassifier().fit(X, y)
    assert taken == [len(X)]
    X, y, _ = table(n=40000)
    SoftmaxClassifier(tol=0.1).fit(X, y)
    SoftmaxClassifier(tol=0.1).fit(X, y, X_val=X, y_val=y)
    # those over samples of the rows
    assert max(taken) < 40000


@pytest.mark.parametrize(
    "options", [{}, {"l1_ratio": 0.5}, {"fit_intercept": False}, {"max_iter": 2}], ids=str
)
@pytest.mark.parametrize("loss", ["poisson", "gamma", "tweedie", "squared_error"])
def test_values_of_regressions_count_from_those_of_perfect_predictions(monkeypatch, loss, options):
    X, classes, weight = table(n=400, noise=0.5)
    y = 1e3 * np.exp(classes - 0.2 * X[:, 0])
    fast, said = fit(LinearRegressor, X, y, weight, loss=loss, alpha=1e-2, **options)
    one_by_one(monkeypatch)
    slow, expected = fit(LinearRegressor, X, y, weight, loss=loss, alpha=1e-2, **options)
    assert said == expected
    np.testing.assert_allclose(fast.loss_curve_[0], slow.loss_curve_[0], rtol=1e-13)
    np.testing.assert_allclose(fast.loss_, slow.loss_, rtol=1e-9)
    np.testing.assert_allclose(fast.coef_, slow.coef_, rtol=1e-6, atol=1e-9)


L1_CASES = {
    "L1": {"l1_ratio": 1.0},
    "elastic net": {"l1_ratio": 0.5},
    "no intercept": {"l1_ratio": 1.0, "fit_intercept": False},
    "all zero": {"l1_ratio": 1.0, "C": 1e-4},
    "large C": {"l1_ratio": 1.0, "C": 1e4},
    "few steps": {"l1_ratio": 1.0, "max_iter": 1},
    "no step": {"l1_ratio": 1.0, "max_iter": 0},
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("case", L1_CASES)
def test_compiled_steps_with_an_l1_norm_end_at_the_same_optimum(monkeypatch, case, classes, dtype):
    X, y, weight = table(p=8, classes=classes)
    X[:, 3] = 2 * X[:, 1] + 1e-3 * X[:, 2]
    X = X.astype(dtype)
    fast, said = fit(SoftmaxClassifier, X, y, weight, **L1_CASES[case])
    one_by_one(monkeypatch)
    slow, expected = fit(SoftmaxClassifier, X, y, weight, **{"tol": 1e-6, "max_iter": 200} | L1_CASES[case])
    assert fast.solver_ == "proximal-newton"
    assert said == expected
    if not said:
        np.testing.assert_allclose(fast.loss_, slow.loss_, rtol=1e-8 if dtype == np.float64 else 1e-6)
        np.testing.assert_array_equal(fast.coef_ == 0, slow.coef_ == 0)


def test_an_l1_fit_of_few_rows_is_one_compiled_call(monkeypatch):
    X, y, _ = table(n=300, p=10, classes=2)
    steps = []
    true = small_newton.newton_steps
    monkeypatch.setattr(small_newton, "newton_steps", lambda *args: steps.append(true(*args)) or steps[-1])
    model = LogisticClassifier(l1_ratio=1.0, C=0.1).fit(X, y)
    assert steps == [(model.n_iter_[0], True)]
    assert 0 < np.count_nonzero(model.coef_) < 10


@pytest.mark.parametrize("l1_ratio", [0.0, 1.0])
@pytest.mark.parametrize("order", ["shuffled", "sorted by class"])
def test_a_sample_of_the_rows_starts_the_compiled_steps(monkeypatch, order, l1_ratio):
    X, y, _ = table(n=10_000, p=5, classes=2)
    if order == "sorted by class":
        first = np.argsort(y, kind="stable")
        X, y = X[first], y[first]
    fast, said = fit(LogisticClassifier, X, y, l1_ratio=l1_ratio, C=0.1)
    assert not said
    assert fast.loss_curve_[0] < 1.1 * fast.loss_
    seen, _ = fit(LogisticClassifier, X, y, l1_ratio=l1_ratio, C=0.1, verbose=1)
    np.testing.assert_array_equal(seen.coef_, fast.coef_)
    one_by_one(monkeypatch)
    slow, _ = fit(LogisticClassifier, X, y, l1_ratio=l1_ratio, C=0.1, tol=1e-6)
    np.testing.assert_allclose(fast.loss_, slow.loss_, rtol=1e-8)
    np.testing.assert_allclose(fast.coef_, slow.coef_, rtol=1e-4)


def test_a_sample_without_a_class_is_no_start():
    X, _, _ = table(n=10_000, p=5, classes=2)
    rare = np.zeros(len(X), dtype=int)
    rare[40:60] = 1  # between two blocks of the sample
    model, said = fit(LogisticClassifier, X, rare, C=10.0)
    assert not said
    assert model.intercept_[0] < 0
    gradient = X.T @ (model.predict_proba(X)[:, 1] - rare) * 10.0 + model.coef_[0]
    assert np.abs(gradient).max() < 1e-2


def test_a_sample_that_misses_large_rows_is_no_start():
    rng = np.random.default_rng(35)
    X = rng.standard_cauchy((6000, 5))
    y = (X @ rng.normal(size=5) / np.abs(X).max(axis=1) + rng.normal(size=6000) > 1.5).astype(int)
    for l1_ratio in (0.0, 0.5):
        model, said = fit(LogisticClassifier, X, y, C=0.1, l1_ratio=l1_ratio)
        close, _ = fit(LogisticClassifier, X, y, C=0.1, l1_ratio=l1_ratio, tol=1e-7)
        assert not said
        np.testing.assert_allclose(model.loss_, close.loss_, rtol=1e-7)
