"""Checks of parameters, X, weights and targets, of NumPy or of any other array namespace."""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
import scipy.sparse
import sklearn
from numpy.typing import ArrayLike, DTypeLike, NDArray
from sklearn.utils import assert_all_finite, check_array, column_or_1d
from sklearn.utils.validation import validate_data

from sklloss.arrays.device import Device, device_of, to_numpy
from sklloss.kernels.linear import gradient as gradient_kernels
from sklloss.losses import Loss

DTYPES = (np.float64, np.float32)


class HasShape(Protocol):
    """A data frame, a sparse matrix or an array of any namespace."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows, and of columns."""


# X, or a y that may be a matrix.
MatrixLike: TypeAlias = ArrayLike | HasShape
# A result: a NumPy array, or one in the namespace of the model.
Array: TypeAlias = Any
ClassWeight: TypeAlias = dict[Any, float] | str | list[dict[Any, float] | str | None] | None

# Declared so that type checkers do not narrow X to SciPy's abstract base class, which lacks most methods.
is_sparse: Callable[[Any], bool] = scipy.sparse.issparse


# Parameters -----------------------------------------------------------------------------------------------


def check_real(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """A real number within bounds, as a float; TypeError or ValueError names the parameter."""
    # int and float are named because a test against an abstract class is slow.
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (float, int, numbers.Real)):
        raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} is out of the range of a float") from None
    below = number <= low if open_low else number < low
    above = number >= high if open_high else number > high
    if below or above or math.isnan(number):
        bounds = f"{'(' if open_low else '['}{low}, {high}{')' if open_high else ']'}"
        raise ValueError(f"{name} must be in {bounds}, got {value!r}")
    return number


def check_integer(name: str, value: Any, low: int, *, infinity: bool = False) -> Any:
    """A whole number of at least ``low`` (or infinity, where it has a meaning)."""
    if infinity and isinstance(value, numbers.Real) and value == math.inf:
        return math.inf
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, numbers.Integral)):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value!r}")
    return int(value)


def is_auto(name: str, value: Any, number: str = "number") -> bool:
    """Whether a parameter is "auto" and not a positive ``number``; a ValueError for any other string."""
    if isinstance(value, str) and value != "auto":
        raise ValueError(f'{name} must be "auto" or a positive {number}, got {value!r}')
    return isinstance(value, str)


def check_verbose(value: Any) -> None:
    """Raise unless ``verbose`` is a bool or a whole number of at least 0."""
    if isinstance(value, (bool, np.bool_)):
        return
    if not isinstance(value, (int, numbers.Integral)):
        raise TypeError(f"verbose must be an integer or a bool, got {value!r}")
    check_integer("verbose", value, 0)


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """One of a few strings."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def check_flag(name: str, value: Any) -> bool:
    """True or False, also as NumPy's or as 0 and 1."""
    if not isinstance(value, (bool, np.bool_, numbers.Integral)) or value not in (0, 1):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


# X --------------------------------------------------------------------------------------------------------


def on_host(array: Any, name: str) -> Any:
    """An array of another namespace as a NumPy array; lists, data frames and SciPy matrices unchanged."""
    if type(array) is np.ndarray or device_of(array) is None:
        return array
    _refuse_special_tensors(array, name, "pass {}.to_dense()")
    return to_numpy(array)


def dtype_of(X: Any) -> np.dtype[Any]:
    """The NumPy dtype of a checked X, wherever it lives."""
    device = device_of(X)
    dtype: Any = X.dtype if device is None else device.numpy_dtype(X)
    return dtype


def check_X(estimator: Any, X: Any, *, reset: bool, name: str = "X") -> Any:
    """Check X, and return it as a float32 or float64 array or CSR matrix, copied only where necessary.

    An array of another namespace stays in it if the estimator supports that.
    """
    if _needs_no_conversion(X, estimator, reset):
        return X
    device = device_of(X) if getattr(estimator, "_follows_arrays", False) else None
    if device is not None:
        return _check_array(estimator, X, device, reset=reset, name=name)
    if name == "X":
        X = validate_data(estimator, X, reset=reset, accept_sparse="csr", dtype=DTYPES)
    else:
        with _named(name):
            X = validate_data(estimator, X, reset=False, accept_sparse="csr", dtype=DTYPES)
    return usable_layout(X)


def _needs_no_conversion(X: Any, estimator: Any, reset: bool) -> bool:
    """Whether `validate_data` would return X unchanged, decided in a fraction of its time.

    If so, ``n_features_in_`` is set if ``reset``. Everything else, errors included, is left to
    `validate_data`.
    """
    if type(X) is not np.ndarray or X.ndim != 2 or X.dtype not in DTYPES or not X.size:
        return False
    if not (X.flags.c_contiguous and X.flags.aligned) or hasattr(estimator, "feature_names_in_"):
        return False
    if not reset and X.shape[1] != estimator.n_features_in_:
        return False
    if not _has_finite_sum(X):
        try:
            assert_all_finite(X)
        except ValueError:
            return False
    if reset:
        estimator.n_features_in_ = X.shape[1]
    return True


