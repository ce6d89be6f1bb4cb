"""Linear classifiers and regressors."""

from sklloss.linear.classifiers import (
    LogisticClassifier,
    LogisticClassifierCV,
    SoftmaxClassifier,
    SoftmaxClassifierCV,
)
from sklloss.linear.regressors import LinearRegressor

__all__ = ["LinearRegressor", "LogisticClassifier", "LogisticClassifierCV", "SoftmaxClassifier", "SoftmaxClassifierCV"]
