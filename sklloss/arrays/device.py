"""Where arrays of other libraries live, and how numbers get there and back."""

import contextlib
import functools
import importlib
import reprlib
import sys
import threading
from dataclasses import dataclass

import numpy as np
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

# Bytes that are moved at a time: a host may have to make a copy of each part.
PART_BYTES = 1 << 26


@dataclass(frozen=True)
class Device:
    """A namespace of the array API and one of its devices.

    Parameters
    ----------
    xp : module
        As array-api-compat has it.
    native : object
        The device as the namespace knows it, such as a ``torch.device``.
    """

    xp: object
    native: object

    def __str__(self):
        return f"{self.name} on {self.native}"

    @property
    def name(self):
        """What people call the library."""
        return self.xp.__name__.removeprefix("array_api_compat.")

    @property
    def is_torch(self):
        """Whether the arrays are torch's tensors."""
        return is_torch_namespace(self.xp)

    @property
    def is_jax(self):
        """Whether the arrays are JAX's, to which nothing can be written."""
        return is_jax_namespace(self.xp)

    @property
    def in_main_memory(self):
        """Whether NumPy can read the arrays of torch's or JAX's where they are."""
        if self.is_torch:
            return self.native.type == "cpu"
        return self.is_jax and getattr(self.native, "platform", None) == "cpu"

    @functools.cached_property
    def _names(self):
        """The names of the dtypes that arrays there may have."""
        return frozenset(self.xp.__array_namespace_info__().dtypes(device=self.native))

    @property
    def wide(self):
        """The NumPy dtype that sums are carried in: float64 where the device has it."""
        return np.dtype(np.float64 if "float64" in self._names else np.float32)

    def has(self, dtype):
        """Whether arrays there may have a NumPy dtype, and be worked with."""
        # torch has these as storage, and little that reads it
        if self.is_torch and dtype.kind == "u" and dtype.itemsize > 1:
            return False
        return dtype.name in self._names or (self.is_torch and dtype.name == "float16")

    def floats(self, dtype):
        """A NumPy dtype of floats if arrays there may have it, else `wide`."""
        dtype = np.dtype(dtype)
        return dtype if self.has(dtype) else self.wide

    def holds(self, array):
        """The NumPy dtype in which the numbers of a NumPy array can be there as they are, or None."""
        dtype = array.dtype.newbyteorder("=")
        if self.has(dtype):
            return dtype
        others = [self.floats(dtype)] if dtype.kind == "f" else [np.dtype(np.int64), np.dtype(np.int32)]
        with np.errstate(over="ignore"):
            equal = [other for other in others if self.has(other) and (array.astype(other) == array).all()]
        return equal[0] if equal else None

    def real(self, dtype):
        """The namespace's own of a NumPy dtype."""
        return getattr(self.xp, np.dtype(dtype).name)

    def numpy_dtype(self, array):
        """The NumPy dtype of an array of floats there, or None if it holds anything else."""
        names = ("float32", "float64")
        return next((np.dtype(name) for name in names if array.dtype == getattr(self.xp, name)), None)

    def put(self, array, dtype=None):
        """A copy of a NumPy array there, its dtype changed to a NumPy dtype on the way.

        Without a dtype, floats that the device does not have become `wide`.
        """
        array = np.asarray(array)
        dtype = np.dtype(array.dtype if dtype is None else dtype).newbyteorder("=")
        if dtype.kind == "f":
            dtype = self.floats(dtype)
        if not self.is_torch:
            return self.xp.asarray(array.astype(dtype, copy=False), device=self.native, copy=True)
        # On the CPU a tensor must not share memory that others may write to. Of memory that is read-only
        # torch warns.
        copied = self.native.type == "cpu" or not array.flags.writeable
        array = np.array(array, dtype=dtype, order="C", copy=True if copied else None)
        return self.xp.asarray(array, device=self.native)

    def get(self, array):
        """A copy of an array there as NumPy's."""
        return np.array(to_numpy(array), copy=True)


def device_of(array):
    """The `Device` of an array or `TorchCSR`; None for what NumPy takes.

    That is its own arrays, lists, data frames and SciPy's matrices.

    Dask's arrays too: each number that a solver decides by would compute their graph once more.
    """
    if type(array) is np.ndarray or scipy.sparse.issparse(array):
        return None
    if not is_array_api_obj(array) or is_numpy_array(array) or is_dask_array(array):
        device = getattr(array, "device", None)
        return device if isinstance(device, Device) else None
    xp = array_namespace(array)
    return Device(xp, native_device(array))


def check_writable(device, what):
    """Refuse a device whose arrays cannot be written to, for what has to."""
    if device.is_jax:
        raise TypeError(f"{what} write to arrays, and JAX's allow no writing: pass NumPy's or torch's")


def to_numpy(array):
    """An array of any namespace and device as NumPy's, without a copy where it can be; others as they are."""
    device = device_of(array)
    if device is None:
        return array
    if device.is_torch:
        array = array.detach().cpu().resolve_conj().resolve_neg()
        if array.dtype == device.xp.bfloat16:  # which NumPy has not
            array = array.to(device.xp.float32)
        return array.numpy()
    try:
        return np.asarray(array)
    except (TypeError, RuntimeError, ValueError, BufferError):
        # NumPy 2.0 asks for no device, and takes what is in main memory
        where = {} if np.lib.NumpyVersion(np.__version__) < "2.1.0" else {"device": "cpu"}
        return np.from_dlpack(array, **where)


