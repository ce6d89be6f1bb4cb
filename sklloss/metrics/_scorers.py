"""Scorers: metrics of an estimator's predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit
from sklearn import get_config
from sklearn.utils.metadata_routing import MetadataRequest
from sklearn.utils.validation import check_is_fitted

from sklloss.data.checks import MatrixLike
from sklloss.metrics import _functions

# score(estimator, X, y_true, sample_weight)
ScoreFunction: TypeAlias = Callable[[Any, Any, Any, Any], float]


class _Scorer:
    """A scorer, ``scorer(estimator, X, y_true, sample_weight=None)``: greater is better.

    It is immutable, so that all users of the module can share it, and equal to its copies and pickles.

    Parameters
    ----------
    name : str
        The scorer's name in this module.
    score : callable
        ``score(estimator, X, y_true, sample_weight)``.
    request : bool, str or None
        The metadata request for ``sample_weight``.
    """

    def __init__(self, name: str, score: ScoreFunction, request: bool | str | None = None) -> None:
        self._fields = (name, score, request)

    def __call__(
        self, estimator: Any, X: MatrixLike, y_true: MatrixLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Score a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            A fitted classifier, or a pipeline or search that ends in one.
        X : array-like, DataFrame or sparse matrix of shape (n_samples, n_features)
        y_true : array-like
            Hard or soft targets; see `sklloss.metrics`.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        float
        """
        return self._fields[1](estimator, X, y_true, sample_weight)

    def set_score_request(self, *, sample_weight: bool | str | None = None) -> _Scorer:
        """A copy of this scorer with a metadata request for ``sample_weight``.

        Unlike scikit-learn's scorers, which change in place, this one is shared by everything that imports
        it and stays unchanged: use the returned scorer.

        Parameters
        ----------
        sample_weight : bool, str or None
            True to request it, False to ignore it, None for an error if it is passed, or the name under
            which it is passed.

        Returns
        -------
        scorer
            With the request.
        """
        if not get_config()["enable_metadata_routing"]:
            raise RuntimeError(
                "set_score_request needs metadata routing: sklearn.set_config(enable_metadata_routing=True)"
            )
        name, score, _ = self._fields
        scorer = _Scorer(name, score, sample_weight)
        scorer.get_metadata_routing()  # raises for an invalid request
        return scorer

    def get_metadata_routing(self) -> MetadataRequest:
        """The metadata request for ``sample_weight``.

        Returns
        -------
        MetadataRequest
        """
        request = MetadataRequest(owner=repr(self))
        request.score.add_request(param="sample_weight", alias=self._fields[2])
        return request

    def _accept_sample_weight(self) -> bool:
        # GridSearchCV asks this of each scorer in a dict before it passes weights without routing.
        return True

    def __sklearn_clone__(self) -> _Scorer:
        return self

    def __eq__(self, other: object) -> bool:
        return self._fields == other._fields if isinstance(other, _Scorer) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._fields)

    def __repr__(self) -> str:
        name, _, request = self._fields
        return name if request is None else f"{name}.set_score_request(sample_weight={request!r})"


def _score_cross_entropy(estimator: Any, X: Any, y_true: Any, sample_weight: Any) -> float:
    return -_functions.weighted_mean(
        _functions.cross_entropy_rows(*_class_log_probabilities(estimator, X, y_true)), sample_weight
    )


def _score_kl_divergence(estimator: Any, X: Any, y_true: Any, sample_weight: Any) -> float:
    return -_functions.weighted_mean(
        _functions.kl_divergence_rows(*_class_log_probabilities(estimator, X, y_true)), sample_weight
    )


def _score_log_loss(estimator: Any, X: Any, y_true: Any, sample_weight: Any) -> float:
    if _functions.is_one_dimensional(y_true):
        _functions.check_two(len(_classes(estimator)))
        return _score_cross_entropy(estimator, X, y_true, sample_weight)
    one, zero = _label_log_probabilities(estimator, X)
    y = _functions.label_target(y_true, *one.shape)
    return -_functions.weighted_mean(_functions.log_loss_rows(y, one, zero), sample_weight)


def _score_brier(estimator: Any, X: Any, y_true: Any, sample_weight: Any) -> float:
    prob, _ = _predict(estimator, X, "predict_proba")
    # Only the shape of the predictions distinguishes two classes from two labels; the values of y do not.
    if _functions.is_one_dimensional(y_true) or not (
        isinstance(prob, list) or _predicts_labels(estimator, X)
    ):
        target, prob = _functions.over_classes(y_true, prob, _classes(estimator))
        rows = _functions.class_brier_rows(target, prob)
    else:
        one, _ = _functions.label_probabilities(prob, getattr(estimator, "classes_", None))
        rows = _functions.brier_rows(_functions.label_target(y_true, *one.shape), one)
    return -_functions.weighted_mean(rows, sample_weight)


