"""Coded targets: of a classification, with class weights in the weights of the rows, and of a regression."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import assert_all_finite, check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from sklloss import losses
from sklloss.data.checks import ClassWeight, check_real, on_host, target_array, target_in_dtype
from sklloss.data.dataset import Coder, Dataset, Labels, check_stream_data
from sklloss.losses import Loss

Values: TypeAlias = NDArray[Any]


def code_classes(
    data: Dataset,
    y: Any,
    output: str = "auto",
    *,
    class_weight: ClassWeight = None,
    kind: str | None = None,
    classes: NDArray[Any] | None = None,
    name: str = "y",
) -> Dataset:
    """Code the targets of a classification, with class weights in the weights of the rows.

    Parameters
    ----------
    data : Dataset
        Checked rows and sample weights, without targets.
    y : array-like
        Labels (n,); probabilities of the second of two classes (n,); class probabilities (n, K); or a
        multi-label matrix (n, L) of zeros and ones, or of their probabilities.
    output : {"auto", "softmax", "sigmoid"}
        How to read y. With "softmax", labels are the classes of one softmax, a matrix holds class
        probabilities, and fractions (n,) are refused. With "sigmoid", more than two labels are one-vs-rest,
        and a matrix is multi-label. With "auto", labels are the classes of one softmax, and a matrix of
        zeros and ones is multi-label; other matrices are ambiguous, which is an error. Two classes have one
        output in any case.
    class_weight : dict, "balanced", list of these for multi-label, or None
    kind, classes
        Those of the training targets, if y belongs to a validation set or continues a stream. With "auto" a
        matrix is then of that kind.
    name : str
        The name of y in errors.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError, TypeError
        If y is none of these, is ambiguous or has other classes, or if ``class_weight`` does not fit it.
    """
    columns = getattr(y, "columns", None)
    y = target_array(y, name, data.n)
    softmax = output == "softmax"
    if output == "auto":
        softmax = kind in ("binary", "softmax") or (kind is None and y.ndim == 1)
        if y.ndim == 2 and not softmax:
            _refuse_fractions(y, name)
        if y.ndim == 1 and kind != "softmax" and _is_continuous(y):
            softmax = False
    if y.ndim == 2 and softmax:
        return _code_probabilities(data, y, columns, class_weight, classes, name)
    if y.ndim == 2:
        return _code_multilabel(data, y, columns, class_weight, kind, classes, name)
    if kind == "multilabel" and classes is not None:
        raise ValueError(f"{name} must have shape (n, {len(classes)}) as in training, got shape {y.shape}")
    return _code_labels(data, y, softmax, class_weight, classes, name)


def _coded(
    data: Dataset,
    kind: str,
    classes: NDArray[Any],
    values: Values | None,
    codes: NDArray[np.intp] | None,
    weight: Values | None,
) -> Dataset:
    outputs = len(classes) if values is None else values.shape[1]
    labels = Labels(kind, classes)
    return Dataset(data.X, values, codes, weight, outputs, labels, data.origin, data.y, data.offset)


def _refuse_fractions(y: Values, name: str) -> None:
    if y.dtype.kind != "f" or (y < 0).any() or (y > 1).any():
        return
    between = (y > 0) & (y < 1)
    if between.any():
        row = int(np.argmax(between.any(axis=1)))
        raise ValueError(
            f"{name} is a matrix with values between 0 and 1 (row {row} has {y[row][between[row]][0]}), "
            'which is ambiguous: pass output="softmax" if its rows are class probabilities, or '
            'output="sigmoid" if its columns are independent labels'
        )


def _code_labels(
    data: Dataset, y: Values, softmax: bool, class_weight: ClassWeight, classes: Values | None, name: str
) -> Dataset:
    """Code labels (n,), or probabilities (n,) of the second of two classes."""
    if _is_continuous(y):
        return _code_fractions(data, y, softmax, class_weight, classes, name)
    classes, codes = _label_codes(y, classes, name)
    if len(classes) == 2:
        return _code_binary(data, codes.astype(np.float64), classes, class_weight)
    codes = codes.astype(np.intp, copy=False)
    if softmax or not isinstance(class_weight, str):
        weight = _weigh_codes(data, codes, classes, class_weight)
        return _coded(data, "softmax" if softmax else "one-vs-rest", classes, None, codes, weight)
    # Balanced within each one-vs-rest problem, as if each were fitted alone.
    onehot = (codes[:, None] == np.arange(len(classes))).astype(np.float64)
    values, weight = _mix_weights(data, onehot, [class_weight] * len(classes))
    return _coded(data, "one-vs-rest", classes, values, None, weight)


def _code_fractions(
    data: Dataset, y: Values, softmax: bool, class_weight: ClassWeight, classes: Values | None, name: str
) -> Dataset:
    if softmax:
        raise ValueError(
            f"Unknown label type: continuous. {name} must hold class labels, or class probabilities of shape "
            f"(n, K); got real numbers of shape {y.shape}"
        )
    outside = (y < 0) | (y > 1)
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(
            f"Unknown label type: continuous. {name} must hold class labels, or probabilities in [0, 1]; row "
            f"{row} has {y[row]}"
        )
    classes = np.array([0, 1]) if classes is None else classes
    if len(classes) != 2:
        raise ValueError(
            f"{name} holds probabilities of the second of two classes, but there are {len(classes)}"
        )
    return _code_binary(data, y.astype(np.float64), classes, class_weight)


def _code_probabilities(
    data: Dataset, y: Values, columns: Any, class_weight: ClassWeight, classes: Values | None, name: str
) -> Dataset:
    """Code class probabilities (n, K)."""
    y = _probability_rows(y, name)
    if classes is None:
        y, classes = _named_classes(y, columns, name)
    elif len(classes) != y.shape[1]:
        raise ValueError(f"{name} has {y.shape[1]} columns, but there are {len(classes)} classes")
    else:
        y = _in_class_order(y, columns, classes, name)
    weight = data.weight
    if class_weight is not None:
        class_weights = _class_weights(class_weight, classes, y.T @ _ones_or(weight, y.shape[0]))
        # A row of probabilities y_k stands for K rows of weights c_k y_k, where c_k are the class weights.
        # Together they weigh m = sum_k c_k y_k, and have the probabilities c_k y_k / m.
        shares = y * class_weights
        mixture = shares.sum(axis=1)
        y = np.divide(shares, mixture[:, None], out=y.copy(), where=mixture[:, None] > 0)
        weight = _product_in_dtype(_ones_or(weight, y.shape[0]) * mixture, data.dtype)
    if len(classes) == 2:
        y = y[:, 1:]
    kind = "binary" if len(classes) == 2 else "softmax"
    return _coded(data, kind, classes, np.ascontiguousarray(y, dtype=data.dtype), None, weight)


def _named_classes(y: Values, columns: Any, name: str) -> tuple[Values, Values]:
    """Columns of probabilities and their names, sorted as the classes of labels would be."""
    if columns is None:
        return y, np.arange(y.shape[1])
    names = list(columns)
    if getattr(columns, "nlevels", 1) > 1:
        raise ValueError(f"the columns of {name} name the classes and must have one level, got {names}")
    if len(set(names)) != len(names):
        raise ValueError(f"the columns of {name} name the classes and must differ, got {names}")
    try:
        order = sorted(range(len(names)), key=names.__getitem__)
    except TypeError:
        raise ValueError(
            f"the columns of {name} name the classes and must be of one type, got {names}"
        ) from None
    return y[:, order], np.array([names[k] for k in order])


def _in_class_order(y: Values, columns: Any, classes: Values, name: str) -> Values:
    """Columns of probabilities in the order of the classes, matched by name if both have names."""
    known = np.asarray(classes).tolist()
    names = None if columns is None else list(columns)
    if names is None or names == known:
        return y
    if set(names) == set(known):
        return y[:, [names.index(label) for label in known]]
    if all(isinstance(label, str) for label in known):
        raise ValueError(f"the columns of {name} are {names}, but the classes are {known}")
    return y


def _in_label_order(y: Values, columns: Any, classes: Values | None, name: str) -> Values:
    """`_in_class_order` for multi-label columns, which have names only if `partial_fit` got strings."""
    if classes is None or not all(isinstance(label, str) for label in np.asarray(classes).tolist()):
        return y
    return _in_class_order(y, columns, classes, name)


def _is_continuous(y: Values) -> bool:
    """Whether a vector without NaN holds fractions, which scikit-learn calls a continuous target."""
    return y.dtype.kind == "f" and bool((y != np.rint(y)).any())


def _distinct(y: Values) -> tuple[Values, Values]:
    """The distinct labels, sorted, and the index of each row's label among them; of two perhaps as a bool.

    Integers in a small range are counted, which takes a small fraction of the time of a sort.
    """
    if y.dtype.kind in "biuf" and y.size:
        low, high = int(y.min()), int(y.max())
        if low > -(2**62) and high < 2**62 and high - low < 4 * y.size + 1024:
            if high - low == 1:
                classes, codes = np.array([low, high]).astype(y.dtype), y == high
            else:
                shifted = y.astype(np.intp)
                shifted -= low
                present = np.bincount(shifted, minlength=high - low + 1) > 0
                classes = (np.flatnonzero(present) + low).astype(y.dtype)
                codes = shifted if present.all() else (np.cumsum(present) - 1)[shifted]
            if 2 * len(classes) > y.size:
                check_classification_targets(y)  # which warns of so many classes
            return classes, codes
    check_classification_targets(y)
    return np.unique(y, return_inverse=True)


def _label_codes(y: Values, classes: Values | None, name: str) -> tuple[Values, Values]:
    """The classes, found in y if None is given, and the index of each row's label as of `_distinct`."""
    if classes is None:
        classes, codes = _distinct(y)
        if len(classes) < 2:
            raise ValueError(
                f"This estimator needs samples of at least 2 classes in {name}, but the data contains only "
                f"one class: {classes.tolist()[0]!r}"
            )
        return classes, codes.reshape(-1)
    check_classification_targets(y)
    codes = np.searchsorted(classes, y)
    codes[codes == len(classes)] = 0
    unknown = classes[codes] != y
    if np.any(unknown):
        raise ValueError(
            f"{name} contains labels that are not among the classes: {np.unique(y[unknown]).tolist()}"
        )
    return classes, codes


