"""Scores of a fold's models: what any scorer says, and two that are counted without asking scikit-learn.

A scorer of scikit-learn takes a few milliseconds for its checks, and on small data that is most of a path.
Its accuracy and its log loss of labels are here as they are there, on rows checked and targets coded once.
"""

import numbers

import numpy as np
from sklearn.metrics import get_scorer
from sklearn.utils.multiclass import type_of_target

from sklloss.data import hard_labels
from sklloss.metrics import argmax_accuracy


def scorer_of(scoring):
    """The scorer that ``scoring`` names or is; by default the accuracy, of soft targets too."""
    if scoring is None:
        return argmax_accuracy
    if not isinstance(scoring, str) and not callable(scoring):
        raise TypeError(f"scoring must be one scorer, a name, a callable or None, got {scoring!r}")
    return get_scorer(scoring)


def fold_scorer(scoring, y):
    """A scorer for the models of one fold."""
    if scoring is None:
        return _Accuracy()
    if isinstance(scoring, str) and y.ndim == 1 and type_of_target(y) != "continuous":
        if scoring == "accuracy":
            return _Accuracy()
        if scoring == "neg_log_loss":
            return _LogLoss()
    return _Any(scorer_of(scoring))


class _Any:
    """Any scorer, whose answer must be a number."""

    def __init__(self, scorer):
        self._scorer = scorer

    def __call__(self, model, X, y, **params):
        score = self._scorer(model, X, y, **params)
        if not isinstance(score, numbers.Real):
            raise TypeError(f"scoring must give a number, got {score!r} of type {type(score).__name__}")
        return score


class _Accuracy:
    def __init__(self):
        self._labels = None

    def __call__(self, model, X, y, sample_weight=None):
        if self._labels is None:
            self._labels = hard_labels(y, model._kind, model.classes_)
        right = model._decide(model._raw(X)) == self._labels
        if right.ndim == 2:
            right = right.all(axis=1)
        return np.average(right, weights=sample_weight)


class _LogLoss:
    """Of labels, which may lack a class; probabilities are rounded and clipped as scikit-learn does."""

    def __init__(self):
        self._codes = None

    def __call__(self, model, X, y, sample_weight=None):
        if self._codes is None:
            self._codes = np.searchsorted(model.classes_, y)
        p = model._probabilities(model._raw(X))
        if p.shape[1] == 2:
            p[:, 0] = 1 - p[:, 1]
        p = p[np.arange(len(y)), self._codes]
        eps = np.finfo(p.dtype).eps
        return np.average(np.log(np.clip(p, eps, 1 - eps).astype(np.float64)), weights=sample_weight)
