"""Devices: where arrays live, how they are moved from and to NumPy, and at which precision torch multiplies.

A `Device` is a namespace of the array API and one of its devices. None stands for NumPy.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import reprlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from array_api_compat import (
    array_namespace,
    is_array_api_obj,
    is_dask_array,
    is_jax_namespace,
    is_numpy_array,
    is_torch_namespace,
)
from array_api_compat import device as native_device


@dataclass(frozen=True)
class Device:
    """A namespace of the array API and one of its devices.

    Parameters
    ----------
    xp : module
        The namespace, as array-api-compat wraps it.
    native : object
        The device in the namespace's own terms, such as a ``torch.device``.
    """

    xp: Any
    native: Any

    def __str__(self) -> str:
        return f"{self.name} on {self.native}"

    @property
    def name(self) -> str:
        """The name of the library, such as "torch"."""
        return str(self.xp.__name__).removeprefix("array_api_compat.")

    @property
    def is_torch(self) -> bool:
        """Whether the arrays are torch tensors."""
        return bool(is_torch_namespace(self.xp))

    @property
    def is_jax(self) -> bool:
        """Whether the arrays are JAX arrays, which are immutable."""
        return bool(is_jax_namespace(self.xp))

    @property
    def in_main_memory(self) -> bool:
        """Whether NumPy can read the arrays in place: those of torch or JAX on the CPU."""
        if self.is_torch:
            return bool(self.native.type == "cpu")
        return self.is_jax and getattr(self.native, "platform", None) == "cpu"

    @functools.cached_property
    def _dtype_names(self) -> frozenset[str]:
        return frozenset(self.xp.__array_namespace_info__().dtypes(device=self.native))

    @property
    def wide(self) -> np.dtype[Any]:
        """The NumPy dtype of sums: float64 if the device supports it, else float32."""
        return np.dtype(np.float64 if "float64" in self._dtype_names else np.float32)

    def has(self, dtype: np.dtype[Any]) -> bool:
        """Whether the device can store and compute with a NumPy dtype."""
        # torch stores the wider unsigned integers, but few of its operations accept them.
        if self.is_torch and dtype.kind == "u" and dtype.itemsize > 1:
            return False
        return dtype.name in self._dtype_names or (self.is_torch and dtype.name == "float16")

    def floats(self, dtype: npt.DTypeLike) -> np.dtype[Any]:
        """A floating-point NumPy dtype if the device supports it, else `wide`."""
        dtype = np.dtype(dtype)
        return dtype if self.has(dtype) else self.wide

    def holds(self, array: npt.NDArray[Any]) -> np.dtype[Any] | None:
        """The NumPy dtype that represents a NumPy array on the device without rounding, or None."""
        dtype: np.dtype[Any] = array.dtype.newbyteorder("=")
        if self.has(dtype):
            return dtype
        others: list[np.dtype[Any]] = [np.dtype(np.int64), np.dtype(np.int32)]
        if dtype.kind == "f":
            others = [self.floats(dtype)]
        with np.errstate(over="ignore"):
            equal = [other for other in others if self.has(other) and (array.astype(other) == array).all()]
        return equal[0] if equal else None

    def real(self, dtype: npt.DTypeLike) -> Any:
        """The namespace's equivalent of a NumPy dtype."""
        return getattr(self.xp, np.dtype(dtype).name)

    def numpy_dtype(self, array: Any) -> np.dtype[Any] | None:
        """The NumPy dtype of a float32 or float64 array of this namespace, None for any other."""
        names = ("float32", "float64")
        return next((np.dtype(name) for name in names if array.dtype == getattr(self.xp, name)), None)

    def put(self, array: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> Any:
        """Copy a NumPy array to the device.

        Parameters
        ----------
        array : array-like
        dtype : NumPy dtype, optional
            The dtype of the copy; by default that of the array. A floating-point dtype that the device does
            not support becomes `wide`.

        Returns
        -------
        array of this namespace, which shares no memory with ``array``
        """
        array = np.asarray(array)
        dtype = np.dtype(array.dtype if dtype is None else dtype).newbyteorder("=")
        if dtype.kind == "f":
            dtype = self.floats(dtype)
        if not self.is_torch:
            return self.xp.asarray(array.astype(dtype, copy=False), device=self.native, copy=True)
        # A CPU tensor must not alias memory that others may write to, and torch warns of read-only memory.
        must_copy = self.native.type == "cpu" or not array.flags.writeable
        array = np.array(array, dtype=dtype, order="C", copy=True if must_copy else None)
        return self.xp.asarray(array, device=self.native)

    def as_numpy(self, array: Any) -> npt.NDArray[Any]:
        """An array of this device as a NumPy array, without a copy where possible."""
        if self.is_torch:
            array = array.detach().cpu().resolve_conj().resolve_neg()
            if array.dtype == self.xp.bfloat16:  # a dtype that NumPy does not have
                array = array.to(self.xp.float32)
            numpy_array: npt.NDArray[Any] = array.numpy()
            return numpy_array
        try:
            return np.asarray(array)
        except (TypeError, RuntimeError, ValueError, BufferError):
            # NumPy 2.0 has no device argument and reads main memory only.
            where: dict[str, Any] = {}
            if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
                where["device"] = "cpu"
            return np.from_dlpack(array, **where)

    def get(self, array: Any) -> npt.NDArray[Any]:
        """Copy an array of this device, or a NumPy array, into a new NumPy array."""
        return np.array(array if isinstance(array, np.ndarray) else self.as_numpy(array), copy=True)


def device_of(array: Any) -> Device | None:
    """The `Device` of an array or `TorchCSR`; None for whatever NumPy reads.

    That is NumPy arrays, lists, data frames and SciPy matrices, and Dask arrays as well: on those, every
    decision of a solver would compute the whole graph again.
    """
    if type(array) is np.ndarray or scipy.sparse.issparse(array):
        return None
    if not is_array_api_obj(array) or is_numpy_array(array) or is_dask_array(array):
        device = getattr(array, "device", None)
        return device if isinstance(device, Device) else None
    xp = array_namespace(array)
    return Device(xp, native_device(array))


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


def check_writable(device: Device, what: str) -> None:
    """Raise a TypeError if arrays of the device are immutable; ``what`` names what writes to them."""
    if device.is_jax:
        raise TypeError(f"{what} write to arrays, and JAX arrays are immutable: pass NumPy or torch arrays")


def requested_device(device: Any) -> Device | None:
    """The `Device` that an estimator's ``device`` parameter selects; None for NumPy and the kernels.

    Parameters
    ----------
    device : None, str or torch.device
        "cpu" selects NumPy. A ``torch.device`` selects torch, on the CPU as well.

    Raises
    ------
    TypeError, ValueError, ImportError
        See `torch_device`.
    """
    if device is None or (isinstance(device, str) and device == "cpu"):
        return None
    return torch_device(device, "device", "None, a string such as 'cuda'", ", or use device=None")


def torch_device(device: Any, name: str, others: str, instead: str = "") -> Device:
    """The `Device` of a torch device.

    Parameters
    ----------
    device : str or torch.device
    name : str
        The argument that specifies it, for error messages.
    others : str
        What the argument may be other than a ``torch.device``, for error messages.
    instead : str
        What to do if the device is not available, for error messages.

    Raises
    ------
    TypeError
        If ``device`` is neither a string nor a ``torch.device``.
    ValueError
        If torch does not know the device, or this machine does not have it.
    ImportError
        If torch is not installed.
    """
    torch: Any = sys.modules.get("torch")
    if isinstance(device, str):
        given = f"{name}={device!r}"
        if torch is None:
            try:
                torch = importlib.import_module("torch")
            except ImportError as error:
                raise ImportError(
                    f"{given} needs PyTorch, which is not installed: install a build of it for your device "
                    f"(https://pytorch.org/get-started/locally){instead}"
                ) from error
        try:
            device = torch.device(device)
        except RuntimeError as error:
            raise ValueError(
                f"{given} is no device that PyTorch {torch.__version__} knows: {error}"
            ) from None
    elif torch is None or not isinstance(device, torch.device):
        shown = f"{reprlib.repr(device)} of {type(device).__name__}"
        raise TypeError(f"{name} must be {others}, or a torch.device, got {shown}")
    else:
        given = f"{name}={str(device)!r}"
    if device.type == "meta":
        raise ValueError(f"{given} stores no values: choose a device that computes{instead}")
    try:
        probe = torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise ValueError(
            f"{given} is not available to PyTorch {torch.__version__} here ({reason}): install a build of it "
            f"for that device (https://pytorch.org/get-started/locally){instead}"
        ) from None
    return Device(array_namespace(probe), probe.device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error raised by torch or another library means that a device's memory is exhausted."""
    return (
        isinstance(error, MemoryError)
        or "out of memory" in str(error).lower()
        or (type(error).__name__ == "OutOfMemoryError")
    )


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
    _precision.enter(torch)
    try:
        with _without_autocast(torch, device.native):
            yield
    finally:
        _precision.leave()


class _FullPrecision:
    """The threads in `full_precision`: the first changes torch's settings, the last restores them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._restore: Callable[[], None] = lambda: None

    def enter(self, torch: Any) -> None:
        with self._lock:
            if self._threads == 0:
                self._restore = _set_full_precision(torch)
            self._threads += 1

    def leave(self) -> None:
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                self._restore()


_precision = _FullPrecision()


def _set_full_precision(torch: Any) -> Callable[[], None]:
    """Make float32 products exact; returns a function that restores torch's settings."""
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch before 2.9 has a single setting
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        return functools.partial(torch.set_float32_matmul_precision, before)
    backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    settings = [_precision_of(backend) for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"

    def restore() -> None:
        for backend, setting in zip(backends, settings, strict=True):
            backend.fp32_precision = setting

    return restore


def _precision_of(backend: Any) -> str:
    """The precision set for a backend; "none" if it inherits that of all operations."""
    precision: str = backend.fp32_precision
    # Reading does not distinguish a value set here from an inherited one; unsetting it does.
    backend.fp32_precision = "none"
    return "none" if backend.fp32_precision == precision else precision


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
