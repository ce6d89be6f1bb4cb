"""Metrics on arrays: targets of any kind against predicted probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score
from sklearn.utils import check_consistent_length

from sklloss.data.checks import MatrixLike, check_weight
from sklloss.data.targets import hard_labels
from sklloss.metrics import _rows


def cross_entropy_loss(
    y_true: MatrixLike,
    y_prob: MatrixLike,
    *,
    sample_weight: ArrayLike | None = None,
    classes: ArrayLike | None = None,
) -> float:
    """Cross-entropy of predicted class probabilities, base e: the mean of ``-sum_k y_k log p_k``.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_classes)
        Labels; class probabilities, in the order of ``y_prob``'s columns or, in a DataFrame, by name; or
        probabilities (n_samples,) of the second of two classes.
    y_prob : array-like of shape (n_samples, n_classes), or (n_samples,) for two classes
        Predicted probabilities, each row summing to 1; those of the second of two classes if 1-D.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.
    classes : array-like of shape (n_classes,), default=None
        The class of each column of ``y_prob``, sorted, as an estimator's ``classes_`` are. By default the
        column names of ``y_prob``, those of ``y_true``, or the labels in ``y_true``, sorted too.

    Returns
    -------
    float
        Infinite if the predicted probability of a true class is 0.

    Raises
    ------
    ValueError
        If a row does not hold class probabilities, or a label is not one of the classes.

    See Also
    --------
    sklloss.losses.CrossEntropy : The same from logits, where probabilities cannot round to 0.

    Examples
    --------
    >>> from sklloss.metrics import cross_entropy_loss
    >>> round(cross_entropy_loss(["a", "b"], [[0.8, 0.2], [0.5, 0.5]]), 4)
    0.4581
    >>> round(cross_entropy_loss([[1.0, 0.0], [0.5, 0.5]], [[0.8, 0.2], [0.5, 0.5]]), 4)
    0.4581
    """
    prob, known = _rows.class_probabilities(y_true, y_prob, classes)
    y = _rows.class_target(y_true, known, len(prob))
    return _rows.mean(_rows.cross_entropy(y, _rows.log(prob)), sample_weight)


def kl_divergence_loss(
    y_true: MatrixLike,
    y_prob: MatrixLike,
    *,
    sample_weight: ArrayLike | None = None,
    classes: ArrayLike | None = None,
) -> float:
    """Kullback-Leibler divergence from predicted to true class probabilities, base e.

    The mean of ``sum_k y_k log(y_k / p_k)``: the cross-entropy minus the entropy of y, so that a perfect
    prediction scores 0. For hard labels it equals the cross-entropy.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_classes)
        As in `cross_entropy_loss`.
    y_prob : array-like of shape (n_samples, n_classes), or (n_samples,) for two classes
        As in `cross_entropy_loss`.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.
    classes : array-like of shape (n_classes,), default=None
        As in `cross_entropy_loss`.

    Returns
    -------
    float

    Examples
    --------
    >>> from sklloss.metrics import kl_divergence_loss
    >>> kl_divergence_loss([[0.8, 0.2], [0.5, 0.5]], [[0.8, 0.2], [0.5, 0.5]])
    0.0
    """
    prob, known = _rows.class_probabilities(y_true, y_prob, classes)
    y = _rows.class_target(y_true, known, len(prob))
    return _rows.mean(_rows.kl_divergence(y, _rows.log(prob)), sample_weight)


def log_loss(
    y_true: MatrixLike,
    y_prob: MatrixLike,
    *,
    sample_weight: ArrayLike | None = None,
    classes: ArrayLike | None = None,
) -> float:
    """Log loss of independent labels: the mean over rows of the sum over labels.

    A label costs ``-y log p - (1 - y) log(1 - p)``. For K exclusive classes use `cross_entropy_loss`, which
    is the same for two.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_labels)
        Labels of two classes or probabilities of the second (n_samples,); or a row of zeros and ones, or of
        probabilities, for each sample. A sparse indicator matrix is accepted as well.
    y_prob : array-like of the shape of ``y_true``, or (n_samples, 2) for two classes
        Predicted probabilities. The list that scikit-learn's multi-output classifiers return, with an
        (n_samples, 2) array for each label, is accepted as well.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.
    classes : array-like of shape (2,), default=None
        The two classes, sorted, for a ``y_true`` of shape (n_samples,); by default the labels in it.

    Returns
    -------
    float
        Infinite if the predicted probability of a true label is 0.

    See Also
    --------
    sklloss.losses.LogLoss : The same from logits, where probabilities cannot round to 0.

    Examples
    --------
    >>> from sklloss.metrics import log_loss
    >>> round(log_loss([[1, 0], [1, 1]], [[0.8, 0.5], [0.5, 0.5]]), 4)
    1.1513
    """
    if _rows.is_one_dimensional(y_true):
        prob, known = _rows.class_probabilities(y_true, y_prob, classes)
        _rows.check_two(known)
        y = _rows.class_target(y_true, known, len(prob))
        return _rows.mean(_rows.cross_entropy(y, _rows.log(prob)), sample_weight)
    one, zero = _rows.label_probabilities(y_prob)
    y = _rows.label_target(y_true, one.shape[1], len(one))
    return _rows.mean(_rows.log_loss(y, _rows.log(one), _rows.log(zero)), sample_weight)


def brier_score_loss(
    y_true: MatrixLike,
    y_prob: MatrixLike,
    *,
    sample_weight: ArrayLike | None = None,
    classes: ArrayLike | None = None,
) -> float:
    """Brier score: the mean over rows of the squared error of probabilities, summed over classes or labels.

    As in scikit-learn 1.7 and later, K > 2 classes cost ``sum_k (y_k - p_k)**2``, between 0 and 2, and two
    classes half of that, ``(y_1 - p_1)**2``, between 0 and 1. L independent labels cost ``sum_l (y_l -
    p_l)**2``, between 0 and L. Soft targets are compared as they are: a prediction
    that equals them scores 0.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_labels)
        As in `cross_entropy_loss` or, for independent labels, `log_loss`.
    y_prob : array-like of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_labels)
        Predicted probabilities: over classes if all rows sum to 1, else over labels.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.
    classes : array-like of shape (n_classes,), default=None
        As in `cross_entropy_loss`.

    Returns
    -------
    float

    Examples
    --------
    >>> from sklloss.metrics import brier_score_loss
    >>> round(brier_score_loss([0, 1], [[0.8, 0.2], [0.5, 0.5]]), 4)
    0.145
    """
    if _rows.is_one_dimensional(y_true) or _sums_to_one(y_prob):
        prob, known = _rows.class_probabilities(y_true, y_prob, classes)
        return _rows.mean(
            _rows.class_brier(_rows.class_target(y_true, known, len(prob)), prob), sample_weight
        )
    one, _ = _rows.label_probabilities(y_prob)
    return _rows.mean(_rows.brier(_rows.label_target(y_true, one.shape[1], len(one)), one), sample_weight)


def argmax_accuracy_score(
    y_true: MatrixLike,
    y_pred: MatrixLike,
    *,
    sample_weight: ArrayLike | None = None,
    classes: ArrayLike | None = None,
) -> float:
    """The fraction of rows whose predicted class, or whose every predicted label, is the most likely in y.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,), (n_samples, n_classes) or (n_samples, n_labels)
        Labels, or probabilities of any kind. Among equally likely classes the first counts. For
        probabilities (n_samples,), and for each label of a multi-label row, the second class counts above
        0.5.
    y_pred : array-like of shape (n_samples,) or (n_samples, n_labels)
        Predicted classes, or rows of 0/1 labels, as `predict` returns them.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.
    classes : array-like of shape (n_classes,), default=None
        The class of each column of ``y_true``, sorted; by default its column names, sorted, or 0 to
        n_classes - 1.

    Returns
    -------
    float

    Examples
    --------
    >>> from sklloss.metrics import argmax_accuracy_score
    >>> argmax_accuracy_score([[0.6, 0.4], [0.1, 0.9]], [0, 0])
    0.5
    """
    predicted = y_pred.toarray() if hasattr(y_pred, "toarray") else np.asarray(y_pred)
    weight = check_weight(sample_weight, len(predicted), np.float64)
    if predicted.ndim == 2 and predicted.shape[1] > 1:
        if not np.isin(predicted, (0, 1)).all():
            raise ValueError(
                "2-D predictions must be rows of 0/1 labels; multi-class multi-output is not supported"
            )
        labels = _rows.label_target(y_true, predicted.shape[1], len(predicted)) > 0.5
        return float(accuracy_score(labels.astype(int), predicted.astype(int), sample_weight=weight))
    check_consistent_length(y_true, predicted)
    targets: Any = y_true
    if not _rows.is_one_dimensional(y_true):
        if classes is None:
            names = _rows.column_names(y_true)
            classes = np.arange(np.shape(targets)[1]) if names is None else sorted(names)
        targets = hard_labels(y_true, "softmax", _rows.sorted_classes(classes))
    elif _rows.is_probability(y_true):
        known = _rows.sorted_classes([0, 1] if classes is None else classes)
        targets = known[_rows.class_target(y_true, known, len(predicted)).argmax(axis=1)]
    return float(accuracy_score(targets, predicted, sample_weight=weight))


def _sums_to_one(y_prob: MatrixLike) -> bool:
    """Whether all rows sum to 1 within float32 rounding: they are then over classes, not over labels."""
    if isinstance(y_prob, list) and np.ndim(y_prob[0]) == 2:
        return False
    return bool(np.all(np.abs(np.sum(np.asarray(y_prob, dtype=np.float64), axis=-1) - 1) < 1e-5))