def _probability_rows(y: Values, name: str) -> Values:
    """Class probabilities (n, K) in float64, scaled to sum to exactly 1; a ValueError names a wrong row."""
    if y.dtype.kind not in "biuf":
        raise ValueError(f"{name} is 2-D and must hold class probabilities, got dtype {y.dtype}")
    tolerance = 1e-3 if y.dtype == np.float16 else 1e-5 if y.dtype == np.float32 else 1e-8
    y = y.astype(np.float64)
    if y.min() < 0:
        row = int(np.argmax((y < 0).any(axis=1)))
        raise ValueError(
            f"{name} must hold class probabilities; row {row} has a negative value: {y[row].min()}"
        )
    totals = y.sum(axis=1)
    wrong = np.abs(totals - 1) > tolerance * max(1.0, math.sqrt(y.shape[1]))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"each row of {name} must sum to 1; row {row} sums to {totals[row]:.9g}. Divide the rows by "
            "their sums, and pass the sums as sample_weight if they are meant as weights"
        )
    return y / totals[:, None]


def _code_multilabel(
    data: Dataset,
    y: Values,
    columns: Any,
    class_weight: ClassWeight,
    kind: str | None,
    classes: Values | None,
    name: str,
) -> Dataset:
    if kind not in (None, "multilabel"):
        raise ValueError(f"{name} must have shape (n,) as in training, got shape {y.shape}")
    if classes is not None and len(classes) != y.shape[1]:
        raise ValueError(f"{name} has {y.shape[1]} columns, but there are {len(classes)} labels")
    y = _in_label_order(y, columns, classes, name)
    if y.dtype.kind not in "biuf":
        raise ValueError(f"{name} is 2-D and must hold 0/1 labels or probabilities, got dtype {y.dtype}")
    outside = (y < 0) | (y > 1)
    if outside.any():
        row = int(np.argmax(outside.any(axis=1)))
        raise ValueError(
            f"{name} is 2-D and must hold 0/1 labels or probabilities in [0, 1]; row {row} has "
            f"{y[row][outside[row]][0]}"
        )
    outputs = y.shape[1]
    if class_weight is None or isinstance(class_weight, (str, dict)):
        class_weight = [class_weight] * outputs
    elif not isinstance(class_weight, (list, tuple)):
        raise TypeError(
            f'class_weight must be a dict, "balanced", a list of them or None, got {class_weight!r}'
        )
    elif len(class_weight) != outputs:
        raise ValueError(f"class_weight has {len(class_weight)} entries, {name} has {outputs} labels")
    values, weight = _mix_weights(data, y.astype(np.float64), class_weight)
    classes = np.arange(outputs) if classes is None else np.asarray(classes)
    return _coded(data, "multilabel", classes, values, None, weight)


