"""MLPRegressor: losses, validation, inputs, and what else scikit-learn's network does not have."""

import pickle
import tracemalloc
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse
from helpers import regression_data, small_regressor
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklloss import MLPClassifier, MLPRegressor, losses
from sklloss.objectives.network import NumpyNetworkObjective

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


# Other -------------------------------------------------------------------------------------------------


def test_a_fitted_estimator_holds_arrays_and_plain_values_only():
    X, y, _ = regression_data()

    def plain(value):
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(part) for key, part in value.items())
        if isinstance(value, (list, tuple)):
            return all(map(plain, value))
        return value is None or type(value) in (int, float, str, bool, np.ndarray)

    for model in (
        small_regressor().fit(X, y),
        small_regressor(early_stopping=True).fit(X, y),
        small_regressor(solver="lbfgs").fit(X, y),
    ):
        assert {name: value for name, value in vars(model).items() if not plain(value)} == {}
        assert type(model.n_iter_) is int
        assert type(model.loss_) is float
        assert model.solver_ == model.solver


def test_a_pickle_predicts_the_same_and_trains_on_the_same():
    X, y, _ = regression_data()
    model = small_regressor(max_iter=3).fit(X, y)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict(X), model.predict(X))
    np.testing.assert_array_equal(copy.partial_fit(X, y).predict(X), model.partial_fit(X, y).predict(X))


def test_the_same_random_state_gives_the_same_bits():
    X, y, weight = regression_data()
    for parameters in ({}, {"solver": "sgd", "early_stopping": True}, {"solver": "lbfgs"}):
        first, second = (clone(small_regressor(**parameters)).fit(X, y, weight) for _ in range(2))
        np.testing.assert_array_equal(first.predict(X), second.predict(X))
        assert first.loss_curve_ == second.loss_curve_


def test_it_is_tuned_in_a_pipeline():
    X, y = load_diabetes(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), small_regressor(solver="lbfgs", max_iter=30))
    search = GridSearchCV(pipeline, {"mlpregressor__alpha": [1.0, 100.0]}, cv=3).fit(X[:200], y[:200])
    assert 0.2 < search.score(X[200:], y[200:]) < 0.7


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_column_names_are_remembered_and_checked(solver, library):
    frames = pytest.importorskip(library)
    X, y, weight = regression_data()
    frame = frames.DataFrame(dict(zip("abcdef", X.T)))
    options = {"solver": solver, "batch_size": 40}
    model = small_regressor(**options).fit(frame, frames.Series(y), frames.Series(weight))
    assert model.feature_names_in_.tolist() == list("abcdef")
    np.testing.assert_allclose(
        model.predict(frame), small_regressor(**options).fit(X, y, weight).predict(X), rtol=1e-9
    )
    held = {"X_val": frame, "y_val": frames.Series(y)}
    model = small_regressor(early_stopping=True, **options).fit(frame, frames.Series(y), **held)
    assert len(model.validation_loss_curve_) == model.n_iter_
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("fedcba")])


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_predicting_many_rows_holds_little_beyond_input_and_output(method):
    rows = np.zeros((1_000_000, 20))
    X, y, _ = regression_data(p=20)
    kind, y = (MLPRegressor, y) if method == "predict" else (MLPClassifier, y > 0)
    model = kind(hidden_layer_sizes=(60,), max_iter=1, n_threads=2).fit(X, y)
    tracemalloc.start()
    try:
        out = getattr(model, method)(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < out.nbytes + 6e6


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_float32_stays_float32_and_close_to_float64(solver):
    X, y, weight = regression_data()
    wide = small_regressor(solver=solver).fit(X, y, weight)
    model = small_regressor(solver=solver).fit(X.astype(np.float32), y, weight)
    assert {part.dtype for part in model.coefs_ + model.intercepts_} == {np.dtype(np.float32)}
    assert model.predict(X.astype(np.float32)).dtype == np.float32
    assert model.predict(X).dtype == np.float64
    np.testing.assert_allclose(model.predict(X), wide.predict(X), atol=1e-4)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.csc_matrix, np.asfortranarray])
