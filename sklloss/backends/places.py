"""Where arrays of other libraries live, and how numbers get there and back."""

import contextlib
import importlib
import sys
import threading
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from array_api_compat import (
    array_namespace,
    is_array_api_obj,
    is_numpy_array,
    is_torch_namespace,
)
from array_api_compat import device as device_of

# Bytes that are moved at a time: a host may have to make a copy of each part.
PART_BYTES = 1 << 26


@dataclass(frozen=True)
class Place:
    """A namespace of the array API and one of its devices.

    Parameters
    ----------
    xp : module
        As array-api-compat has it.
    device : object
        What the namespace calls it.
    """

    xp: object
    device: object

    def __str__(self):
        return f"{self.name} on {self.device}"

    @property
    def name(self):
        """What people call the library."""
        return self.xp.__name__.removeprefix("array_api_compat.")

    @property
    def is_torch(self):
        """Whether the arrays are torch's tensors."""
        return is_torch_namespace(self.xp)

    @property
    def wide(self):
        """The NumPy dtype that sums are carried in: float64 where the device has it."""
        kinds = self.xp.__array_namespace_info__().dtypes(device=self.device, kind="real floating")
        return np.dtype(np.float64 if "float64" in kinds else np.float32)

    def real(self, dtype):
        """The namespace's own of a NumPy dtype."""
        return getattr(self.xp, np.dtype(dtype).name)

    def numpy_dtype(self, array):
        """The NumPy dtype of an array of floats there, or None if it holds anything else."""
        names = ("float32", "float64")
        return next((np.dtype(name) for name in names if array.dtype == getattr(self.xp, name)), None)

    def put(self, array, dtype=None):
        """A copy of a NumPy array there, its dtype changed to a NumPy dtype on the way."""
        array = np.asarray(array)
        if dtype is not None:
            array = array.astype(dtype, copy=False)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        if self.is_torch:
            # a tensor must not share memory that others may write to, or that is read-only
            # and is to stay on the host first, whatever torch's default device
            return self.xp.asarray(np.array(array, order="C", copy=True), device="cpu").to(self.device)
        return self.xp.asarray(array, device=self.device, copy=True)

    def get(self, array):
        """A copy of an array there as NumPy's."""
        return np.array(to_numpy(array), copy=True)


def place_of(array):
    """The `Place` of an array, or None for what NumPy takes: its own arrays, lists, data frames, SciPy's."""
    if type(array) is np.ndarray or scipy.sparse.issparse(array):
        return None
    if not is_array_api_obj(array) or is_numpy_array(array):
        return None
    xp = array_namespace(array)
    return Place(xp, device_of(array))


def to_numpy(array):
    """An array of any namespace and device as NumPy's, without a copy where it can be; others as they are."""
    place = place_of(array)
    if place is None:
        return array
    if place.is_torch:
        array = array.detach().cpu().resolve_conj().resolve_neg()
        if array.dtype == place.xp.bfloat16:  # which NumPy has not
            array = array.to(place.xp.float32)
        return array.numpy()
    try:
        return np.asarray(array)
    except (TypeError, RuntimeError, ValueError, BufferError):
        return np.from_dlpack(array, device="cpu")


def place_for(device):
    """The `Place` that an estimator's ``device`` asks for, or None for NumPy and the kernels.

    Parameters
    ----------
    device : None, str or torch.device
        "cpu" is where NumPy's arrays live already. A ``torch.device`` asks for torch, on the CPU too.

    Raises
    ------
    TypeError, ValueError
        If it is no such thing, names no device of torch's, or one that this machine has not.
    ImportError
        If torch is not installed.
    """
    if device is None:
        return None
    given = f"device={device if isinstance(device, str) else str(device)!r}"
    torch = sys.modules.get("torch")
    if not isinstance(device, str) and (torch is None or not isinstance(device, torch.device)):
        raise TypeError(f"device must be None, a string such as 'cuda', or a torch.device, got {device!r}")
    if isinstance(device, str):
        if device == "cpu":
            return None
        given = f"device={device!r}"
        if torch is None:
            try:
                torch = importlib.import_module("torch")
            except ImportError as error:
                raise ImportError(
                    f"{given} needs PyTorch, which is not installed: install a build of it for your device "
                    "(https://pytorch.org/get-started/locally), or use device=None"
                ) from error
        try:
            device = torch.device(device)
        except RuntimeError as error:
            raise ValueError(
                f"{given} is no device that PyTorch {torch.__version__} knows: {error}"
            ) from None
    if device.type == "meta":
        raise ValueError(f"{given} holds no numbers: use device=None, or a device that computes")
    try:
        probe = torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise ValueError(
            f"{given} is not available to PyTorch {torch.__version__} here ({reason}): install a build of it "
            "for that device (https://pytorch.org/get-started/locally), or use device=None"
        ) from None
    return Place(array_namespace(probe), probe.device)


def move(X, place):
    """A dense NumPy array, or CSR, as it is there: moved part by part, so that no second copy is made here.

    Raises
    ------
    MemoryError
        If it does not fit there. Nothing of it is left there then.
    """
    try:
        if scipy.sparse.issparse(X):
            from sklloss.backends.torch_csr import TorchCSR

            return TorchCSR(X, place)
        rows = max(1, PART_BYTES // max(1, X.itemsize * X.shape[1]))
        if X.shape[0] <= rows:
            return place.put(X)
        there = place.xp.empty(X.shape, dtype=place.real(X.dtype), device=place.device)
        for first in range(0, X.shape[0], rows):
            there[first : first + rows, ...] = place.put(X[first : first + rows])
        return there
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        gib = (X.data.nbytes if scipy.sparse.issparse(X) else X.nbytes) / 2**30
        reason = str(error).splitlines()[0]
    # outside the handler, whose traceback would hold on to what has been moved
    there = None
    raise MemoryError(f"X takes {gib:.3g} GiB, which {place} has no room for: {reason}")


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
def full_precision(place):
    """Within this, float32 products of torch's matrices are float32's: TF32 or bfloat16 never stand in."""
    if place is None or not place.is_torch:
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
        with _without_autocast(torch, place.device):
            yield
    finally:
        with _precise["lock"]:
            _precise["count"] -= 1
            if _precise["count"] == 0:
                for setting, value in zip(settings, _precise["before"], strict=True):
                    setting.write(value)


def _without_autocast(torch, device):
    """A context in which ``torch.autocast``, which belongs to a thread, changes no dtype."""
    if not torch.is_autocast_enabled(device.type):
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