def _code_binary(data: Dataset, probability: Values, classes: Values, class_weight: ClassWeight) -> Dataset:
    values, weight = _mix_weights(data, probability[:, None], [class_weight], classes)
    weight = weight if weight is None or weight.ndim == 1 else np.ascontiguousarray(weight[:, 0])
    return _coded(data, "binary", classes, values, None, weight)


def _mix_weights(
    data: Dataset, probabilities: Values, class_weights: list[Any], classes: Any = (0, 1)
) -> tuple[Values, Values | None]:
    """Multiply class weights into the weights of the rows, and adapt the probabilities, label by label.

    A row of probability y stands for a 1 of weight y c_1 and a 0 of weight (1 - y) c_0, where c_0 and c_1 are
    the class weights. Together they weigh m = y c_1 + (1 - y) c_0, and have the probability y c_1 / m.
    """
    if all(class_weight is None for class_weight in class_weights):
        return np.ascontiguousarray(probabilities, dtype=data.dtype), data.weight
    base = _ones_or(data.weight, len(probabilities))
    values = probabilities.copy()
    weights = np.empty_like(values)
    for k, class_weight in enumerate(class_weights):
        y = probabilities[:, k]
        zero = one = 1.0
        if class_weight is not None:
            zero, one = _class_weights(class_weight, classes, np.array([base @ (1 - y), base @ y]))
        mixture = y * one + (1 - y) * zero
        values[:, k] = np.divide(y * one, mixture, out=y.copy(), where=mixture > 0)
        weights[:, k] = mixture * base
    return np.ascontiguousarray(values, dtype=data.dtype), _product_in_dtype(weights, data.dtype)


