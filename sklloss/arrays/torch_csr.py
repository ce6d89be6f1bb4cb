"""CSR matrices on torch's devices."""

import importlib
import warnings
from functools import cached_property

import numpy as np

from sklloss.arrays.device import is_out_of_memory


class TorchCSR:
    """A CSR matrix of SciPy's on a device of torch's, for products of it and of its transpose.

    It is there by rows in its dtype and, once it is asked for its transpose, by columns in that of sums.

    Parameters
    ----------
    X : CSR matrix or array, float32 or float64
        With no entry twice. It is held on to.
    device : Device

    Attributes
    ----------
    shape : tuple
    dtype : torch.dtype
    device : Device

    Raises
    ------
    ValueError
        If torch multiplies no sparse matrices there.
    """

    ndim = 2

    def __init__(self, X, device):
        self.device, self.shape, self._host = device, X.shape, X
        self.nnz = X.nnz
        self._check_device()
        self._starts = X.indptr
        self._parts = self._put(X, X.dtype)
        self._matrix = csr_tensor(*self._parts, X.shape)
        self.dtype = self._matrix.dtype

    @property
    def host(self):
        """The matrix that it was made of."""
        return self._host

    @cached_property
    def _turned_parts(self):
        return self._put(self._host.tocsc(), self.device.wide)

    @cached_property
    def _turned(self):
        return csr_tensor(*self._turned_parts, self.shape[::-1])

    def __matmul__(self, w):
        """The product with a matrix (features, outputs) of its dtype."""
        return self._matrix @ w

    def transposed(self, slopes):
        """The product of its transpose with a matrix (n, outputs), in the dtype of sums."""
        return self._turned @ slopes.to(self._turned.dtype)

    def weighted_squares(self, weight):
        """The same of its squared entries, for (n,) or (n, outputs)."""
        starts, indices, values = self._turned_parts
        squares = csr_tensor(starts, indices, values * values, self.shape[::-1])
        weight = weight.to(values.dtype)
        return (squares @ weight[:, None])[:, 0] if weight.ndim == 1 else squares @ weight

    def largest(self):
        """The largest size of a number in each column, (features,), in NumPy."""
        _, indices, values = self._parts
        largest = values.new_zeros(self.shape[1])
        return self.device.get(largest.scatter_reduce(0, indices.long(), values.abs(), "amax"))

    def rows(self, first, last):
        """The rows [first, last), for products with it and for `dense`."""
        if (first, last) == (0, self.shape[0]):
            return _Part(self._matrix)
        starts, indices, values = self._parts
        low, high = int(self._starts[first]), int(self._starts[last])
        shape = (last - first, self.shape[1])
        return _Part(csr_tensor(starts[first : last + 1] - low, indices[low:high], values[low:high], shape))

    def take_rows(self, rows):
        """Some of the rows, by their numbers in NumPy."""
        return TorchCSR(self._host[rows], self.device)

    def dense_rows(self, rows):
        """Some of the rows as a dense tensor, by their numbers in NumPy."""
        torch = importlib.import_module("torch")
        _, indices, values = self._parts
        lengths = (self._starts[rows + 1] - self._starts[rows]).astype(np.int64)
        ends = np.cumsum(lengths)
        stored = int(ends[-1]) if len(rows) else 0
        # where each row starts, there and in what is taken
        table = self.device.put(np.stack([self._starts[rows] - (ends - lengths), lengths]).astype(np.int64))
        row = torch.arange(len(rows), device=values.device)
        row = torch.repeat_interleave(row, table[1], output_size=stored)
        entry = torch.arange(stored, device=values.device) + table[0][row]
        dense = values.new_zeros(len(rows) * self.shape[1])
        dense[row * self.shape[1] + indices[entry]] = values[entry]
        return dense.reshape(len(rows), self.shape[1])

    def every(self, step):
        """Each step-th of the rows."""
        return TorchCSR(self._host[::step], self.device)

    def _put(self, X, dtype):
        """Starts, indices and values, there."""
        wide = max(X.nnz, *X.shape) > np.iinfo(np.int32).max
        index = np.int64 if wide else np.int32
        return (
            self.device.put(X.indptr, index),
            self.device.put(X.indices, index),
            self.device.put(X.data, dtype),
        )

    def _check_device(self):
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


class _Part:
    """Rows of a CSR tensor."""

    def __init__(self, matrix):
        self._matrix = matrix

    def __matmul__(self, w):
        return self._matrix @ w

    def dense(self):
        return self._matrix.to_dense()


def csr_tensor(starts, indices, values, shape):
    """A CSR tensor, unchecked, where its parts are; torch warns of the first one that is made."""
    torch = importlib.import_module("torch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)", category=UserWarning)
        return torch.sparse_csr_tensor(
            starts, indices, values, size=shape, device=values.device, check_invariants=False
        )
