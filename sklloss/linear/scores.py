"""Scores of the models of a fold, by any scorer, with fast paths for the accuracy and the log loss.

scikit-learn's scorers check their arguments, which takes a few milliseconds: most of the time of a path on
small data. The two here give the same values from rows that are checked, and targets coded, once per fold.
"""

import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import get_scorer
from sklearn.utils.multiclass import type_of_target

from sklloss.data import hard_labels
from sklloss.metrics import argmax_accuracy


def scorer_of(scoring: Any) -> Any:
    """The scorer that ``scoring`` is or names; for None the accuracy, which also takes soft targets."""
    if scoring is None:
        return argmax_accuracy
    if not isinstance(scoring, str) and not callable(scoring):
        raise TypeError(f"scoring must be one scorer, a name, a callable or None, got {scoring!r}")
    return get_scorer(scoring)


def fold_scorer(scoring: Any, y: NDArray[Any]) -> Callable[..., float]:
    """A scorer for the models of one fold."""
    if scoring is None:
        return _Accuracy()
    if isinstance(scoring, str) and y.ndim == 1 and type_of_target(y) != "continuous":
        if scoring == "accuracy":
            return _Accuracy()
        if scoring == "neg_log_loss":
            return _LogLoss()
    return _AnyScorer(scorer_of(scoring))


class _AnyScorer:
    """Any scorer, whose result must be a number."""

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer

    def __call__(self, model: Any, X: Any, y: Any, **params: Any) -> float:
        score = self._scorer(model, X, y, **params)
        if not isinstance(score, numbers.Real):
            raise TypeError(f"scoring must give a number, got {score!r} of type {type(score).__name__}")
        return score  # type: ignore[return-value]


class _Accuracy:
    def __init__(self) -> None:
        self._labels: NDArray[Any] | None = None

    def __call__(self, model: Any, X: Any, y: Any, sample_weight: NDArray[Any] | None = None) -> float:
        if self._labels is None:
            self._labels = hard_labels(y, model._kind, model.classes_)
        right = model._decide(model._raw(X)) == self._labels
        if right.ndim == 2:
            right = right.all(axis=1)
        return np.average(right, weights=sample_weight)


class _LogLoss:
    """The negated log loss; y may lack a class, and probabilities are clipped as in scikit-learn."""

    def __init__(self) -> None:
        self._codes: NDArray[np.intp] | None = None

    def __call__(self, model: Any, X: Any, y: Any, sample_weight: NDArray[Any] | None = None) -> float:
        if self._codes is None:
            self._codes = np.searchsorted(model.classes_, y)
        p = model._probabilities(model._raw(X))
        if p.shape[1] == 2:
            p[:, 0] = 1 - p[:, 1]
        p = p[np.arange(len(y)), self._codes]
        eps = np.finfo(p.dtype).eps
        return np.average(np.log(np.clip(p, eps, 1 - eps).astype(np.float64)), weights=sample_weight)
