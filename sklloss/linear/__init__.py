"""Linear classifiers."""

from sklloss.linear.classifiers import (
    LogisticClassifier,
    LogisticClassifierCV,
    SoftmaxClassifier,
    SoftmaxClassifierCV,
)

__all__ = ["LogisticClassifier", "LogisticClassifierCV", "SoftmaxClassifier", "SoftmaxClassifierCV"]