def _weigh_codes(
    data: Dataset, codes: NDArray[np.intp], classes: Values, class_weight: ClassWeight
) -> Values | None:
    """The weights of the rows times the class weights."""
    if class_weight is None:
        return data.weight
    base = _ones_or(data.weight, len(codes))
    masses = np.bincount(codes, weights=base, minlength=len(classes))
    return _product_in_dtype(base * _class_weights(class_weight, classes, masses)[codes], data.dtype)


def _class_weights(class_weight: ClassWeight, classes: Any, masses: Values) -> Values:
    """The weight of each class; ``masses`` are the sums of the sample weights of each class."""
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f'class_weight must be a dict, "balanced" or None, got {class_weight!r}')
        with np.errstate(divide="ignore"):
            weights = masses.sum() / (len(classes) * masses)
        return np.where(masses > 0, weights, 0.0)
    if not isinstance(class_weight, dict):
        raise TypeError(f'class_weight must be a dict, "balanced" or None, got {class_weight!r}')
    known = list(np.asarray(classes).tolist())
    missing = [key for key in known if key not in class_weight]
    unknown = [key for key in class_weight if key not in known]
    if missing and unknown:
        # Weights for classes that this y lacks are fine, such as in a fold of a cross-validation. Together
        # with classes that have no weight they are probably a mistake.
        raise ValueError(f"class_weight has no weight for the classes {missing}, but has some for {unknown}")
    weights = [class_weight.get(key, 1.0) for key in known]
    return np.array(
        [check_real(f"class_weight[{k!r}]", w, 0.0, open_high=True) for k, w in zip(known, weights)]
    )


