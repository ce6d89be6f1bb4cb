"""MLPRegressor against scikit-learn's: the same training to rounding, parameter by parameter."""

import inspect
import itertools

import numpy as np
import pytest
import sklearn
from helpers import regression_data, small_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor as Original

from sklloss import MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# scikit-learn's networks take sample weights, and a loss, from 1.7 on
WEIGHTED = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 7)


def assert_same_training(ours, theirs, X):
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.t_ == theirs.t_
    assert ours.n_layers_ == theirs.n_layers_
    assert ours.n_outputs_ == theirs.n_outputs_
    assert ours.out_activation_ == theirs.out_activation_
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-8)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-7, atol=1e-8)
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_):
        assert mine.shape == other.shape
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-8)
    if theirs.early_stopping:
        np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=1e-7)
        assert ours.best_validation_score_ == pytest.approx(theirs.best_validation_score_)
        assert ours.best_loss_ is None
    else:
        assert ours.best_loss_ == pytest.approx(theirs.best_loss_)
        assert ours.validation_scores_ is None
        assert ours.best_validation_score_ is None


def test_the_parameters_start_with_scikit_learns_in_name_order_kind_and_default():
    ours, theirs = (
        [(p.name, p.kind, p.default) for p in inspect.signature(kind).parameters.values()]
        for kind in (MLPRegressor, Original)
    )
    # those of our own stand at the end, by keyword only, and change nothing
    added = ours[len(theirs) + (not WEIGHTED) :]
    assert [name for name, _, _ in added] == ["warmup_fraction", "n_threads", "device", "device_dtype"]
    assert (ours if WEIGHTED else ours[1:])[: len(theirs)] == theirs


GRID = list(
    itertools.product(
        [
            ("adam", {}),
            ("sgd", {}),
            ("sgd", {"nesterovs_momentum": False}),
            ("sgd", {"learning_rate": "invscaling"}),
            ("sgd", {"learning_rate": "adaptive", "tol": 0.02}),
            ("sgd", {"momentum": 0.0}),
        ],
        ["relu", "tanh", "logistic", "identity"],
        [{"hidden_layer_sizes": (12,), "batch_size": 32}, {"hidden_layer_sizes": (7, 5), "alpha": 0.8}],
        [{}, {"early_stopping": True, "validation_fraction": 0.2}],
        [False, True] if WEIGHTED else [False],
    )
)


@pytest.mark.parametrize(("solver", "activation", "shape", "stopping", "weighted"), GRID)
def test_training_is_scikit_learns_to_rounding(solver, activation, shape, stopping, weighted):
    X, y, weight = regression_data()
    name, options = solver
    parameters = {
        "solver": name, "activation": activation, "max_iter": 24, "random_state": 5, "n_iter_no_change": 3,
        "learning_rate_init": 0.01, **options, **shape, **stopping,
    }  # fmt: skip
    weights = (weight,) if weighted else ()
    ours = MLPRegressor(**parameters).fit(X, y, *weights)
    theirs = Original(**parameters).fit(X, y, *weights)
    assert_same_training(ours, theirs, X)


@pytest.mark.parametrize(
    "parameters",
    [
        {"shuffle": False, "batch_size": 40},
        {"hidden_layer_sizes": []},
        {"hidden_layer_sizes": 9},
        {"hidden_layer_sizes": np.array([4, 1, 3]), "activation": "tanh"},
        {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 1e-3},
        {"tol": 0.05, "n_iter_no_change": 1, "max_iter": 200},
        {"n_iter_no_change": np.inf},
        {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.1},
        {"random_state": 3},
        {"alpha": 0},
        {"batch_size": 1, "max_iter": 3},
    ],
)
def test_each_further_parameter_means_what_it_means_in_scikit_learn(parameters):
    X, y, _ = regression_data()
    parameters = {"random_state": 0, "max_iter": 20, **parameters}
    assert_same_training(MLPRegressor(**parameters).fit(X, y), Original(**parameters).fit(X, y), X)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_several_outputs_are_scikit_learns_with_the_stated_change_of_parameters(solver):
    # scikit-learn descends the sum over T outputs, we the mean
    X, y, _ = regression_data(outputs=3)
    common = {"solver": solver, "random_state": 0, "max_iter": 20, "batch_size": 50}
    theirs = Original(**common, alpha=0.3, learning_rate_init=0.003, epsilon=3e-6).fit(X, y)
    rate = 0.009 if solver == "sgd" else 0.003
    ours = MLPRegressor(**common, alpha=0.1, learning_rate_init=rate, epsilon=1e-6).fit(X, y)
    assert ours.predict(X).shape == (150, 3)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fit_is_scikit_learns_to_rounding(solver):
    X, y, _ = regression_data()
    ours, theirs = (
        kind(
            solver=solver,
            random_state=0,
            learning_rate="adaptive",
            batch_size=20,
            tol=0.1,
            n_iter_no_change=1,
        )
        for kind in (MLPRegressor, Original)
    )
    for k in range(12):
        part = slice(50 * (k % 3), 50 * (k % 3) + 50)
        ours.partial_fit(X[part], y[part])
        theirs.partial_fit(X[part], y[part])
    assert_same_training(ours, theirs, X)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_a_warm_start_is_scikit_learns_to_rounding(solver):
    X, y, _ = regression_data()
    ours, theirs = (
        kind(solver=solver, random_state=0, max_iter=5, warm_start=True) for kind in (MLPRegressor, Original)
    )
    for _ in range(3):
        ours.fit(X, y)
        theirs.fit(X, y)
    assert len(ours.loss_curve_) == 15
    assert_same_training(ours, theirs, X)


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic"])
def test_lbfgs_takes_scikit_learns_steps(activation):
    X, y, _ = regression_data()
    parameters = {"solver": "lbfgs", "activation": activation, "random_state": 0, "max_iter": 10}
    ours, theirs = MLPRegressor(**parameters).fit(X, y), Original(**parameters).fit(X, y)
    assert ours.n_iter_ == theirs.n_iter_ == len(ours.loss_curve_)
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-8) == ours.loss_curve_[-1]
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6, atol=1e-7)
    assert not hasattr(ours, "partial_fit")


def test_a_batch_larger_than_the_data_is_clipped_with_a_warning():
    X, y, _ = regression_data()
    with pytest.warns(UserWarning, match="It is going to be clipped"):
        clipped = small_regressor(batch_size=1000).fit(X, y)
    np.testing.assert_allclose(clipped.predict(X), small_regressor(batch_size=150).fit(X, y).predict(X))


def test_running_out_of_epochs_warns_as_scikit_learn_does():
    X, y, _ = regression_data()
    with pytest.warns(ConvergenceWarning, match=r"Stochastic Optimizer: Maximum iterations \(8\) reached"):
        small_regressor().fit(X, y)


def test_verbose_prints_what_scikit_learn_prints(capsys):
    X, y, _ = regression_data()
    parameters = {"random_state": 0, "max_iter": 40, "verbose": True, "early_stopping": True, "tol": 0.3}
    MLPRegressor(**parameters, n_iter_no_change=2).fit(X, y)
    ours = capsys.readouterr().out
    Original(**parameters, n_iter_no_change=2).fit(X, y)
    assert ours == capsys.readouterr().out
    assert "Validation score did not improve" in ours