def test_sparse_and_column_major_rows_equal_dense_ones(container, solver):
    X, y, weight = regression_data()
    X[np.abs(X) < 0.8] = 0
    dense = small_regressor(solver=solver, batch_size=32).fit(X, y, weight)
    other = small_regressor(solver=solver, batch_size=32).fit(container(X), y, weight)
    np.testing.assert_allclose(other.predict(container(X)), dense.predict(X), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("container", "solver", "copied"),
    [
        (np.asfortranarray, "adam", True),
        (np.asfortranarray, "lbfgs", False),
        (np.ascontiguousarray, "adam", False),
        (lambda X: np.hstack([X, X])[:, :6], "adam", False),
        (scipy.sparse.csr_array, "adam", False),
    ],
)
def test_column_major_rows_are_laid_out_once_where_every_epoch_gathers_them(
    container, solver, copied, monkeypatch
):
    seen, rows = [], NumpyNetworkObjective.rows
    monkeypatch.setattr(
        NumpyNetworkObjective, "rows", lambda self, data: seen.append(data.X) or rows(self, data)
    )
    X, y, _ = regression_data()
    given = container(X)
    small_regressor(solver=solver).fit(given, y)
    assert len(seen) == 1
    mine, theirs = (one.data if scipy.sparse.issparse(one) else one for one in (seen[0], given))
    assert np.shares_memory(mine, theirs) != copied
    if copied:
        assert seen[0].flags.c_contiguous


@pytest.mark.parametrize("parameters", [{"batch_size": 16}, {"early_stopping": True}, {"solver": "lbfgs"}])
def test_rows_of_weight_zero_count_as_left_out(parameters):
    X, y, weight = regression_data()
    weight[::3] = 0
    kept = weight > 0
    X_wild = np.where(kept[:, None], X, 1e3)
    model = small_regressor(**parameters).fit(X_wild, y, weight)
    expected = small_regressor(**parameters).fit(X[kept], y[kept], weight[kept])
    np.testing.assert_allclose(model.predict(X), expected.predict(X), rtol=1e-9)


def test_whole_weights_equal_repeated_rows_when_one_batch_holds_all():
    X, y, _ = regression_data(60)
    weight = np.random.default_rng(1).integers(1, 4, 60)
    weighted = small_regressor(max_iter=50).fit(X, y, weight)
    repeated = small_regressor(max_iter=50).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-8)


# Losses ------------------------------------------------------------------------------------------------


def test_mean_squared_error_is_twice_squared_error():
    X, y, _ = regression_data()
    half = small_regressor(solver="sgd", learning_rate_init=0.02, alpha=0.1).fit(X, y)
    whole = small_regressor(solver="sgd", learning_rate_init=0.01, alpha=0.2, loss="mean_squared_error").fit(
        X, y
    )
    np.testing.assert_allclose(whole.predict(X), half.predict(X), rtol=1e-10)
    assert whole.loss_ == pytest.approx(2 * half.loss_)


def test_root_mean_squared_error_trains_on_the_root_of_the_batch_mean():
    X, y, weight = regression_data()
    model = small_regressor(
        loss="root_mean_squared_error", max_iter=1, alpha=0.0, learning_rate_init=1e-12
    ).fit(X, y, weight)
    error = model.predict(X) - y
    assert model.loss_ == pytest.approx(np.sqrt(np.average(error**2, weights=weight)), rel=1e-6)
    longer = small_regressor(loss="root_mean_squared_error", max_iter=200, learning_rate_init=0.05).fit(X, y)
    assert longer.score(X, y) > 0.5


def test_a_loss_object_and_its_name_are_the_same():
    X, y, _ = regression_data()
    named, given = small_regressor().fit(X, y), small_regressor(loss=losses.HalfSquaredError()).fit(X, y)
    np.testing.assert_array_equal(named.predict(X), given.predict(X))
    assert clone(given).loss == losses.HalfSquaredError()


