"""The objective of a network over arrays of any namespace, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sklloss.arrays.device import Device, check_writable, device_of, full_precision
from sklloss.arrays.ops import ACTIVATIONS, Array, Steps, fused_loss, ops_for
from sklloss.data.dataset import Dataset
from sklloss.losses import Loss, _checks
from sklloss.objectives.network import NetworkObjective, unpack

# Bytes of rows gathered at once, rounded down to whole batches.
GATHER_BYTES = 1 << 24
# Bytes of activations held at once in a pass over all rows.
PASS_BYTES = 1 << 26


class Layers(NamedTuple):
    """A flat vector of parameters, or of their gradient, and views of its parts."""

    flat: Array
    coefs: list[Array]
    intercepts: list[Array]


# For each layer, its input and what the backward pass needs of the activation of its outputs.
Cache = list[tuple[Array, Array]]


class DeviceNetworkObjective(NetworkObjective):
    """A `NetworkObjective` with parameters and moments on the device of the rows.

    An epoch waits for the device once, at its end.

    Parameters
    ----------
    widths, activation, dtype, loss, alpha
        See `NumpyNetworkObjective`; dtype is a NumPy dtype.
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
        super().__init__(widths, dtype, alpha, device)
        if loss is not None:
            check_writable(device, "networks in training")
        self._loss = loss
        self._fused = None if loss is None else fused_loss(device, loss)
        self._ops = ops_for(device, self.dtype.itemsize)
        self._activation = ACTIVATIONS[activation]
        self._wide = device.real(device.wide)
        # The number of outputs over which the loss of a row is averaged.
        self._parts = 1 if loss is None or not loss.additive else loss.row_divisor(self.widths[-1])

    def put(self, array: Array) -> Array:
        """See `NetworkObjective.put`."""
        source = device_of(array)
        if source == self.device:
            return self._in_dtype(array)
        return self.device.put(array if source is None else source.get(array), self.dtype)

    def running(self) -> AbstractContextManager[Any]:
        """A context in which matrix products have the full precision of their dtype."""
        return full_precision(self.device)

    def rows(self, data: Dataset) -> DeviceNetworkRows:
        """See `NetworkObjective.rows`; targets are copied to the device."""
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
        total = _LossSum(self._xp, self._wide, rows.has_zero_weights)
        layers, gradient = self._layers(parameters), self._layers(self._xp.empty_like(parameters))
        per_gather = max(1, GATHER_BYTES // max(1, batch_size * rows.row_bytes)) * batch_size
        index = None if order is None else rows.index(order)
        for lowest in range(0, n, per_gather):
            highest = min(lowest + per_gather, n)
            X, y = rows.block(lowest, highest, index, order)
            gathered = None if shares is None else shares[lowest:highest, ...]
            for low in range(lowest, highest, batch_size):
                high = min(low + batch_size, highest)
                batch, k = slice(low - lowest, high - lowest), low // batch_size
                cache: Cache = []
                raw = self._forward(X[batch, ...], layers, cache)
                share = 1.0 / ((high - low) * self._parts) if gathered is None else gathered[batch, ...]
                delta = self._slopes(raw, y[batch, ...], share, total, high - low)
                self._backward(delta, layers, cache, gradient)
                if self.alpha:
                    penalty = self.alpha / float(sums[k])
                    self._add_penalty(parameters, gradient.flat, penalty, total, high - low)
                steps.take(self._ops, k, parameters, gradient.flat, self.coefs)
            total.flush()
        return total.result() / n

    def loss(self, rows: DeviceNetworkRows, parameters: Array) -> float:
        """See `NetworkObjective.loss`."""
        with self.running():
            total = _LossSum(self._xp, self._wide, rows.has_zero_weights)
            self._add_loss(rows, self.put(parameters), total, None)
            return total.result() / rows.rows

    def value_and_gradient(self, rows: DeviceNetworkRows, parameters: Array) -> tuple[float, np.ndarray]:
        """See `NetworkObjective.value_and_gradient`."""
        with self.running():
            parameters = self.put(parameters)
            total = _LossSum(self._xp, self._wide, rows.has_zero_weights)
            gradient = self._xp.zeros(
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
            layers = self._layers(self.put(parameters))
            rows = None if on_host else self.rows(Dataset(X))
            for first in range(0, n, step):
                last = min(first + step, n)
                if rows is None:
                    block = X[first:last]
                    block = self.put(block.toarray() if hasattr(block, "toarray") else block)
                else:
                    block = rows.block(first, last)[0]
                raw = self._forward(self._in_dtype(block), layers)
                parts.append(self.device.get(raw) if on_host else raw)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if on_host else self._xp.concat(parts)

    def _in_dtype(self, array: Array) -> Array:
        dtype = self.device.real(self.dtype)
        return array if array.dtype == dtype else self._xp.astype(array, dtype)

    def _layers(self, flat: Array) -> Layers:
        return Layers(flat, *unpack(flat, self.widths, self._reshape))

    def _forward(self, x: Array, layers: Layers, cache: Cache | None = None) -> Array:
        """Raw scores of shape (rows, outputs); ``cache`` is filled with what `_backward` needs."""
        ops, last = self._ops, len(layers.coefs) - 1
        for coef, intercept in zip(layers.coefs[:last], layers.intercepts[:last], strict=True):
            z = ops.affine(x, coef, intercept)
            active, slope = self._activation.forward(ops, z, cache is not None)
            if cache is not None:
                cache.append((x, slope))
            x = active
        if cache is not None:
            cache.append((x, None))
        return ops.affine(x, layers.coefs[last], layers.intercepts[last])

    def _backward(self, delta: Array, layers: Layers, cache: Cache, gradient: Layers) -> None:
        """Fill ``gradient``, given the gradient by the raw scores of shape (rows, outputs)."""
        ops = self._ops
        for k in range(len(layers.coefs) - 1, -1, -1):
            ops.layer_gradients(cache[k][0], delta, gradient.coefs[k], gradient.intercepts[k])
            if k:
                delta = delta @ layers.coefs[k].T
                delta = self._activation.backward(ops, delta, cache[k - 1][1])

    def _shares(
        self, rows: DeviceNetworkRows, order: np.ndarray | None, starts: np.ndarray
    ) -> tuple[Array | None, np.ndarray]:
        """The factor of each row in the mean loss of its batch, on the device, and each batch's total weight.

        The factors are None if they are the same for all rows of a batch.
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
        """The gradient of a batch's mean loss by raw scores; adds ``count`` times the loss to ``total``."""
        xp, loss = self._xp, self._loss
        assert loss is not None
        uniform = isinstance(share, float)
        if y.ndim == 2 and y.shape[1] == 2 * raw.shape[1]:
            raw, y = raw + y[:, raw.shape[1] :], y[:, : raw.shape[1]]
        if not loss.additive:
            value, gradient = loss.mean_formula(xp, y, raw, None if uniform else share[:, 0])
            total.add_scalar(value, count)
            return self._in_dtype(gradient)
        if self._fused is not None:
            value, gradient, _ = self._fused(y, raw, False)
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
        """Add the mean loss of all rows, times their number, and its gradient to ``out`` if that is given."""
        assert self._loss is not None
        n, layers = rows.rows, self._layers(parameters)
        shares = self._shares(rows, None, np.array([0]))[0]
        uniform_share = 1.0 / (n * self._parts)
        step = max(64, PASS_BYTES // (self.dtype.itemsize * 2 * sum(self.widths)))
        gradient = None if out is None else self._layers(self._xp.empty_like(out))
        bounds = [(first, min(first + step, n)) for first in range(0, n, step)]
        slopes_of_all = None
        if not self._loss.additive:
            parts = [self._forward(rows.block(*block)[0], layers) for block in bounds]
            raw = parts[0] if len(parts) == 1 else self._xp.concat(parts)
            share = uniform_share if shares is None else shares
            slopes_of_all = self._slopes(raw, rows.targets, share, total, n)
            if out is None:
                return
        for first, last in bounds:
            X, y = rows.block(first, last)
            cache: Cache | None = None if gradient is None else []
            raw = self._forward(X, layers, cache)
            if slopes_of_all is None:
                share = uniform_share if shares is None else shares[first:last, ...]
                delta = self._slopes(raw, y, share, total, n)
            else:
                delta = slopes_of_all[first:last, ...]
            if gradient is not None and cache is not None:
                self._backward(delta, layers, cache, gradient)
                self._ops.add_in_place(out, gradient.flat, 1.0)
            total.flush()


class DeviceNetworkRows:
    """Rows of X and their targets on a device.

    Weights stay NumPy arrays, since their sums over batches are computed by NumPy.

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
            # The columns of an offset follow those of the targets.
            parts = data.values if data.offset is None else np.hstack([data.values, data.offset])
            self.targets = device.put(parts, data.dtype)
        self.weight: NDArray[Any] | None = data.weight
        self.has_zero_weights: bool = data.weight is not None and not data.weight.all()
        self._sparse = hasattr(data.X, "dense_rows")

    @property
    def total_weight(self) -> float:
        """The sum of the weights of all rows; the weight of a row is the mean over its outputs."""
        if self.weight is None:
            return float(self.rows)
        return float(self.weight.reshape(self.rows, -1).mean(axis=1, dtype=np.float64).sum())

    def index(self, order: np.ndarray) -> Array:
        """The numbers of rows, on the device."""
        return self._device.put(order, np.int64)

    def block(
        self, first: int, last: int, index: Array | None = None, order: np.ndarray | None = None
    ) -> tuple[Array, Array]:
        """X and the targets of the rows [first, last), or of the rows order[first:last].

        ``index`` is the order on the device, from the method `index`.
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
    """A sum of losses on the device, with few operations per batch.

    Parameters
    ----------
    xp : module
        A namespace of the array API.
    dtype : dtype
        The dtype of the sum.
    has_zero_weights : bool
        Whether rows may have weight 0, in which case their losses may be infinite or NaN.
    """

    def __init__(self, xp: Any, dtype: Any, has_zero_weights: bool) -> None:
        self._xp, self._dtype, self.has_zero_weights = xp, dtype, has_zero_weights
        self._sum: Array | None = None
        self._values: list[Array] = []
        self._shares: list[Any] = []
        # Of the recorded values: rows per batch, and whether all rows have the same factor.
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