def to_device(array, device):
    """A NumPy array as it is at a `Device`, None for NumPy; what cannot be there stays NumPy's.

    That is strings, and numbers of dtypes that arrays there do not have and that others would round.
    """
    dtype = device.holds(array) if device is not None and array.dtype.kind in "biuf" else None
    return array if dtype is None else device.put(array, dtype)


def requested_device(device):
    """The `Device` that an estimator's ``device`` asks for, or None for NumPy and the kernels.

    Parameters
    ----------
    device : None, str or torch.device
        "cpu" is where NumPy's arrays live already. A ``torch.device`` asks for torch, on the CPU too.

    Raises
    ------
    TypeError, ValueError, ImportError
        See `torch_device`.
    """
    if device is None or (isinstance(device, str) and device == "cpu"):
        return None
    return torch_device(device, "device", "None, a string such as 'cuda'", ", or use device=None")


def torch_device(device, name, others, instead=""):
    """The `Device` of a device of torch's.

    Parameters
    ----------
    device : str or torch.device
    name : str
        Of the argument that asks for it, for errors.
    others : str
        What else the argument may be but a ``torch.device``, for errors.
    instead : str
        What to do where the device cannot be had, for errors.

    Raises
    ------
    TypeError, ValueError
        If it is no such thing, names no device of torch's, or one that this machine has not.
    ImportError
        If torch is not installed.
    """
    torch = sys.modules.get("torch")
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
        raise ValueError(f"{given} holds no numbers: it takes a device that computes{instead}")
    try:
        probe = torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise ValueError(
            f"{given} is not available to PyTorch {torch.__version__} here ({reason}): install a build of it "
            f"for that device (https://pytorch.org/get-started/locally){instead}"
        ) from None
    return Device(array_namespace(probe), probe.device)


def transfer(X, device, dtype=None):
    """A dense NumPy array, or CSR, as it is there: moved part by part, so that no second copy is made here.

    Parameters
    ----------
    X : ndarray or CSR matrix, float32 or float64
    device : Device
    dtype : NumPy dtype, optional
        What a dense X becomes on the way.

    Raises
    ------
    MemoryError
        If it does not fit there. Nothing of it is left there then.
    """
    dtype = np.dtype(X.dtype if dtype is None else dtype)
    try:
        if scipy.sparse.issparse(X):
            from sklloss.arrays.torch_csr import TorchCSR

            return TorchCSR(X, device)
        with np.errstate(over="ignore"):
            rows = max(1, PART_BYTES // max(1, dtype.itemsize * X.shape[1]))
            if X.shape[0] <= rows:
                return device.put(X, dtype)
            there = device.xp.empty(X.shape, dtype=device.real(dtype), device=device.native)
            for first in range(0, X.shape[0], rows):
                last = min(first + rows, X.shape[0])
                there[first:last, ...] = device.put(X[first:last], dtype)
            return there
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        bytes_ = X.data.nbytes if scipy.sparse.issparse(X) else X.size * dtype.itemsize
        reason = str(error).splitlines()[0]
    # outside the handler, whose traceback would hold on to what has been moved
    there = None
    raise MemoryError(f"X takes {bytes_ / 2**30:.3g} GiB, which {device} has no room for: {reason}")


def is_out_of_memory(error):
    """Whether an error of torch's, or another library's, says that a device's memory is full."""
    return (
        isinstance(error, MemoryError)
        or "out of memory" in str(error).lower()
        or (type(error).__name__ == "OutOfMemoryError")
    )


# Threads in `full_precision` at the moment, and what was set before the first of them.
_precise = {"lock": threading.Lock(), "count": 0, "before": None}


@contextlib.contextmanager
def full_precision(device):
    """Within this, float32 products of torch's matrices are float32's: TF32 or bfloat16 never stand in.

    Nor does autocasting, which a training loop around may have switched on.
    """
    if device is None or not device.is_torch:
        yield
        return
    torch = importlib.import_module("torch")
    settings = _precision_settings(torch)
    with _precise["lock"]:
        if _precise["count"] == 0:
            _precise["before"] = [setting.before() for setting in settings]
            for setting in settings:
                setting.write(setting.exact)
        _precise["count"] += 1
    try:
        with _without_autocast(torch, device.native):
            yield
    finally:
        with _precise["lock"]:
            _precise["count"] -= 1
            if _precise["count"] == 0:
                for setting, value in zip(settings, _precise["before"], strict=True):
                    setting.write(value)


def _without_autocast(torch, device):
    """A context in which ``torch.autocast``, which belongs to a thread, changes no dtype."""
    try:
        if not torch.is_autocast_enabled(device.type):
            return contextlib.nullcontext()
    except RuntimeError:
        # there is none on this kind of device
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def _precision_settings(torch):
    """What decides on the precision of products."""
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        return [_Precision(torch.backends.cuda.matmul), _Precision(torch.backends.mkldnn.matmul)]
    return [_OnePrecision(torch)]


class _Precision:
    """The setting for one backend's products, which follows that of all operations where it is not set."""

    exact = "ieee"

    def __init__(self, holder):
        self._holder = holder

    def before(self):
        """What to write to have it as it is now."""
        value = self._holder.fp32_precision
        # reading does not tell a value of its own from one that it follows
        self.write("none")
        return "none" if self._holder.fp32_precision == value else value

    def write(self, value):
        self._holder.fp32_precision = value


class _OnePrecision:
    """The one setting of torch before 2.9."""

    exact = "highest"

    def __init__(self, torch):
        self.before, self.write = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
