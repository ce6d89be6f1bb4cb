"""Predictions of classifiers from raw scores: classes, probabilities, accuracy."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import ArrayLike
from scipy.special import log_expit, log_softmax, softmax
from sklearn.metrics import accuracy_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sklloss import losses
from sklloss.arrays.device import to_numpy
from sklloss.data.checks import Array, MatrixLike, check_same_device, check_X, on_host
from sklloss.data.targets import hard_labels


def has_probabilities(model) -> bool:
    """Whether the loss has probabilities; True for an invalid loss, for which `fit` raises an error."""
    try:
        loss = losses.get(model.loss)
    except (TypeError, ValueError):
        return True
    if not loss.has_probabilities:
        raise AttributeError(f"loss={model.loss!r} has no probabilities")
    return True


class ClassPredictions:
    """Mixin: predictions of a model whose `_raw` returns scores of shape (n, outputs), or (n,) if "binary".

    Predictions are arrays of the namespace and on the device of the scores.
    """

    # What the outputs are: see `sklloss.data.dataset.Labels`.
    _kind = None
    # The ``loss`` parameter if its inverse link returns the probabilities, else None.
    _link = None

    def decision_function(self, X: MatrixLike) -> Array:
        """Raw scores of each row.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) for two classes, else (n_samples, n_outputs)
            Positive scores favour ``classes_[1]``; with more outputs, the class or label of the output.
        """
        self._check_ready(X, "decision_function")
        return self._of_scores(lambda scores: scores, X)

    def _of_scores(self, function, X):
        """Apply a function of each row to the scores of X."""
        return function(self._raw(check_X(self, X, reset=False)))

    def _check_ready(self, X, method):
        """Raise if the model is not fitted, or if X is in another namespace or on another device."""
        check_is_fitted(self)
        if getattr(self, "_follows_arrays", False):
            check_same_device(self, X, self._model_array(), method)

    def predict(self, X: MatrixLike) -> Array:
        """The likeliest class of each row, or a 0/1 row of labels for a multi-label model.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        self._check_ready(X, "predict")
        return self._of_scores(self._decide, X)

    def _decide(self, scores):
        """The predictions of `predict` for these scores."""
        choice = self._choose(scores)
        if self._kind == "multilabel":
            return choice
        if type(choice) is np.ndarray:
            return self.classes_[choice]
        if type(self.classes_) is np.ndarray:
            # Only NumPy has arrays of strings and objects.
            return self.classes_[to_numpy(choice)]
        return array_namespace(choice).take(self.classes_, choice, axis=0)

    def _choose(self, scores):
        """The index of each row's class in ``classes_``, or its 0/1 row of labels."""
        middle = 0.0
        if self._link is not None:
            scores, middle = self._values(scores), 0.5
        xp = _namespace(scores)
        if self._kind == "multilabel" or scores.ndim == 1:
            above = scores > middle
            return above.astype(int) if xp is np else xp.astype(above, xp.int64)
        return xp.argmax(scores, axis=1)

    def _values(self, scores):
        """The inverse link of the scores z, or of (0, z) if the loss couples the outputs of two classes."""
        loss = losses.get(self._link)
        if self._kind == "binary" and not loss.separable:
            xp = _namespace(scores)
            scores = xp.stack([xp.zeros_like(scores), scores], axis=1)
        return loss.predict(scores)

    @available_if(has_probabilities)
    def predict_proba(self, X: MatrixLike) -> Array:
        """Probabilities of the classes. Only if the loss has probabilities (`Loss.has_probabilities`).

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples, n_labels) for a multi-label model
            The sigmoids or the softmax of the scores; for a loss with another inverse link, that link,
            clipped to [0, 1]. One-vs-rest probabilities are divided by their sum, so that rows sum to 1,
            except those of a multi-label model, whose labels are independent.
        """
        self._check_ready(X, "predict_proba")
        return self._of_scores(self._probabilities, X)

    def _probabilities(self, scores):
        """The probabilities of `predict_proba` for these scores."""
        xp = _namespace(scores)
        if self._link is not None:
            p = xp.clip(self._values(scores), 0.0, 1.0)
            if self._kind == "multilabel":
                return p
            if p.ndim == 1:
                return xp.stack([1.0 - p, p], axis=1)
            total = xp.sum(p, axis=1, keepdims=True)
            return xp.where(total > 0, p, 1.0) / xp.where(total > 0, total, float(p.shape[1]))
        sigmoid = losses.get("log_loss").predict
        if self._kind == "binary":
            return sigmoid(xp.stack([-scores, scores], axis=1))
        if self._kind == "multilabel":
            return sigmoid(scores)
        if self._kind == "softmax":
            return losses.get("cross_entropy").predict(scores)
        if xp is np:
            return softmax(log_expit(scores), axis=1)
        return losses.get("cross_entropy").predict(_log_sigmoid(xp, scores))

    @available_if(has_probabilities)
    def predict_log_proba(self, X: MatrixLike) -> Array:
        """Logarithms of `predict_proba`, finite even where a sigmoid or softmax rounds to 0.

        Only if the loss has probabilities (`Loss.has_probabilities`).

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of the shape of ``predict_proba(X)``
        """
        self._check_ready(X, "predict_log_proba")
        if self._link is not None:
            return log_of(self.predict_proba(X))
        return self._of_scores(self._log_probabilities, X)

    def _log_probabilities(self, scores):
        """The logarithms of `predict_log_proba`, for a loss without an inverse link of its own."""
        xp = _namespace(scores)

        def log_sigmoid(scores):
            return log_expit(scores) if xp is np else _log_sigmoid(xp, scores)

        if self._kind == "binary":
            return xp.stack([log_sigmoid(-scores), log_sigmoid(scores)], axis=1)
        if self._kind == "multilabel":
            return log_sigmoid(scores)
        scores = scores if self._kind == "softmax" else log_sigmoid(scores)
        return log_softmax(scores, axis=1) if xp is np else _log_softmax(xp, scores)

    def score(self, X: MatrixLike, y: MatrixLike, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy; probabilities in y count as the most likely class or labels.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
        y : array-like
            Targets of any kind that `fit` accepts. A multi-label row is correct if all of its labels are.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        float
        """
        check_is_fitted(self)
        return self._accuracy(self.predict(X), y, sample_weight)

    def _accuracy(self, predicted, y, sample_weight):
        """The share of y that equals the predictions."""
        labels = hard_labels(y, self._kind, self._labels())
        predicted = on_host(predicted, "y")
        weight = None if sample_weight is None else on_host(sample_weight, "sample_weight")
        return float(accuracy_score(labels, predicted, sample_weight=weight))

    def _labels(self):
        """``classes_`` as a NumPy array."""
        return on_host(self.classes_, "classes_")


def accuracy(predicted, correct, weight):
    """The weighted share of correct rows; a row of several labels is correct if all of them are."""
    right = predicted == correct
    return float(np.average(right if right.ndim == 1 else right.all(axis=1), weights=weight))


def log_of(p):
    """The logarithms of probabilities, minus infinity for 0."""
    with np.errstate(divide="ignore"):
        return _namespace(p).log(p)


def _namespace(array):
    return np if type(array) is np.ndarray else array_namespace(array)


def _log_sigmoid(xp, scores):
    """Compute -log(1 + exp(-z)), written as min(z, 0) - log1p(exp(-abs(z))) so that nothing overflows."""
    return xp.where(scores < 0, scores, 0.0) - xp.log1p(xp.exp(-xp.abs(scores)))


def _log_softmax(xp, scores):
    """Compute z - log(sum(exp(z))), shifted by the largest z so that nothing overflows."""
    top = xp.max(scores, axis=1, keepdims=True)
    scores = scores - top
    return scores - xp.log(xp.sum(xp.exp(scores), axis=1, keepdims=True))
