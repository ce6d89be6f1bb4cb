"""Batches of rows on a device: their loss, and the stochastic pass, in which the host waits for no result."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import lapack

from sklloss.arrays.device import Device
from sklloss.arrays.ops import adam, fused_loss
from sklloss.data.dataset import Dataset
from sklloss.losses import Loss, _checks
from sklloss.losses._links import one_hot, softmax
from sklloss.objectives.passes import Array, EpochPlan, Floats, Indices

if TYPE_CHECKING:
    from sklloss.objectives.device_passes import DevicePasses

# Bytes of rows that are gathered at a time, for one batch or several.
GATHER_BYTES = 1 << 25


def add(total: Array | None, part: Array) -> Array:
    """``total + part``, where None is an empty sum."""
    return part if total is None else total + part


class DeviceLoss:
    """A loss bound to targets and weights. The host does not wait for any of its results.

    Parameters
    ----------
    device : Device
    loss : Loss
    data : Dataset
        Its targets and weights are NumPy arrays, which are moved to the device here, once.
    """

    device: Device
    loss: Loss
    outputs: int
    probabilities: bool

    def __init__(self, device: Device, loss: Loss, data: Dataset) -> None:
        self.device, self.loss, self.outputs = device, loss, data.outputs
        codes, weight = data.codes, data.weight
        self._wide = device.real(device.wide)
        self._values: Array = None if data.values is None else device.put(data.values, data.dtype)
        self._codes: Array = None if codes is None else device.put(codes, np.int64)
        self._expand = codes is not None and loss.target != "classes"
        self._offset: Array = None if data.offset is None else device.put(data.offset, data.dtype)
        self._weight: Array = None
        if weight is not None:
            self._weight = device.put(weight.reshape(len(weight), -1), data.dtype)
            self._total = float(np.sum(weight, dtype=np.float64))
        self._divisor = loss.row_divisor(data.outputs)
        self.probabilities = loss.curvature_buffer == "probabilities"
        self._fused = fused_loss(device, loss)

    def __call__(
        self, raw: Array, first: int, last: int, *, curved: bool = False
    ) -> tuple[Array, Array, Array]:
        """Loss sums and derivatives of the rows [first, last), from their scores (rows, outputs).

        ``raw`` may be overwritten.

        Returns
        -------
        sums : array of shape (outputs,), or (1,) if not separable
            In float64 if the device supports it.
        slopes : array like raw
            The derivatives by raw, times weights.
        curvature : array like raw, or None if not ``curved``
            For a separable loss the second derivatives, times weights. For the cross-entropy of a softmax
            the probabilities. For other losses raw itself, see `curvature_product`.
        """
        xp, loss = self.device.xp, self.loss
        raw = self._with_offset(raw, first, last)
        y, weight = self._target(raw, first, last), self.weight(raw, first, last)
        if self._fused is not None:
            value, gradient, curvature = self._fused(y, raw, curved)
            if curved and loss.separable:
                curvature = self._scaled(curvature, raw, weight)
        else:
            curvature = self._curvature(y, raw, weight) if curved else None
            if not loss.additive:
                return *self._whole(y, raw, weight), curvature
            value, gradient = _checks.formula_result(loss, xp, y, raw)
            gradient = _checks.gradient_result(loss, xp, gradient, raw)
        if value.ndim == 1:
            value = value[:, None]
        if not xp.isdtype(value.dtype, "real floating"):
            value = xp.astype(value, raw.dtype)
        if weight is not None:
            # Rows of weight 0 may contain anything: inf * 0 would be NaN.
            value = xp.where(weight != 0, value * weight, 0.0)
        sums = xp.sum(value, axis=0, dtype=self._wide)
        if self._divisor > 1:
            sums = sums / self._divisor
        return sums, self._scaled(gradient, raw, weight), curvature

    def slopes(self, raw: Array, first: int, last: int) -> Array:
        """The derivatives alone, as a call returns them, for a loss that is a mean over rows."""
        raw = self._with_offset(raw, first, last)
        y, weight = self._target(raw, first, last), self.weight(raw, first, last)
        if self._fused is not None:
            return self._scaled(self._fused(y, raw, False)[1], raw, weight)
        _, gradient = _checks.formula_result(self.loss, self.device.xp, y, raw)
        return self._scaled(_checks.gradient_result(self.loss, self.device.xp, gradient, raw), raw, weight)

    def take(self, rows: Array) -> DeviceLoss:
        """The loss over some of the rows, in the order of their numbers, an array on the device."""
        part = copy.copy(self)
        for name in ("_values", "_codes", "_weight", "_offset"):
            array = getattr(self, name)
            setattr(part, name, None if array is None else self.device.xp.take(array, rows, axis=0))
        return part

    def curvature_product(self, curvature: Array, direction: Array, first: int, last: int) -> Array:
        """The second derivatives of the rows [first, last) times a direction (rows, outputs), with weights.

        ``curvature`` is that of a call for the same rows. ``direction`` may be overwritten.
        """
        xp = self.device.xp
        if self.loss.separable:
            direction *= curvature
            return direction
        if self.probabilities:
            direction -= xp.sum(curvature * direction, axis=1, keepdims=True)
            direction *= curvature
        else:
            direction = self.loss.product_formula(
                xp, self._target(curvature, first, last), curvature, direction
            )
        weight = self.weight(curvature, first, last)
        return direction if weight is None else xp.where(weight != 0, direction * weight, 0.0)

    def weight(self, raw: Array, first: int, last: int) -> Array | None:
        """The weights of the rows [first, last) in raw's dtype, (rows, 1) or (rows, outputs), or None."""
        return None if self._weight is None else self._like(self._weight[first:last, ...], raw)

    def _with_offset(self, raw: Array, first: int, last: int) -> Array:
        return raw if self._offset is None else raw + self._like(self._offset[first:last, ...], raw)

    def _target(self, raw: Array, first: int, last: int) -> Array:
        if self._values is not None:
            return self._like(self._values[first:last, ...], raw)
        codes = self._codes[first:last]
        return self._like(one_hot(self.device.xp, codes, raw), raw) if self._expand else codes

    def _like(self, array: Array, raw: Array) -> Array:
        return array if array.dtype == raw.dtype else self.device.xp.astype(array, raw.dtype)

    def _scaled(self, array: Array, raw: Array, weight: Array | None) -> Array:
        array = self._like(array, raw)
        if weight is None:
            return array if self._divisor == 1 else array / self._divisor
        return self.device.xp.where(weight != 0, array * (weight / self._divisor), 0.0)

    def _curvature(self, y: Array, raw: Array, weight: Array | None) -> Array:
        xp, loss = self.device.xp, self.loss
        if not loss.separable:
            return softmax(xp, raw) if self.probabilities else raw
        second = loss.curvature(xp, y, raw)
        if second is None:
            raise ValueError(f"{type(loss).__name__} states no curvature")
        _checks.returned_array(loss, xp, "curvature", second, raw.shape)
        return self._scaled(second, raw, weight)

    def _whole(self, y: Array, raw: Array, weight: Array | None) -> tuple[Array, Array]:
        """Value and gradient, times the sum of weights, of a loss that is not a mean over rows."""
        xp = self.device.xp
        total = float(raw.shape[0]) if weight is None else self._total
        sums = xp.zeros(1, dtype=self._wide, device=self.device.native)
        if total == 0.0:
            return sums, xp.zeros_like(raw)
        rows = None if weight is None else weight[:, 0]
        value, gradient = self.loss.mean_formula(xp, y, raw, rows)
        return xp.reshape(xp.astype(value, self._wide), (1,)) * total, gradient * total


