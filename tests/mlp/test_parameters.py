"""Both networks against scikit-learn's: every parameter has the same effect, or gives the same error."""

import inspect
import warnings

import numpy as np
import pytest
import sklearn
from sklearn import neural_network

import sklloss

VERSION = tuple(map(int, sklearn.__version__.split(".")[:2]))
# scikit-learn's networks take sample weights, and the regressor a loss, from 1.7 on
SINCE_1_7 = VERSION >= (1, 7)
NAMES = ["MLPClassifier", "MLPRegressor"]

# Values of each parameter, with other parameters that make it effective. The first is not the default.
GRID = {
    "loss": [{"loss": "poisson"}, {"loss": "squared_error"}],
    "hidden_layer_sizes": [
        {"hidden_layer_sizes": sizes} for sizes in [(7,), 5, [4, 1, 3], (), np.array([3, 2])]
    ],
    "activation": [{"activation": name} for name in ("identity", "logistic", "tanh", "relu")],
    "solver": [{"solver": "sgd"}, {"solver": "lbfgs", "max_iter": 12}, {"solver": "adam"}],
    "alpha": [{"alpha": 0.9}, {"alpha": 0}, {"alpha": 0.9, "solver": "lbfgs", "max_iter": 12}],
    "batch_size": [{"batch_size": 16}, {"batch_size": 1, "max_iter": 2}, {"batch_size": 1000}],
    "learning_rate": [
        {"solver": "sgd", "learning_rate": "invscaling"},
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 2, "max_iter": 60},
        {"solver": "adam", "learning_rate": "invscaling"},
    ],
    "learning_rate_init": [{"learning_rate_init": 0.02}, {"solver": "sgd", "learning_rate_init": 0.02}],
    "power_t": [{"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.1}],
    "max_iter": [{"max_iter": 3}, {"max_iter": 1}, {"solver": "lbfgs", "max_iter": 2}],
    "shuffle": [{"shuffle": False, "batch_size": 32}, {"shuffle": True, "batch_size": 32}],
    "random_state": [{"random_state": 7}, {"random_state": np.random.RandomState},],
    "tol": [{"tol": 0.3, "n_iter_no_change": 2, "max_iter": 40}, {"tol": 0}, {"solver": "lbfgs", "tol": 0.1}],
    "verbose": [{"verbose": True}, {"verbose": 2}, {"verbose": True, "early_stopping": True, "tol": 0.2}],
    "warm_start": [{"warm_start": True}, {"warm_start": True, "solver": "sgd"}],
    "momentum": [{"solver": "sgd", "momentum": 0.2}, {"solver": "sgd", "momentum": 0}],
    "nesterovs_momentum": [{"solver": "sgd", "nesterovs_momentum": False}],
    "early_stopping": [
        {"early_stopping": True},
        {"early_stopping": True, "n_iter_no_change": 2, "max_iter": 60, "solver": "sgd"},
        {"early_stopping": True, "solver": "lbfgs", "max_iter": 12},
    ],
    "validation_fraction": [{"early_stopping": True, "validation_fraction": 0.3}],
    "beta_1": [{"beta_1": 0.4}, {"beta_1": 0}],
    "beta_2": [{"beta_2": 0.5}],
    "epsilon": [{"epsilon": 0.01}],
    "n_iter_no_change": [{"n_iter_no_change": 1, "tol": 0.2, "max_iter": 40}, {"n_iter_no_change": np.inf}],
    "max_fun": [{"solver": "lbfgs", "max_fun": 5}],
}  # fmt: skip

BAD = [
    {"loss": "hinge"},
    {"hidden_layer_sizes": (5, 0)},
    {"hidden_layer_sizes": -1},
    {"activation": "softplus"},
    {"solver": "newton"},
    {"alpha": -0.1},
    {"batch_size": 0},
    {"batch_size": "all"},
    {"batch_size": 2.5},
    {"learning_rate": "rising"},
    {"learning_rate_init": 0},
    {"power_t": -0.5},
    {"max_iter": 0},
    {"max_iter": 1.5},
    {"shuffle": "yes"},
    {"random_state": "seed"},
    {"tol": -1e-3},
    {"tol": "small"},
    {"verbose": -1},
    {"verbose": "loud"},
    {"warm_start": None},
    {"momentum": 1.5},
    {"nesterovs_momentum": 0.5},
    {"early_stopping": 3},
    {"validation_fraction": 1},
    {"validation_fraction": -0.1},
    {"early_stopping": True, "validation_fraction": 0.005},
    {"beta_1": 1},
    {"beta_2": 1.2},
    {"epsilon": 0},
    {"n_iter_no_change": 0},
    {"n_iter_no_change": 2.5},
    {"max_fun": 0},
]


def pair(name, parameters=None):
    """Ours and scikit-learn's, with the same parameters."""
    made = []
    for module in (sklloss, neural_network):
        given = {"random_state": 0, "max_iter": 15, **(parameters or {})}
        if given["random_state"] is np.random.RandomState:
            given["random_state"] = np.random.RandomState(3)
        if given.get("loss") == "squared_error" and not SINCE_1_7:
            del given["loss"]
        made.append(getattr(module, name)(**given))
    return made


def data(name, n=120):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 6))
    signal = np.sin(X[:, 0]) + X[:, 1] * X[:, 2] + 0.3 * rng.standard_normal(n)
    if name == "MLPRegressor":
        return X, np.abs(signal)
    y = np.digitize(signal, [-0.4, 0.5])
    # before 1.7 early stopping failed on strings
    return X, np.array(["low", "middle", "top"])[y] if SINCE_1_7 else y


