"""Moving arrays between NumPy and devices, and the precision that torch computes with meanwhile."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse

from sklloss.arrays.device import Device, device_of, is_out_of_memory
from sklloss.arrays.torch_csr import TorchCSR

# Bytes moved at a time. Moving may take a copy of each part on the host, which this bounds.
PART_BYTES = 1 << 26


def to_numpy(array: Any) -> Any:
    """An array of any namespace and device as a NumPy array, without a copy where possible.

    Whatever `device_of` gives no device for is returned unchanged.
    """
    device = device_of(array)
    return array if device is None else device.as_numpy(array)


def to_device(array: npt.NDArray[Any], device: Device | None) -> Any:
    """A NumPy array on a device, its values unchanged; None stands for NumPy.

    What the device cannot represent exactly stays a NumPy array: strings, and numbers of a dtype that the
    device does not support and that any other would round.
    """
    dtype = device.holds(array) if device is not None and array.dtype.kind in "biuf" else None
    return array if device is None or dtype is None else device.put(array, dtype)


def transfer(X: Any, device: Device, dtype: npt.DTypeLike | None = None) -> Any:
    """Move a dense NumPy array or a CSR matrix to a device, part by part, with no full copy on the host.

    Parameters
    ----------
    X : ndarray or CSR matrix of shape (n, features), float32 or float64
    device : Device
    dtype : NumPy dtype, optional
        The dtype of a dense X on the device; by default that of X.

    Returns
    -------
    array of the device, or TorchCSR

    Raises
    ------
    MemoryError
        If X does not fit on the device. Nothing of it is left there then.
    """
    dtype = np.dtype(X.dtype if dtype is None else dtype)
    try:
        if scipy.sparse.issparse(X):
            return TorchCSR(X, device)
        with np.errstate(over="ignore"):
            rows = max(1, PART_BYTES // max(1, dtype.itemsize * X.shape[1]))
            if X.shape[0] <= rows:
                return device.put(X, dtype)
            moved = device.xp.empty(X.shape, dtype=device.real(dtype), device=device.native)
            for first in range(0, X.shape[0], rows):
                last = min(first + rows, X.shape[0])
                moved[first:last, ...] = device.put(X[first:last], dtype)
            return moved
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        # The stored values of a sparse matrix, whose size is their number.
        n_bytes = X.size * dtype.itemsize
        reason = str(error).splitlines()[0]
    # Raised outside the handler: the traceback of the caught error would keep the moved parts alive.
    moved = None
    raise MemoryError(f"X takes {n_bytes / 2**30:.3g} GiB, which {device} has no room for: {reason}")


class _PrecisionSetting(Protocol):
    """One of torch's settings for the precision of float32 products."""

    exact: str

    def before(self) -> str:
        """The value to write back later."""

    def write(self, value: str, /) -> None:
        """Change the setting."""


class _SavedPrecision:
    """The precision settings of the process, saved by the first thread in `full_precision`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._values: list[str] = []

    def enter(self, settings: list[_PrecisionSetting]) -> None:
        """Save the settings and make them exact, unless another thread has."""
        with self._lock:
            if self._threads == 0:
                self._values = [setting.before() for setting in settings]
                for setting in settings:
                    setting.write(setting.exact)
            self._threads += 1

    def leave(self, settings: list[_PrecisionSetting]) -> None:
        """Restore the settings after the last thread."""
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                for setting, value in zip(settings, self._values, strict=True):
                    setting.write(value)


_saved_precision = _SavedPrecision()


@contextlib.contextmanager
def full_precision(device: Device | None) -> Iterator[None]:
    """A context in which torch computes float32 products in float32, not in TF32 or bfloat16.

    Autocasting, which a surrounding training loop may have enabled, is off as well. Does nothing on other
    devices.
    """
    if device is None or not device.is_torch:
        yield
        return
    torch = importlib.import_module("torch")
    settings = _precision_settings(torch)
    _saved_precision.enter(settings)
    try:
        with _without_autocast(torch, device.native):
            yield
    finally:
        _saved_precision.leave(settings)


def _without_autocast(torch: Any, device: Any) -> AbstractContextManager[Any]:
    """A context without ``torch.autocast`` in this thread."""
    try:
        if not torch.is_autocast_enabled(device.type):
            return contextlib.nullcontext()
    except RuntimeError:
        # This type of device has no autocasting.
        return contextlib.nullcontext()
    context: AbstractContextManager[Any] = torch.autocast(device.type, enabled=False)
    return context


def _precision_settings(torch: Any) -> list[_PrecisionSetting]:
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        return [
            _BackendPrecision(torch.backends.cuda.matmul),
            _BackendPrecision(torch.backends.mkldnn.matmul),
        ]
    return [_GlobalPrecision(torch)]


class _BackendPrecision:
    """The setting for products of one backend; unset, it inherits the one for all operations."""

    exact = "ieee"

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def before(self) -> str:
        """See `_PrecisionSetting.before`."""
        value: str = self._backend.fp32_precision
        # Reading does not distinguish a value set here from an inherited one; unsetting it does.
        self.write("none")
        return "none" if self._backend.fp32_precision == value else value

    def write(self, value: str, /) -> None:
        """See `_PrecisionSetting.write`."""
        self._backend.fp32_precision = value


class _GlobalPrecision:
    """The single setting of torch before 2.9."""

    exact = "highest"

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def before(self) -> str:
        """See `_PrecisionSetting.before`."""
        return str(self._torch.get_float32_matmul_precision())

    def write(self, value: str, /) -> None:
        """See `_PrecisionSetting.write`."""
        self._torch.set_float32_matmul_precision(value)
