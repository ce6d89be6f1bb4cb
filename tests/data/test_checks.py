"""Invalid input is an error that names the argument and what is wrong, and changes nothing."""

import _thread
import functools
import re

import numpy as np
import pytest
import scipy.sparse
import threadpoolctl
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklloss import LogisticClassifier, MLPClassifier, MLPRegressor, SoftmaxClassifier, losses
from sklloss.data.checks import check_weight, usable_layout
from sklloss.data.dataset import Dataset, check_data, check_validation_data
from sklloss.data.targets import code_values, hard_labels

SQUARED = losses.HalfSquaredError()
SQUARED_TARGETS = functools.partial(code_values, loss=SQUARED)
ESTIMATORS = [LogisticClassifier, SoftmaxClassifier]
N = 40


def good(K=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, 3)), np.arange(N) % K


def changed(array, index, value):
    array = np.array(array, dtype=float)
    array[index] = value
    return array


def state(model):
    return {name: np.copy(value) for name, value in vars(model).items()}


def assert_unchanged(model, before):
    assert set(vars(model)) == set(before)
    for name, value in before.items():
        np.testing.assert_array_equal(vars(model)[name], value)


def assert_rejected(estimator, fit, error, message):
    """``fit(model)`` raises, on a fresh estimator and on a fitted one, which then predicts as before."""
    X, y = good()
    fresh = estimator()
    with pytest.raises(error, match=message):
        fit(fresh)
    with pytest.raises(NotFittedError):
        fresh.predict(X)
    fitted = estimator(C=0.5).fit(X, y)
    before, proba = state(fitted), fitted.predict_proba(X)
    with pytest.raises(error, match=message):
        fit(fitted)
    assert_unchanged(fitted, before)
    np.testing.assert_array_equal(fitted.predict_proba(X), proba)


# X -----------------------------------------------------------------------------------------------------


