"""What a fitted classifier says of rows, given raw scores: classes, probabilities, accuracy."""

import numpy as np
from scipy.special import log_expit, log_softmax, softmax
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from sklloss import losses
from sklloss._intake import check_X, hard_labels


class ClassPredictions:
    """Mixin: predictions of a model whose `_raw` gives scores of shape (n, outputs), or (n,) if "binary"."""

    # what the outputs are: see ClassTarget
    _kind = None
    # the loss as it was given, if its inverse link makes the predictions
    _link = None

    def decision_function(self, X):
        """Raw scores of each row.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) for two classes, else (n_samples, n_outputs)
            Positive scores are for ``classes_[1]``; with more outputs, for the output's own class or label.
        """
        return self._of_scores(lambda scores: scores, X)

    def _of_scores(self, function, X):
        """What a function makes of the scores of rows, row by row."""
        check_is_fitted(self)
        return function(self._raw(check_X(self, X, reset=False)))

    def predict(self, X):
        """The likeliest class of each row, or a 0/1 row of labels for a multi-label model.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        return self._of_scores(self._decide, X)

    def _decide(self, scores):
        """What `predict` says of rows with these scores."""
        choice = self._choose(scores)
        return choice if self._kind == "multilabel" else self.classes_[choice]

    def _choose(self, scores):
        """The place of each row's class in ``classes_``, or its 0/1 row of labels."""
        middle = 0.0
        if self._link is not None:
            scores, middle = self._values(scores), 0.5
        if self._kind == "multilabel" or scores.ndim == 1:
            return (scores > middle).astype(int)
        return scores.argmax(axis=1)

    def _values(self, scores):
        """What the loss's inverse link makes of scores; of 0 and z, if it couples those of two classes."""
        loss = losses.get(self._link)
        if self._kind == "binary" and not loss.separable:
            scores = np.column_stack([np.zeros_like(scores), scores])
        return loss.predict(scores)

    def predict_proba(self, X):
        """Probabilities.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples, n_labels) for a multi-label model
            Rows sum to 1, except that a multi-label model's labels are independent. One-vs-rest
            probabilities are divided by their sum. They are sigmoids, or a softmax, of the scores, or
            for a loss with an inverse link of its own what that says, kept within [0, 1].
        """
        return self._of_scores(self._probabilities, X)

    def _probabilities(self, scores):
        """What `predict_proba` says of rows with these scores."""
        if self._link is not None:
            p = np.clip(self._values(scores), 0.0, 1.0)
            if self._kind == "multilabel":
                return p
            if p.ndim == 1:
                return np.column_stack([1.0 - p, p])
            total = p.sum(axis=1, keepdims=True)
            return np.where(total > 0, p, 1.0) / np.where(total > 0, total, p.shape[1])
        sigmoid = losses.LogLoss().predict
        if self._kind == "binary":
            return sigmoid(np.stack([-scores, scores], axis=1))
        if self._kind == "multilabel":
            return sigmoid(scores)
        if self._kind == "softmax":
            return losses.CrossEntropy().predict(scores)
        return softmax(log_expit(scores), axis=1)

    def predict_log_proba(self, X):
        """Logarithms of `predict_proba`, finite even where a sigmoid or softmax rounds to 0.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of the shape of ``predict_proba(X)``
        """
        if self._link is not None:
            with np.errstate(divide="ignore"):
                return np.log(self.predict_proba(X))
        return self._of_scores(self._log_probabilities, X)

    def _log_probabilities(self, scores):
        """What `predict_log_proba` says of rows with these scores, without a link of the loss's own."""
        if self._kind == "binary":
            return np.column_stack([log_expit(-scores), log_expit(scores)])
        if self._kind == "multilabel":
            return log_expit(scores)
        return log_softmax(scores if self._kind == "softmax" else log_expit(scores), axis=1)

    def score(self, X, y, sample_weight=None):
        """Accuracy. Probabilities in y count as the class (or labels) that they make likeliest.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
        y : array-like
            Targets of any kind that `fit` takes; multi-label rows must be right in every label.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        float
        """
        check_is_fitted(self)
        labels = hard_labels(y, self._kind, self.classes_)
        return float(accuracy_score(labels, self.predict(X), sample_weight=sample_weight))
