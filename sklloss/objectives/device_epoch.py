"""The stochastic pass over rows on a device; the host waits for no result between batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import lapack

from sklloss.arrays.device import Device
from sklloss.arrays.ops import adam
from sklloss.objectives.passes import Array, EpochPlan, Floats, Indices

if TYPE_CHECKING:
    from sklloss.objectives.device_passes import DevicePasses

# Bytes of rows that are gathered at a time, for one batch or several.
GATHER_BYTES = 1 << 25


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
            part = block.sums(block.slopes(coef))
            sums = part if sums is None else sums + part
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