@dataclass(frozen=True)
class Doubled(losses.Loss):
    """The squared error, in one method and without a kernel."""

    def formula(self, xp, y, raw):
        return (raw - y) ** 2, 2 * (raw - y)


@dataclass(frozen=True)
class Exponential(Doubled):
    """Predicts exp(raw)."""

    def inverse_link(self, xp, raw):
        return xp.exp(raw)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("outputs", [None, 2])
def test_a_loss_of_ones_own_trains_like_a_kernel(solver, dtype, outputs):
    X, y, weight = regression_data(outputs=outputs, dtype=dtype)
    common = {"solver": solver, "batch_size": 40, "early_stopping": True}
    own = small_regressor(loss=Doubled(), **common).fit(X, y, weight)
    compiled = small_regressor(loss="mean_squared_error", **common).fit(X, y, weight)
    tolerance = 1e-8 if dtype is np.float64 else 1e-3
    np.testing.assert_allclose(own.predict(X), compiled.predict(X), rtol=tolerance, atol=tolerance)


def test_predictions_go_through_the_losses_inverse_link():
    X, y, _ = regression_data()
    linked = small_regressor(loss=Exponential()).fit(X, y)
    np.testing.assert_allclose(
        linked.predict(X), np.exp(small_regressor(loss=Doubled()).fit(X, y).predict(X)), rtol=1e-12
    )


# Validation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_the_validation_loss_is_recorded_without_early_stopping(solver):
    X, y, weight = regression_data()
    model = small_regressor(solver=solver, alpha=3.0)
    model.fit(X[:100], y[:100], X_val=X[100:], y_val=y[100:], sample_weight_val=weight[100:])
    assert len(model.validation_loss_curve_) == model.n_iter_
    error = model.predict(X[100:]) - y[100:]
    expected = 0.5 * np.average(error**2, weights=weight[100:])
    assert model.validation_loss_curve_[-1] == pytest.approx(expected, rel=1e-12)
    assert model.validation_scores_ is None
    plain = small_regressor(solver=solver, alpha=3.0).fit(X[:100], y[:100])
    assert plain.validation_loss_curve_ is None
    np.testing.assert_array_equal(plain.predict(X), model.predict(X))


def test_early_stopping_watches_the_given_rows_and_keeps_the_best_epoch():
    X, y, weight = regression_data(400)
    model = small_regressor(early_stopping=True, max_iter=500, learning_rate_init=0.05, n_iter_no_change=4)
    model.fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:], sample_weight_val=weight[200:])
    assert model.n_iter_ < 500
    assert model.t_ == 200 * model.n_iter_  # no row was split off
    assert len(model.validation_scores_) == len(model.validation_loss_curve_) == model.n_iter_
    assert model.best_validation_score_ == max(model.validation_scores_) > model.validation_scores_[-1]
    score = r2_score(y[200:], model.predict(X[200:]), sample_weight=weight[200:])
    assert score == pytest.approx(model.best_validation_score_, rel=1e-12)


# Bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"loss": "nonsense"}, ValueError, "unknown loss 'nonsense'; known losses: .*squared_error"),
        ({"loss": "log_loss"}, ValueError, "loss='log_loss' is for classification"),
        ({"loss": 3}, TypeError, "loss must be a name or a losses.Loss"),
        (
            {"solver": "rprop"},
            ValueError,
            "solver must be one of 'adam', 'adamw', 'sgd', 'lbfgs', got 'rprop'",
        ),
        ({"activation": "step"}, ValueError, "activation must be one of"),
        ({"learning_rate": "fast"}, ValueError, "learning_rate must be one of"),
        ({"hidden_layer_sizes": (5, 0)}, ValueError, r"hidden_layer_sizes must be > 0, got \[5, 0\]"),
        ({"hidden_layer_sizes": (5, 2.5)}, TypeError, "hidden_layer_sizes must be an integer, got 2.5"),
        ({"hidden_layer_sizes": "wide"}, TypeError, "hidden_layer_sizes must be an integer"),
        ({"alpha": -1}, ValueError, "alpha must be in"),
        ({"alpha": np.inf}, ValueError, "alpha must be in"),
        ({"learning_rate_init": np.inf}, ValueError, "learning_rate_init must be in"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"batch_size": "large"}, ValueError, 'batch_size must be "auto" or a positive integer'),
        ({"learning_rate_init": 0.0}, ValueError, "learning_rate_init must be in"),
        ({"power_t": -1}, ValueError, "power_t must be in"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1"),
        ({"max_fun": 0}, ValueError, "max_fun must be at least 1"),
        ({"tol": -1}, ValueError, "tol must be in"),
        ({"momentum": 1.1}, ValueError, "momentum must be in"),
        ({"beta_1": 1.0}, ValueError, "beta_1 must be in"),
        ({"beta_2": -0.1}, ValueError, "beta_2 must be in"),
        ({"epsilon": 0}, ValueError, "epsilon must be in"),
        ({"n_iter_no_change": 0}, ValueError, "n_iter_no_change must be at least 1"),
        ({"shuffle": "yes"}, TypeError, "shuffle must be True or False"),
        ({"verbose": "yes"}, TypeError, "verbose must be an integer or a bool"),
        ({"validation_fraction": 1.0}, ValueError, "validation_fraction must be in"),
        ({"early_stopping": True, "validation_fraction": 0.0}, ValueError, "needs a validation set"),
        ({"early_stopping": True, "validation_fraction": 0.001}, ValueError, "validation set is too small"),
        ({"random_state": "seed"}, ValueError, "'seed' cannot be used to seed"),
    ],
)
def test_a_bad_parameter_is_named_and_changes_nothing(parameters, error, message):
    X, y, _ = regression_data()
    model = small_regressor().fit(X, y)
    before, expected = vars(model).copy(), model.predict(X)
    with pytest.raises(error, match=message):
        model.set_params(**parameters).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), expected)
    assert {k: v for k, v in vars(model).items() if k not in parameters} == {
        k: v for k, v in before.items() if k not in parameters
    }


X, Y, W = regression_data(40)
BAD_ROWS = [
    ((X[:, :0], Y), {}, "0 feature"),
    ((X[:3], Y), {}, "same number of rows"),
    ((X, Y[:3]), {}, "same number of rows"),
    ((np.where(X > 2, np.nan, X), Y), {}, "NaN"),
    ((X, np.where(Y > 1, np.inf, Y)), {}, "infinity"),
    ((X, None), {}, "y"),
    ((X, np.array(["a"] * 40)), {}, "y must be numeric"),
    ((X, Y[:, None, None]), {}, "y must be 1-D or 2-D"),
    ((X, Y, W[:3]), {}, "sample_weight must have shape"),
    ((X, Y, -W), {}, "sample_weight must not be negative"),
    ((X, Y, W * 0), {}, "sample_weight must not be all zero"),
    ((X, Y, W * np.nan), {}, "sample_weight"),
    ((X, Y), {"X_val": X}, "X_val is given without y_val"),
    ((X, Y), {"y_val": Y}, "y_val is given without X_val"),
    ((X, Y), {"sample_weight_val": W}, "sample_weight_val is given without"),
    ((X, Y), {"X_val": X[:, :2], "y_val": Y}, "X_val"),
    ((X, Y), {"X_val": X, "y_val": np.stack([Y, Y], axis=1)}, "y_val has 2 outputs"),
    ((X, Y), {"X_val": X, "y_val": Y, "sample_weight_val": -W}, "sample_weight_val must not be negative"),
]