def _product_in_dtype(weight: Values, dtype: np.dtype[Any]) -> Values:
    """Sample weights times class weights in the dtype; a ValueError if one overflows or all are 0."""
    weight = weight.astype(dtype)
    if not np.isfinite(weight).all():
        raise ValueError("class_weight and sample_weight multiply to a weight that is not finite")
    if not weight.any():
        raise ValueError("class_weight and sample_weight leave no row with a positive weight")
    return weight


def _ones_or(weight: Values | None, n: int) -> Values:
    """The weights in float64, ones if there are none."""
    return np.ones(n) if weight is None else weight.astype(np.float64)


# Streams --------------------------------------------------------------------------------------------------


def check_class_stream(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: ArrayLike | None,
    classes: ArrayLike | None,
    coder: Callable[..., Coder],
    labels: Labels | None,
    learned: Any,
) -> Dataset:
    """Check what `partial_fit` of a classifier was given.

    Parameters
    ----------
    estimator, X, y, sample_weight, classes
        The estimator, which has a ``class_weight``, and the arguments of `partial_fit` as the user passed
        them.
    coder : callable
        ``coder(class_weight, kind=..., classes=...)`` returns what codes y; see `code_classes`.
    labels : Labels or None
        Those of the fitted model; None on the first call.
    learned : array or None
        An array that the estimator has learned, whose device X must share; None on the first call.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid, which the message names; if ``classes`` is missing on the first call, or
        differs from those of earlier calls; if y is of another kind than before; for a ``class_weight`` that
        is computed from all rows.
    """
    if isinstance(estimator.class_weight, str):
        raise ValueError(
            f"class_weight={estimator.class_weight!r} is not for partial_fit, which does not see all rows: "
            "pass a dict of weights"
        )
    known = None if labels is None else labels.classes
    if classes is not None:
        known = _stream_classes(classes, known)
    elif known is None and is_label_column(y):
        raise ValueError(
            "classes must be passed on the first call to partial_fit. They are all the labels that y will "
            "ever have"
        )
    code = coder(estimator.class_weight, kind=None if labels is None else labels.kind, classes=known)
    data = check_stream_data(estimator, X, y, sample_weight, code, learned)
    assert data.labels is not None  # it has been coded
    kind = data.labels.kind
    if labels is not None and kind != labels.kind:
        raise ValueError(f"y is {kind}, but the model was fitted to {labels.kind} targets")
    if classes is not None:
        _check_column_order(classes, y, kind)
    return data


def _stream_classes(classes: ArrayLike, known: Values | None) -> Values:
    """The sorted ``classes`` of `partial_fit`; a ValueError if they differ from those ``known`` before."""
    distinct = np.unique(column_or_1d(on_host(classes, "classes")))
    if known is not None and not np.array_equal(distinct, known):
        raise ValueError(
            f"`classes={distinct!r}` is not the same as on last call to partial_fit, was: {known!r}"
        )
    if len(distinct) < 2:
        raise ValueError(f"classes must hold at least 2 labels, got {distinct.tolist()}")
    return distinct


def _check_column_order(classes: ArrayLike, y: Any, kind: str) -> None:
    """Refuse ``classes`` that are not sorted, as ``classes_`` are, where y has a column for each of them.

    Columns that are named after the classes may be in any order.
    """
    shape, classes = np.shape(y), on_host(classes, "classes")
    given, known = np.ravel(classes), np.unique(classes)
    if len(shape) < 2 or shape[1] < 2 or np.array_equal(given, known):
        return
    labels = known.tolist()
    by_name = kind != "multilabel" or all(isinstance(label, str) for label in labels)
    if not (by_name and set(getattr(y, "columns", ())) == set(labels)):
        raise ValueError(
            f"classes={given.tolist()} must be sorted and distinct where y is a matrix whose columns do not "
            "have these names: sort them, and the columns of y with them"
        )