def _score_argmax(estimator: Any, X: Any, y_true: Any, sample_weight: Any) -> float:
    y_pred, _ = _predict(estimator, X, "predict")
    classes = _classes(estimator) if len(np.shape(y_pred)) == 1 else None
    return _functions.argmax_accuracy_score(y_true, y_pred, sample_weight=sample_weight, classes=classes)


neg_cross_entropy: _Scorer = _Scorer("neg_cross_entropy", _score_cross_entropy)
neg_kl_divergence: _Scorer = _Scorer("neg_kl_divergence", _score_kl_divergence)
neg_log_loss: _Scorer = _Scorer("neg_log_loss", _score_log_loss)
neg_brier_score: _Scorer = _Scorer("neg_brier_score", _score_brier)
argmax_accuracy: _Scorer = _Scorer("argmax_accuracy", _score_argmax)


# Predictions of estimators --------------------------------------------------------------------------------


def _predict(estimator: Any, X: Any, *methods: str) -> tuple[Any, str]:
    """The result of the first of the methods that the estimator has, and that method's name."""
    for method in methods:
        predict = getattr(estimator, method, None)
        if predict is not None:
            # log(0) is a valid result here, not an error.
            with np.errstate(divide="ignore"):
                return predict(X), method
    raise TypeError(
        f"this scorer needs {' or '.join(methods)}, which {type(estimator).__name__} does not have"
    )


def _classes(estimator: Any) -> NDArray[Any]:
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        check_is_fitted(estimator)
        raise TypeError(f"this scorer needs classes_, which {type(estimator).__name__} does not have")
    if isinstance(classes, list):
        raise ValueError(
            f"{type(estimator).__name__} predicts several outputs, not one class: for rows of 0/1 labels "
            "use neg_log_loss, neg_brier_score or argmax_accuracy with a y of shape (n, L)"
        )
    return _functions.sorted_classes(classes)


def _predicts_labels(estimator: Any, X: Any) -> bool:
    return len(np.shape(_predict(estimator, X, "predict")[0])) == 2


def _class_log_probabilities(estimator: Any, X: Any, y_true: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """The target (n, K) and the logarithms of its predicted probabilities."""
    classes = _classes(estimator)
    values, method = _predict(estimator, X, "predict_log_proba", "predict_proba")
    values = np.asarray(values, dtype=np.float64)
    prob = np.exp(values) if method == "predict_log_proba" else values
    _functions.check_unit_interval(prob)
    _functions.check_sums(prob)
    _functions.check_columns(prob, classes)
    log_prob = values if method == "predict_log_proba" else _functions.log(values)
    return _functions.class_target(y_true, classes, len(prob)), log_prob


def _label_log_probabilities(estimator: Any, X: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Log P(1) and log P(0) of independent labels, each (n, L)."""
    values, method = _predict(estimator, X, "predict_log_proba", "predict_proba")
    classes: Any = getattr(estimator, "classes_", None)
    if method == "predict_proba":
        one, zero = _functions.label_probabilities(values, classes)
        return _functions.log(one), _functions.log(zero)
    if isinstance(values, list):
        pairs = [_functions.label_pair(logs, c, -np.inf) for logs, c in zip(values, classes)]
        one, zero = (np.column_stack(columns) for columns in zip(*pairs))
        _functions.check_unit_interval(np.exp(one))
        return one, zero
    values = np.asarray(values)
    one = values.astype(np.float64)
    _functions.check_unit_interval(np.exp(one))
    with np.errstate(divide="ignore"):
        zero = np.log(-np.expm1(np.minimum(one, 0.0)))
    # For a large logit, log P(1) = -exp(-logit): where that underflows, it no longer determines log P(0) =
    # -logit.
    lost = values > -np.finfo(values.dtype).smallest_normal / np.finfo(values.dtype).eps
    logits = _logits(estimator, X, one) if lost.any() else None
    if logits is not None:
        zero[lost] = log_expit(-logits[lost])
    return one, zero


def _logits(estimator: Any, X: Any, log_one: NDArray[Any]) -> NDArray[Any] | None:
    """The decision function in float64 if it holds the logits of the probabilities, else None."""
    if not hasattr(estimator, "decision_function"):
        return None
    logits = np.asarray(estimator.decision_function(X), dtype=np.float64)
    if logits.shape != log_one.shape or not np.allclose(
        np.exp(log_one), np.exp(log_expit(logits)), rtol=1e-5
    ):
        return None
    return logits
