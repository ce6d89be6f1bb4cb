"""Where rows come from, and where they are taken in to."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from sklloss.arrays.device import Device, device_of, requested_device
from sklloss.arrays.transfer import to_device, to_numpy, transfer
from sklloss.data.checks import check_finite, dtype_of, in_dtype

# What an estimator's ``device_dtype`` may be.
DEVICE_DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Origin:
    """Where X came from, and its dtype there: where what is learned goes.

    Attributes
    ----------
    device : Device or None
        None for NumPy.
    dtype : NumPy dtype
    """

    device: Device | None
    dtype: np.dtype[Any]

    def bring(self, array: Any, device: Device | None) -> Any:
        """An array that lives on a device, which nothing else holds."""
        if device == self.device and device is not None:
            dtype = device.real(self.dtype)
            return array if array.dtype == dtype else device.xp.astype(array, dtype)
        array = (array if device is None else device.get(array)).astype(self.dtype, copy=False)
        return to_device(array, self.device)


def move_to_device(X: Any, estimator: Any, name: str = "X") -> tuple[Any, Origin]:
    """A checked X where the estimator's ``device`` asks for it, and its `Origin`.

    Without one, torch's and JAX's arrays in main memory become NumPy's, which share it, for the kernels.
    """
    origin = Origin(device_of(X), dtype_of(X))
    device, dtype = getattr(estimator, "device", None), getattr(estimator, "device_dtype", None)
    return _offload(X, device, dtype, name), origin


def _shared(X: Any) -> NDArray[Any]:
    """An array in main memory as NumPy's in row or column order, a copy only of other orders."""
    X = to_numpy(X)
    return X if X.flags.forc else np.ascontiguousarray(X)


def _offload(X: Any, requested: Any, dtype: Any, name: str) -> Any:
    """A checked X where ``requested`` asks for it, NumPy's numbers and CSR in ``dtype``; as it is for None.

    Raises
    ------
    ValueError, TypeError, ImportError, MemoryError
        Where there is no such device, or no room on it; and where numbers are too large for ``dtype``.
    """
    device, own = requested_device(requested), device_of(X)
    if device is None:
        return _shared(X) if own is not None and own.in_main_memory else X
    if own is None:
        dtype = device.floats(dtype)
        if scipy.sparse.issparse(X):
            return transfer(in_dtype(X, dtype, name), device)
        there = transfer(X, device, dtype)
        if X.dtype != dtype:
            check_finite(there, device, name)
        return there
    if own == device:
        return X
    if not own.is_torch:
        raise ValueError(
            f"device={str(requested)!r} moves NumPy arrays and torch tensors, but {name} is {own}"
        )
    return X.to(device.native)
