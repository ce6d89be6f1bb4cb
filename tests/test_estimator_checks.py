"""scikit-learn's own checks, with none expected to fail."""

import functools

import pytest
import sklearn
from sklearn.utils.estimator_checks import check_array_api_input_and_values, parametrize_with_checks
from sklearn.utils.fixes import parse_version

import sklloss

# Older ones hold array-api-strict to the standard of 2023, in which `where` takes no numbers.
CURRENT_STANDARD = parse_version(sklearn.__version__) >= parse_version("1.8")

ESTIMATORS = [
    sklloss.LogisticClassifier(),
    sklloss.LogisticClassifier(solver="lbfgs", n_threads=2),
    sklloss.SoftmaxClassifier(),
    sklloss.SoftmaxClassifier(solver="lbfgs", n_threads=2),
    sklloss.SoftmaxClassifier(solver="newton-cg"),
    sklloss.LogisticClassifier(l1_ratio=1.0, C=10.0),
    sklloss.SoftmaxClassifier(l1_ratio=0.5),
    sklloss.LogisticClassifierCV(Cs=3),
    sklloss.SoftmaxClassifierCV(Cs=3, n_jobs=2),
    sklloss.SoftmaxClassifierCV(Cs=[0.1, 10], solver="lbfgs", scoring="neg_log_loss", refit=False),
    sklloss.LogisticClassifier(solver="sgd"),
    sklloss.LogisticClassifier(solver="adam"),
    sklloss.SoftmaxClassifier(solver="sgd"),
    sklloss.SoftmaxClassifier(solver="adam"),
    sklloss.LinearRegressor(),
    sklloss.LinearRegressor("poisson"),
    sklloss.LinearRegressor("huber", solver="lbfgs"),
    sklloss.LinearRegressor(l1_ratio=0.5, alpha=0.01),
    sklloss.LinearRegressor(solver="sgd"),
    sklloss.LinearRegressor("absolute_error"),
    sklloss.LinearRegressor("quantile", l1_ratio=1.0),
    sklloss.LinearRegressor(sklloss.losses.Quantile(0.9)),
    sklloss.LinearRegressorCV(alphas=3, cv=2),
    sklloss.MLPRegressor(),
    sklloss.MLPRegressor(solver="sgd", learning_rate_init=0.01),
    sklloss.MLPRegressor(solver="lbfgs"),
    sklloss.MLPRegressor(learning_rate="one-cycle", max_iter=100),
    sklloss.MLPClassifier(),
    sklloss.MLPClassifier(solver="adamw", activation="gelu", n_threads=2),
    sklloss.MLPClassifier(solver="sgd", learning_rate_init=0.01),
    # few steps, so that no probability underflows, whose logarithm a check takes
    sklloss.MLPClassifier(solver="lbfgs", max_iter=10),
    sklloss.MLPClassifier(output="sigmoid", loss="focal", label_smoothing=0.05),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_accepts_the_estimator(estimator, check):
    function = check.func if isinstance(check, functools.partial) else check
    if "array_api" in function.__name__ and not CURRENT_STANDARD:
        pytest.skip("this scikit-learn knows an older standard of the array API")
    check(estimator)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.skipif(not CURRENT_STANDARD, reason="this scikit-learn knows an older standard of the array API")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("namespace", "device"),
    [("torch", "cpu"), ("array_api_strict", "CPU_DEVICE"), ("array_api_strict", "device1")],
)
@pytest.mark.parametrize(
    "estimator",
    [
        sklloss.LogisticClassifier(),
        sklloss.LogisticClassifier(solver="lbfgs"),
        sklloss.SoftmaxClassifier(),
        sklloss.SoftmaxClassifier(solver="newton-cg"),
        sklloss.LinearRegressor(),
        sklloss.LinearRegressor("huber", solver="newton-cg"),
        sklloss.LinearRegressor("absolute_error"),
        sklloss.MLPRegressor(max_iter=20),
        sklloss.MLPClassifier(max_iter=20),
    ],
)
def test_scikit_learn_finds_the_numbers_of_numpy_in_other_namespaces(estimator, namespace, device, dtype):
    check_array_api_input_and_values(
        type(estimator).__name__, estimator, namespace, device_name=device, dtype_name=dtype
    )