def epoch(passes: DevicePasses, w: Floats, plan: EpochPlan) -> None:
    """See `Passes.epoch`. NumPy arrays are moved to the device once, and the results back at the end.

    Parameters
    ----------
    passes : DevicePasses
    w : ndarray of shape (outputs, width)
    plan : EpochPlan
        Its ``anchor_slopes`` are on the device.
    """
    device = passes.device
    xp, real = device.xp, device.real(passes.dtype)
    gains, moments = plan.gains, plan.moments
    point, running = _put(device, w), _put(device, plan.mean)
    first: Array = None
    second: Array = None
    if moments is not None:
        first, second = _put(device, moments[0]), _put(device, moments[1])
    curvature, decay, decay_second, epsilon = map(float, (plan.curvature_bound, *plan.decays))
    ridge, anchor, rates = _put(device, plan.ridge), _put(device, plan.anchor), _put(device, plan.rates)
    to_coordinates, from_coordinates = _transforms(passes, *plan.coordinates)
    reader = _Reader(passes, plan)
    for b in range(len(gains)):
        coef = xp.astype(point, real)
        sums: Array = None
        block: Any = None
        for block in reader.batch(b):
            sums = add(sums, block.sums(block.slopes(coef)))
        gradient = float(gains[b]) * sums + ridge * point
        if anchor is not None:
            gradient = gradient + anchor
        step = to_coordinates(gradient)
        rate = rates[b, :][:, None]
        if first is None:
            step = rate * step
        else:
            step, first, second = adam(
                xp, step, first, second, rate, beta_1=decay, beta_2=decay_second, epsilon=epsilon
            )
        step = from_coordinates(step)
        if plan.keep_mean:
            step = step - xp.mean(step, axis=0, keepdims=True)
        if curvature > 0.0:
            # the first-order decrease of the batch's loss along the step, and its second derivative
            slope = xp.abs(xp.sum(sums * step))
            squares = xp.astype(block.squares(xp.astype(step, real)), step.dtype)
            curve = curvature * reader.count(b) / block.count * squares
            short = slope < curve
            step = xp.where(short, slope / xp.where(short, curve, 1.0), 1.0) * step
        point = point - step
        if running is not None and plan.mixing is not None:
            running = running + float(plan.mixing[b]) * (point - running)
    w[...] = device.get(point)
    if moments is not None:
        moments[0][...], moments[1][...] = device.get(first), device.get(second)
    if plan.mean is not None:
        plan.mean[...] = device.get(running)


