"""Rows of a `TorchCSR` in any order."""

import importlib

import numpy as np

from sklloss.arrays.torch_csr import csr_tensor


class TakenRows:
    """Rows taken from a `TorchCSR`, there and without waiting for it.

    Parameters
    ----------
    X : TorchCSR
    order : ndarray of intp
        Their numbers.
    at : tensor
        The same, there.
    """

    def __init__(self, X, order, at):
        torch = importlib.import_module("torch")
        starts, indices, values = X._parts
        # lengths are known on the host: nothing there needs to be asked for its size
        ends = np.cumsum(X._starts[order + 1] - X._starts[order], dtype=np.int64)
        self._ends, total = np.append(0, ends), int(ends[-1])
        self._starts = X.device.put(self._ends, np.int64)
        numbers = torch.arange(len(order), device=at.device)
        self._owners = torch.repeat_interleave(
            numbers, self._starts[1:] - self._starts[:-1], output_size=total
        )
        places = torch.arange(total, device=at.device) + (starts[at] - self._starts[:-1])[self._owners]
        self._indices, self._values = indices[places].long(), values[places]
        self._features = X.shape[1]

    def rows(self, first, last):
        """Some of them, for products."""
        part = slice(int(self._ends[first]), int(self._ends[last]))
        starts = self._starts[first : last + 1] - int(self._ends[first])
        owners = self._owners[part] - first
        return _Part(starts, owners, self._indices[part], self._values[part], (last - first, self._features))


class _Part:
    """A few rows: starts, and for each entry its row, its column and its value."""

    def __init__(self, starts, owners, indices, values, shape):
        self._owners, self._indices, self._values, self._shape = owners, indices, values, shape
        self._matrix = csr_tensor(starts, indices, values, shape)

    def __matmul__(self, w):
        return self._matrix @ w

    def transposed(self, slopes):
        """The product of the transpose with a matrix (rows, outputs), in its dtype."""
        products = self._values.to(slopes.dtype)[:, None] * slopes[self._owners]
        return slopes.new_zeros((self._shape[1], slopes.shape[1])).index_add_(0, self._indices, products)
