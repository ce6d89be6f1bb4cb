"""Targets and predictions as checked arrays, and the loss of each row."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.multiclass import type_of_target

from sklloss.data.checks import check_weight
from sklloss.data.dataset import Dataset
from sklloss.data.targets import code_classes

# How far from 1 the predicted class probabilities of a row may sum before they are refused.
SUM_TOLERANCE = 1e-3
# How far above 1 rounding may put a probability, such as an average of several.
ROUNDING = 1e-6


def mean(rows: NDArray[Any], sample_weight: Any) -> float:
    """The weighted mean over rows; a row of weight 0 is left out, whatever its loss."""
    weight = check_weight(sample_weight, len(rows), np.float64)
    if weight is None:
        return float(np.mean(rows))
    kept = weight > 0
    return float(np.average(rows[kept], weights=weight[kept]))


# Rows ---------------------------------------------------------------------------------------------------


def cross_entropy(y: NDArray[Any], log_prob: NDArray[Any]) -> NDArray[Any]:
    """``-sum_k y_k log p_k`` of each row; a class with y_k = 0 contributes 0, even at p_k = 0."""
    return -_expected(y, log_prob).sum(axis=1)


def kl_divergence(y: NDArray[Any], log_prob: NDArray[Any]) -> NDArray[Any]:
    """``sum_k y_k log(y_k / p_k)`` of each row, exactly 0 where the two are equal."""
    with np.errstate(divide="ignore"):
        return _expected(y, np.log(y) - np.where(y > 0, log_prob, 0.0)).sum(axis=1)


def log_loss(y: NDArray[Any], log_one: NDArray[Any], log_zero: NDArray[Any]) -> NDArray[Any]:
    """``-sum_l y_l log p_l + (1 - y_l) log(1 - p_l)`` of each row."""
    return -(_expected(y, log_one) + _expected(1 - y, log_zero)).sum(axis=1)


def brier(y: NDArray[Any], prob: NDArray[Any]) -> NDArray[Any]:
    """The squared error of each row."""
    return ((y - prob) ** 2).sum(axis=1)


def class_brier(y: NDArray[Any], prob: NDArray[Any]) -> NDArray[Any]:
    """The squared error over classes. Of two classes, whose errors are equal, only one counts."""
    return brier(y, prob) if y.shape[1] != 2 else (y[:, 1] - prob[:, 1]) ** 2


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
    rows = _rows(n)
    if len(classes) == 2 and one_dimensional:
        target = code_classes(rows, y, "sigmoid", kind="binary", classes=classes, name="y_true")
    else:
        target = code_classes(rows, y, "softmax", classes=classes, name="y_true")
    if target.codes is not None:
        one_hot = np.zeros((n, len(classes)))
        one_hot[np.arange(n), target.codes] = 1.0
        return one_hot
    values = target.values
    assert values is not None  # what has no codes has values
    return np.column_stack([1 - values[:, 0], values[:, 0]]) if values.shape[1] == 1 else values


def label_target(y: Any, outputs: int, n: int) -> NDArray[Any]:
    """A multi-label target as probabilities (n, L)."""
    check_consistent_length(y, np.empty(n))
    labels = np.arange(outputs)
    target = code_classes(_rows(n), y, "sigmoid", kind="multilabel", classes=labels, name="y_true")
    assert target.values is not None  # labels have no codes
    return target.values


def _rows(n: int) -> Dataset:
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


def check_two(classes: NDArray[Any]) -> None:
    """Raise a ValueError unless there are two classes."""
    if len(classes) != 2:
        raise ValueError(
            f"the log loss is for two classes or independent labels, there are {len(classes)} classes; use "
            "neg_cross_entropy (cross_entropy_loss)"
        )
