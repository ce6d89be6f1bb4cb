"""Linear classifiers and regressors."""

from sklloss.linear.classifiers import (
    LogisticClassifier,
    LogisticClassifierCV,
    SoftmaxClassifier,
    SoftmaxClassifierCV,
)
from sklloss.linear.regressor_cv import LinearRegressorCV
from sklloss.linear.regressors import LinearRegressor

__all__ = [
    "LinearRegressor",
    "LinearRegressorCV",
    "LogisticClassifier",
    "LogisticClassifierCV",
    "SoftmaxClassifier",
    "SoftmaxClassifierCV",
]
