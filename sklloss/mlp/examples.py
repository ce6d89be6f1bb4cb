"""What a network trains on: checked rows, and where what it learns is to live."""

from dataclasses import dataclass, replace

import numpy as np

from sklloss import losses
from sklloss.arrays.device import device_of, to_numpy
from sklloss.data import Origin, dtype_of, in_dtype, target_in_dtype, weight_in_dtype


@dataclass(frozen=True, eq=False)
class Examples:
    """Checked rows of X, and what a network should make of them.

    Attributes
    ----------
    X : ndarray, CSR, array of another namespace or TorchCSR
    loss : Loss
    values : ndarray of shape (n, outputs) or None
        Targets as the loss takes them.
    codes : ndarray of intp of shape (n,) or None
        Class codes, where ``values`` is None.
    weight : ndarray of shape (n,) or (n, outputs), or None
    truth : ndarray
        What predictions are compared with for our own score.
    strata : ndarray of shape (n,) or None
        What a split for validation keeps the shares of.
    y : ndarray or None
        Targets as scorers take them, where there is a scorer.
    home : Home
        Where X came from.
    """

    X: object
    loss: losses.Loss
    values: np.ndarray | None
    codes: np.ndarray | None
    weight: np.ndarray | None
    truth: np.ndarray
    strata: np.ndarray | None = None
    y: np.ndarray | None = None
    origin: Origin | None = None

    @property
    def device(self):
        """Where X is; None for NumPy."""
        return device_of(self.X)

    def take(self, rows):
        """Some of the rows."""
        names = ("values", "codes", "weight", "truth", "strata", "y")
        parts = {name: getattr(self, name) for name in names}
        parts = {name: part[rows] for name, part in parts.items() if part is not None}
        return replace(self, X=self._rows(rows), **parts)

    def _rows(self, rows):
        if self.device is None or hasattr(self.X, "take_rows"):
            return self.X[rows] if self.device is None else self.X.take_rows(rows)
        return self.device.xp.take(self.X, self.device.put(rows, np.int64), axis=0)

    def in_dtype(self, dtype, suffix=""):
        """The same in the dtype of a network; ``suffix`` is that of the arguments' names, for errors."""
        if dtype_of(self.X) == dtype:
            return self
        values, weight = self.values, self.weight
        if values is not None:
            values = target_in_dtype(values, dtype, self.loss, "y" + suffix)
        if weight is not None:
            weight = weight_in_dtype(weight, dtype, "sample_weight" + suffix)
        return replace(self, X=in_dtype(self.X, dtype, "X" + suffix), values=values, weight=weight)

    def on_host(self):
        """X as NumPy's array or CSR."""
        return self.X.host if hasattr(self.X, "host") else to_numpy(self.X)
