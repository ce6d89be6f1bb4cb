"""The stochastic pass over rows on a device: no batch waits for an answer."""

import numpy as np
from scipy.linalg import lapack

from sklloss.arrays.ops import adam

# Bytes of rows that are gathered at a time, for as many batches as they make.
GATHER_BYTES = 1 << 25


def epoch(passes, w, plan):
    """See `Passes.epoch`. NumPy's arrays are moved to the device once; what changes comes back at the end.

    Parameters
    ----------
    passes : DevicePasses
    w : ndarray of shape (outputs, width)
    plan : EpochPlan
        Its ``anchor_slopes`` lie on the device.
    """
    device = passes.device
    xp, real = device.xp, device.real(passes.dtype)
    gains, mixing, moments, together = plan.gains, plan.mixing, plan.moments, plan.keep_mean
    point, running = _put(device, w), _put(device, plan.mean)
    first, second = (None, None) if moments is None else (_put(device, part) for part in moments)
    curvature, decay, decay_second, epsilon = map(float, (plan.curvature_bound, *plan.decays))
    ridge, anchor, rates = _put(device, plan.ridge), _put(device, plan.anchor), _put(device, plan.rates)
    into, back = _steps(passes, *plan.coordinates)
    reader = _Reader(passes, plan)
    for b in range(len(gains)):
        coef = xp.astype(point, real)
        sums = block = None
        for block in reader.batch(b):
            part = block.sums(block.slopes(coef))
            sums = part if sums is None else sums + part
        gradient = float(gains[b]) * sums + ridge * point
        if anchor is not None:
            gradient = gradient + anchor
        step = into(gradient)
        rate = rates[b, :][:, None]
        if first is None:
            step = rate * step
        else:
            step, first, second = adam(
                xp, step, first, second, rate, beta_1=decay, beta_2=decay_second, epsilon=epsilon
            )
        step = back(step)
        if together:
            step = step - xp.mean(step, axis=0, keepdims=True)
        if curvature > 0.0:
            # along the step: the decrease of the batch's loss to first order, and its second derivative
            slope = xp.abs(xp.sum(sums * step))
            squares = xp.astype(block.squares(xp.astype(step, real)), step.dtype)
            curve = curvature * reader.count(b) / block.count * squares
            short = slope < curve
            step = xp.where(short, slope / xp.where(short, curve, 1.0), 1.0) * step
        point = point - step
        if running is not None:
            running = running + float(mixing[b]) * (point - running)
    w[...] = device.get(point)
    if first is not None:
        moments[0][...], moments[1][...] = device.get(first), device.get(second)
    if running is not None:
        plan.mean[...] = device.get(running)


def _put(device, array):
    return None if array is None else device.put(np.ascontiguousarray(array), device.wide)


def _steps(passes, factors, units):
    """Two functions of arrays (outputs, width): a gradient to the coordinates, and a step back from them.

    The curvature is ``units U' U units``. Inverses of U, made once, serve instead of U: a triangular system
    is solved row after row, while an inverse is multiplied at once.
    """
    device = passes.device
    xp = device.xp
    if factors is None:
        scales = _put(device, units)
        return (lambda g: g / scales), (lambda g: g / scales)
    made = passes.inverse_factors
    if made is None or made[0] is not factors:
        inverses = np.empty_like(factors)
        for inverse, factor, unit in zip(inverses, factors, units, strict=True):
            inverse[...] = np.triu(lapack.dtrtri(factor.T)[0]) / unit[:, None]
        made = passes.inverse_factors = (factors, _put(device, inverses))
    inverses = made[1]
    if len(factors) == 1:
        one = inverses[0, :, :]
        return (lambda g: g @ one), (lambda g: g @ xp.matrix_transpose(one))
    turned = xp.matrix_transpose(inverses)
    return (
        lambda g: (g[:, None, :] @ inverses)[:, 0, :],
        lambda g: (g[:, None, :] @ turned)[:, 0, :],
    )