BAD_X = {
    "NaN": (lambda X: changed(X, (7, 1), np.nan), "X contains NaN"),
    "infinity": (lambda X: changed(X, (7, 1), -np.inf), "X contains infinity"),
    "NaN in CSR": (lambda X: scipy.sparse.csr_array(changed(X, (7, 1), np.nan)), "X contains NaN"),
    "1-D": (lambda X: X[:, 0], "1D array"),
    "3-D": (lambda X: X[:, :, None], "dim 3"),
    "no rows": (lambda X: X[:0], "0 sample"),
    "no columns": (lambda X: X[:, :0], "0 feature"),
    "too few rows": (lambda X: X[:-1], "X and y .*39 and 40|inconsistent"),
    "strings": (lambda X: np.full(X.shape, "a"), "could not convert|string"),
    "complex": (lambda X: X + 1j, "[Cc]omplex"),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("case", BAD_X)
def test_an_invalid_X_is_an_error_that_names_it(estimator, case):
    X, y = good()
    make, message = BAD_X[case]
    assert_rejected(estimator, lambda model: model.fit(make(X), y), ValueError, message)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_invalid_X_is_an_error_at_prediction(estimator, method):
    X, y = good()
    call = getattr(estimator().fit(X, y), method)
    with pytest.raises(ValueError, match="2 features.*expecting 3"):
        call(X[:, :2])
    with pytest.raises(ValueError, match="X contains NaN"):
        call(changed(X, (0, 0), np.nan))
    with pytest.raises(ValueError, match="1D array"):
        call(X[0])
    with pytest.raises(NotFittedError):
        getattr(estimator(), method)(X)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_unfitted_estimator_has_no_score(estimator):
    with pytest.raises(NotFittedError):
        estimator().score(*good())


# y -----------------------------------------------------------------------------------------------------


BAD_Y = {
    "None": (lambda y: None, "y to be passed|y cannot be None"),
    "NaN": (lambda y: changed(y, 7, np.nan), "y contains NaN"),
    "infinity": (lambda y: changed(y, 7, np.inf), "y contains infinity"),
    "None among labels": (
        lambda y: np.array(["a", None] * (N // 2), dtype=object),
        "y|[Uu]nknown label type",
    ),
    "too few": (lambda y: y[:-1], "y .*40 and 39"),
    "none": (lambda y: y[:0], "y .*40 and 0"),
    "one class": (lambda y: y * 0, "2 classes.*one"),
    "3-D": (lambda y: np.zeros((N, 2, 2)), r"y must be 1-D or 2-D.*\(40, 2, 2\)"),
    "a scalar": (lambda y: 3, "y must be 1-D or 2-D"),
    "2-D strings": (lambda y: np.full((N, 3), "a"), "y is 2-D"),
    "2-D above 1": (lambda y: np.eye(3)[y] * 2, "row 0"),
    "2-D below 0": (lambda y: changed(np.eye(3)[y], (5, 1), -0.25), "row 5.*-0.25"),
    "2-D NaN": (lambda y: changed(np.eye(3)[y], (5, 1), np.nan), "y contains NaN"),
    "values beyond 1": (lambda y: y + 0.5, "Unknown label type: continuous.*y"),
    "values below 0": (lambda y: y / 2 - 0.25, "Unknown label type: continuous.*y"),
    "mixed types": (lambda y: np.array([1, "a"] * (N // 2), dtype=object), "y|label"),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("case", BAD_Y)
def test_an_invalid_y_is_an_error_that_names_it(estimator, case):
    X, y = good()
    make, message = BAD_Y[case]
    error = (
        (ValueError, TypeError) if case in ("mixed types", "a scalar", "None among labels") else ValueError
    )
    assert_rejected(estimator, lambda model: model.fit(X, make(y)), error, message)


def test_probabilities_of_one_class_are_no_target_of_a_softmax():
    X, y = good()
    assert_rejected(
        SoftmaxClassifier, lambda m: m.fit(X, y / 2.5), ValueError, "Unknown label type: continuous.*y"
    )


@pytest.mark.parametrize("factor", [0.5, 1.001, 1 + 1e-6])
def test_rows_that_do_not_sum_to_one_are_named_with_what_to_do(factor):
    X, _ = good()
    P = np.random.default_rng(1).dirichlet(np.ones(3), size=N)
    P[17] *= factor
    message = r"each row of y must sum to 1; row 17 sums to .*sample_weight"
    assert_rejected(SoftmaxClassifier, lambda m: m.fit(X, P), ValueError, message)
    LogisticClassifier().fit(X, np.minimum(P, 1))  # independent labels need no sum


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_that_sum_to_one_as_well_as_their_dtype_can_are_accepted(dtype):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(N, 3))
    for K in (3, 100):
        P = rng.dirichlet(np.ones(K), size=N).astype(dtype)
        SoftmaxClassifier(C=0.1).fit(X, P)


def test_columns_of_two_levels_are_an_error():
    pd = pytest.importorskip("pandas")
    X, _ = good()
    columns = pd.MultiIndex.from_tuples([("x", "a"), ("x", "b"), ("y", "a")])
    P = pd.DataFrame(np.full((N, 3), 1 / 3), columns=columns)
    with pytest.raises(ValueError, match="the columns of y name the classes and must have one level"):
        SoftmaxClassifier().fit(X, P)


def test_columns_of_one_name_are_an_error():
    pd = pytest.importorskip("pandas")
    X, _ = good()
    P = pd.DataFrame(np.full((N, 3), 1 / 3), columns=["a", "b", "a"])
    assert_rejected(
        SoftmaxClassifier, lambda m: m.fit(X, P), ValueError, "columns of y|[Uu]nique column names"
    )


# Weights -----------------------------------------------------------------------------------------------


BAD_WEIGHTS = {
    "negative": (changed(np.ones(N), 9, -1), "sample_weight must not be negative.*row 9"),
    "NaN": (changed(np.ones(N), 9, np.nan), "sample_weight contains NaN"),
    "infinity": (changed(np.ones(N), 9, np.inf), "sample_weight contains infinity"),
    "zero": (np.zeros(N), "sample_weight must not be all zero"),
    "too few": (np.ones(N - 1), r"sample_weight must have shape \(40,\)"),
    "2-D": (np.ones((N, 1)), r"sample_weight must have shape \(40,\).*\(40, 1\)"),
    "strings": (np.full(N, "a"), "sample_weight: could not convert"),
    "a negative number": (-1.0, "sample_weight must not be negative"),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_invalid_weights_are_errors_that_name_them(estimator, case):
    X, y = good()
    weight, message = BAD_WEIGHTS[case]
    assert_rejected(estimator, lambda model: model.fit(X, y, weight), ValueError, message)
    if case != "strings":
        message = message.replace("sample_weight", "sample_weight_val")
        assert_rejected(
            estimator,
            lambda model: model.fit(X, y, X_val=X, y_val=y, sample_weight_val=weight),
            ValueError,
            message,
        )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_weights_beyond_float32_are_an_error_there(estimator):
    X, y = good()
    X = X.astype(np.float32)
    for weight in (np.full(N, 1e300), np.full(N, 1e-300)):
        assert_rejected(
            estimator,
            lambda m, w=weight: m.fit(X, y, w),
            ValueError,
            "sample_weight is out of the range of float32",
        )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_class_that_only_weightless_rows_have_is_still_a_class(estimator):
    X, y = good()
    model = estimator().fit(X, y, (y != 1).astype(float))
    assert model.classes_.tolist() == [0, 1, 2]
    assert 1 not in model.predict(X)


BAD_CLASS_WEIGHTS = {
    "a name": ("balance", "class_weight"),
    "a number": (2.0, "class_weight"),
    "negative": ({0: -1.0}, "class_weight"),
    "NaN": ({0: np.nan}, "class_weight"),
    "a string": ({0: "a"}, "class_weight"),
    "all zero": ({0: 0, 1: 0, 2: 0}, "class_weight"),
    "infinite": ({0: np.inf}, "class_weight"),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("case", BAD_CLASS_WEIGHTS)
def test_invalid_class_weights_are_errors_that_name_them(estimator, case):
    X, y = good()
    value, message = BAD_CLASS_WEIGHTS[case]
    for target in (y, np.eye(3)[y], y > 0):
        model = estimator(class_weight=value)
        with pytest.raises((ValueError, TypeError), match=message):
            model.fit(X, target)
        assert not hasattr(model, "coef_")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_class_weights_of_absent_labels_are_ignored_as_in_scikit_learn_unless_one_is_missing(estimator):
    X, y = good()
    weights = {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}
    model = estimator(class_weight=weights).fit(X, y)
    reference = estimator(class_weight={0: 1.0, 1: 2.0, 2: 3.0}).fit(X, y)
    np.testing.assert_array_equal(model.coef_, reference.coef_)
    with pytest.raises(ValueError, match="class_weight"):
        estimator(class_weight={"0": 1.0}).fit(X, y)


# Parameters --------------------------------------------------------------------------------------------


BAD_PARAMETERS = [
    *[("C", value) for value in (0, -1.0, np.nan, "1", None, True)],
    *[("tol", value) for value in (-1e-4, np.nan, "1", None)],
    *[("max_iter", value) for value in (-1, 1.5, "10", None, True, np.nan)],
    *[("l1_ratio", value) for value in (-0.1, 1.1, "0", None, np.nan)],
    *[("dual", value) for value in (True, "no", None)],
    *[("fit_intercept", value) for value in ("yes", 2, None)],
    *[("warm_start", value) for value in ("yes", 2, None)],
    *[("verbose", value) for value in ("loud", 0.5, None, -1)],
    *[("n_threads", value) for value in (0, 1.5, "2", True)],
    *[("label_smoothing", value) for value in (-0.1, 1, 1.5, np.nan, "0", None)],
    *[("solver", value) for value in ("liblinear", "saga", "newton", None, 3)],
    *[("loss", value) for value in ("logloss", "gamma", None, 3, losses.LogLoss, losses.Gamma())],
    *[("loss", value) for value in ("root_mean_squared_error", losses.RootMeanSquaredError())],
    ("intercept_scaling", 2.0),
]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize(("name", "value"), BAD_PARAMETERS)
def test_invalid_parameters_are_errors_that_name_them(estimator, name, value):
    X, y = good()
    fitted = estimator().fit(X, y)
    before = state(fitted)
    fitted.set_params(**{name: value})
    message = re.escape(name) if name != "loss" else "loss|Loss"
    with pytest.raises((ValueError, TypeError), match=message):
        fitted.fit(X, y)
    fitted.set_params(**{name: getattr(estimator(), name)})
    assert_unchanged(fitted, before)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_unknown_loss_or_solver_lists_the_known_ones(estimator):
    X, y = good()
    with pytest.raises(ValueError, match=r"'nope'.*log_loss|log_loss.*'nope'") as caught:
        estimator(loss="nope").fit(X, y)
    assert "cross_entropy" in str(caught.value)
    with pytest.raises(ValueError, match=r"solver.*'newton-cholesky'.*'lbfgs'.*'nope'"):
        estimator(solver="nope").fit(X, y)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_label_smoothing_in_two_places_must_agree(estimator):
    X, y = good()
    loss = (losses.LogLoss if estimator is LogisticClassifier else losses.CrossEntropy)(label_smoothing=0.1)
    estimator(loss=loss, label_smoothing=0.1).fit(X, y)
    with pytest.raises(ValueError, match="label_smoothing"):
        estimator(loss=loss, label_smoothing=0.2).fit(X, y)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_numpy_scalars_are_good_parameters(estimator):
    X, y = good()
    model = estimator(
        C=np.float32(1),
        tol=np.float64(1e-4),
        max_iter=np.int64(100),
        fit_intercept=np.True_,
        warm_start=np.False_,
        l1_ratio=np.float64(0),
        n_threads=np.int32(2),
        label_smoothing=np.float32(0),
    )
    np.testing.assert_array_equal(model.fit(X, y).coef_, estimator().fit(X, y).coef_)


# Validation sets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_invalid_validation_sets_are_errors_that_name_them(estimator):
    X, y = good()
    cases = [
        ({"X_val": X}, "X_val is given without y_val"),
        ({"y_val": y}, "y_val is given without X_val"),
        ({"sample_weight_val": np.ones(N)}, "sample_weight_val is given without X_val"),
        ({"X_val": X[:, :2], "y_val": y}, "X_val.*2 features"),
        ({"X_val": changed(X, (0, 0), np.nan), "y_val": y}, "X_val.*NaN"),
        ({"X_val": X, "y_val": y[:-1]}, "X_val and y_val .*40 and 39"),
        ({"X_val": X, "y_val": y + 1}, r"y_val contains labels that are not among the classes: \[3\]"),
        ({"X_val": X, "y_val": np.array(["a", "b"])[y % 2]}, "y_val"),
        ({"X_val": X, "y_val": changed(y, 3, np.nan)}, "y_val contains NaN"),
        ({"X_val": X[:0], "y_val": y[:0]}, "X_val.*0 sample"),
        ({"X_val": X, "y_val": np.full((N, 4), 0.25)}, "y_val"),
    ]
    for arguments, message in cases:
        assert_rejected(estimator, lambda m, a=arguments: m.fit(X, y, **a), ValueError, message)


def test_a_validation_target_of_another_kind_is_an_error():
    X, y = good()
    with pytest.raises(ValueError, match="y_val"):
        LogisticClassifier().fit(X, y, X_val=X, y_val=np.eye(3)[y])
    with pytest.raises(ValueError, match="y_val"):
        LogisticClassifier().fit(X, y, X_val=X, y_val=y / 2.5)
    with pytest.raises(ValueError, match="y_val"):
        LogisticClassifier().fit(X, np.eye(3)[y], X_val=X, y_val=y)
    with pytest.raises(ValueError, match="y_val"):
        SoftmaxClassifier().fit(X, y, X_val=X, y_val=y / 2.5)


# Scores ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_invalid_targets_of_score_are_errors(estimator):
    X, y = good()
    model = estimator().fit(X, y)
    with pytest.raises(ValueError, match="inconsistent|same number"):
        model.score(X, y[:-1])
    with pytest.raises(ValueError, match="y has 4 columns"):
        model.score(X, np.full((N, 4), 0.25))
    with pytest.raises(ValueError, match="NaN"):
        model.score(X, changed(y, 0, np.nan))


def test_hard_labels_are_what_predict_would_say():
    assert hard_labels(np.array([0.2, 0.7]), "binary", np.array([0, 1])).tolist() == [0, 1]
    assert hard_labels(np.array([[0.2, 0.8], [0.7, 0.3]]), "softmax", np.array(["a", "b"])).tolist() == [
        "b",
        "a",
    ]
    assert hard_labels(np.array([[0.2, 0.8], [0.7, 0.6]]), "multilabel", np.arange(2)).tolist() == [
        [0, 1],
        [1, 1],
    ]
    assert hard_labels(["x", "y"], "binary", np.array(["x", "y"])).tolist() == ["x", "y"]


# An interrupt ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["newton-cholesky", "newton-cg", "lbfgs"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_interrupt_inside_a_fit_leaves_the_estimator_and_blas_as_they_were(estimator, solver, monkeypatch):
    X, y = good()
    model = estimator(solver=solver).fit(X, y)
    before, proba = state(model), model.predict_proba(X)
    threads = [library["num_threads"] for library in threadpoolctl.threadpool_info()]
    printed = []

    def interrupt(*line):
        printed.append(line)
        if len(printed) == 2:
            _thread.interrupt_main()

    model.set_params(verbose=1, C=100.0)
    monkeypatch.setattr("builtins.print", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X[:, :2], y)
    monkeypatch.undo()
    assert len(printed) < 10
    model.set_params(verbose=0, C=1.0)
    assert_unchanged(model, before)
    np.testing.assert_array_equal(model.predict_proba(X), proba)
    assert [library["num_threads"] for library in threadpoolctl.threadpool_info()] == threads


# Regression targets ------------------------------------------------------------------------------------


def any_estimator():
    return LogisticClassifier()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_regression_targets_get_the_dtype_of_X_and_two_dimensions(dtype):
    X, y = good()
    data = check_data(any_estimator(), X.astype(dtype), y, np.arange(N), SQUARED_TARGETS)
    assert data.values.shape == (N, 1)
    assert data.X.dtype == data.values.dtype == data.weight.dtype == data.dtype == dtype
    assert data.values.flags.c_contiguous
    assert data.y.ndim == 1
    columns = np.asfortranarray(np.column_stack([y, -y]))
    two = check_data(any_estimator(), X.astype(dtype), columns, None, SQUARED_TARGETS)
    assert two.values.shape == two.y.shape == (N, 2)
    assert two.outputs == 2
    assert two.values.flags.c_contiguous
    assert two.weight is None


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (changed(np.zeros(N), 3, np.nan), "y contains NaN"),
        (changed(np.zeros(N), 3, np.inf), "y contains infinity"),
        (np.zeros(N - 1), "y .*40 and 39"),
        (np.full(N, "a"), "y must be numeric"),
        (None, "y"),
        (np.zeros((N, 2, 2)), "y must be 1-D or 2-D"),
        (np.full(N, 1e300), "y is out of the range of float32"),
    ],
)
def test_invalid_regression_targets_are_errors_that_name_them(y, message):
    X, _ = good()
    with pytest.raises(ValueError, match=message):
        check_data(any_estimator(), X.astype(np.float32), y, None, SQUARED_TARGETS)


def test_validation_sets_are_held_to_the_training_set():
    X, y = good()
    estimator = any_estimator()
    data = check_data(estimator, X, y, None, SQUARED_TARGETS)

    def validation(X_val, y_val, weight=None):
        return check_validation_data(estimator, X_val, y_val, weight, SQUARED_TARGETS, data)

    assert validation(None, None) is None
    held = validation(X[:5], y[:5], np.ones(5))
    assert held.values.shape == (5, 1)
    assert held.origin is data.origin
    with pytest.raises(ValueError, match="X_val.*2 features"):
        validation(X[:, :2], y)
    with pytest.raises(ValueError, match="y_val contains NaN"):
        validation(X, changed(y, 3, np.nan))
    with pytest.raises(ValueError, match="sample_weight_val must not be negative"):
        validation(X, y, -np.ones(N))


def test_a_validation_set_of_a_regression_has_as_many_outputs_as_the_training_set():
    X, y = good()
    with pytest.raises(ValueError, match="y_val has 2 outputs, y has 1"):
        MLPRegressor().fit(X, y, X_val=X, y_val=np.stack([y, y], axis=1))


@pytest.mark.parametrize("container", [np.asarray, np.asfortranarray, scipy.sparse.csr_array])
def test_some_rows_of_a_dataset_keep_their_targets_and_weights(container):
    rng = np.random.default_rng(0)
    X, values, weight = rng.normal(size=(N, 3)), rng.normal(size=(N, 2)), rng.random(N)
    data = Dataset(container(X), values, None, weight, 2)
    for part, rows in ((data.take(np.array([5, 2, 5])), [5, 2, 5]), (data.every(7), slice(None, None, 7))):
        found = part.X.toarray() if scipy.sparse.issparse(part.X) else part.X
        np.testing.assert_array_equal(found, X[rows])
        np.testing.assert_array_equal(part.values, values[rows])
        np.testing.assert_array_equal(part.weight, weight[rows])
        assert part.outputs == 2
        assert part.codes is None


def test_a_number_is_a_weight_for_every_row():
    assert check_weight(2, 3, np.float32).tolist() == [2, 2, 2]
    assert check_weight(2, 3, np.float32).dtype == np.float32
    assert check_weight(None, 3, np.float32) is None


@pytest.mark.parametrize("spoil", ["index", "pointer"])
@pytest.mark.parametrize(
    "model",
    [
        LogisticClassifier(solver="newton-cholesky"),
        LogisticClassifier(solver="newton-cg"),
        LogisticClassifier(solver="lbfgs"),
        MLPClassifier(hidden_layer_sizes=4, max_iter=1),
        MLPClassifier(hidden_layer_sizes=4, max_iter=1, solver="lbfgs"),
    ],
    ids=lambda model: f"{type(model).__name__}-{model.solver}",
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_sparse_matrix_that_points_outside_itself_is_an_error(model, spoil):
    X = scipy.sparse.csr_matrix((np.ones(4), [0, 1, 2, 0], [0, 1, 2, 3, 4]), shape=(4, 3))
    model = clone(model).fit(X, [0, 1, 0, 1])
    if spoil == "index":
        X.indices[3] = 20_000_000
    else:
        X.indptr[2] = 50_000_000
    with pytest.raises(ValueError, match="ind"):
        clone(model).fit(X, [0, 1, 0, 1])
    with pytest.raises(ValueError, match="ind"):
        model.predict(X)


def test_weights_whose_sum_overflows_and_numbers_beyond_floats_are_named():
    X, y = np.arange(8.0).reshape(4, 2), [0, 1, 0, 1]
    with pytest.raises(ValueError, match="the sum of sample_weight is not finite"):
        LogisticClassifier().fit(X, y, np.full(4, 1.7e308))
    with pytest.raises(ValueError, match="C is out of the range"):
        LogisticClassifier(C=10**400).fit(X, y)


def test_a_row_of_soft_labels_with_nan_is_named():
    P = np.full((4, 3), 1 / 3)
    P[2, 1] = np.nan
    with pytest.raises(ValueError, match="row 2"):
        SoftmaxClassifier().fit(np.arange(8.0).reshape(4, 2), P)


# Labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, 2],
        [-5, 3, 7],
        [10, 11],
        [0, 10**9],
        [-(2**62), 2**62],
        [2.0, -3.0, 5.0],
        [True, False],
        [254, 255],
    ],
)
@pytest.mark.parametrize("dtype", [None, np.float32, np.uint8, np.int16])
def test_integer_labels_are_coded_as_numpy_does(labels, dtype, rng):
    y = np.array(labels)
    if dtype is not None:
        with np.errstate(all="ignore"):
            y = y.astype(dtype)
        if len(np.unique(y)) < len(labels):
            dtype = None
            y = np.array(labels)
    y = y[np.concatenate([np.arange(len(y)), rng.integers(0, len(y), 60)])]
    model = SoftmaxClassifier(max_iter=0).fit(rng.normal(size=(len(y), 2)), y)
    expected = np.unique(y)
    assert model.classes_.dtype == expected.dtype
    np.testing.assert_array_equal(model.classes_, expected)
    assert set(model.predict(rng.normal(size=(5, 2)))) <= set(expected)


def shuffled(X, rng):
    """The same CSR matrix, the numbers of each row in another order."""
    order = np.concatenate([a + rng.permutation(b - a) for a, b in zip(X.indptr[:-1], X.indptr[1:])])
    return scipy.sparse.csr_array((X.data[order], X.indices[order], X.indptr.copy()), X.shape)


@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_rows_that_are_not_sorted_are_used_as_they_are_and_repeated_entries_summed_in_a_copy(index, rng):
    X = shuffled(scipy.sparse.random(50, 30, density=0.2, format="csr", random_state=0), rng)
    X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
    assert not X.has_sorted_indices
    assert usable_layout(X) is X
    Y = X.copy()
    row = np.argmax(np.diff(Y.indptr))
    Y.indices[Y.indptr[row]] = Y.indices[Y.indptr[row + 1] - 1]
    expected, before = Y.toarray(), Y.indices.copy()
    Z = usable_layout(Y)
    np.testing.assert_array_equal(Z.toarray(), expected)
    assert Z.nnz == Y.nnz - 1
    np.testing.assert_array_equal(Y.indices, before)


@pytest.mark.parametrize("make", [LogisticClassifier, SoftmaxClassifier])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"solver": "newton-cholesky"},
        {"solver": "newton-cg"},
        {"solver": "sgd", "random_state": 0, "max_iter": 5},
        {"l1_ratio": 1.0, "C": 0.3},
        {"l1_ratio": 0.5, "C": 3.0},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_order_of_the_numbers_in_a_sparse_row_does_not_matter(make, options, rng):
    X = scipy.sparse.random(400, 60, density=0.15, format="csr", random_state=0)
    y = np.argmax(X[:, :4] @ rng.normal(size=(4, 3)) * 3 + rng.gumbel(size=(400, 3)), axis=1)
    one, other = (make(**options).fit(rows, y) for rows in (X, shuffled(X, rng)))
    assert other.loss_ == pytest.approx(one.loss_, rel=1e-9)
    np.testing.assert_allclose(other.predict_proba(X), one.predict_proba(X), atol=1e-4)
