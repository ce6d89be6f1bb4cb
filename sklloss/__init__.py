"""Cython-accelerated, scikit-learn-style estimators built on exact, fast losses."""

from sklloss import losses
from sklloss._show_versions import show_versions
from sklloss.linear import LogisticClassifier, SoftmaxClassifier
from sklloss.mlp import MLPRegressor

__version__ = "0.1.0"

__all__ = ["LogisticClassifier", "MLPRegressor", "SoftmaxClassifier", "losses", "show_versions"]
