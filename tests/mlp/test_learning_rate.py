"""The learning-rate finder: on real data, on curves that are known, and its plot."""

import sys
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_linnerud
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklloss import LearningRateFinderDisplay, MLPRegressor, find_learning_rate
from sklloss.mlp import learning_rate

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def problem(name):
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return X / 16, np.eye(10)[y]
    return {"diabetes": load_diabetes, "linnerud": load_linnerud}[name](return_X_y=True)


# the last: how much lower than with the default, 0.001, which happens to be right in two cases
@pytest.mark.parametrize(
    ("name", "solver", "share"),
    [
        ("diabetes", "adam", 0.2),
        ("diabetes", "sgd", 1.15),
        ("linnerud", "adam", 0.5),
        ("linnerud", "sgd", 0.1),
        ("digits", "adam", 1.3),
        ("digits", "sgd", 0.4),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_suggestion_trains_better_than_the_default_in_as_many_epochs(name, solver, share, seed):
    X, y = problem(name)
    model = MLPRegressor(solver=solver, random_state=seed, max_iter=20, batch_size=20)
    search = find_learning_rate(model, X, y)
    default = clone(model).fit(X, y).loss_
    assert clone(model).set_params(learning_rate_init=search.suggestion).fit(X, y).loss_ < share * default


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_the_losses_are_those_after_steps_of_one_batch_each(solver):
    # one batch holds all rows, so its order does not matter; partial_fit takes one step a call
    X, y = problem("linnerud")
    model = MLPRegressor(solver=solver, random_state=0, alpha=0.0)
    search = find_learning_rate(model, X, y, lowest=1e-6, highest=1e-3, n_steps=12)
    np.testing.assert_allclose(search.rates, np.geomspace(1e-6, 1e-3, 12)[: len(search.rates)])
    stream = clone(model)
    for rate, loss in zip(search.rates, search.losses):
        stream.set_params(learning_rate_init=rate).partial_fit(X, y)
        assert loss == pytest.approx(0.5 * np.mean((stream.predict(X) - y) ** 2), rel=1e-10)
    for k, value in enumerate(search.smoothed_losses):
        assert value == pytest.approx(np.mean(search.losses[max(k - 2, 0) : k + 3]), rel=1e-10)


def test_the_test_ends_where_training_blows_up():
    X, y = problem("linnerud")
    search = find_learning_rate(MLPRegressor(solver="sgd", random_state=0), X, y)
    assert len(search.rates) < 120
    assert len(search.rates) == len(search.losses) == len(search.smoothed_losses)
    lost = search.losses[-1] - search.losses.min()
    assert lost > 0.5 * (search.losses[0] - search.losses.min())
    assert np.isfinite(search.losses).all()
    assert search.rates[0] < search.suggestion < search.rates[-1]


@pytest.mark.parametrize("seed", [0, np.random.RandomState(5)])
def test_the_estimator_stays_as_it_is_and_the_result_is_the_same_again(seed):
    X, y = problem("diabetes")
    model = MLPRegressor(random_state=seed, early_stopping=True, warm_start=True, max_iter=3).fit(X, y)
    before, parameters = vars(model).copy(), model.get_params()
    first, second = (find_learning_rate(model, X, y) for _ in range(2))
    assert vars(model) == before
    assert model.get_params() == parameters
    np.testing.assert_array_equal(first.losses, second.losses)
    unfitted = MLPRegressor(random_state=seed)
    np.testing.assert_array_equal(find_learning_rate(unfitted, X, y).losses, first.losses)
    assert not hasattr(unfitted, "coefs_")


def test_rows_of_any_kind_with_weights_beyond_those_that_are_judged():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3000, 4)) * (rng.random((3000, 4)) < 0.3)
    y, weight = X[:, 0] - X[:, 1], rng.uniform(0.5, 2.0, 3000)
    model = MLPRegressor(hidden_layer_sizes=(8,), random_state=0)
    dense = find_learning_rate(model, X, y, weight)
    sparse = find_learning_rate(model, scipy.sparse.csr_array(X), y, weight)
    np.testing.assert_allclose(sparse.losses, dense.losses, rtol=1e-8)
    lists = find_learning_rate(model, X.tolist(), y.tolist(), weight.tolist())
    np.testing.assert_array_equal(lists.losses, dense.losses)
    assert find_learning_rate(model, X, y).losses[0] != dense.losses[0]