def _put(device: Device, array: Floats | None) -> Array:
    return None if array is None else device.put(np.ascontiguousarray(array), device.wide)


def _transforms(
    passes: DevicePasses, factors: Floats | None, units: Floats
) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Functions of arrays (outputs, width) that take a gradient to the coordinates and a step back from them.

    The curvature is ``units U' U units``. U is inverted once: a triangular system is solved row after row,
    while a product with the inverse is a single operation.
    """
    device = passes.device
    xp = device.xp
    if factors is None:
        scales = _put(device, units)
        return (lambda g: g / scales), (lambda g: g / scales)
    cached = passes.inverse_factors
    if cached is None or cached[0] is not factors:
        matrices = np.empty_like(factors)
        for inverse, factor, unit in zip(matrices, factors, units, strict=True):
            inverse[...] = np.triu(lapack.dtrtri(factor.T)[0]) / unit[:, None]
        cached = passes.inverse_factors = (factors, _put(device, matrices))
    inverses = cached[1]
    if len(factors) == 1:
        one = inverses[0, :, :]
        return (lambda g: g @ one), (lambda g: g @ xp.matrix_transpose(one))
    turned = xp.matrix_transpose(inverses)
    return (
        lambda g: (g[:, None, :] @ inverses)[:, 0, :],
        lambda g: (g[:, None, :] @ turned)[:, 0, :],
    )


class _Reader:
    """The rows of an epoch, batch after batch.

    Several small batches are gathered at a time; a large batch is split into several blocks.
    """

    def __init__(self, passes: DevicePasses, plan: EpochPlan) -> None:
        self._passes, self._anchor_slopes, self._batch_rows = passes, plan.anchor_slopes, plan.batch_rows
        self._order = plan.order
        self._device_order = passes.device.put(plan.order, np.int64)
        dense = plan.coordinates[0] is not None or not passes.sparse
        self._kind = _Blocks if dense else _SparseBlocks
        numbers = self._kind.numbers_per_row(passes) + 3 * passes.outputs
        capacity = max(1, int(GATHER_BYTES / (passes.dtype.itemsize * numbers)))
        self._block_rows = min(plan.batch_rows, capacity)
        self._capacity = capacity // self._block_rows * self._block_rows
        self._first = self._last = 0
        self._gathered: Any = None

    def count(self, b: int) -> int:
        """The number of rows in a batch."""
        return min(self._batch_rows, len(self._order) - b * self._batch_rows)

    def batch(self, b: int) -> Iterator[_Blocks]:
        """The blocks of a batch; each is valid until the next."""
        start = b * self._batch_rows
        stop = start + self.count(b)
        for first in range(start, stop, self._block_rows):
            last = min(first + self._block_rows, stop)
            if last > self._last:
                self._gathered = None  # so that its memory can be reused
                self._first, self._last = first, min(first + self._capacity, len(self._order))
                part = slice(self._first, self._last)
                self._gathered = self._kind(
                    self._passes, self._order[part], self._device_order[part], self._anchor_slopes
                )
            yield self._gathered.block(first - self._first, last - self._first)


class _Blocks:
    """Rows gathered in an order, dense and with ones for the intercept; one block of them is current.

    ``order`` is the rows' numbers in main memory, ``device_order`` on the device.
    """

    def __init__(
        self, passes: DevicePasses, order: Indices, device_order: Array, anchor_slopes: Array | None
    ) -> None:
        self._passes, self._loss = passes, passes.batches.take(device_order)
        self._anchor_slopes: Array = None
        if anchor_slopes is not None:
            self._anchor_slopes = passes.device.xp.take(anchor_slopes, device_order, axis=0)
        self._X: Array = None
        self._gather(order, device_order)

    @staticmethod
    def numbers_per_row(passes: DevicePasses) -> float:
        """How many numbers a row takes."""
        return passes.width

    def _gather(self, order: Indices, device_order: Array) -> None:
        passes, xp = self._passes, self._passes.device.xp
        X = passes.X.dense_rows(order) if passes.sparse else xp.take(passes.X, device_order, axis=0)
        if passes.centered_columns:
            X = xp.astype(xp.astype(X, passes.offset.dtype) - passes.offset, X.dtype)
        if passes.fit_intercept:
            X = xp.concat([X, xp.ones((X.shape[0], 1), dtype=X.dtype, device=passes.device.native)], axis=1)
        self._X = X

    def block(self, first: int, last: int) -> _Blocks:
        """Make these rows the current block; returns self."""
        self._first, self._last = first, last
        self._part = self._rows(first, last)
        return self

    def _rows(self, first: int, last: int) -> Array:
        return self._X[first:last, ...]

    @property
    def count(self) -> int:
        """The number of rows in the block."""
        return self._last - self._first

    def slopes(self, coef: Array) -> Array:
        """Derivatives of the loss by the scores, times weights, less those at the anchor."""
        slopes = self._loss.slopes(self._scores(coef), self._first, self._last)
        if self._anchor_slopes is None:
            return slopes
        return slopes - self._anchor_slopes[self._first : self._last, ...]

    def sums(self, slopes: Array) -> Array:
        """The sum of the rows times their slopes, (outputs, width), in the dtype of sums."""
        return self._passes.weighted_row_sum(self._part, slopes)

    def squares(self, coef: Array) -> Array:
        """The weighted sum of squared scores."""
        squares = self._scores(coef) ** 2
        weight = self._loss.weight(squares, self._first, self._last)
        return self._passes.device.xp.sum(squares if weight is None else weight * squares)

    def _scores(self, coef: Array) -> Array:
        return self._part @ coef.mT


class _SparseBlocks(_Blocks):
    """`_Blocks` of rows that stay sparse."""

    @staticmethod
    def numbers_per_row(passes: DevicePasses) -> float:
        """See `_Blocks.numbers_per_row`."""
        return 4 * passes.X.nnz / max(1, passes.n)

    def _gather(self, order: Indices, device_order: Array) -> None:
        self._X = self._passes.X.gather_rows(order, device_order)

    def _rows(self, first: int, last: int) -> Array:
        return self._X.rows(first, last)

    def sums(self, slopes: Array) -> Array:
        """See `_Blocks.sums`."""
        xp, wide = self._passes.device.xp, self._passes.wide
        slopes = xp.astype(slopes, wide)
        sums = self._part.transposed(slopes).mT
        if not self._passes.fit_intercept:
            return sums
        return xp.concat([sums, xp.sum(slopes, axis=0)[:, None]], axis=1)

    def _scores(self, coef: Array) -> Array:
        features = self._passes.features
        raw = self._part @ coef[:, :features].mT
        return raw + coef[:, features] if self._passes.fit_intercept else raw
