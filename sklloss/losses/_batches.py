"""Evaluation of a NumPy batch in place, for losses without a kernel."""

from typing import Any

import numpy as np


def evaluate(
    loss: Any,
    raw: Any,
    target: Any = None,
    codes: Any = None,
    weight: Any = None,
    per_sample: Any = None,
    curvature: Any = None,
    sums: Any = None,
) -> float:
    """See `Loss.evaluate_batch`; uses `Loss.formula`, `Loss.curvature` and `Loss.mean_formula` only."""
    y = target if codes is None else codes
    by_output = weight is not None and weight.ndim == 2
    if not loss.separable and (by_output or curvature is not None):
        what = "weights by output" if by_output else "curvature by output"
        raise ValueError(f"{type(loss).__name__} is not separable and has no {what}")
    with np.errstate(all="ignore"):
        second = None
        if curvature is not None:
            # Before raw is overwritten with the gradient.
            second = loss.curvature(np, y, raw)
            if second is None:
                raise ValueError(f"{type(loss).__name__} has no kernel and states no curvature")
            check(loss, np, "curvature", second, raw.shape)
        if sums is not None:
            sums[...] = 0.0
        if not loss.additive:
            total = _whole(loss, y, raw, weight)
            if sums is not None:
                sums[0] = total
            return total
        value, gradient = stated(loss, np, y, raw)
        gradient = gradient_of(loss, np, gradient, raw)
        if per_sample is not None:
            per_sample[...] = loss._rows(np, value)
        parts = raw.shape[1] if loss.separable and loss.reduction == "mean" else 1
        value = value.astype(np.float64, copy=False)
        if weight is None:
            raw[...] = gradient if parts == 1 else gradient / parts
            if second is not None:
                curvature[...] = second if parts == 1 else second / parts
        else:
            factor = weight if by_output else weight[:, None]
            kept = factor != 0
            value = np.where(factor if value.ndim == 2 else weight, value, 0.0)
            value = value * (factor if value.ndim == 2 else weight)
            factor = factor / parts
            # Rows of weight 0 may hold any value: inf * 0 would be NaN.
            raw[...] = np.where(kept, gradient * factor, 0.0)
            if second is not None:
                curvature[...] = np.where(kept, second * factor, 0.0)
        if value.ndim == 2:
            totals = np.sum(value, axis=0) / parts
            if sums is not None:
                sums[...] = totals
            return float(np.sum(totals))
        total = float(np.sum(value))
        if sums is not None:
            sums[0] = total
        return total


def stated(loss: Any, xp: Any, y: Any, raw: Any) -> tuple[Any, Any]:
    """Checked results of `Loss.formula`: the value, and the gradient or a function that returns it."""
    result = loss.formula(xp, y, raw)
    if not isinstance(result, tuple) or len(result) != 2:
        got = f"{len(result)} things" if isinstance(result, tuple) else f"a {type(result).__name__}"
        raise TypeError(f"{type(loss).__name__}: formula must return a value and a gradient, got {got}")
    check(loss, xp, "value of formula", result[0], raw.shape if loss.separable else raw.shape[:1])
    return result


def gradient_of(loss: Any, xp: Any, gradient: Any, raw: Any) -> Any:
    """The checked gradient of `Loss.formula`, called first if it is a function."""
    gradient = gradient() if callable(gradient) else gradient
    check(loss, xp, "gradient of formula", gradient, raw.shape)
    return gradient


def check(loss: Any, xp: Any, what: str, array: Any, shape: Any) -> None:
    """Raise an error unless an array returned by a loss has the given shape and a real dtype."""
    dtype = getattr(array, "dtype", None)
    if dtype is None or not xp.isdtype(dtype, ("bool", "integral", "real floating")):
        got = f"a {type(array).__name__}" if dtype is None else f"dtype {dtype}"
        raise TypeError(f"{type(loss).__name__}: the {what} must be an array of real numbers, got {got}")
    if tuple(array.shape) != tuple(shape):
        raise ValueError(
            f"{type(loss).__name__}: the {what} must have shape {tuple(shape)}, it has {tuple(array.shape)}"
        )


def _whole(loss: Any, y: Any, raw: Any, weight: Any) -> float:
    """The value of a loss that is not a mean over rows, times the sum of weights."""
    total = float(raw.shape[0]) if weight is None else float(np.sum(weight, dtype=np.float64))
    if total == 0.0:
        raw[...] = 0.0
        return 0.0
    value, gradient = loss.mean_formula(np, y, raw, weight)
    np.multiply(gradient, total, out=raw, casting="same_kind")
    return float(value) * total
