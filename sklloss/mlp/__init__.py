"""The neural networks, and the search for their learning rate."""

from sklloss.mlp.estimators import MLPClassifier, MLPRegressor
from sklloss.mlp.learning_rate import LearningRateFinderDisplay, find_learning_rate

__all__ = ["LearningRateFinderDisplay", "MLPClassifier", "MLPRegressor", "find_learning_rate"]
