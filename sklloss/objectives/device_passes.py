"""Passes over the rows of X in another library's arrays, on a GPU above all."""

from __future__ import annotations

from typing import Any

import numpy as np

from sklloss.arrays.device import Device, check_writable, device_of
from sklloss.arrays.torch_csr import TorchCSR
from sklloss.data import Dataset
from sklloss.objectives import device_epoch
from sklloss.objectives.device_loss import DeviceLoss
from sklloss.objectives.passes import Passes

# Bytes of scores that a pass makes at a time: much work for each call of the library, but little memory.
CHUNK_BYTES = 1 << 26
# Bytes that rows take at a time where they are written out in the dtype of sums.
WIDE_BYTES = 1 << 26
# Up to this many rows may be added up in float32, as the kernels do, before float64 goes on.
BLOCK_ROWS = 1024


class DevicePasses(Passes):
    """`Passes` over arrays of another namespace and `TorchCSR`; sums are in the dtype ``device.wide``.

    Targets, codes and weights are NumPy's, and are moved to the device of X here, once.

    Parameters of the model that are NumPy's give results in NumPy. `value_and_gradient` and `product` also
    take arrays on the device, in the dtype ``device.wide``: then the results are such arrays, no number
    moves, and nobody waits for the device.
    """

    device: Device

    def __init__(self, data: Dataset, loss: Any, **keywords: Any) -> None:
        super().__init__(data, loss, **keywords)
        codes = self.codes
        if codes is not None:
            bad = np.flatnonzero((codes < 0) | (codes >= self.outputs))
            if bad.size:
                raise self._bad_code(bad[0])
        device, weight = self.device, self.weight
        if weight is not None and self.weight_per_output:
            weight = weight.reshape(self.n, self.outputs)
        self.batches = DeviceLoss(device, loss, self.values, codes, weight, self.outputs, self.dtype)
        # the center where X is, in the dtype of sums
        self.offset = device.put(self.center, device.wide) if self.centered_columns else None
        self._curvature: list[Any] | None = None
        # what each curvature gave the coordinates of stochastic steps, see `device_epoch`
        self.inverse_factors: tuple[Any, Any] | None = None

    def _describe(self, X: Any) -> tuple[np.dtype[Any], bool]:
        self.device = device_of(X)
        self.wide = self.device.real(self.device.wide)
        return self.device.numpy_dtype(X), isinstance(X, TorchCSR)

    # Value, gradient and Hessian product ---------------------------------------------------------------

    def value_and_gradient(self, coef, *, keep_curvature=False, slopes=None):
        """See `Passes.value_and_gradient`; ``slopes`` is filled where it is, in NumPy or beside X."""
        coef, moved = self._enter(coef)
        w, b = self._split(coef)
        sums, curvatures = None, []
        if keep_curvature:
            self._curvature = None
        if slopes is not None and not isinstance(slopes, np.ndarray):
            check_writable(self.device, "stochastic solvers")

        def pieces():
            nonlocal sums
            for first, last in self._chunks():
                raw = self._scores(first, last, w, b)
                part, slope, curvature = self.batches(raw, first, last, curved=keep_curvature)
                sums = add(sums, part)
                curvatures.append(curvature)
                if slopes is not None:
                    slopes[first:last, ...] = (
                        self.device.get(slope) if isinstance(slopes, np.ndarray) else slope
                    )
                yield first, last, slope

        gradient = self._add_up(pieces())
        if keep_curvature:
            self._curvature = curvatures
        return self._leave(sums, gradient) if moved else (sums, gradient)

    def product(self, direction):
        """See `Passes.product`; the result is not written over."""
        direction, moved = self._enter(direction)
        v, b = self._split(direction)

        def pieces():
            for (first, last), curvature in zip(self._chunks(), self._curvature, strict=True):
                scores = self._scores(first, last, v, b)
                yield first, last, self.batches.curvature_product(curvature, scores, first, last)

        product = self._add_up(pieces())
        return self._numpy(product) if moved else product

    # Hessians ------------------------------------------------------------------------------------------

    def hessian(self, coef, *, coupled=True, by_slope=False, curved=True):
        """See `Passes.hessian`."""
        kind = "slopes" if by_slope else "coupled" if coupled and not self.separable else "blocks"
        return self._derivatives(coef, kind if curved else None)

    def _derivatives(self, coef, kind):
        """Loss sums, gradient and what stands for the Hessian, in NumPy.

        ``kind`` is None for none, "blocks" for the diagonal blocks, "coupled" for all of a softmax, "slopes"
        for blocks in which rows count by the size of their first derivative.
        """
        xp, K, width = self.device.xp, self.outputs, self.width
        w = xp.matrix_transpose(self._enter(coef)[0])
        sums = gradient = None
        blocks, cross = [None] * K, [None] * K
        for first, last in self._wide_chunks((2 + K * (kind == "coupled")) * width):
            Z = self._written_out(first, last, self.fit_intercept)
            curved = kind in ("blocks", "coupled")
            part, slopes, curvature = self.batches(Z @ w, first, last, curved=curved)
            sums = add(sums, part)
            gradient = add(gradient, xp.matrix_transpose(slopes) @ Z)
            if kind is None:
                continue
            if kind == "slopes":
                curvature = xp.abs(slopes)
            elif not self.separable:
                share = self._softmax_share(curvature, first, last) if kind == "coupled" else None
                curvature = self._softmax_curvature(curvature, first, last, alone=kind != "coupled")
            curvature = xp.where(curvature > 0, curvature, 0.0)
            turned = xp.matrix_transpose(Z)
            for k in range(K):
                blocks[k] = add(blocks[k], turned @ (Z * curvature[:, k : k + 1]))
            if kind == "coupled":
                # the rows of all outputs side by side, each with its root of the weight times p
                side = xp.reshape(share[:, :, None] * Z[:, None, :], (last - first, K * width))
                for k in range(K):
                    own = xp.matrix_transpose(side[:, k * width : (k + 1) * width])
                    cross[k] = add(cross[k], own @ side[:, : (k + 1) * width])
        sums, gradient = self._leave(sums, gradient)
        if kind is None:
            return sums, gradient, None
        blocks = self._numpy(xp.stack(blocks))
        if kind != "coupled":
            return sums, gradient, blocks
        whole = np.zeros((1, K * width, K * width))
        for k in range(K):
            own = whole[0, k * width : (k + 1) * width]
            own[:, : (k + 1) * width] -= self._numpy(cross[k])
            own[:, k * width : (k + 1) * width] += blocks[k]
        return sums, gradient, whole

    def hessian_block(self, sets, *, coupled):
        """See `Passes.hessian_block`."""
        xp, K = self.device.xp, len(sets)
        sizes = [len(columns) for columns in sets]
        starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        chosen = [self.device.put(columns, np.int64) for columns in sets]
        blocks, cross = [None] * K, None
        for first, last, curvature in self._kept_curvature(self.width + 3 * starts[-1]):
            Z = self._written_out(first, last, self.fit_intercept)
            own = (
                curvature
                if self.separable
                else self._softmax_curvature(curvature, first, last, alone=not coupled)
            )
            own = xp.where(own > 0, own, 0.0)
            parts = [xp.take(Z, columns, axis=1) for columns in chosen]
            for k in range(K):
                blocks[k] = add(blocks[k], xp.matrix_transpose(parts[k]) @ (parts[k] * own[:, k : k + 1]))
            if coupled:
                share = self._softmax_share(curvature, first, last)
                parts = xp.concat([parts[k] * share[:, k : k + 1] for k in range(K)], axis=1)
                cross = add(cross, xp.matrix_transpose(parts) @ parts)
        blocks = [self._numpy(block) for block in blocks]
        if self.separable:
            return blocks
        matrix = -self._numpy(cross) if coupled else np.zeros((starts[-1], starts[-1]))
        for k, block in enumerate(blocks):
            part = slice(starts[k], starts[k + 1])
            matrix[part, part] += block
        return [matrix]

    def hessian_diagonal(self):
        """See `Passes.hessian_diagonal`."""
        xp = self.device.xp
        total = intercepts = None
        kept = []
        for first, last, curvature in self._kept_curvature(self.width):
            own = curvature if self.separable else self._softmax_curvature(curvature, first, last, alone=True)
            intercepts = add(intercepts, xp.sum(own, axis=0))
            if self.sparse:
                kept.append(own)
                continue
            Z = self._written_out(first, last, False)
            total = add(total, xp.matrix_transpose(own) @ (Z * Z))
        if self.sparse:
            total = xp.matrix_transpose(self.X.weighted_squares(xp.concat(kept, axis=0)))
        diagonal = np.empty((self.outputs, self.width))
        diagonal[:, : self.features] = self._numpy(total)
        diagonal[:, self.features :] = self._numpy(intercepts)[:, None]
        return diagonal

    def _full_gram(self):
        weight, total = self.device.put(self.row_weights(), self.device.wide), None
        for first, last in self._wide_chunks(2 * self.width):
            Z = self._written_out(first, last, self.fit_intercept)
            total = add(total, self.device.xp.matrix_transpose(Z) @ (Z * weight[first:last][:, None]))
        return self._numpy(total)

    def _softmax_curvature(self, p, first, last, *, alone):
        """Weight times p, or ``alone``, without what couples the outputs, times p (1 - p)."""
        self._check_softmax()
        curvature = p * (1.0 - p) if alone else p
        weight = self.batches.weight(p, first, last)
        return curvature if weight is None else self.device.xp.where(weight != 0, curvature * weight, 0.0)

    def _softmax_share(self, p, first, last):
        """The root of the weight, times p."""
        self._check_softmax()
        xp, weight = self.device.xp, self.batches.weight(p, first, last)
        return p if weight is None else xp.where(weight != 0, p * xp.sqrt(weight), 0.0)

    def _check_softmax(self):
        if not self.batches.probabilities:
            raise ValueError(f"{type(self.loss).__name__} is not separable and has no curvature by output")

    def _kept_curvature(self, numbers):
        """What `value_and_gradient` kept of curvature in the dtype of sums, (first, last, kept)."""
        most = self._wide_chunks(numbers)[0][1]
        for (start, end), kept in zip(self._chunks(), self._curvature, strict=True):
            for first in range(start, end, most):
                last = min(first + most, end)
                yield first, last, self._to_wide(kept[first - start : last - start, ...])

    # Stochastic passes ---------------------------------------------------------------------------------

    def epoch(self, w, plan):
        """See `Passes.epoch`; all columns step with each batch, those of a sparse X too."""
        device_epoch.epoch(self, w, plan)

    def empty_slopes(self):
        """See `Passes.empty_slopes`."""
        device = self.device
        return device.xp.empty((self.n, self.outputs), dtype=device.real(self.dtype), device=device.native)

    def slopes_sum_to_zero(self, slopes):
        """See `Passes.slopes_sum_to_zero`."""
        xp = self.device.xp
        total = xp.sum(xp.abs(xp.sum(slopes, axis=1)), dtype=self.wide)
        return bool(total <= 1e-4 * xp.sum(xp.abs(slopes), dtype=self.wide))

    # Statistics of X -----------------------------------------------------------------------------------

    def _rows_as_numpy(self, rows):
        if isinstance(rows, slice):
            return self.device.get(self.X[rows, ...])
        return self.device.get(self.device.xp.take(self.X, self.device.put(rows, np.int64), axis=0))

    def _same_as_first_row(self, rows, columns):
        xp, at = self.device.xp, self.device.put(columns, np.int64)
        part, first = (xp.take(self.X[some, ...], at, axis=1) for some in (rows, slice(0, 1)))
        return self.device.get(xp.all(part == first, axis=0))

    def _squared_columns(self, weight):
        weight = self.device.put(weight, self.device.wide)
        if self.sparse:
            return self._numpy(self.X.weighted_squares(weight))
        total = None
        for first, last in self._wide_chunks(2 * self.width):
            part = self._written_out(first, last, False)
            total = add(total, weight[first:last] @ (part * part))
        return self._numpy(total)

    def _column_maxima(self):
        if self.sparse:
            return self.X.largest()
        xp = self.device.xp
        high = self.device.get(xp.max(self.X, axis=0)) - self.center
        low = self.device.get(xp.min(self.X, axis=0)) - self.center
        return np.maximum(np.abs(high), np.abs(low))

    def _move_intercept(self, coef, sign):
        if isinstance(coef, np.ndarray):
            return super()._move_intercept(coef, sign)
        slopes, intercept = coef[:, : self.features], coef[:, self.features :]
        return self.device.xp.concat([slopes, intercept + sign * (slopes @ self.offset)[:, None]], axis=1)

    # Chunks of rows and their sums ---------------------------------------------------------------------

    def _enter(self, coef):
        """Parameters there, in the dtype of sums, and whether they have come from NumPy."""
        if isinstance(coef, np.ndarray):
            return self.device.put(coef, self.device.wide), True
        return coef, False

    def _numpy(self, array):
        return self.device.get(array).astype(np.float64, copy=False)

    def _leave(self, sums, gradient):
        """Both in NumPy: one wait for the device."""
        both = self._numpy(self.device.xp.concat([sums, self.device.xp.reshape(gradient, (-1,))]))
        cut = sums.shape[0]
        return both[:cut], both[cut:].reshape(gradient.shape)

    def _split(self, coef):
        """Coefficients, transposed, and intercepts, or None, in X's dtype."""
        xp = self.device.xp
        w = xp.matrix_transpose(xp.astype(coef[:, : self.features], self.X.dtype))
        if not self.fit_intercept:
            return w, None
        return w, xp.astype(self.uncentered(coef)[:, -1], self.X.dtype)[None, :]

    def _scores(self, first, last, w, b):
        X = self.X.rows(first, last) if self.sparse else self.X[first:last, ...]
        raw = X @ w
        if b is not None:
            raw += b
        return raw

    def _add_up(self, pieces):
        """The sum of slopes' X over chunks (first, last, slopes), the intercept's sums beside it."""
        xp = self.device.xp
        total = intercepts = None
        kept = []
        for first, last, slopes in pieces:
            if self.fit_intercept:
                intercepts = add(intercepts, xp.sum(slopes, axis=0, dtype=self.wide))
            if self.sparse:
                kept.append(slopes)
                continue
            total = add(total, self.weighted_row_sum(self.X[first:last, ...], slopes))
        if self.sparse:
            slopes = kept[0] if len(kept) == 1 else xp.concat(kept, axis=0)
            total = xp.matrix_transpose(self.X.transposed(slopes))
        if not self.fit_intercept:
            return total
        intercepts = intercepts[:, None]
        if self.centered_columns:
            total = total - intercepts * self.offset[None, :]
        return xp.concat([total, intercepts], axis=1)

    def weighted_row_sum(self, X, slopes):
        """The product slopes' X in the dtype of sums; X's own adds up no more than a block of rows."""
        xp = self.device.xp
        n, rest = X.shape[0], X.shape[0] % BLOCK_ROWS
        if X.dtype == self.wide or n <= BLOCK_ROWS:
            return xp.astype(xp.matrix_transpose(slopes) @ X, self.wide)
        blocks, cut = n // BLOCK_ROWS, n - rest
        turned = xp.matrix_transpose(xp.reshape(slopes[:cut, ...], (blocks, BLOCK_ROWS, self.outputs)))
        products = turned @ xp.reshape(X[:cut, ...], (blocks, BLOCK_ROWS, X.shape[1]))
        total = xp.sum(products, axis=0, dtype=self.wide)
        if rest:
            total = total + xp.astype(xp.matrix_transpose(slopes[cut:, ...]) @ X[cut:, ...], self.wide)
        return total

    def _chunks(self):
        """Bounds of the rows of each chunk. A loss that is not a mean over rows has one."""
        rows = self.n
        if self.loss.additive:
            # a row's scores, and its share of what `weighted_row_sum` makes of a block
            numbers = self.outputs * max(1, self.features // BLOCK_ROWS)
            rows = max(1, CHUNK_BYTES // (self.dtype.itemsize * numbers))
            rows = max(1, rows // BLOCK_ROWS) * BLOCK_ROWS
        return [(first, min(first + rows, self.n)) for first in range(0, self.n, rows)]

    def _wide_chunks(self, numbers):
        """Bounds of chunks whose rows take so many numbers each in the dtype of sums."""
        rows = self.n
        if self.loss.additive:
            rows = max(1, WIDE_BYTES // (self.device.wide.itemsize * max(1, numbers)))
        return [(first, min(first + rows, self.n)) for first in range(0, self.n, rows)]

    def _written_out(self, first, last, ones):
        """Rows less the center in the dtype of sums, with a column of ones for the intercept if ``ones``."""
        xp = self.device.xp
        part = self.X.rows(first, last).dense() if self.sparse else self.X[first:last, ...]
        part = self._to_wide(part)
        if self.centered_columns:
            part = part - self.offset[None, :]
        if not ones:
            return part
        column = xp.ones((last - first, 1), dtype=self.wide, device=self.device.native)
        return xp.concat([part, column], axis=1)

    def _to_wide(self, array):
        return self.device.xp.astype(array, self.wide, copy=False)


def add(total, part):
    """A sum to which a part is added, None being an empty one."""
    return part if total is None else total + part
