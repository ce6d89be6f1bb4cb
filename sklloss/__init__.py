"""Cython-accelerated, scikit-learn-style estimators built on exact, fast losses."""

from sklloss import losses
from sklloss._show_versions import show_versions
from sklloss.linear import LogisticClassifier, SoftmaxClassifier

__version__ = "0.1.0"

__all__ = ["LogisticClassifier", "SoftmaxClassifier", "losses", "show_versions"]