def is_label_column(y: Any) -> bool:
    """Whether y is one column of labels, rather than a matrix or a column of probabilities."""
    y = on_host(y, "y")
    shape = np.shape(y)
    if len(shape) == 2 and shape[1] > 1:
        return False
    y = np.ravel(np.asarray(y))
    return y.dtype.kind != "f" or not np.isfinite(y).all() or not _is_continuous(y)


# Targets of scores ----------------------------------------------------------------------------------------


def scored_classes(y: Any, n_samples: int, labels: Labels) -> NDArray[Any]:
    """Y in the form that scorers take: labels, or a matrix with its columns in the order of the classes."""
    columns = getattr(y, "columns", None)
    y = target_array(y, "y", n_samples)
    if y.ndim == 1:
        return y
    if labels.kind == "multilabel":
        return _in_label_order(y, columns, labels.classes, "y")
    return _in_class_order(y, columns, labels.classes, "y")


def hard_labels(y: Any, kind: str, classes: NDArray[Any]) -> NDArray[Any]:
    """Y in the form of predictions: probabilities are replaced by the likeliest class, or labels."""
    columns = getattr(y, "columns", None)
    y = on_host(y, "y")
    y = y.toarray() if hasattr(y, "toarray") else np.asarray(y)
    assert_all_finite(y, input_name="y")
    if y.ndim == 2 and y.shape[1] > 1:
        if y.shape[1] != len(classes):
            raise ValueError(f"y has {y.shape[1]} columns, but there are {len(classes)} classes")
        if kind == "multilabel":
            return (_in_label_order(y, columns, classes, "y") > 0.5).astype(int)
        return np.asarray(classes)[_in_class_order(y, columns, classes, "y").argmax(axis=1)]
    if kind == "binary" and _is_continuous(y):
        return np.asarray(classes)[(y > 0.5).astype(int)]
    return y


def check_regression_loss(loss: str | Loss, owner: str) -> Loss:
    """The loss of a regression; a ValueError, which names the estimator, for one of classes.

    Parameters
    ----------
    loss : str or Loss
    owner : str
        The class name of the estimator.
    """
    found = losses.get(loss)
    if isinstance(loss, str) and found.target != "values":
        named = [name for name in losses.names() if losses.get(name).target == "values"]
        raise ValueError(
            f"loss={loss!r} is for classification; {owner} has {', '.join(named)}, and any Loss object over "
            "values or probabilities"
        )
    if found.target == "classes":
        raise ValueError(f"loss={loss!r} needs class codes, but {owner} predicts numbers")
    return found


def code_values(data: Dataset, y: Any, loss: Loss, name: str = "y") -> Dataset:
    """The data with the targets of a regression.

    Parameters
    ----------
    data : Dataset
        Checked rows and sample weights, without targets.
    y : array-like of shape (n,) or (n, outputs)
    loss : Loss
        Y must be in its domain.
    name : str
        The name of y in errors.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If y is not numeric, out of the range of the dtype of X, or outside the domain of the loss.
    """
    y = target_array(y, name, data.n)
    if y.dtype.kind not in "biufOUS":
        raise ValueError(f"{name} must be numeric, got dtype {y.dtype}")
    if y.dtype.kind not in "biuf":
        try:
            y = y.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must be numeric, got dtype {y.dtype}") from error
        y = check_array(y, ensure_2d=False, dtype=np.float64, input_name=name)
    values = target_in_dtype(y.reshape(y.shape[0], -1), data.dtype, loss, name, name.replace("y", "X"))
    scored = values[:, 0] if values.shape[1] == 1 else values
    copies = loss.outputs_per_target
    if copies > 1:
        if values.shape[1] != 1:
            raise ValueError(f"{name} must have shape (n,) for loss={loss!r}, got shape {y.shape}")
        values = np.repeat(values, copies, axis=1)
    return replace(data, values=values, outputs=values.shape[1], y=scored)