def recorded(call):
    """The categories of the warnings that it gives, but for those that tell scikit-learn what SciPy drops."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return sorted({one.category.__name__ for one in caught} - {"DeprecationWarning"})


def has(name, parameters):
    """Whether scikit-learn's class has the parameters, in the installed release."""
    missing = set(parameters) - set(getattr(neural_network, name)().get_params())
    return not missing


CASES = [
    pytest.param(name, parameters, id=f"{name}-{parameter}-{k}")
    for name in NAMES
    for parameter, cases in GRID.items()
    for k, parameters in enumerate(cases)
    if has(name, parameters)
]


@pytest.mark.parametrize("name", NAMES)
def test_the_grid_has_every_parameter_of_scikit_learns_class(name):
    ours, theirs = (set(model.get_params()) for model in pair(name))
    assert theirs <= set(GRID)
    assert theirs <= ours


@pytest.mark.parametrize("name", NAMES)
def test_parameters_may_be_given_by_place_as_to_scikit_learns_class(name):
    ours, theirs = (
        [(p.name, p.kind, p.default) for p in inspect.signature(type(model)).parameters.values()]
        for model in pair(name)
    )
    if name == "MLPRegressor" and not SINCE_1_7:
        ours = ours[1:]
    assert ours[: len(theirs)] == theirs
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for _, kind, _ in ours[len(theirs) :])


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_a_parameter_does_what_it_does_in_scikit_learn(name, parameters, capsys):
    X, y = data(name)
    ours, theirs = pair(name, parameters)
    shown, warned = [], []
    for model in (ours, theirs):
        warned.append([recorded(lambda m=model: m.fit(X, y)) for _ in range(1 + bool(model.warm_start))])
        shown.append(capsys.readouterr().out)
    assert warned[0] == warned[1]
    lbfgs, poisson = ours.solver == "lbfgs", parameters.get("loss") == "poisson"
    if not lbfgs and not poisson:
        assert shown[0] == shown[1]
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.n_layers_ == theirs.n_layers_
    assert ours.n_outputs_ == theirs.n_outputs_
    assert ours.out_activation_ == theirs.out_activation_
    assert ours.n_features_in_ == theirs.n_features_in_
    if not poisson:  # scikit-learn counts terms in y alone, which do not change the fit
        assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-8)
    if not lbfgs:
        assert ours.t_ == theirs.t_
        assert len(ours.loss_curve_) == len(theirs.loss_curve_)
        if not poisson:
            np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
            assert (ours.best_loss_ is None) == (theirs.best_loss_ is None)
        assert (ours.validation_scores_ is None) == (theirs.validation_scores_ is None)
        if theirs.validation_scores_ is not None:
            np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=1e-9)
            assert ours.best_validation_score_ == pytest.approx(theirs.best_validation_score_)
    for mine, other in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-8)
    if name == "MLPClassifier":
        np.testing.assert_array_equal(ours.classes_, theirs.classes_)
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-8)
    else:
        np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-7, atol=1e-8)
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y), rel=1e-7)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        pytest.param(name, parameters, id=f"{name}-{parameters}")
        for name in NAMES
        for parameters in BAD
        if has(name, parameters) and (SINCE_1_7 or parameters.get("validation_fraction") != 0.005)
    ],
)
def test_a_bad_value_is_an_error_of_a_class_that_scikit_learns_is(name, parameters):
    X, y = data(name)
    ours, theirs = pair(name, parameters)
    with pytest.raises((ValueError, TypeError)) as expected:
        theirs.fit(X, y)
    # NumPy refuses a seed in its own words
    named = "|".join("seed" if name == "random_state" else name for name in parameters)
    with pytest.raises((ValueError, TypeError), match=named) as error:
        ours.fit(X, y)
    assert isinstance(expected.value, error.type)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_methods_take_their_arguments_as_scikit_learns_do(name, method):
    ours, theirs = (
        [p.name for p in inspect.signature(getattr(type(model), method)).parameters.values()]
        for model in pair(name)
    )
    if not SINCE_1_7:
        theirs = [*theirs[:3], "sample_weight", *theirs[3:]]
    assert ours[: len(theirs)] == theirs


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("weighted", [False, True] if SINCE_1_7 else [False])
def test_partial_fit_goes_on_as_scikit_learns_does(name, solver, weighted):
    X, y = data(name)
    weight = np.random.default_rng(1).uniform(0.2, 2.0, len(y))
    models = pair(name, {"solver": solver, "batch_size": 25, "learning_rate": "adaptive", "tol": 0.1})
    for model in models:
        for k in range(9):
            part = slice(40 * (k % 3), 40 * (k % 3) + 40)
            first = {"classes": np.unique(y)} if name == "MLPClassifier" and k == 0 else {}
            weights = {"sample_weight": weight[part]} if weighted else {}
            model.partial_fit(X[part], y[part], **first, **weights)
    ours, theirs = models
    assert ours.t_ == theirs.t_ == 360
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
    for mine, other in zip(ours.coefs_, theirs.coefs_):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_there_is_no_partial_fit_for_lbfgs(name):
    with pytest.raises(AttributeError, match="lbfgs is not stochastic|has no attribute 'partial_fit'"):
        pair(name, {"solver": "lbfgs"})[0].partial_fit  # noqa: B018
