"""Cython-accelerated, scikit-learn-style estimators built on exact, fast losses."""

from sklloss import losses, metrics, model_selection
from sklloss._version import __version__, show_versions
from sklloss.linear import (
    LinearRegressor,
    LinearRegressorCV,
    LogisticClassifier,
    LogisticClassifierCV,
    SoftmaxClassifier,
    SoftmaxClassifierCV,
)
from sklloss.mlp import LearningRateFinderDisplay, MLPClassifier, MLPRegressor, find_learning_rate

__all__ = [
    "LearningRateFinderDisplay",
    "LinearRegressor",
    "LinearRegressorCV",
    "LogisticClassifier",
    "LogisticClassifierCV",
    "MLPClassifier",
    "MLPRegressor",
    "SoftmaxClassifier",
    "SoftmaxClassifierCV",
    "__version__",
    "find_learning_rate",
    "losses",
    "metrics",
    "model_selection",
    "show_versions",
]
