"""The objective of a network whose rows live in another library's arrays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sklloss.arrays.device import Device, check_writable, device_of
from sklloss.arrays.ops import Array, Steps, ops_for
from sklloss.arrays.ops_torch import in_place
from sklloss.arrays.transfer import full_precision
from sklloss.data.dataset import Dataset
from sklloss.losses import Loss, _checks
from sklloss.objectives.device_layers import GradientBuffer, Layers
from sklloss.objectives.network import NetworkObjective

# Bytes of rows gathered at once, rounded down to whole batches.
GATHER_BYTES = 1 << 24
# Bytes of activations held at once in a pass over all rows.
PASS_BYTES = 1 << 26


class DeviceNetworkObjective(NetworkObjective):
    """A `NetworkObjective` with parameters and moments on the device of the rows.

    An epoch waits for the device once, at its end.

    Parameters
    ----------
    widths, activation, dtype, loss, alpha
        As `NumpyNetworkObjective` takes them; dtype is NumPy's.
    device : Device
        Where rows and parameters live.
    """

    device: Device

    def __init__(
        self,
        widths: Sequence[int],
        activation: str,
        dtype: DTypeLike,
        device: Device,
        loss: Loss | None = None,
        alpha: float = 0.0,
    ) -> None:
        super().__init__(widths, dtype, alpha)
        if loss is not None:
            check_writable(device, "networks in training")
        self.device = device
        self._loss = loss
        self._in_place = None if loss is None else in_place(device, loss)
        self._ops = ops_for(device, self.dtype.itemsize)
        self._layers = Layers(self._ops, self.widths, activation)
        self._wide = device.real(device.wide)
        # The number of outputs over which the loss of a row is averaged.
        self._parts = 1 if loss is None or not loss.additive else loss.row_divisor(self.widths[-1])

    # Parameters -------------------------------------------------------------------------------------

    def put(self, array: Array) -> Array:
        """See `NetworkObjective.put`."""
        source = device_of(array)
        if source == self.device:
            return self._in_dtype(array)
        return self.device.put(array if source is None else source.get(array), self.dtype)

    def get(self, array: Array) -> np.ndarray:
        """See `NetworkObjective.get`."""
        return array if isinstance(array, np.ndarray) else self.device.get(array)

    def copy(self, array: Array) -> Array:
        """See `NetworkObjective.copy`; the array may have come from elsewhere."""
        moved = self.put(array)
        return self.device.xp.asarray(moved, copy=True) if moved is array else moved

    def is_finite(self, parameters: Array) -> bool:
        """See `NetworkObjective.is_finite`."""
        return bool(self.device.xp.all(self.device.xp.isfinite(parameters)))

    def pack(self, coefs: Sequence[Array], intercepts: Sequence[Array]) -> Array:
        """See `NetworkObjective.pack`."""
        return self._layers.pack([self.put(part) for part in coefs], [self.put(part) for part in intercepts])

    def unpack(self, parameters: Array) -> tuple[list[Array], list[Array]]:
        """See `NetworkObjective.unpack`."""
        coefs, intercepts = self._layers.unpack(self.put(parameters))
        xp = self.device.xp
        return [xp.asarray(part, copy=True) for part in coefs], [
            xp.asarray(part, copy=True) for part in intercepts
        ]

    def running(self) -> AbstractContextManager[Any]:
        """Products in the full precision of their dtype."""
        return full_precision(self.device)

    # Passes -----------------------------------------------------------------------------------------

    def rows(self, data: Dataset) -> DeviceNetworkRows:
        """See `NetworkObjective.rows`; targets are NumPy arrays, and are copied to the device."""
        return DeviceNetworkRows(self.device, data)

    def epoch(
        self,
        rows: DeviceNetworkRows,
        order: np.ndarray | None,
        batch_size: int,
        parameters: Array,
        steps: Steps,
    ) -> float:
        """See `NetworkObjective.epoch`."""
        n = rows.rows if order is None else len(order)
        batch_size = min(batch_size, n)
        shares, sums = self._shares(rows, order, np.arange(0, n, batch_size))
        total = _LossSum(self.device.xp, self._wide, rows.has_zero_weights)
        coefs, intercepts = self._layers.unpack(parameters)
        buffer = self._gradient_buffer(parameters)
        per_gather = max(1, GATHER_BYTES // max(1, batch_size * rows.row_bytes)) * batch_size
        index = None if order is None else rows.index(order)
        for lowest in range(0, n, per_gather):
            highest = min(lowest + per_gather, n)
            X, y = rows.block(lowest, highest, index, order)
            gathered = None if shares is None else shares[lowest:highest, ...]
            for low in range(lowest, highest, batch_size):
                high = min(low + batch_size, highest)
                batch, k = slice(low - lowest, high - lowest), low // batch_size
                raw, kept = self._layers.forward_to_train(X[batch, ...], coefs, intercepts)
                share = 1.0 / ((high - low) * self._parts) if gathered is None else gathered[batch, ...]
                delta = self._slopes(raw, y[batch, ...], share, total, high - low)
                gradient = self._layers.backward(delta, kept, coefs, buffer)
                if self.alpha:
                    penalty = self.alpha / float(sums[k])
                    self._add_penalty(parameters, gradient, penalty, total, high - low)
                steps.take(self._ops, k, parameters, gradient, self.coefs)
            total.flush()
        return total.result() / n

    def loss(self, rows: DeviceNetworkRows, parameters: Array) -> float:
        """See `NetworkObjective.loss`."""
        with self.running():
            total = _LossSum(self.device.xp, self._wide, rows.has_zero_weights)
            self._add_loss(rows, self.put(parameters), total, None)
            return total.result() / rows.rows

    def value_and_gradient(self, rows: DeviceNetworkRows, parameters: Array) -> tuple[float, np.ndarray]:
        """See `NetworkObjective.value_and_gradient`."""
        with self.running():
            parameters = self.put(parameters)
            total = _LossSum(self.device.xp, self._wide, rows.has_zero_weights)
            gradient = self.device.xp.zeros(
                self.size, dtype=self.device.real(self.dtype), device=self.device.native
            )
            self._add_loss(rows, parameters, total, gradient)
            if self.alpha:
                self._add_penalty(parameters, gradient, self.alpha / rows.total_weight, total, rows.rows)
            return total.result() / rows.rows, self.device.get(gradient)

    def predict(self, X: Array, parameters: Array) -> Array:
        """See `NetworkObjective.predict`; scores are a NumPy array if X is one."""
        on_host = device_of(X) is None
        n = X.shape[0]
        step = max(64, PASS_BYTES // (self.dtype.itemsize * sum(self.widths)))
        parts = []
        with self.running():
            coefs, intercepts = self._layers.unpack(self.put(parameters))
            rows = None if on_host else self.rows(Dataset(X))
            for first in range(0, n, step):
                last = min(first + step, n)
                if rows is None:
                    block = X[first:last]
                    block = self.put(block.toarray() if hasattr(block, "toarray") else block)
                else:
                    block = rows.block(first, last)[0]
                raw = self._layers.forward(self._in_dtype(block), coefs, intercepts)
                parts.append(self.device.get(raw) if on_host else raw)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if on_host else self.device.xp.concat(parts)

    # Inside -----------------------------------------------------------------------------------------

    def _in_dtype(self, array: Array) -> Array:
        dtype = self.device.real(self.dtype)
        return array if array.dtype == dtype else self.device.xp.astype(array, dtype)

    def _gradient_buffer(self, like: Array) -> GradientBuffer:
        return GradientBuffer(self._layers, self._ops.empty_like(like))

    def _shares(
        self, rows: DeviceNetworkRows, order: np.ndarray | None, starts: np.ndarray
    ) -> tuple[Array | None, np.ndarray]:
        """Each row's share in the mean loss of its batch, on the device, and the total weight of each batch.

        The shares are None if all rows of a batch have the same.
        """
        n = rows.rows if order is None else len(order)
        counts = np.diff(starts, append=n)
        if rows.weight is None:
            return None, counts
        weight = rows.weight if order is None else rows.weight[order]
        weight = weight.astype(np.float64).reshape(n, -1)
        sums = np.add.reduceat(weight.mean(axis=1), starts)
        return self.device.put(weight / (np.repeat(sums, counts)[:, None] * self._parts), self.dtype), sums

    def _slopes(self, raw: Array, y: Array, share: Any, total: _LossSum, count: int) -> Array:
        """The gradient by raw scores of a batch's mean loss, which is added to ``total`` times ``count``."""
        xp, loss = self.device.xp, self._loss
        assert loss is not None
        uniform = isinstance(share, float)
        if not loss.additive:
            value, gradient = loss.mean_formula(xp, y, raw, None if uniform else share[:, 0])
            total.add_scalar(value, count)
            return self._in_dtype(gradient)
        if self._in_place is not None:
            value, gradient, _ = self._in_place(y, raw, False)
        else:
            value, gradient = _checks.formula_result(loss, xp, y, raw)
            gradient = self._in_dtype(_checks.gradient_result(loss, xp, gradient, raw))
        total.add_values(value, share, count)
        if not uniform and total.has_zero_weights:
            # Rows of weight 0 may hold anything: inf * 0 would be NaN.
            return xp.where(share == 0.0, 0.0, gradient * share)
        return gradient if uniform and share == 1.0 else gradient * share

    def _add_penalty(
        self, parameters: Array, gradient: Array, penalty: float, total: _LossSum, count: int
    ) -> None:
        coefs = parameters[: self.coefs]
        total.add_scalar(self._ops.sum_of_squares(coefs, self._wide), 0.5 * penalty * count)
        self._ops.add_in_place(gradient[: self.coefs], coefs, penalty)

    def _add_loss(
        self, rows: DeviceNetworkRows, parameters: Array, total: _LossSum, out: Array | None
    ) -> None:
        """Add the mean loss of all rows, times their number; add its gradient to ``out`` if there is one."""
        assert self._loss is not None
        n, layers = rows.rows, self._layers
        coefs, intercepts = layers.unpack(parameters)
        shares = self._shares(rows, None, np.array([0]))[0]
        uniform_share = 1.0 / (n * self._parts)
        step = max(64, PASS_BYTES // (self.dtype.itemsize * 2 * sum(self.widths)))
        buffer = None if out is None else self._gradient_buffer(out)
        bounds = [(first, min(first + step, n)) for first in range(0, n, step)]
        slopes_of_all = None
        if not self._loss.additive:
            parts = [layers.forward(rows.block(*block)[0], coefs, intercepts) for block in bounds]
            raw = parts[0] if len(parts) == 1 else self.device.xp.concat(parts)
            share = uniform_share if shares is None else shares
            slopes_of_all = self._slopes(raw, rows.targets, share, total, n)
            if out is None:
                return
        for first, last in bounds:
            X, y = rows.block(first, last)
            raw, kept = layers.forward_to_train(X, coefs, intercepts)
            if slopes_of_all is None:
                share = uniform_share if shares is None else shares[first:last, ...]
                delta = self._slopes(raw, y, share, total, n)
            else:
                delta = slopes_of_all[first:last, ...]
            if out is not None and buffer is not None:
                self._ops.add_in_place(out, layers.backward(delta, kept, coefs, buffer), 1.0)
            total.flush()


class DeviceNetworkRows:
    """Rows of X on a device, with their targets on the same device.

    Weights stay NumPy arrays, as the sums over batches are computed by NumPy.

    Parameters
    ----------
    device : Device
    data : Dataset
        Its X must be on the device.
    """

    def __init__(self, device: Device, data: Dataset) -> None:
        self._device, self._X = device, data.X
        self.rows: int
        self.rows, features = data.X.shape
        self.row_bytes: int = features * data.dtype.itemsize
        self.targets: Array | None = None
        if data.codes is not None:
            self.targets = device.put(data.codes, np.int64)
        elif data.values is not None:
            self.targets = device.put(data.values, data.dtype)
        self.weight: NDArray[Any] | None = data.weight
        self.has_zero_weights: bool = data.weight is not None and not data.weight.all()
        self._sparse = hasattr(data.X, "dense_rows")

    @property
    def total_weight(self) -> float:
        """The sum of the weights of all rows; a row's is the mean of those of its outputs."""
        if self.weight is None:
            return float(self.rows)
        return float(self.weight.reshape(self.rows, -1).mean(axis=1, dtype=np.float64).sum())

    def index(self, order: np.ndarray) -> Array:
        """Row numbers on the device."""
        return self._device.put(order, np.int64)

    def block(
        self, first: int, last: int, index: Array | None = None, order: np.ndarray | None = None
    ) -> tuple[Array, Array]:
        """X and the targets of the rows [first, last), or of the rows order[first:last].

        ``index`` is what the method `index` made of the order.
        """
        xp, y = self._device.xp, self.targets
        if index is None:
            y = None if y is None else y[first:last, ...]
            if self._sparse:
                return self._X.dense_rows(np.arange(first, last)), y
            return self._X[first:last, ...], y
        assert order is not None
        index = index[first:last]
        y = None if y is None else xp.take(y, index, axis=0)
        if self._sparse:
            return self._X.dense_rows(order[first:last]), y
        return xp.take(self._X, index, axis=0), y


class _LossSum:
    """The objective summed on the device, with few operations for each batch.

    Parameters
    ----------
    xp : module
        A namespace of the array API.
    dtype : dtype
        Of the sum.
    has_zero_weights : bool
        Whether some rows have no weight; their losses may be anything.
    """

    def __init__(self, xp: Any, dtype: Any, has_zero_weights: bool) -> None:
        self._xp, self._dtype, self.has_zero_weights = xp, dtype, has_zero_weights
        self._sum: Array | None = None
        self._values: list[Array] = []
        self._shares: list[Any] = []
        # Of the recorded values: rows per batch, and whether all rows have the same share.
        self._kind: tuple[int, bool] | None = None
        self._scalars: list[tuple[Array, float]] = []

    def add_values(self, values: Array, share: Any, count: int) -> None:
        """Add the losses of the rows of a batch, each times ``share * count``."""
        kind = (count, isinstance(share, float))
        if self._kind not in (None, kind):
            self.flush()
        self._kind = kind
        self._values.append(values)
        self._shares.append(share)

    def add_scalar(self, value: Array, factor: float) -> None:
        """Add a 0-d array times ``factor``."""
        self._scalars.append((value, factor))

    def flush(self) -> None:
        """Add the recorded values to the sum."""
        xp = self._xp
        if self._kind is not None:
            count, uniform = self._kind
            values = xp.astype(self._joined(self._values), self._dtype)
            if uniform:
                self._add(xp.sum(values) * (self._shares[0] * count))
            else:
                shares = xp.astype(self._joined(self._shares), self._dtype)
                shares = shares[:, 0] if values.ndim == 1 else shares
                values = values * shares
                if self.has_zero_weights:
                    values = xp.where(shares == 0.0, 0.0, values)
                self._add(xp.sum(values) * count)
            self._values, self._shares, self._kind = [], [], None
        for factor in dict.fromkeys(factor for _, factor in self._scalars):
            same = [value for value, other in self._scalars if other == factor]
            self._add(xp.sum(xp.astype(xp.stack(same), self._dtype)) * factor)
        self._scalars = []

    def _joined(self, parts: list[Array]) -> Array:
        return parts[0] if len(parts) == 1 else self._xp.concat(parts)

    def _add(self, part: Array) -> None:
        self._sum = part if self._sum is None else self._sum + part

    def result(self) -> float:
        """The sum as a number; this waits for the device."""
        self.flush()
        assert self._sum is not None
        return float(self._sum)