@pytest.mark.parametrize(("rows", "validation", "message"), BAD_ROWS)
def test_bad_rows_are_named_and_change_nothing(rows, validation, message):
    model = small_regressor().fit(X, Y)
    before = vars(model).copy()
    with pytest.raises(ValueError, match=message):
        model.fit(*rows, **validation)
    assert vars(model) == before


def test_one_validation_row_is_too_few_for_early_stopping_only():
    with pytest.raises(ValueError, match="validation set is too small"):
        small_regressor(early_stopping=True).fit(X, Y, X_val=X[:1], y_val=Y[:1])
    small_regressor().fit(X, Y, X_val=X[:1], y_val=Y[:1])


def test_partial_fit_refuses_what_does_not_go_on():
    model = small_regressor().partial_fit(X, Y)
    expected = model.predict(X)
    with pytest.raises(ValueError, match="4 features"):
        model.partial_fit(X[:, :4], Y)
    with pytest.raises(ValueError, match="y has 2 outputs, but the network was fitted with 1"):
        model.partial_fit(X, np.stack([Y, Y], axis=1))
    with pytest.raises(
        ValueError, match="hidden_layer_sizes=3 does not fit.* A clone, or fit with warm_start=False"
    ):
        model.set_params(hidden_layer_sizes=3).partial_fit(X, Y)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        model.set_params(hidden_layer_sizes=(8,), early_stopping=True).partial_fit(X, Y)
    np.testing.assert_array_equal(model.predict(X), expected)


def test_training_goes_on_in_the_dtype_of_the_network():
    model = small_regressor().partial_fit(X.astype(np.float32), Y).partial_fit(X, Y)
    assert model.coefs_[0].dtype == np.float32


def test_training_goes_on_after_a_change_of_solver():
    model = small_regressor(solver="lbfgs", warm_start=True).fit(X, Y)
    before = model.loss_
    model.set_params(solver="adam").fit(X, Y).partial_fit(X, Y).set_params(solver="sgd").partial_fit(X, Y)
    assert model.loss_ < 1.5 * before
    assert model.solver_ == "sgd"


def test_predicting_before_fitting_is_an_error():
    with pytest.raises(NotFittedError):
        MLPRegressor().predict(X)


def test_a_diverging_training_names_the_epoch_and_changes_nothing():
    model = small_regressor().fit(X, Y)
    before = vars(model).copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            ValueError, match=r"training loss became (nan|inf) in epoch \d+.*learning_rate_init"
        ):
            model.set_params(solver="sgd", learning_rate_init=1e8, activation="identity", max_iter=500).fit(
                X, Y
            )
    assert model.coefs_ is before["coefs_"]


@pytest.mark.parametrize(
    ("method", "early_stopping"), [("fit", False), ("fit", True), ("partial_fit", False)]
)
def test_parameters_that_diverge_in_the_last_step_are_an_error(method, early_stopping):
    model = small_regressor(
        solver="sgd", learning_rate_init=1e300, activation="identity", batch_size=len(X), max_iter=1,
        early_stopping=early_stopping, momentum=0.0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="parameters became NaN or infinite in epoch 1.*learning_rate_init"):
        getattr(model, method)(X * 1e10, Y)
    assert not hasattr(model, "coefs_")


def test_a_warm_start_with_another_loss_measures_progress_anew():
    model = small_regressor(warm_start=True, max_iter=200, learning_rate_init=0.01).fit(X, Y / 100)
    first = model.best_loss_
    model.set_params(loss="absolute_error").fit(X, Y / 100)
    assert model.n_iter_ > 1
    assert len(model.loss_curve_) == model.n_iter_
    assert model.best_loss_ == min(model.loss_curve_) > first


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_ctrl_c_stops_within_an_epoch_and_changes_nothing(solver, press_ctrl_c):
    model = small_regressor(loss=Doubled(), solver=solver, batch_size=15).fit(X, Y)
    before = vars(model).copy()
    # 3 batches an epoch
    press_ctrl_c(Doubled, 5)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    assert vars(model) == before
