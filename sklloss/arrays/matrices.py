"""X on a device: dense arrays, moved part by part, and CSR matrices on torch devices."""

from __future__ import annotations

import importlib
import warnings
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse

from sklloss.arrays.device import Device, is_out_of_memory

Tensor: TypeAlias = Any
Indices: TypeAlias = npt.NDArray[np.integer[Any]]

# Bytes moved at a time. Moving may take a copy of each part on the host, which this bounds.
PART_BYTES = 1 << 26


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


class TorchCSR:
    """A SciPy CSR matrix on a torch device, for products with it and with its transpose.

    The device stores it by rows, in its dtype, and from the first product with the transpose also by columns,
    in the dtype of sums.

    Parameters
    ----------
    X : CSR matrix or array of shape (n, features), float32 or float64
        Without duplicate entries. It is referenced, not copied.
    device : Device

    Attributes
    ----------
    shape : tuple
    dtype : torch.dtype
    device : Device

    Raises
    ------
    ValueError
        If torch cannot multiply sparse matrices on the device.
    """

    ndim = 2

    def __init__(self, X: Any, device: Device) -> None:
        self.device = device
        self.shape: tuple[int, int] = X.shape
        self.nnz: int = X.nnz
        self._host = X
        self._check_device()
        self._starts: Indices = X.indptr
        self._by_rows = self._put(X, X.dtype)
        self._matrix = csr_tensor(*self._by_rows, X.shape)
        self.dtype: Any = self._matrix.dtype

    @property
    def host(self) -> Any:
        """The SciPy matrix that it was made from."""
        return self._host

    @cached_property
    def _by_columns(self) -> tuple[Tensor, Tensor, Tensor]:
        return self._put(self._host.tocsc(), self.device.wide)

    @cached_property
    def _transpose(self) -> Tensor:
        return csr_tensor(*self._by_columns, self.shape[::-1])

    def __matmul__(self, w: Tensor) -> Tensor:
        """The product with a matrix of shape (features, outputs), in X's dtype."""
        return self._matrix @ w

    def transposed(self, slopes: Tensor) -> Tensor:
        """The product of the transpose with a matrix of shape (n, outputs), in the dtype of sums."""
        return self._transpose @ slopes.to(self._transpose.dtype)

    def weighted_squares(self, weight: Tensor) -> Tensor:
        """The product of the transpose, its entries squared, with (n,) or (n, outputs) weights."""
        starts, indices, values = self._by_columns
        squares = csr_tensor(starts, indices, values * values, self.shape[::-1])
        weight = weight.to(values.dtype)
        return (squares @ weight[:, None])[:, 0] if weight.ndim == 1 else squares @ weight

    def largest(self) -> npt.NDArray[Any]:
        """The largest absolute value in each column, a NumPy array of shape (features,)."""
        _, indices, values = self._by_rows
        largest = values.new_zeros(self.shape[1])
        return self.device.get(largest.scatter_reduce(0, indices.long(), values.abs(), "amax"))

    def rows(self, first: int, last: int) -> _RowSlice:
        """The rows [first, last), for products and for `_RowSlice.dense`."""
        if (first, last) == (0, self.shape[0]):
            return _RowSlice(self._matrix)
        starts, indices, values = self._by_rows
        low, high = int(self._starts[first]), int(self._starts[last])
        shape = (last - first, self.shape[1])
        return _RowSlice(
            csr_tensor(starts[first : last + 1] - low, indices[low:high], values[low:high], shape)
        )

    def take_rows(self, rows: Indices) -> TorchCSR:
        """The rows with the given numbers, a NumPy array."""
        return TorchCSR(self._host[rows], self.device)

    def dense_rows(self, rows: Indices) -> Tensor:
        """The rows with the given numbers, a NumPy array, as a dense tensor."""
        torch = importlib.import_module("torch")
        _, indices, values = self._by_rows
        lengths = (self._starts[rows + 1] - self._starts[rows]).astype(np.int64)
        ends = np.cumsum(lengths)
        stored = int(ends[-1]) if len(rows) else 0
        # From a position among the taken entries to the one in X, and the length of each row.
        table = self.device.put(np.stack([self._starts[rows] - (ends - lengths), lengths]).astype(np.int64))
        row = torch.arange(len(rows), device=values.device)
        row = torch.repeat_interleave(row, table[1], output_size=stored)
        entry = torch.arange(stored, device=values.device) + table[0][row]
        dense = values.new_zeros(len(rows) * self.shape[1])
        dense[row * self.shape[1] + indices[entry]] = values[entry]
        return dense.reshape(len(rows), self.shape[1])

    def gather_rows(self, order: npt.NDArray[np.intp], order_on_device: Tensor) -> GatheredRows:
        """Copy rows in any order on the device, without making the host wait for it.

        Parameters
        ----------
        order : ndarray of intp
            The numbers of the rows.
        order_on_device : tensor
            The same numbers on the device.
        """
        torch = importlib.import_module("torch")
        starts, indices, values = self._by_rows
        # The host knows the lengths of the rows, so it need not ask the device for the size of a result.
        ends = np.append(0, np.cumsum(self._starts[order + 1] - self._starts[order], dtype=np.int64))
        total = int(ends[-1])
        new_starts = self.device.put(ends, np.int64)
        numbers = torch.arange(len(order), device=order_on_device.device)
        owners = torch.repeat_interleave(numbers, new_starts[1:] - new_starts[:-1], output_size=total)
        entries = torch.arange(total, device=order_on_device.device)
        entries = entries + (starts[order_on_device] - new_starts[:-1])[owners]
        return GatheredRows(ends, new_starts, owners, indices[entries].long(), values[entries], self.shape[1])

    def every(self, step: int) -> TorchCSR:
        """Every step-th row, from the first one on."""
        return TorchCSR(self._host[::step], self.device)

    def _put(self, X: Any, dtype: npt.DTypeLike) -> tuple[Tensor, Tensor, Tensor]:
        """Row (or column) starts, indices and values on the device."""
        wide = max(X.nnz, *X.shape) > np.iinfo(np.int32).max
        index: npt.DTypeLike = np.int64 if wide else np.int32
        return (
            self.device.put(X.indptr, index),
            self.device.put(X.indices, index),
            self.device.put(X.data, dtype),
        )

    def _check_device(self) -> None:
        one = self.device.put(np.ones(1), self.device.wide)
        starts, indices = self.device.put([0, 1], np.int32), self.device.put([0], np.int32)
        try:
            csr_tensor(starts, indices, one, (1, 1)) @ one[:, None]
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0].split(". ")[0]
            raise ValueError(
                f"{self.device} multiplies no sparse matrices ({reason}): give a dense X, or use device=None"
            ) from None