@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csc_array, list, "pandas", "polars"])
def test_rows_without_weight_are_not_judged(container):
    if isinstance(container, str):
        container = pytest.importorskip(container).DataFrame
    rng = np.random.default_rng(0)
    X, weight = rng.standard_normal((3000, 4)), np.zeros(3000)
    y = X[:, 0] - X[:, 1]
    kept = np.arange(0, 3000, 100)
    weight[kept] = rng.uniform(0.5, 2.0, len(kept))
    model = MLPRegressor(hidden_layer_sizes=(8,), random_state=0)
    found = find_learning_rate(model, container(X), y, weight)
    alone = find_learning_rate(model, X[kept], y[kept], weight[kept])
    np.testing.assert_allclose(found.losses, alone.losses, rtol=1e-8)


def test_one_weight_for_all_rows_is_taken_whatever_their_number():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((3000, 4))
    model = MLPRegressor(hidden_layer_sizes=(8,), random_state=0, alpha=0.0)
    plain = find_learning_rate(model, X, X[:, 0])
    found = find_learning_rate(model, X, X[:, 0], 2.0)
    n = min(len(plain.losses), 20)
    np.testing.assert_allclose(found.losses[:n], plain.losses[:n], rtol=1e-8)


def test_column_names_raise_no_warning():
    pandas = pytest.importorskip("pandas")
    X, y = problem("diabetes")
    frame = pandas.DataFrame(X, columns=[f"c{k}" for k in range(10)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search = find_learning_rate(MLPRegressor(random_state=0), frame, y)
    np.testing.assert_array_equal(
        search.losses, find_learning_rate(MLPRegressor(random_state=0), X, y).losses
    )


def test_there_is_no_suggestion_where_the_loss_does_not_fall():
    X, y = problem("diabetes")
    search = find_learning_rate(MLPRegressor(random_state=0), X, y, lowest=1e-300, highest=1e-290)
    assert search.suggestion is None
    assert len(search.rates) == 120


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (
            LinearRegression(),
            {},
            TypeError,
            "estimator must be one of sklloss's networks.*got LinearRegression",
        ),
        (make_pipeline(StandardScaler(), MLPRegressor()), {}, TypeError, "of a pipeline, its last step"),
        (MLPRegressor(solver="lbfgs"), {}, ValueError, "solver='lbfgs' has no learning rate"),
        (MLPRegressor(), {"lowest": 0.0}, ValueError, "lowest must be in"),
        (MLPRegressor(), {"lowest": 1.0, "highest": 0.5}, ValueError, "highest must be in"),
        (MLPRegressor(), {"n_steps": 3}, ValueError, "n_steps must be at least 10"),
        (MLPRegressor(alpha=-1), {}, ValueError, "alpha must be in"),
        (MLPRegressor(solver="sgd"), {"lowest": 1e200, "highest": 1e300}, ValueError, "training diverges"),
    ],
)
def test_what_has_no_learning_rate_is_named(model, options, error, message):
    X, y = problem("diabetes")
    with pytest.raises(error, match=message):
        find_learning_rate(model, X, y, **options)


def test_bad_rows_are_named():
    X, y = problem("diabetes")
    with pytest.raises(ValueError, match="same number of rows"):
        find_learning_rate(MLPRegressor(), X, y[:5])
    many = np.tile(X, (6, 1))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        find_learning_rate(MLPRegressor(), many, y)
    with pytest.raises(ValueError, match="sample_weight must have shape"):
        find_learning_rate(MLPRegressor(), many, np.tile(y, 6), y)
    with pytest.raises(ValueError, match="y"):
        find_learning_rate(MLPRegressor(), X, None)


# The display -------------------------------------------------------------------------------------------


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def test_the_display_shows_the_curve_and_the_suggestion(pyplot):
    X, y = problem("diabetes")
    model = MLPRegressor(random_state=0)
    display = LearningRateFinderDisplay.from_estimator(model, X, y, color="red", n_steps=100)
    search = find_learning_rate(model, X, y, n_steps=100)
    np.testing.assert_array_equal(display.line_.get_xdata(), search.rates)
    np.testing.assert_array_equal(display.line_.get_ydata(), search.smoothed_losses)
    np.testing.assert_array_equal(display.points_.get_ydata(), search.losses)
    assert display.line_.get_color() == "red"
    assert display.suggestion_line_.get_xdata()[0] == search.suggestion
    assert display.ax_.get_xscale() == "log"
    assert display.figure_ is display.ax_.figure
    _, ax = pyplot.subplots()
    assert LearningRateFinderDisplay(search).plot(ax=ax).ax_ is ax


def test_the_display_has_no_line_without_a_suggestion(pyplot):
    rates = np.array([0.1, 1.0])
    display = LearningRateFinderDisplay(learning_rate.LearningRateSearch(rates, rates, rates, None)).plot()
    assert display.suggestion_line_ is None


def test_without_matplotlib_the_display_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    X, y = problem("linnerud")
    with pytest.raises(ImportError, match="LearningRateFinderDisplay needs matplotlib"):
        LearningRateFinderDisplay.from_estimator(MLPRegressor(), X, y)
