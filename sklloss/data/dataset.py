"""`Dataset`, the checked data of an objective, and the functions that check what `fit` is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from sklloss.arrays.device import Device, device_of, requested_device, to_device, to_numpy
from sklloss.arrays.matrices import transfer
from sklloss.data.checks import (
    check_finite,
    check_offset,
    check_same_device,
    check_same_device_as,
    check_validation_arguments,
    check_weight,
    check_X,
    dtype_of,
    in_dtype,
    target_in_dtype,
    weight_in_dtype,
)
from sklloss.losses import Loss

# The values of an estimator's ``device_dtype``.
DEVICE_DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Origin:
    """The device and dtype of X before it was moved, to which fitted attributes return.

    Attributes
    ----------
    device : Device or None
        None for NumPy.
    dtype : NumPy dtype
    """

    device: Device | None
    dtype: np.dtype[Any]

    def bring(self, array: Any, device: Device | None) -> Any:
        """An array on ``device``, moved to the origin; the result may share its memory."""
        if device == self.device and device is not None:
            dtype = device.real(self.dtype)
            return array if array.dtype == dtype else device.xp.astype(array, dtype)
        array = (array if device is None else device.get(array)).astype(self.dtype, copy=False)
        return to_device(array, self.device)


def move_to_device(X: Any, estimator: Any, name: str = "X") -> tuple[Any, Origin]:
    """A checked X on the device that the estimator's ``device`` names, and its `Origin`.

    If it names none, torch and JAX arrays in main memory become NumPy arrays that share their memory.
    """
    origin = Origin(device_of(X), dtype_of(X))
    device, dtype = getattr(estimator, "device", None), getattr(estimator, "device_dtype", None)
    return _offload(X, device, dtype, name), origin


def _shared(X: Any) -> NDArray[Any]:
    """An array in main memory as a NumPy array in row or column order; copied only if in another order."""
    X = to_numpy(X)
    return X if X.flags.forc else np.ascontiguousarray(X)


def _offload(X: Any, requested: Any, dtype: Any, name: str) -> Any:
    """A checked X on the ``requested`` device; NumPy arrays and CSR matrices are converted to ``dtype``.

    Raises
    ------
    ValueError, TypeError, ImportError, MemoryError
        If there is no such device or too little memory on it, or if a number is too large for ``dtype``.
    """
    device, own = requested_device(requested), device_of(X)
    if device is None:
        return _shared(X) if own is not None and own.in_main_memory else X
    if own is None:
        dtype = device.floats(dtype)
        if scipy.sparse.issparse(X):
            return transfer(in_dtype(X, dtype, name), device)
        moved = transfer(X, device, dtype)
        if X.dtype != dtype:
            check_finite(moved, device, name)
        return moved
    if own == device:
        return X
    if not own.is_torch:
        raise ValueError(
            f"device={str(requested)!r} moves NumPy arrays and torch tensors, but {name} is {own}"
        )
    return X.to(device.native)


@dataclass(frozen=True, eq=False)
class Labels:
    """What the coded targets of a classifier mean.

    Attributes
    ----------
    kind : {"binary", "softmax", "one-vs-rest", "multilabel"}
        "binary" has one output, "softmax" one per class, "one-vs-rest" likewise but with sigmoids,
        "multilabel" one per label.
    classes : ndarray
    """

    kind: str
    classes: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Checked rows of X with their targets and weights.

    Shapes agree, numbers are finite, weights are not negative, codes are in range, and X, targets and
    weights share one dtype.

    Attributes
    ----------
    X : ndarray, CSR matrix, array of another namespace or TorchCSR of shape (n, features)
        On the device that computes. A NumPy array has contiguous rows or columns.
    values : ndarray of shape (n, outputs) or None
        Targets as numbers or probabilities, in the dtype of X.
    codes : ndarray of intp of shape (n,) or None
        The class of each row, where ``values`` is None.
    weight : ndarray of shape (n,) or (n, outputs), or None
        Sample weights, times class weights.
    outputs : int
    labels : Labels or None
        Only for a classifier.
    origin : Origin or None
        Of X; fitted attributes return there.
    y : ndarray or None
        Targets in the form that scores compare with predictions, if there will be scores.
    offset : ndarray of shape (n, outputs) or None
        What is added to the raw scores of the rows, in the dtype of X.
    """

    X: Any
    values: NDArray[Any] | None = None
    codes: NDArray[np.intp] | None = None
    weight: NDArray[Any] | None = None
    outputs: int = 1
    labels: Labels | None = None
    origin: Origin | None = None
    y: NDArray[Any] | None = None
    offset: NDArray[Any] | None = None

    @property
    def n(self) -> int:
        """The number of rows."""
        return self.X.shape[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of X, wherever X lives."""
        return dtype_of(self.X)

    @property
    def device(self) -> Device | None:
        """The device of X; None for NumPy."""
        return device_of(self.X)

    def take(self, rows: NDArray[Any]) -> Dataset:
        """The rows of these numbers, or of this mask."""
        device = self.device
        if device is None:
            X = self.X[rows]
        elif hasattr(self.X, "take_rows"):
            X = self.X.take_rows(rows)
        else:
            X = device.xp.take(self.X, device.put(rows, np.int64), axis=0)
        return replace(self, X=X, **self._parts(lambda part: part[rows]))

    def every(self, step: int) -> Dataset:
        """Every ``step``-th row, copied if a pass would read a view of X more slowly."""
        if self.device is None:
            X = self.X[::step]
            if isinstance(X, np.ndarray) and X.strides[1] != X.itemsize:
                X = np.ascontiguousarray(X)
        elif hasattr(self.X, "every"):
            X = self.X.every(step)
        else:
            X = self.device.xp.asarray(self.X[::step, ...], copy=True)
        return replace(self, X=X, **self._parts(lambda part: np.ascontiguousarray(part[::step])))

    def in_dtype(self, dtype: np.dtype[Any], loss: Loss, suffix: str = "") -> Dataset:
        """The same data in another dtype.

        Parameters
        ----------
        dtype : dtype
        loss : Loss
            Targets must stay in its domain, which small numbers that round to 0 may leave.
        suffix : str
            Of the arguments' names in errors.

        Raises
        ------
        ValueError
            If a number is out of the range of the dtype, or a target out of the domain.
        """
        if self.dtype == dtype:
            return self
        values, weight = self.values, self.weight
        if values is not None:
            values = target_in_dtype(values, dtype, loss, "y" + suffix)
        if weight is not None:
            weight = weight_in_dtype(weight, dtype, "sample_weight" + suffix)
        found = replace(self, X=in_dtype(self.X, dtype, "X" + suffix), values=values, weight=weight)
        return with_offset(found, self.offset, "offset" + suffix)

    def on_host(self) -> Any:
        """X as a NumPy array or CSR matrix."""
        return self.X.host if hasattr(self.X, "host") else to_numpy(self.X)

    def _parts(self, part_of: Callable[[NDArray[Any]], NDArray[Any]]) -> dict[str, Any]:
        names = ("values", "codes", "weight", "y", "offset")
        parts = {name: getattr(self, name) for name in names}
        return {name: part_of(part) for name, part in parts.items() if part is not None}


class Coder(Protocol):
    """A function that checks targets y, called ``name`` in errors, and adds them to checked rows."""

    def __call__(self, data: Dataset, y: Any, *, name: str) -> Dataset:
        """The data with their targets."""


def weighted_rows(weight: NDArray[Any] | None, n: int) -> NDArray[np.intp]:
    """The numbers of the rows with a positive weight, of n; batches leave out the others."""
    if weight is None:
        return np.arange(n, dtype=np.intp)
    return np.flatnonzero(weight.reshape(n, -1).any(axis=1))


def check_rows(
    estimator: Any,
    X: Any,
    sample_weight: ArrayLike | None,
    *,
    reset: bool = True,
    origin: Origin | None = None,
    dtype: np.dtype[Any] | None = None,
    suffix: str = "",
) -> Dataset:
    """Check rows and their weights.

    Parameters
    ----------
    estimator : estimator
        Its ``device`` and ``device_dtype``, if it has them, say where X is moved.
    X, sample_weight
        As the user passed them.
    reset : bool
        Whether to set ``n_features_in_`` and ``feature_names_in_``; otherwise X must agree with them.
    origin : Origin, optional
        That of the training rows, if X belongs to a validation set, which must be on the same device.
    dtype : dtype, optional
        What X is cast to.
    suffix : str
        Of the arguments' names in errors.

    Returns
    -------
    Dataset
        Without targets.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid, which the message names.
    """
    X = check_X(estimator, X, reset=reset, name="X" + suffix)
    if origin is not None:
        check_same_device_as(X, origin.device)
    X, own = move_to_device(X, estimator, "X" + suffix)
    if dtype is not None:
        X = in_dtype(X, dtype, "X" + suffix)
    weight = check_weight(sample_weight, X.shape[0], dtype_of(X), "sample_weight" + suffix)
    return Dataset(X, weight=weight, origin=origin or own)


def check_data(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: ArrayLike | None,
    code: Coder,
    *,
    reset: bool = True,
    offset: ArrayLike | None = None,
) -> Dataset:
    """Check what `fit` was given.

    Parameters
    ----------
    estimator, X, sample_weight, reset
        See `check_rows`.
    y : array-like
    code : callable
        See `Coder`.
    offset : array-like of shape (n,) or (n, outputs), optional
        What is added to raw scores.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid, which the message names.
    """
    data = code(check_rows(estimator, X, sample_weight, reset=reset), y, name="y")
    return with_offset(data, offset, "offset")


def with_offset(data: Dataset, offset: ArrayLike | None, name: str) -> Dataset:
    """Checked rows with what is added to their raw scores; ``name`` is that of the offset in errors."""
    if offset is None:
        return data
    checked = check_offset(offset, data.n, data.outputs, name)
    checked = np.broadcast_to(checked, (data.n, data.outputs))
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(checked, dtype=data.dtype)
    if not np.isfinite(cast).all():
        raise ValueError(f"{name} is out of the range of {data.dtype.name}, the dtype of X")
    return replace(data, offset=cast)


def add_offset(estimator: Any, scores: Any, offset: ArrayLike | None) -> Any:
    """Raw scores (n,) or (n, outputs) plus an offset, which is needed if the fit had one.

    Cross-validation sets ``_test_offset`` of a model that it gives to a scorer, which knows of no offset.
    """
    if offset is None:
        offset = getattr(estimator, "_test_offset", None)
    if offset is None:
        if getattr(estimator, "_has_offset", False):
            raise ValueError(
                f"{type(estimator).__name__} was fitted with an offset, so that predictions need one: pass "
                "offset="
            )
        return scores
    outputs = scores.shape[1] if scores.ndim == 2 else 1
    checked = check_offset(offset, scores.shape[0], outputs)
    checked = checked[:, 0] if scores.ndim == 1 else checked
    device = device_of(scores)
    if device is None:
        return scores + checked.astype(scores.dtype)
    return scores + device.put(checked, device.numpy_dtype(scores))


def check_validation_data(
    estimator: Any,
    X_val: Any,
    y_val: Any,
    sample_weight_val: ArrayLike | None,
    code: Coder,
    data: Dataset,
    *,
    dtype: np.dtype[Any] | None = None,
    offset_val: ArrayLike | None = None,
) -> Dataset | None:
    """Check a validation set, which must be on the device that the training rows in ``data`` came from.

    Parameters are those of `check_data`. The rows are cast to ``dtype``, if it is given, and have an offset
    if the training rows do.

    Returns
    -------
    Dataset or None
        None if there is no validation set.
    """
    if not check_validation_arguments(X_val, y_val, sample_weight_val, offset_val):
        return None
    if (data.offset is None) != (offset_val is None):
        raise ValueError("offset and offset_val must be given together, or neither of them")
    rows = check_rows(
        estimator, X_val, sample_weight_val, reset=False, origin=data.origin, dtype=dtype, suffix="_val"
    )
    return with_offset(code(rows, y_val, name="y_val"), offset_val, "offset_val")


def check_stream_data(
    estimator: Any, X: Any, y: Any, sample_weight: ArrayLike | None, code: Coder, learned: Any
) -> Dataset:
    """Check what `partial_fit` was given.

    Parameters are those of `check_data`, and ``learned``: a fitted attribute, whose device X must share, or
    None on the first call.
    """
    if learned is not None:
        check_same_device(estimator, X, learned, "partial_fit")
    return code(check_rows(estimator, X, sample_weight, reset=learned is None), y, name="y")