def _has_finite_sum(array: NDArray[Any]) -> bool:
    """Whether the sum is finite, which proves every number finite; the converse does not hold."""
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.add.reduce(array, axis=None))


def _check_array(estimator: Any, X: Any, device: Device, *, reset: bool, name: str = "X") -> Any:
    """Check that an array of another namespace is 2-D, finite, and of float32 or float64.

    Error messages are scikit-learn's where it makes the same check.
    """
    _refuse_special_tensors(X, name, "sparse rows are taken as a SciPy CSR matrix, which device= moves")
    if device.numpy_dtype(X) is None:
        raise TypeError(
            f"{name} must be float32 or float64 unless it is a NumPy array, got {X.dtype}: convert it "
            f"with {'X.to(torch.float32)' if device.is_torch else 'xp.astype(X, xp.float32)'}"
        )
    if X.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead: {name} must have shape "
            f"(n_samples, n_features), got {tuple(X.shape)}"
        )
    n, features = X.shape
    for count, what in ((n, "sample(s)"), (features, "feature(s)")):
        if count == 0:
            raise ValueError(
                f"Found array with 0 {what} (shape={tuple(X.shape)}) while a minimum of 1 is required."
            )
    if not reset and features != estimator.n_features_in_:
        raise ValueError(
            f"{name} has {features} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )
    if not sklearn.get_config()["assume_finite"]:
        check_finite(X, device, name)
    if reset:
        estimator.n_features_in_ = features
        vars(estimator).pop("feature_names_in_", None)
    return X


def _refuse_special_tensors(array: Any, name: str, instead: str) -> None:
    """Raise for torch tensors that require grad, are nested or sparse, or hold no numbers.

    ``instead`` says what to pass in place of a sparse tensor.
    """
    if getattr(array, "requires_grad", False):
        raise ValueError(
            f"{name} requires grad, but no gradient flows through an estimator: pass {name}.detach()"
        )
    if getattr(array, "is_nested", False):
        raise TypeError(
            f"{name} is a nested tensor, whose rows may differ in length: pass one that is not nested"
        )
    if str(getattr(array, "layout", "torch.strided")) != "torch.strided":
        raise TypeError(f"{name} is a tensor of layout {array.layout}: {instead.format(name)}")
    if getattr(array, "is_meta", False):
        raise ValueError(f"{name} is a tensor on the device meta, which holds no numbers")


def check_finite(X: Any, device: Device, name: str) -> None:
    """Raise if an array on a device contains NaN or infinity."""
    xp = device.xp
    # A finite sum proves every number finite; an infinite one may be an overflow of finite numbers.
    if bool(xp.isfinite(xp.sum(X))) or bool(xp.all(xp.isfinite(X))):
        return
    if bool(xp.any(xp.isnan(X))):
        raise ValueError(f"Input {name} contains NaN.")
    raise ValueError(f"Input {name} contains infinity or a value too large for dtype('{dtype_of(X)}').")


def usable_layout(X: Any) -> Any:
    """X with contiguous rows or columns, or CSR without duplicate entries; copied only where necessary."""
    if is_sparse(X):
        # SciPy may build a matrix without checking its indices, which the compiled passes trust.
        X.check_format(full_check=True)
        index = np.result_type(X.indices, X.indptr)
        parts = (part.astype(index, copy=False) for part in (X.indices, X.indptr))
        # Duplicates matter to the compiled passes, the order of the indices does not.
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
    """Cast X, whose numbers are finite; a ValueError if one overflows."""
    if dtype_of(X) == dtype:
        return X
    device = device_of(X)
    if device is not None:
        X = device.xp.astype(X, device.real(dtype))
        check_finite(X, device, name)
        return X
    with np.errstate(over="ignore"):
        X = X.astype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        assert_all_finite(X.data if is_sparse(X) else X, input_name=name)
    return X


def row_major(X: Any) -> Any:
    """X, dense or CSR, with contiguous rows; a copy if they are not.

    Rows that are taken from a column-major X in random order would cost a cache line per number.
    """
    if is_sparse(X) or X.strides[1] == X.itemsize:
        return X
    return np.ascontiguousarray(X)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Put the name of the argument before errors that scikit-learn raises without it."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if name in str(error):
            raise
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name}: {error}") from error


