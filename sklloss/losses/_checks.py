"""Checks of the arguments and results of a loss: namespace, dtype, shape and values.

Every error names the argument. Values are checked in one reduction, so that the host waits for a device only
once; the row to name is searched for only if the check fails.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj, is_numpy_array

_REAL = ("bool", "integral", "real floating")


def namespace(array: Any) -> Any:
    """The array API namespace of an array; ``numpy`` for NumPy arrays and whatever converts to one."""
    if is_array_api_obj(array) and not is_numpy_array(array):
        return array_namespace(array)
    return np


def numpy_array(array: Any, name: str) -> Any:
    """A NumPy array in native byte order; ``name`` is what the error about a ragged list calls it."""
    try:
        array = np.asarray(array)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no array of numbers: {error}") from error
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _label(xp: Any) -> str:
    return xp.__name__.removeprefix("array_api_compat.")


def raw_scores(raw: Any) -> tuple[Any, Any]:
    """The namespace of raw, and raw as a float32 or float64 array, (n,) or (n, outputs)."""
    xp = namespace(raw)
    if xp is np:
        raw = numpy_array(raw, "raw")
        if raw.dtype.kind in "biu":
            raw = raw.astype(np.float64)
    if raw.dtype != xp.float32 and raw.dtype != xp.float64:
        raise TypeError(f"raw must be float32 or float64, got {raw.dtype}")
    if raw.ndim not in (1, 2):
        raise ValueError(f"raw must have shape (n,) or (n, outputs), got {tuple(raw.shape)}")
    if raw.ndim == 2 and raw.shape[1] == 0:
        raise ValueError(f"raw has no outputs: its shape is {tuple(raw.shape)}")
    return xp, raw


def matching_array(xp: Any, raw: Any, array: Any, name: str, other: str = "raw") -> Any:
    """An array of real numbers in the namespace and on the device of raw, or an error.

    ``name`` and ``other`` are what messages call the array and raw.
    """
    actual = namespace(array)
    if actual is not xp:
        kind = _label(actual) if is_array_api_obj(array) else type(array).__name__
        raise TypeError(
            f"{name} and {other} must be arrays of one namespace; {name} is of {kind}, "
            f"{other} is of {_label(xp)}"
        )
    if xp is np:
        array = numpy_array(array, name)
    elif device(array) != device(raw):
        raise ValueError(f"{name} is on device {device(array)}, {other} is on device {device(raw)}")
    if not xp.isdtype(array.dtype, _REAL):
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    return array


def _is_integral(xp: Any, array: Any) -> bool:
    return xp.isdtype(array.dtype, ("bool", "integral"))


def _comparable(xp: Any, array: Any) -> Any:
    """The array with booleans as integers: the standard does not define comparisons of booleans."""
    return xp.astype(array, xp.uint8) if xp.isdtype(array.dtype, "bool") else array


def _first_row(xp: Any, bad: Any) -> Any:
    """The index of the first row with a true entry."""
    rows = xp.any(bad, axis=1) if bad.ndim == 2 else bad
    return int(xp.argmax(xp.astype(rows, xp.int32)))


def _first_value(array: Any, bad: Any, row: int) -> Any:
    """The first offending value of a row, for a message."""
    if array.ndim == 1:
        return array[row].item() if hasattr(array, "item") else float(array[row])
    values, flags = array[row, ...], bad[row, ...]
    column = next(k for k in range(flags.shape[0]) if bool(flags[k]))
    return float(values[column])


def _refuse(xp: Any, array: Any, bad: Any, message: str) -> None:
    """Raise a ValueError with the first row and value for which ``bad`` is true, if there is one."""
    if bool(xp.any(bad)):
        row = _first_row(xp, bad)
        raise ValueError(f"{message}; row {row} has {_first_value(array, bad, row)}")


def same_shape(array: Any, raw: Any, name: str = "y_true", other: str = "raw") -> None:
    """Raise a ValueError if shapes differ: losses never broadcast."""
    if tuple(array.shape) != tuple(raw.shape):
        raise ValueError(
            f"{name} and {other} must have one shape; {name} has {tuple(array.shape)}, "
            f"{other} has {tuple(raw.shape)}"
        )


def repeated(xp: Any, y: Any, raw: Any, outputs: int) -> Any:
    """The target (n,) of several outputs for each of them, (n, outputs)."""
    if raw.ndim != 2 or raw.shape[1] != outputs or tuple(y.shape) not in ((raw.shape[0],), tuple(raw.shape)):
        raise ValueError(
            f"y_true must have shape (n,) and raw (n, {outputs}), a column for each quantile; y_true has "
            f"{tuple(y.shape)}, raw has {tuple(raw.shape)}"
        )
    return y if y.ndim == 2 else xp.stack([y] * outputs, axis=1)


def not_empty(raw: Any) -> None:
    """Raise a ValueError for an empty batch, whose mean is undefined."""
    if raw.shape[0] == 0:
        raise ValueError("y_true and raw have no rows: the mean of no losses is not defined")


def domain(xp: Any, y: Any, name: str, loss: str) -> None:
    """Raise a ValueError for y_true outside a domain, which is named as `Loss.domain` or `Loss.target` is.

    NaN is outside all of them. ``loss`` is what messages call the loss.
    """
    numbers = _comparable(xp, y)
    if name == "probabilities":
        outside = ~((numbers >= 0) & (numbers <= 1))
        _refuse(xp, y, outside, "y_true must hold labels or probabilities in [0, 1]")
    elif name == "labels":
        _refuse(xp, y, ~((numbers == 0) | (numbers == 1)), "y_true must hold the labels 0 and 1")
    else:
        finite(xp, y)
        if name == "non-negative":
            _refuse(xp, y, numbers < 0, f"{loss} needs y_true >= 0")
        elif name == "positive":
            _refuse(xp, y, numbers <= 0, f"{loss} needs y_true > 0")


def finite(xp: Any, y: Any, note: str = "") -> None:
    """Raise a ValueError for NaN or infinity."""
    _refuse(xp, y, ~xp.isfinite(y), f"y_true must be finite{note}")


def codes(xp: Any, y: Any, outputs: int) -> None:
    """Raise a ValueError for codes outside [0, outputs)."""
    numbers = _comparable(xp, y)
    outside = (numbers < 0) | (numbers >= outputs)
    _refuse(xp, y, outside, f"y_true must hold class codes in [0, {outputs})")


def probability_rows(xp: Any, y: Any) -> None:
    """Raise a ValueError for rows that are not finite and non-negative with sum 1.

    The sum may differ from 1 by the square root of the dtype's machine epsilon: 1.5e-8 in float64, 3.5e-4 in
    float32.
    """
    if _is_integral(xp, y):
        y = xp.astype(y, xp.float32)
    tolerance = float(xp.finfo(y.dtype).eps) ** 0.5
    total = xp.sum(y, axis=1)
    bad = xp.any(~(y >= 0), axis=1) | ~(xp.abs(total - 1) <= tolerance)
    if not bool(xp.any(bad)):
        return
    row = _first_row(xp, bad)
    outside = ~(xp.isfinite(y) & (y >= 0))
    if bool(xp.any(outside[row, ...])):
        raise ValueError(
            "y_true must hold class probabilities, finite and not negative; "
            f"row {row} has {_first_value(y, outside, row)}"
        )
    raise ValueError(
        "y_true must hold class probabilities, each row summing to 1; "
        f"row {row} sums to {float(total[row])}. Normalise the rows and pass their sums as sample_weight"
    )


def class_target(xp: Any, y: Any, raw: Any) -> None:
    """Raise an error unless y has the shape of class codes or of class probabilities. Reads no values."""
    n, outputs = raw.shape
    if y.ndim == 1 and y.shape[0] == n:
        if not _is_integral(xp, y):
            raise TypeError(
                f"y_true of shape {tuple(y.shape)} must hold integer class codes, got dtype {y.dtype}; "
                f"class probabilities have shape {(n, outputs)}"
            )
    elif tuple(y.shape) != (n, outputs):
        raise ValueError(
            f"y_true must be class codes of shape {(n,)} or class probabilities of raw's shape "
            f"{(n, outputs)}; it has shape {tuple(y.shape)}"
        )


def weights(xp: Any, weight: Any, raw: Any) -> Any:
    """Row weights in raw's dtype, scaled so that the largest is 1 (in NumPy by a power of 2, to [0.5, 1)).

    The scale does not change a mean, and prevents weighted losses and their sum from overflowing.
    """
    n = raw.shape[0]
    if tuple(weight.shape) != (n,):
        raise ValueError(
            f"sample_weight must have shape {(n,)}, one weight for each row; it has {tuple(weight.shape)}"
        )
    if _is_integral(xp, weight):
        weight = xp.astype(weight, raw.dtype)
    top = xp.max(weight)
    if not bool(xp.all((weight >= 0) & xp.isfinite(weight)) & (top > 0)):
        bad = ~((weight >= 0) & xp.isfinite(weight))
        _refuse(xp, weight, bad, "sample_weight must be finite and not negative")
        raise ValueError("sample_weight is zero for all rows")
    if xp is np:
        # Exact: a power of 2 changes only the exponents.
        weight = np.ldexp(weight.astype(np.float64), -int(np.frexp(np.float64(top))[1]))
    else:
        weight = weight / top
    return xp.astype(weight, raw.dtype)


@lru_cache(maxsize=64)
def _has_float64(xp: Any, where: Any) -> bool:
    return "float64" in xp.__array_namespace_info__().dtypes(device=where, kind="real floating")


def widest(xp: Any, array: Any) -> Any:
    """The dtype of sums: float64 if the array's device supports it, else the array's dtype."""
    if xp is np or array.dtype == xp.float64 or _has_float64(xp, device(array)):
        return xp.float64
    return array.dtype


def formula_result(loss: Any, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
    """Checked results of `Loss.formula`: the value, and the gradient or a function that returns it."""
    result = loss.formula(xp, y, raw)
    if not isinstance(result, tuple) or len(result) != 2:
        got = f"{len(result)} things" if isinstance(result, tuple) else f"a {type(result).__name__}"
        raise TypeError(f"{type(loss).__name__}: formula must return a value and a gradient, got {got}")
    returned_array(loss, xp, "value of formula", result[0], raw.shape if loss.separable else raw.shape[:1])
    return result


def gradient_result(loss: Any, xp: Any, gradient: Any, raw: Any) -> Any:
    """The checked gradient of `Loss.formula`, called first if it is a function."""
    gradient = gradient() if callable(gradient) else gradient
    returned_array(loss, xp, "gradient of formula", gradient, raw.shape)
    return gradient


def returned_array(loss: Any, xp: Any, what: str, array: Any, shape: Any) -> None:
    """Raise an error unless an array returned by a loss has the given shape and a real dtype."""
    dtype = getattr(array, "dtype", None)
    if dtype is None or not xp.isdtype(dtype, ("bool", "integral", "real floating")):
        got = f"a {type(array).__name__}" if dtype is None else f"dtype {dtype}"
        raise TypeError(f"{type(loss).__name__}: the {what} must be an array of real numbers, got {got}")
    if tuple(array.shape) != tuple(shape):
        raise ValueError(
            f"{type(loss).__name__}: the {what} must have shape {tuple(shape)}, it has {tuple(array.shape)}"
        )