class _Reader:
    """The rows of an epoch, batch after batch, of which many are gathered at a time.

    A batch that is larger than that comes in several blocks.
    """

    def __init__(self, passes, plan):
        self._passes, self._anchor_slopes, self._batch_rows = passes, plan.anchor_slopes, plan.batch_rows
        self._order = plan.order
        self._device_order = passes.device.put(plan.order, np.int64)
        written_out = plan.coordinates[0] is not None
        self._kind = _SparseBlocks if passes.sparse and not written_out else _Blocks
        numbers = self._kind.row_numbers(passes) + 3 * passes.outputs
        capacity = max(1, int(GATHER_BYTES / (passes.dtype.itemsize * numbers)))
        self._block_rows = min(plan.batch_rows, capacity)
        self._capacity = capacity // self._block_rows * self._block_rows
        self._first = self._last = 0
        self._gathered = None

    def count(self, b):
        """Rows of a batch."""
        return min(self._batch_rows, len(self._order) - b * self._batch_rows)

    def batch(self, b):
        """Its blocks."""
        start = b * self._batch_rows
        stop = start + self.count(b)
        for first in range(start, stop, self._block_rows):
            last = min(first + self._block_rows, stop)
            if last > self._last:
                self._gathered = None  # its memory may serve again
                self._first, self._last = first, min(first + self._capacity, len(self._order))
                part = slice(self._first, self._last)
                self._gathered = self._kind(
                    self._passes, self._order[part], self._device_order[part], self._anchor_slopes
                )
            yield self._gathered.block(first - self._first, last - self._first)


class _Blocks:
    """Rows written out in an order, with ones for the intercept: of them one block at a time is looked at."""

    def __init__(self, passes, order, at, anchor_slopes):
        self._passes, self._loss = passes, passes.batches.taken(at)
        self._slopes = None if anchor_slopes is None else passes.device.xp.take(anchor_slopes, at, axis=0)
        self._take(order, at)

    @staticmethod
    def row_numbers(passes):
        """Numbers that a row takes."""
        return passes.width

    def _take(self, order, at):
        passes, xp = self._passes, self._passes.device.xp
        X = passes.X.dense_rows(order) if passes.sparse else xp.take(passes.X, at, axis=0)
        if passes.centered_columns:
            X = xp.astype(xp.astype(X, passes.offset.dtype) - passes.offset, X.dtype)
        if passes.fit_intercept:
            X = xp.concat([X, xp.ones((X.shape[0], 1), dtype=X.dtype, device=passes.device.native)], axis=1)
        self._X = X

    def block(self, first, last):
        """Itself, looking at these of its rows."""
        self._first, self._last = first, last
        self._look()
        return self

    def _look(self):
        self._part = self._X[self._first : self._last, ...]

    @property
    def count(self):
        """Rows of the block."""
        return self._last - self._first

    def slopes(self, coef):
        """Derivatives of the loss by the scores, times weights, less those at the anchor."""
        slopes = self._loss.slopes(self._scores(coef), self._first, self._last)
        return slopes if self._slopes is None else slopes - self._slopes[self._first : self._last, ...]

    def sums(self, slopes):
        """The sum of the rows times their slopes, (outputs, width), in the dtype of sums."""
        return self._passes.weighted_row_sum(self._part, slopes)

    def squares(self, coef):
        """The weighted sum of the squares of scores."""
        squares = self._scores(coef) ** 2
        weight = self._loss.weight(squares, self._first, self._last)
        return self._passes.device.xp.sum(squares if weight is None else weight * squares)

    def _scores(self, coef):
        return self._part @ coef.mT


class _SparseBlocks(_Blocks):
    """The same of rows that stay sparse."""

    @staticmethod
    def row_numbers(passes):
        """See `_Blocks.row_numbers`."""
        return 4 * passes.X.nnz / max(1, passes.n)

    def _take(self, order, at):
        self._X = self._passes.X.gather_rows(order, at)

    def _look(self):
        self._part = self._X.rows(self._first, self._last)

    def sums(self, slopes):
        """See `_Blocks.sums`."""
        xp, wide = self._passes.device.xp, self._passes.wide
        slopes = xp.astype(slopes, wide)
        sums = self._part.transposed(slopes).mT
        if not self._passes.fit_intercept:
            return sums
        return xp.concat([sums, xp.sum(slopes, axis=0)[:, None]], axis=1)

    def _scores(self, coef):
        features = self._passes.features
        raw = self._part @ coef[:, :features].mT
        return raw + coef[:, features] if self._passes.fit_intercept else raw
