"""The rows that a network reads where they live, with their targets and weights."""

import numpy as np


class DeviceNetworkRows:
    """Rows of X there, targets beside them; weights stay NumPy's, for the means of batches.

    Parameters
    ----------
    device : Device
    X : array of shape (n, features) or TorchCSR
    target, weight, codes
        As `sklloss.kernels.network.network.Rows` takes them, in NumPy.
    dtype : NumPy dtype
        That of X.
    """

    def __init__(self, device, X, target, weight, codes, dtype):
        self._device, self._X = device, X
        self.n, features = X.shape
        self.row_bytes = features * dtype.itemsize
        self._y = None
        if codes is not None:
            self._y = device.put(codes, np.int64)
        elif target is not None:
            self._y = device.put(target, dtype)
        self.weight = weight
        self.some_left_out = weight is not None and not weight.all()
        self._sparse = hasattr(X, "dense_rows")

    @property
    def total_weight(self):
        """The sum of the weights of all rows; a row's is the mean of those of its outputs."""
        if self.weight is None:
            return float(self.n)
        return float(self.weight.reshape(self.n, -1).mean(axis=1, dtype=np.float64).sum())

    def index(self, order):
        """Numbers of rows, there."""
        return self._device.put(order, np.int64)

    def targets(self):
        """Those of all rows."""
        return self._y

    def block(self, first, last, index=None, order=None):
        """X and the targets of the rows [first, last), by way of an order if there is one.

        ``index`` is `index` of it.
        """
        xp = self._device.xp
        if index is None:
            y = None if self._y is None else self._y[first:last, ...]
            if self._sparse:
                return self._X.dense_rows(np.arange(first, last)), y
            return self._X[first:last, ...], y
        index = index[first:last]
        y = None if self._y is None else xp.take(self._y, index, axis=0)
        if self._sparse:
            return self._X.dense_rows(order[first:last]), y
        return xp.take(self._X, index, axis=0), y
