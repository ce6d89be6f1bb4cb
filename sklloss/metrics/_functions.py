"""Metrics on arrays: targets of any kind against predicted probabilities, checked and row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import accuracy_score
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.multiclass import type_of_target

from sklloss.data.checks import MatrixLike, check_weight
from sklloss.data.dataset import Dataset
from sklloss.data.targets import code_classes, hard_labels

# The largest accepted distance from 1 of the sum of a row of predicted class probabilities.
SUM_TOLERANCE = 1e-3
# By how much rounding may raise a probability, such as an average of several, above 1.
ROUNDING = 1e-6


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
    y, prob = over_classes(y_true, y_prob, classes)
    return weighted_mean(cross_entropy_rows(y, log(prob)), sample_weight)


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
    y, prob = over_classes(y_true, y_prob, classes)
    return weighted_mean(kl_divergence_rows(y, log(prob)), sample_weight)


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
    if is_one_dimensional(y_true):
        prob, known = class_probabilities(y_true, y_prob, classes)
        check_two(len(known))
        y = class_target(y_true, known, len(prob))
        return weighted_mean(cross_entropy_rows(y, log(prob)), sample_weight)
    one, zero = label_probabilities(y_prob)
    return weighted_mean(log_loss_rows(label_target(y_true, *one.shape), log(one), log(zero)), sample_weight)


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
    if is_one_dimensional(y_true) or _sums_to_one(y_prob):
        return weighted_mean(class_brier_rows(*over_classes(y_true, y_prob, classes)), sample_weight)
    one, _ = label_probabilities(y_prob)
    return weighted_mean(brier_rows(label_target(y_true, *one.shape), one), sample_weight)


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
        labels = label_target(y_true, *predicted.shape) > 0.5
        return float(accuracy_score(labels.astype(int), predicted.astype(int), sample_weight=weight))
    check_consistent_length(y_true, predicted)
    targets: Any = y_true
    if not is_one_dimensional(y_true):
        if classes is None:
            names = column_names(y_true)
            classes = np.arange(np.shape(targets)[1]) if names is None else sorted(names)
        targets = hard_labels(y_true, "softmax", sorted_classes(classes))
    elif is_probability(y_true):
        known = sorted_classes([0, 1] if classes is None else classes)
        targets = known[class_target(y_true, known, len(predicted)).argmax(axis=1)]
    return float(accuracy_score(targets, predicted, sample_weight=weight))


def _sums_to_one(y_prob: MatrixLike) -> bool:
    """Whether all rows sum to 1 within float32 rounding: they are then over classes, not over labels."""
    if isinstance(y_prob, list) and np.ndim(y_prob[0]) == 2:
        return False
    return bool(np.all(np.abs(np.sum(np.asarray(y_prob, dtype=np.float64), axis=-1) - 1) < 1e-5))


def weighted_mean(rows: NDArray[Any], sample_weight: Any) -> float:
    """The weighted mean over rows; a row of weight 0 is left out, whatever its loss."""
    weight = check_weight(sample_weight, len(rows), np.float64)
    if weight is None:
        return float(np.mean(rows))
    kept = weight > 0
    return float(np.average(rows[kept], weights=weight[kept]))


# Rows ---------------------------------------------------------------------------------------------------


def cross_entropy_rows(y: NDArray[Any], log_prob: NDArray[Any]) -> NDArray[Any]:
    """``-sum_k y_k log p_k`` of each row; a class with y_k = 0 contributes 0, even at p_k = 0."""
    return -_expected(y, log_prob).sum(axis=1)


def kl_divergence_rows(y: NDArray[Any], log_prob: NDArray[Any]) -> NDArray[Any]:
    """``sum_k y_k log(y_k / p_k)`` of each row, exactly 0 where the two are equal."""
    with np.errstate(divide="ignore"):
        return _expected(y, np.log(y) - np.where(y > 0, log_prob, 0.0)).sum(axis=1)


def log_loss_rows(y: NDArray[Any], log_one: NDArray[Any], log_zero: NDArray[Any]) -> NDArray[Any]:
    """``-sum_l y_l log p_l + (1 - y_l) log(1 - p_l)`` of each row."""
    return -(_expected(y, log_one) + _expected(1 - y, log_zero)).sum(axis=1)


def brier_rows(y: NDArray[Any], prob: NDArray[Any]) -> NDArray[Any]:
    """The squared error of each row."""
    return ((y - prob) ** 2).sum(axis=1)


def class_brier_rows(y: NDArray[Any], prob: NDArray[Any]) -> NDArray[Any]:
    """The squared error over classes. Of two classes, whose errors are equal, only one counts."""
    return brier_rows(y, prob) if y.shape[1] != 2 else (y[:, 1] - prob[:, 1]) ** 2


def log(prob: NDArray[Any]) -> NDArray[Any]:
    """The logarithm, minus infinity at 0."""
    with np.errstate(divide="ignore"):
        return np.log(prob)


def _expected(y: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    return np.multiply(y, values, out=np.zeros_like(y), where=y > 0)


# Targets ------------------------------------------------------------------------------------------------


def is_one_dimensional(y: Any) -> bool:
    """Whether y has a single number or label for each row."""
    shape = np.shape(y)
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def is_probability(y: Any) -> bool:
    """Whether a one-dimensional y holds probabilities, not labels."""
    y = np.asarray(y).reshape(-1)
    return y.dtype.kind == "f" and type_of_target(y, input_name="y_true") == "continuous"


def class_target(y: Any, classes: NDArray[Any], n: int) -> NDArray[Any]:
    """A target of any kind as class probabilities (n, K)."""
    check_consistent_length(y, np.empty(n))
    one_dimensional = is_one_dimensional(y)
    if not one_dimensional and np.shape(y)[1:] != (len(classes),):
        raise ValueError(f"y_true has shape {np.shape(y)}, but there are {len(classes)} classes")
    rows = _dataset(n)
    if len(classes) == 2 and one_dimensional:
        target = code_classes(rows, y, "sigmoid", kind="binary", classes=classes, name="y_true")
    else:
        target = code_classes(rows, y, "softmax", classes=classes, name="y_true")
    if target.codes is not None:
        one_hot = np.zeros((n, len(classes)))
        one_hot[np.arange(n), target.codes] = 1.0
        return one_hot
    values = target.values
    assert values is not None  # a target without codes
    return np.column_stack([1 - values[:, 0], values[:, 0]]) if values.shape[1] == 1 else values


def label_target(y: Any, n: int, outputs: int) -> NDArray[Any]:
    """A multi-label target as probabilities (n, L)."""
    check_consistent_length(y, np.empty(n))
    labels = np.arange(outputs)
    target = code_classes(_dataset(n), y, "sigmoid", kind="multilabel", classes=labels, name="y_true")
    assert target.values is not None  # a multi-label target is never coded
    return target.values


def _dataset(n: int) -> Dataset:
    """A Dataset of n rows without features, whose targets are coded in float64."""
    return Dataset(np.empty((n, 0)))


def sorted_classes(classes: Any) -> NDArray[Any]:
    """Classes as an array; a ValueError unless they are sorted, the order in which labels are coded."""
    classes = np.asarray(classes)
    if classes.ndim != 1 or not (classes[:-1] < classes[1:]).all():
        raise ValueError(
            "classes must be sorted and differ, as an estimator's classes_ are, with the columns of "
            f"probabilities in the same order; got {classes.tolist()}"
        )
    return classes


def column_names(frame: Any) -> list[str] | None:
    """The column names of a DataFrame if they are strings, else None."""
    names = getattr(frame, "columns", None)
    names = None if names is None else list(names)
    return names if names and all(isinstance(name, str) for name in names) else None


# Predictions --------------------------------------------------------------------------------------------


def over_classes(y_true: Any, y_prob: Any, classes: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """The target and the predictions as probabilities (n, K), in the same order of classes."""
    prob, known = class_probabilities(y_true, y_prob, classes)
    return class_target(y_true, known, len(prob)), prob


def class_probabilities(y_true: Any, y_prob: Any, classes: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Checked probabilities (n, K) and the sorted classes of their columns."""
    names = column_names(y_prob)
    prob = check_array(y_prob, ensure_2d=False, dtype=np.float64, input_name="y_prob")
    if prob.ndim == 1 or prob.shape[1] == 1:
        prob = prob.reshape(-1)
        prob = np.column_stack([1 - prob, prob])
        names = None
    check_unit_interval(prob)
    check_sums(prob)
    if classes is not None:
        classes = sorted_classes(classes)
    elif names is not None:
        classes = sorted_classes(sorted(names))
    else:
        classes = _classes_in(y_true, prob.shape[1])
    if names is not None and set(names) == set(classes.tolist()):
        prob = prob[:, [names.index(one) for one in classes.tolist()]]
    check_columns(prob, classes)
    return prob, classes


