"""The linear estimators."""

from sklloss.linear.classifiers import LogisticClassifier, SoftmaxClassifier
from sklloss.linear.cross_validation import LogisticClassifierCV, SoftmaxClassifierCV

__all__ = ["LogisticClassifier", "LogisticClassifierCV", "SoftmaxClassifier", "SoftmaxClassifierCV"]
