"""Checks of X, weights and validation sets, and of targets as arrays."""

import contextlib
import math
import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import DTypeLike, NDArray
from sklearn.utils import assert_all_finite, check_array, column_or_1d
from sklearn.utils.validation import validate_data

from sklloss.arrays.device import device_of
from sklloss.data.array_checks import check_array_X, dtype_of, in_dtype_there, on_host
from sklloss.kernels.linear import gradient as gradient_kernels
from sklloss.losses import Loss

DTYPES = (np.float64, np.float32)


def check_X(estimator: Any, X: Any, *, reset: bool, name: str = "X") -> Any:
    """X as a float32 or float64 array, or as CSR; not copied where its dtype and layout are usable.

    An array of another namespace stays there, for an estimator that follows it.
    """
    if _is_plain(X, estimator, reset):
        return X
    device = device_of(X) if getattr(estimator, "_follows_arrays", False) else None
    if device is not None:
        return check_array_X(estimator, X, device, reset=reset, name=name)
    if name == "X":
        X = validate_data(estimator, X, reset=reset, accept_sparse="csr", dtype=DTYPES)
    else:
        with _named(name):
            X = validate_data(estimator, X, reset=False, accept_sparse="csr", dtype=DTYPES)
    return usable_layout(X)


def _is_plain(X: Any, estimator: Any, reset: bool) -> bool:
    """Whether X is what `validate_data` would return: finite rows of numbers, with nothing to convert.

    If so, its columns are counted where they must be. What is not plain, or not right, `validate_data` sees.
    """
    if type(X) is not np.ndarray or X.ndim != 2 or X.dtype not in DTYPES or not X.size:
        return False
    if not (X.flags.c_contiguous and X.flags.aligned) or hasattr(estimator, "feature_names_in_"):
        return False
    if not reset and X.shape[1] != estimator.n_features_in_:
        return False
    if not _sums_up(X):
        try:
            assert_all_finite(X)
        except ValueError:
            return False
    if reset:
        estimator.n_features_in_ = X.shape[1]
    return True


def _sums_up(array: NDArray[Any]) -> bool:
    """Whether the sum of numbers is finite: all of them are then, and if not, they still may be."""
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.add.reduce(array, axis=None))


def usable_layout(X: Any) -> Any:
    """X with rows or columns contiguous in memory, or CSR of which no row has an index twice."""
    if scipy.sparse.issparse(X):
        # SciPy does not look at indices when a matrix is made from them; the compiled passes trust them.
        X.check_format(full_check=True)
        index = np.result_type(X.indices, X.indptr)
        parts = (part.astype(index, copy=False) for part in (X.indices, X.indptr))
        # in which order they come does not matter
        if not X.has_canonical_format and gradient_kernels.repeats(*parts, X.shape[1]):
            X = X.copy()
            X.sum_duplicates()
        return X
    steps = X.strides
    size = X.itemsize
    rows_usable = steps[1] == size and steps[0] >= size * X.shape[1]
    columns_usable = steps[0] == size and steps[1] >= size * X.shape[0]
    aligned = X.flags.aligned and steps[0] % size == 0 and steps[1] % size == 0
    return X if aligned and (rows_usable or columns_usable) else np.ascontiguousarray(X)


def in_dtype(X: Any, dtype: DTypeLike, name: str = "X") -> Any:
    """X, which is finite, in another dtype; a ValueError where that has no room for it."""
    if dtype_of(X) == dtype:
        return X
    device = device_of(X)
    if device is not None:
        return in_dtype_there(X, device, dtype, name)
    with np.errstate(over="ignore"):
        X = X.astype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        assert_all_finite(X.data if scipy.sparse.issparse(X) else X, input_name=name)
    return X


