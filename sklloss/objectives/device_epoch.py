"""The stochastic pass of `stochastic` over `ArrayRows`, where these live: no batch waits for an answer."""

import numpy as np
from scipy.linalg import lapack

from sklloss.arrays.torch_rows import TakenRows

# Bytes of rows that are gathered at a time, for as many batches as they make.
GATHER_BYTES = 1 << 25


def epoch(
    rows, w, order, batch_rows, *, coordinates, ridge, gains, rates, kept=None, anchor=None, bend=0.0,
    together=False, moments=None, decays=(0.0, 0.0, 0.0), mean=None, mixing=None,
):  # fmt: skip
    """See `stochastic.epoch`. NumPy's arrays go there once, and what changes comes back at the end.

    ``rows`` are `ArrayRows`, and ``kept`` lies beside them. All columns step with each batch, those of a
    sparse X too.
    """
    device = rows.device
    xp, real = device.xp, device.real(rows.dtype)
    point, running = _put(device, w), _put(device, mean)
    first, second = (None, None) if moments is None else (_put(device, part) for part in moments)
    bend, decay, decay_second, epsilon = map(float, (bend, *decays))
    ridge, anchor, rates = _put(device, ridge), _put(device, anchor), _put(device, rates)
    into, back = _steps(rows, *coordinates)
    reader = _Reader(rows, order, batch_rows, kept, written_out=coordinates[0] is not None)
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
            first = decay * first + (1.0 - decay) * step
            second = decay_second * second + (1.0 - decay_second) * step * step
            step = rate * first / (xp.sqrt(second) + epsilon)
        step = back(step)
        if together:
            step = step - xp.mean(step, axis=0, keepdims=True)
        if bend > 0.0:
            # along the step: the decrease of the batch's loss to first order, and its second derivative
            slope = xp.abs(xp.sum(sums * step))
            squares = xp.astype(block.squares(xp.astype(step, real)), step.dtype)
            curve = bend * reader.count(b) / block.count * squares
            short = slope < curve
            step = xp.where(short, slope / xp.where(short, curve, 1.0), 1.0) * step
        point = point - step
        if running is not None:
            running = running + float(mixing[b]) * (point - running)
    w[...] = device.get(point)
    if first is not None:
        moments[0][...], moments[1][...] = device.get(first), device.get(second)
    if running is not None:
        mean[...] = device.get(running)


def slopes_sum_to_zero(rows, slopes):
    """See `stochastic.cancel`."""
    xp, wide = rows.device.xp, rows.device.real(rows.device.wide)
    total = xp.sum(xp.abs(xp.sum(slopes, axis=1)), dtype=wide)
    return bool(total <= 1e-4 * xp.sum(xp.abs(slopes), dtype=wide))


def _put(device, array):
    return None if array is None else device.put(np.ascontiguousarray(array), device.wide)


def _steps(rows, factors, units):
    """Two functions of arrays (outputs, width): a gradient to the coordinates, and a step back from them.

    The curvature is ``units U' U units``. Inverses of U, made once, serve instead of U: a triangular system
    is solved row after row, while an inverse is multiplied at once.
    """
    device = rows.device
    xp = device.xp
    if factors is None:
        there = _put(device, units)
        return (lambda g: g / there), (lambda g: g / there)
    made = rows.__dict__.get("_inverses")
    if made is None or made[0] is not factors:
        inverses = np.empty_like(factors)
        for inverse, factor, unit in zip(inverses, factors, units, strict=True):
            inverse[...] = np.triu(lapack.dtrtri(factor.T)[0]) / unit[:, None]
        made = rows._inverses = (factors, _put(device, inverses))
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

    def __init__(self, rows, order, batch_rows, kept, *, written_out):
        self._rows, self._kept, self._batch_rows = rows, kept, batch_rows
        self._order = order
        self._there = rows.device.put(order, np.int64)
        self._kind = _SparseBlocks if rows.sparse and not written_out else _Blocks
        numbers = self._kind.row_numbers(rows) + 3 * rows.outputs
        room = max(1, int(GATHER_BYTES / (rows.dtype.itemsize * numbers)))
        self._block_rows = min(batch_rows, room)
        self._room = room // self._block_rows * self._block_rows
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
                self._first, self._last = first, min(first + self._room, len(self._order))
                part = slice(self._first, self._last)
                self._gathered = self._kind(self._rows, self._order[part], self._there[part], self._kept)
            yield self._gathered.block(first - self._first, last - self._first)


class _Blocks:
    """Rows written out in an order, with ones for the intercept: of them one block at a time is looked at."""

    def __init__(self, rows, order, at, kept):
        self._rows, self._loss = rows, rows._batches.taken(at)
        self._slopes = None if kept is None else rows.device.xp.take(kept, at, axis=0)
        self._take(order, at)

    @staticmethod
    def row_numbers(rows):
        """Numbers that a row takes."""
        return rows.width

    def _take(self, order, at):
        rows, xp = self._rows, self._rows.device.xp
        X = rows._X.dense_rows(order) if rows.sparse else xp.take(rows._X, at, axis=0)
        if rows._centered:
            X = xp.astype(xp.astype(X, rows._offset.dtype) - rows._offset, X.dtype)
        if rows.fit_intercept:
            X = xp.concat([X, xp.ones((X.shape[0], 1), dtype=X.dtype, device=rows.device.native)], axis=1)
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
        """Derivatives of the loss by the scores, times weights, less those that were kept."""
        slopes = self._loss.slopes(self._scores(coef), self._first, self._last)
        return slopes if self._slopes is None else slopes - self._slopes[self._first : self._last, ...]

    def sums(self, slopes):
        """The sum of the rows times their slopes, (outputs, width), in the dtype of sums."""
        return self._rows._scatter(self._part, slopes)

    def squares(self, coef):
        """The weighted sum of the squares of scores."""
        squares = self._scores(coef) ** 2
        weight = self._loss.weight(squares, self._first, self._last)
        return self._rows.device.xp.sum(squares if weight is None else weight * squares)

    def _scores(self, coef):
        return self._part @ coef.mT


class _SparseBlocks(_Blocks):
    """The same of rows that stay sparse."""

    @staticmethod
    def row_numbers(rows):
        """See `_Blocks.row_numbers`."""
        return 4 * rows._X.nnz / max(1, rows.n)

    def _take(self, order, at):
        self._X = TakenRows(self._rows._X, order, at)

    def _look(self):
        self._part = self._X.rows(self._first, self._last)

    def sums(self, slopes):
        """See `_Blocks.sums`."""
        xp, wide = self._rows.device.xp, self._rows._wide
        slopes = xp.astype(slopes, wide)
        sums = self._part.transposed(slopes).mT
        if not self._rows.fit_intercept:
            return sums
        return xp.concat([sums, xp.sum(slopes, axis=0)[:, None]], axis=1)

    def _scores(self, coef):
        features = self._rows.features
        raw = self._part @ coef[:, :features].mT
        return raw + coef[:, features] if self._rows.fit_intercept else raw
