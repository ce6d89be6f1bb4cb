"""Checks of arrays of other libraries: X where it lives, everything else brought to NumPy."""

from typing import Any

import numpy as np
import sklearn
from numpy.typing import DTypeLike

from sklloss.arrays.device import Device, device_of, to_numpy


def on_host(array: Any, name: str) -> Any:
    """An array of any namespace as NumPy's; what is no such array, a list or a data frame, as it is."""
    if type(array) is np.ndarray or device_of(array) is None:
        return array
    _refuse_special_tensors(array, name, "pass {}.to_dense()")
    return to_numpy(array)


def dtype_of(X: Any) -> np.dtype[Any]:
    """The NumPy dtype of a checked X, wherever it lives."""
    device = device_of(X)
    return X.dtype if device is None else device.numpy_dtype(X)


def check_array_X(estimator: Any, X: Any, device: Device, *, reset: bool, name: str = "X") -> Any:
    """X of another namespace as `check_X` checks it: 2-D, finite, float32 or float64. It is not copied.

    Raises
    ------
    TypeError, ValueError
        As scikit-learn words it, where it has words for it.
    """
    _refuse_special_tensors(X, name, "sparse rows are taken as a SciPy CSR matrix, which device= moves")
    if device.numpy_dtype(X) is None:
        raise TypeError(
            f"{name} must be float32 or float64 where it is no NumPy array, got {X.dtype}: convert it, as by "
            f"{'X.to(torch.float32)' if device.is_torch else 'xp.astype(X, xp.float32)'}"
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
    """Refuse tensors of torch's that are not plain numbers; ``instead`` is for those that are sparse."""
    if getattr(array, "requires_grad", False):
        raise ValueError(
            f"{name} requires grad, and no gradient flows through an estimator: pass {name}.detach()"
        )
    if getattr(array, "is_nested", False):
        raise TypeError(
            f"{name} is a nested tensor, whose rows differ in length: pass one that is not nested"
        )
    if str(getattr(array, "layout", "torch.strided")) != "torch.strided":
        raise TypeError(f"{name} is a tensor of layout {array.layout}: {instead.format(name)}")
    if getattr(array, "is_meta", False):
        raise ValueError(f"{name} is a tensor on the device meta, where there are no numbers")


def in_dtype_there(X: Any, device: Device, dtype: DTypeLike, name: str = "X") -> Any:
    """As `in_dtype`, of an array of another namespace and dtype."""
    X = device.xp.astype(X, device.real(dtype))
    check_finite(X, device, name)
    return X


def check_finite(X: Any, device: Device, name: str) -> None:
    """Raise for an array on a device that holds NaN or infinity."""
    xp = device.xp
    # A finite sum needs no second look; an infinite one may be one of large numbers.
    if bool(xp.isfinite(xp.sum(X))) or bool(xp.all(xp.isfinite(X))):
        return
    if bool(xp.any(xp.isnan(X))):
        raise ValueError(f"Input {name} contains NaN.")
    raise ValueError(
        f"Input {name} contains infinity or a value too large for dtype('{device.numpy_dtype(X).name}')."
    )


def check_same_device(estimator: Any, X: Any, model: Any, method: str) -> None:
    """Refuse rows that live elsewhere than what was learned.

    Parameters
    ----------
    estimator : estimator
    X : array-like
        As the user passed it.
    model : array
        Something that the estimator has learned.
    method : str
        The name of the method that was called.

    Raises
    ------
    ValueError
        In the words of scikit-learn.
    """
    here, there = device_of(X), device_of(model)
    if here == there:
        return
    name = type(estimator).__name__
    first, now = (device or "numpy" for device in (there, here))
    target = "'numpy'" if here is None else "X"
    raise ValueError(
        f"Inputs passed to {name}.{method}() must use the same namespace and the same device as those passed "
        f"to fit(). fit() was given {first}, {method}() {now}. Move X, or take a copy of the model that "
        f"lives where X does: estimator.to({target})"
    )


def check_same_device_as(X_val: Any, origin: Device | None) -> None:
    """Refuse validation rows that live elsewhere than X, at the `Device` ``origin``."""
    device = device_of(X_val)
    if device != origin:
        raise ValueError(
            f"X and X_val must be of one namespace, on one device: X is {origin or 'numpy'}, "
            f"X_val {device or 'numpy'}"
        )