def row_major(X: Any) -> Any:
    """X, dense or CSR, with the numbers of a row side by side: a copy if they are not.

    Else to take rows in any order is to read a line of cache for each number, in every epoch.
    """
    if scipy.sparse.issparse(X) or X.strides[1] == X.itemsize:
        return X
    return np.ascontiguousarray(X)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors about 'X' that are about the validation rows say so."""
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name}: {error}") from error


def check_weight(
    weight: Any, n_samples: int, dtype: DTypeLike, name: str = "sample_weight"
) -> NDArray[Any] | None:
    """Weights as an array of shape (n_samples,), or None.

    Raises
    ------
    ValueError
        If the shape is wrong, a weight is negative, NaN or infinite, or all are zero.
    """
    if weight is None:
        return None
    weight = on_host(weight, name)
    if isinstance(weight, numbers.Number):
        weight = np.full(n_samples, weight)
    weight = check_array(weight, ensure_2d=False, dtype=np.float64, input_name=name, ensure_min_samples=0)
    if weight.ndim != 1:
        raise ValueError(f"{name} must have shape ({n_samples},), got an array of shape {weight.shape}")
    if weight.shape[0] != n_samples:
        raise ValueError(f"{name} must have shape ({n_samples},), got {weight.shape[0]} weights")
    if weight.size and weight.min() < 0:
        row = int(np.argmax(weight < 0))
        raise ValueError(f"{name} must not be negative, got {weight[row]} in row {row}")
    if not weight.any():
        raise ValueError(f"{name} must not be all zero")
    with np.errstate(over="ignore"):
        total = weight.sum()
    if not np.isfinite(total):
        raise ValueError(f"the sum of {name} is not finite: divide the weights by their largest")
    return weight_in_dtype(weight, dtype, name, "X")


def weight_in_dtype(
    weight: NDArray[Any], dtype: DTypeLike, name: str = "sample_weight", holder: str = "the network"
) -> NDArray[Any]:
    """Checked weights in the dtype of ``holder``; a ValueError where that has no room for them."""
    with np.errstate(over="ignore", under="ignore"):
        cast = weight.astype(dtype)
    if not np.isfinite(cast).all() or not cast.any():
        raise ValueError(f"{name} is out of the range of {np.dtype(dtype).name}, the dtype of {holder}")
    return cast


def check_validation_arguments(X_val: Any, y_val: Any, sample_weight_val: Any) -> bool:
    """True if a validation set was given whole; half of one is an error."""
    if (X_val is None) != (y_val is None):
        given, missing = ("X_val", "y_val") if y_val is None else ("y_val", "X_val")
        raise ValueError(f"{given} is given without {missing}")
    if X_val is None and sample_weight_val is not None:
        raise ValueError("sample_weight_val is given without X_val and y_val")
    return X_val is not None


def target_array(y: Any, name: str, n_samples: int) -> NDArray[Any]:
    """Y without NaN as a 1-D or 2-D array of n_samples numbers or labels; a sparse matrix is made dense."""
    if y is None:
        raise ValueError(f"this estimator requires {name} to be passed, but the target {name} is None")
    y = on_host(y, name)
    if type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "biuf" and len(y) == n_samples:
        if y.dtype.kind == "f" and not _sums_up(y):
            assert_all_finite(y, input_name=name)
        return y
    if scipy.sparse.issparse(y):
        y = y.toarray()
    y = check_array(
        _finite_rows(y, name),
        ensure_2d=False,
        allow_nd=True,
        dtype=None,
        input_name=name,
        ensure_min_samples=0,
        ensure_min_features=0,
    )
    if y.ndim == 0 or y.ndim > 2:
        raise ValueError(f"{name} must be 1-D or 2-D, got an array of shape {y.shape}")
    if y.ndim == 2 and y.shape[1] == 0:
        raise ValueError(f"{name} has no columns")
    if y.shape[0] != n_samples:
        rows = name.replace("y", "X")
        raise ValueError(
            f"{rows} and {name} must have the same number of rows, got {n_samples} and {y.shape[0]}"
        )
    if y.ndim == 2 and y.shape[1] == 1:
        return column_or_1d(y, warn=True)
    if y.ndim == 2 and y.dtype == object:
        # columns of several types of numbers
        with contextlib.suppress(TypeError, ValueError):
            y = y.astype(np.float64)
    return y


def _finite_rows(y: Any, name: str) -> Any:
    """Y as it is; in a matrix of numbers, NaN and infinity are an error that names the row."""
    values = y if isinstance(y, np.ndarray) else None
    if values is not None and values.ndim == 2 and values.shape[1] > 1 and values.dtype.kind == "f":
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(np.argmax(bad.any(axis=1)))
            raise ValueError(f"{name} contains NaN or infinity: row {row} has {values[row][bad[row]][0]}")
    return y


def target_in_dtype(
    y: NDArray[Any], dtype: DTypeLike, loss: Loss, name: str = "y", holder: str = "the network"
) -> NDArray[Any]:
    """Targets (n, outputs) in the dtype of ``holder``; a ValueError where that has no room for them.

    Nor may they leave the loss's domain, as small numbers do that round to 0.
    """
    with np.errstate(over="ignore", under="ignore"):
        cast = np.ascontiguousarray(y, dtype=dtype)
    if not np.isfinite(cast).all():
        raise ValueError(f"{name} is out of the range of {np.dtype(dtype).name}, the dtype of {holder}")
    _check_domain(loss, cast, name)
    return cast


def _check_domain(loss: Loss, y: NDArray[Any], name: str) -> None:
    """Refuse targets outside the loss's domain, in the loss's own words, y under the user's name."""
    try:
        loss.check_values(np, y, y.shape[1])
    except ValueError as error:
        raise ValueError(f"loss={loss!r}: {str(error).replace('y_true', name)}") from None
