"""scikit-learn's own checks, with none expected to fail."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import sklloss

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
    sklloss.MLPRegressor(),
    sklloss.MLPRegressor(solver="sgd", learning_rate_init=0.01),
    sklloss.MLPRegressor(solver="lbfgs"),
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
    check(estimator)