class _RowSlice:
    """Consecutive rows of a `TorchCSR`."""

    def __init__(self, matrix: Tensor) -> None:
        self._matrix = matrix

    def __matmul__(self, w: Tensor) -> Tensor:
        return self._matrix @ w

    def dense(self) -> Tensor:
        """The rows as a dense tensor."""
        return self._matrix.to_dense()


class GatheredRows:
    """Rows of a `TorchCSR` in the order of `TorchCSR.gather_rows`.

    Parameters
    ----------
    ends : ndarray of int64, shape (rows + 1,)
        Where each row starts among the entries, and where the last one ends.
    starts : tensor
        The same on the device.
    owners, indices, values : tensors of shape (entries,)
        Each entry's row, column and value.
    features : int
    """

    def __init__(
        self,
        ends: npt.NDArray[np.int64],
        starts: Tensor,
        owners: Tensor,
        indices: Tensor,
        values: Tensor,
        features: int,
    ) -> None:
        self._ends, self._starts = ends, starts
        self._owners, self._indices, self._values = owners, indices, values
        self._features = features

    def rows(self, first: int, last: int) -> GatheredSlice:
        """The rows [first, last) in that order, for products."""
        part = slice(int(self._ends[first]), int(self._ends[last]))
        starts = self._starts[first : last + 1] - int(self._ends[first])
        owners = self._owners[part] - first
        shape = (last - first, self._features)
        return GatheredSlice(starts, owners, self._indices[part], self._values[part], shape)


class GatheredSlice:
    """Consecutive rows of `GatheredRows`: row starts, and the row, column and value of each entry."""

    def __init__(
        self, starts: Tensor, owners: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, int]
    ) -> None:
        self._owners, self._indices, self._values, self._shape = owners, indices, values, shape
        self._matrix = csr_tensor(starts, indices, values, shape)

    def __matmul__(self, w: Tensor) -> Tensor:
        return self._matrix @ w

    def transposed(self, slopes: Tensor) -> Tensor:
        """The product of the transpose with a matrix of shape (rows, outputs), in the matrix's dtype."""
        products = self._values.to(slopes.dtype)[:, None] * slopes[self._owners]
        return slopes.new_zeros((self._shape[1], slopes.shape[1])).index_add_(0, self._indices, products)


def csr_tensor(starts: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """An unchecked CSR tensor on the device of its parts, without torch's warning that CSR is in beta."""
    torch = importlib.import_module("torch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)", category=UserWarning)
        return torch.sparse_csr_tensor(
            starts, indices, values, size=shape, device=values.device, check_invariants=False
        )