def _classes_in(y_true: Any, K: int) -> NDArray[Any]:
    if not is_one_dimensional(y_true):
        names = column_names(y_true)
        return np.arange(K) if names is None else sorted_classes(sorted(names))
    if K == 2 and is_probability(y_true):
        return np.array([0, 1])
    found = np.unique(np.asarray(y_true).reshape(-1))
    if len(found) != K:
        raise ValueError(
            f"y_true has {len(found)} classes, y_prob has {K} columns: pass classes, the class of each column"
        )
    return found


def label_probabilities(y_prob: Any, classes: Any = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """P(1) and P(0) of independent labels, each (n, L), from a matrix or from a list of (n, 2) matrices."""
    if isinstance(y_prob, list) and np.ndim(y_prob[0]) == 2:
        pairs = [
            label_pair(rows, None if classes is None else classes[k], 0.0) for k, rows in enumerate(y_prob)
        ]
        one, zero = (np.column_stack(columns) for columns in zip(*pairs))
    else:
        one = check_array(y_prob, dtype=np.float64, input_name="y_prob")
        zero = np.maximum(1 - one, 0.0)
    check_unit_interval(one)
    return one, zero


def label_pair(rows: Any, classes: Any, absent: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """The columns of classes 1 and 0 in a multi-output classifier's prediction of one label."""
    rows = np.asarray(rows, dtype=np.float64)
    known = [0, 1] if classes is None else np.asarray(classes).tolist()
    if rows.shape[1] != len(known) or not set(known) <= {0, 1}:
        raise ValueError(f"a multi-label target has labels 0 and 1, but an output has the classes {known}")
    missing = np.full(len(rows), absent)
    one, zero = (rows[:, known.index(k)] if k in known else missing for k in (1, 0))
    return one, zero


def check_unit_interval(prob: NDArray[Any]) -> None:
    """Raise a ValueError naming the first row with a number that is not a probability."""
    bad = ~((prob >= 0) & (prob <= 1 + ROUNDING)).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"probabilities must be in [0, 1]; row {row} of the predictions is {prob[row]}")


def check_sums(prob: NDArray[Any]) -> None:
    """Raise a ValueError naming the first row of class probabilities that does not sum to 1."""
    totals = prob.sum(axis=1)
    bad = ~(np.abs(totals - 1) <= SUM_TOLERANCE)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"predicted class probabilities must sum to 1, row {row} sums to {totals[row]:.9g}; for "
            "independent labels use neg_log_loss (log_loss)"
        )


def check_columns(prob: NDArray[Any], classes: NDArray[Any]) -> None:
    """Raise a ValueError unless there is one column for each class."""
    if prob.shape[1] != len(classes):
        raise ValueError(
            f"the predictions have {prob.shape[1]} columns, but there are {len(classes)} classes"
        )


def check_two(classes: int) -> None:
    """Raise a ValueError unless there are two classes."""
    if classes != 2:
        raise ValueError(
            f"the log loss is for two classes or independent labels, there are {classes} classes; use "
            "neg_cross_entropy (cross_entropy_loss)"
        )