def check_same_device(estimator: Any, X: Any, model: Any, method: str) -> None:
    """Raise if X is on another device, or in another namespace, than the fitted model.

    Parameters
    ----------
    estimator : estimator
    X : array-like
        As the user passed it.
    model : array
        A fitted attribute of the estimator.
    method : str
        The name of the method that was called.

    Raises
    ------
    ValueError
        Worded as in scikit-learn.
    """
    device, fitted = device_of(X), device_of(model)
    if device == fitted:
        return
    name = type(estimator).__name__
    target = "'numpy'" if device is None else "X"
    raise ValueError(
        f"Inputs passed to {name}.{method}() must use the same namespace and the same device as those passed "
        f"to fit(). fit() was given {fitted or 'numpy'}, {method}() {device or 'numpy'}. Move X, or copy "
        f"the model to where X lives: estimator.to({target})"
    )


def check_same_device_as(X_val: Any, origin: Device | None) -> None:
    """Raise if the validation rows are on another device, or in another namespace, than X was."""
    device = device_of(X_val)
    if device != origin:
        raise ValueError(
            f"X and X_val must have the same namespace and device: X is {origin or 'numpy'}, "
            f"X_val {device or 'numpy'}"
        )


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
    with _named(name):
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


def check_offset(offset: Any, n_samples: int, outputs: int, name: str = "offset") -> NDArray[Any]:
    """What is added to raw scores, as an array of shape (n_samples, 1) or (n_samples, outputs).

    Raises
    ------
    ValueError
        If the shape is wrong, or a number is not finite.
    """
    offset = on_host(offset, name)
    with _named(name):
        offset = check_array(offset, ensure_2d=False, dtype=np.float64, input_name=name, ensure_min_samples=0)
    if offset.shape not in ((n_samples,), (n_samples, 1), (n_samples, outputs)):
        raise ValueError(
            f"{name} must have shape ({n_samples},) or ({n_samples}, {outputs}), got an array of shape "
            f"{offset.shape}"
        )
    return offset.reshape(n_samples, -1)


def weight_in_dtype(
    weight: NDArray[Any], dtype: DTypeLike, name: str = "sample_weight", holder: str = "the network"
) -> NDArray[Any]:
    """Cast checked weights to the dtype of ``holder``; a ValueError if one overflows or all become 0."""
    with np.errstate(over="ignore", under="ignore"):
        cast = weight.astype(dtype)
    if not np.isfinite(cast).all() or not cast.any():
        raise ValueError(f"{name} is out of the range of {np.dtype(dtype).name}, the dtype of {holder}")
    return cast


def check_validation_arguments(
    X_val: Any, y_val: Any, sample_weight_val: Any = None, offset_val: Any = None
) -> bool:
    """Whether there is a validation set; a ValueError if only a part of one is given."""
    if (X_val is None) != (y_val is None):
        given, missing = ("X_val", "y_val") if y_val is None else ("y_val", "X_val")
        raise ValueError(f"{given} is given without {missing}")
    for name, value in (("sample_weight_val", sample_weight_val), ("offset_val", offset_val)):
        if X_val is None and value is not None:
            raise ValueError(f"{name} is given without X_val and y_val")
    return X_val is not None


def target_array(y: Any, name: str, n_samples: int) -> NDArray[Any]:
    """Y without NaN as an array (n,) or (n, outputs) of numbers or labels; a sparse y becomes dense."""
    if y is None:
        raise ValueError(f"This estimator requires {name} to be passed, but the target {name} is None")
    y = on_host(y, name)
    if type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "biuf" and len(y) == n_samples:
        if y.dtype.kind == "f" and not _has_finite_sum(y):
            assert_all_finite(y, input_name=name)
        return y
    if is_sparse(y):
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
        # Such as of a data frame whose columns have different numeric types.
        with contextlib.suppress(TypeError, ValueError):
            y = y.astype(np.float64)
    return y


def _finite_rows(y: Any, name: str) -> Any:
    """Return y; a ValueError names the first row of a matrix with NaN or infinity."""
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
    """Cast targets (n, outputs) to the dtype of ``holder``.

    A ValueError if one overflows, or is outside the domain of the loss, as a small number may be that rounds
    to 0.
    """
    with np.errstate(over="ignore", under="ignore"):
        cast = np.ascontiguousarray(y, dtype=dtype)
    if not np.isfinite(cast).all():
        raise ValueError(f"{name} is out of the range of {np.dtype(dtype).name}, the dtype of {holder}")
    _check_domain(loss, cast, name)
    return cast


def _check_domain(loss: Loss, y: NDArray[Any], name: str) -> None:
    """Raise the loss's error for targets outside its domain, with the user's name for y."""
    try:
        loss.check_values(np, y, y.shape[1])
    except ValueError as error:
        raise ValueError(f"loss={loss!r}: {str(error).replace('y_true', name)}") from None
