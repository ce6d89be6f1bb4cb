"""Checked data of a regression."""

from dataclasses import dataclass

import numpy as np
from sklearn.utils import check_array

from sklloss.data.array_checks import check_same_device_as, dtype_of
from sklloss.data.checks import check_validation_arguments, check_weight, check_X, target_array
from sklloss.data.origin import Origin, move_to_device


@dataclass(frozen=True, eq=False)
class RegressionData:
    """Checked rows of a regression, X where ``device`` asks for it: y and weight have its dtype.

    y is (n, outputs).
    """

    X: object
    y: np.ndarray
    weight: np.ndarray | None
    one_dimensional: bool
    origin: Origin


def regression_data(estimator, X, y, sample_weight=None, *, loss, reset=True):
    """Check the training rows of a regressor.

    Parameters
    ----------
    estimator : estimator
        Learns ``n_features_in_`` and ``feature_names_in_`` if ``reset``, else is held to them.
    X : array-like, DataFrame or sparse matrix of shape (n, p)
    y : array-like of shape (n,) or (n, outputs)
    sample_weight : array-like of shape (n,), optional
    loss : Loss
        Whose domain y must be in.
    reset : bool

    Returns
    -------
    RegressionData
    """
    return _regression_data(estimator, X, y, sample_weight, loss, reset, ("X", "y", "sample_weight"))


def regression_validation(estimator, X_val, y_val, sample_weight_val, data, *, loss):
    """The same for validation rows, which must fit the training rows in ``data``; None if there are none."""
    if not check_validation_arguments(X_val, y_val, sample_weight_val):
        return None
    names = ("X_val", "y_val", "sample_weight_val")
    held_out = _regression_data(estimator, X_val, y_val, sample_weight_val, loss, False, names, data.origin)
    if held_out.y.shape[1] != data.y.shape[1]:
        raise ValueError(f"y_val has {held_out.y.shape[1]} outputs, y has {data.y.shape[1]}")
    return held_out


def _regression_data(estimator, X, y, sample_weight, loss, reset, names, origin=None):
    X = check_X(estimator, X, reset=reset, name=names[0])
    if origin is not None:
        check_same_device_as(X, origin.device)
    X, origin = move_to_device(X, estimator, names[0])
    dtype = dtype_of(X)
    y = target_array(y, names[1], X.shape[0])
    if y.dtype.kind not in "biufOUS":
        raise ValueError(f"{names[1]} must be numeric, got dtype {y.dtype}")
    if y.dtype.kind not in "biuf":
        try:
            y = y.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{names[1]} must be numeric, got dtype {y.dtype}") from error
        y = check_array(y, ensure_2d=False, dtype=np.float64, input_name=names[1])
    cast = target_in_dtype(y.reshape(y.shape[0], -1), dtype, loss, names[1], names[0])
    weight = check_weight(sample_weight, X.shape[0], dtype, names[2])
    return RegressionData(X, cast, weight, y.ndim == 1, origin)


def target_in_dtype(y, dtype, loss, name="y", holder="the network"):
    """Targets (n, outputs) in the dtype of ``holder``; a ValueError where that has no room for them.

    Nor may they leave the loss's domain, as small numbers do that round to 0.
    """
    with np.errstate(over="ignore", under="ignore"):
        cast = np.ascontiguousarray(y, dtype=dtype)
    if not np.isfinite(cast).all():
        raise ValueError(f"{name} is out of the range of {np.dtype(dtype).name}, the dtype of {holder}")
    _check_domain(loss, cast, name)
    return cast


def _check_domain(loss, y, name):
    """Refuse targets outside the loss's domain, in the loss's own words, y under the user's name."""
    try:
        loss.check_values(np, y, y.shape[1])
    except ValueError as error:
        raise ValueError(f"loss={loss!r}: {str(error).replace('y_true', name)}") from None
