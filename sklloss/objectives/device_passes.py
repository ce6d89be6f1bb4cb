"""Passes over the rows of X in the arrays of another library, above all on a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklloss.arrays.device import Device, check_writable
from sklloss.data.dataset import Dataset
from sklloss.losses import Loss
from sklloss.objectives import device_batches
from sklloss.objectives.device_batches import DeviceLoss, add
from sklloss.objectives.passes import Array, EpochPlan, Floats, Indices, Passes

Bounds = tuple[int, int]  # of a chunk of rows, [first, last)

# Bytes of scores computed at a time: enough work for each call of the library, but little memory.
CHUNK_BYTES = 1 << 26
# Bytes of rows that are copied at a time in the dtype of sums.
WIDE_BYTES = 1 << 26
# Most rows added up in float32, as in the kernels; the sums of such blocks are added in float64.
BLOCK_ROWS = 1024


class DevicePasses(Passes):
    """`Passes` over arrays of another namespace and `TorchCSR`; sums are in the dtype ``device.wide``.

    Targets, codes and weights are NumPy arrays, which are moved to the device of X here, once.

    NumPy parameters give NumPy results. `value_and_gradient` and `product` also take arrays on the device, in
    the dtype ``device.wide``. The results are then such arrays too: nothing is copied to or from the device,
    and the host does not wait for it.
    """

    device: Device

    def __init__(self, data: Dataset, loss: Loss, **keywords: Any) -> None:
        super().__init__(data, loss, **keywords)
        codes = self.codes
        if codes is not None:
            bad = np.flatnonzero((codes < 0) | (codes >= self.outputs))
            if bad.size:
                raise self._bad_code(bad[0])
        device = self.device
        self.wide: Any = device.real(device.wide)
        self.batches: DeviceLoss = DeviceLoss(device, loss, data)
        # the center on the device, in the dtype of sums
        self.offset: Array = device.put(self.center, device.wide) if self.centered_columns else None
        # the curvature of each chunk of rows, from the last pass that was asked to store it
        self._curvature: Any = None
        # the latest factors of stochastic steps and their inverses on the device, see `device_batches`
        self.inverse_factors: tuple[Floats, Array] | None = None

    # Value, gradient and Hessian product ---------------------------------------------------------------

    def value_and_gradient(
        self, coef: Array, *, keep_curvature: bool = False, slopes: Array | None = None
    ) -> tuple[Array, Array]:
        """See `Passes.value_and_gradient`; ``slopes`` is a NumPy array or lives on the device of X."""
        coef, moved = self._to_device(coef)
        w, b = self._split(coef)
        sums: Array = None
        curvatures: list[Array] = []
        if keep_curvature:
            self._curvature = None
        if slopes is not None and not isinstance(slopes, np.ndarray):
            check_writable(self.device, "stochastic solvers")

        def chunk_slopes() -> Iterator[tuple[int, int, Array]]:
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

        gradient = self._add_up(chunk_slopes())
        if keep_curvature:
            self._curvature = curvatures
        if moved:
            sums, gradient = self._all_as_numpy(sums, gradient)
        return sums, gradient

    def product(self, direction: Array) -> Array:
        """See `Passes.product`; the next product does not overwrite the result."""
        direction, moved = self._to_device(direction)
        v, b = self._split(direction)

        def chunk_products() -> Iterator[tuple[int, int, Array]]:
            for (first, last), curvature in zip(self._chunks(), self._curvature, strict=True):
                scores = self._scores(first, last, v, b)
                yield first, last, self.batches.curvature_product(curvature, scores, first, last)

        product = self._add_up(chunk_products())
        return self._numpy(product) if moved else product

    # Hessians ------------------------------------------------------------------------------------------

    def hessian(
        self, coef: Floats, *, coupled: bool = True, by_slope: bool = False, curved: bool = True
    ) -> tuple[Floats, Floats, Any]:
        """See `Passes.hessian`."""
        xp, K, width = self.device.xp, self.outputs, self.width
        coupled = coupled and curved and not (self.separable or by_slope)
        w = xp.matrix_transpose(self._to_device(coef)[0])
        sums: Array = None
        gradient: Array = None
        blocks: Any = [None] * K
        cross: list[Array] = [None] * K
        for first, last in self._wide_chunks((2 + K * coupled) * width):
            Z = self._wide_rows(first, last, self.fit_intercept)
            part, slopes, stored = self.batches(Z @ w, first, last, curved=curved and not by_slope)
            sums = add(sums, part)
            gradient = add(gradient, xp.matrix_transpose(slopes) @ Z)
            if not curved:
                continue
            if by_slope:
                curvature = xp.abs(slopes)
            else:
                curvature = self._second_derivatives(stored, first, last, alone=not coupled)
            curvature = xp.where(curvature > 0, curvature, 0.0)
            turned = xp.matrix_transpose(Z)
            for k in range(K):
                blocks[k] = add(blocks[k], turned @ (Z * curvature[:, k : k + 1]))
            if coupled:
                # the rows scaled for each output by the root of the weight times p, side by side
                share = self._softmax_share(stored, first, last)
                side = xp.reshape(share[:, :, None] * Z[:, None, :], (last - first, K * width))
                for k in range(K):
                    turned = xp.matrix_transpose(side[:, k * width : (k + 1) * width])
                    cross[k] = add(cross[k], turned @ side[:, : (k + 1) * width])
        if not curved:
            sums, gradient = self._all_as_numpy(sums, gradient)
            return sums, gradient, None
        sums, gradient, blocks = self._all_as_numpy(sums, gradient, xp.stack(blocks))
        if not coupled:
            return sums, gradient, blocks
        whole = np.zeros((1, K * width, K * width))
        for k in range(K):
            lines = whole[0, k * width : (k + 1) * width]
            lines[:, : (k + 1) * width] -= self._numpy(cross[k])
            lines[:, k * width : (k + 1) * width] += blocks[k]
        return sums, gradient, whole

    def hessian_block(self, sets: list[Indices], *, coupled: bool) -> list[Floats]:
        """See `Passes.hessian_block`."""
        xp, K = self.device.xp, len(sets)
        sizes = [len(columns) for columns in sets]
        starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        chosen = [self.device.put(columns, np.int64) for columns in sets]
        blocks: list[Array] = [None] * K
        cross: Array = None
        for first, last, curvature in self._stored_curvature(self.width + 3 * starts[-1]):
            Z = self._wide_rows(first, last, self.fit_intercept)
            second = self._second_derivatives(curvature, first, last, alone=not coupled)
            second = xp.where(second > 0, second, 0.0)
            parts = [xp.take(Z, columns, axis=1) for columns in chosen]
            for k in range(K):
                blocks[k] = add(blocks[k], xp.matrix_transpose(parts[k]) @ (parts[k] * second[:, k : k + 1]))
            if coupled:
                share = self._softmax_share(curvature, first, last)
                parts = xp.concat([parts[k] * share[:, k : k + 1] for k in range(K)], axis=1)
                cross = add(cross, xp.matrix_transpose(parts) @ parts)
        matrices = [self._numpy(block) for block in blocks]
        if self.separable:
            return matrices
        matrix = -self._numpy(cross) if coupled else np.zeros((starts[-1], starts[-1]))
        for k, block in enumerate(matrices):
            part = slice(starts[k], starts[k + 1])
            matrix[part, part] += block
        return [matrix]

    def hessian_diagonal(self) -> Floats:
        """See `Passes.hessian_diagonal`."""
        xp = self.device.xp
        total: Array = None
        intercepts: Array = None
        chunks = []
        for first, last, curvature in self._stored_curvature(self.width):
            curvature = self._second_derivatives(curvature, first, last, alone=True)
            intercepts = add(intercepts, xp.sum(curvature, axis=0))
            if self.sparse:
                chunks.append(curvature)
                continue
            Z = self._wide_rows(first, last, False)
            total = add(total, xp.matrix_transpose(curvature) @ (Z * Z))
        if self.sparse:
            total = xp.matrix_transpose(self.X.weighted_squares(xp.concat(chunks, axis=0)))
        diagonal = np.empty((self.outputs, self.width))
        diagonal[:, : self.features] = self._numpy(total)
        diagonal[:, self.features :] = self._numpy(intercepts)[:, None]
        return diagonal

    def _second_derivatives(self, stored: Array, first: int, last: int, *, alone: bool) -> Array:
        """Second derivatives by output, times weights, from the curvature that a pass has stored.

        For the probabilities p of a softmax p (1 - p), or p alone if terms that couple outputs are added.
        """
        if self.separable:
            return stored
        self._check_softmax()
        curvature = stored * (1.0 - stored) if alone else stored
        weight = self.batches.weight(stored, first, last)
        return curvature if weight is None else self.device.xp.where(weight != 0, curvature * weight, 0.0)

    def _softmax_share(self, p: Array, first: int, last: int) -> Array:
        """The root of the weights times p."""
        self._check_softmax()
        xp, weight = self.device.xp, self.batches.weight(p, first, last)
        return p if weight is None else xp.where(weight != 0, p * xp.sqrt(weight), 0.0)

    def _check_softmax(self) -> None:
        if not self.softmax:
            raise ValueError(f"{type(self.loss).__name__} is not separable and has no curvature by output")

    def _stored_curvature(self, numbers: int) -> Iterator[tuple[int, int, Array]]:
        """The curvature that `value_and_gradient` stored, in the dtype of sums: (first, last, curvature)."""
        rows = self._wide_chunks(numbers)[0][1]
        for (start, end), curvature in zip(self._chunks(), self._curvature, strict=True):
            for first in range(start, end, rows):
                last = min(first + rows, end)
                yield first, last, self._to_wide(curvature[first - start : last - start, ...])

    # Stochastic passes ---------------------------------------------------------------------------------

    def epoch(self, w: Floats, plan: EpochPlan) -> None:
        """See `Passes.epoch`; even with a sparse X, all columns step with each batch."""
        device_batches.epoch(self, w, plan)

    def empty_slopes(self) -> Array:
        """See `Passes.empty_slopes`."""
        device = self.device
        return device.xp.empty((self.n, self.outputs), dtype=device.real(self.dtype), device=device.native)

    def slopes_sum_to_zero(self, slopes: Array) -> bool:
        """See `Passes.slopes_sum_to_zero`."""
        xp = self.device.xp
        total = xp.sum(xp.abs(xp.sum(slopes, axis=1)), dtype=self.wide)
        return bool(total <= 1e-4 * xp.sum(xp.abs(slopes), dtype=self.wide))

    # Statistics of X -----------------------------------------------------------------------------------

    def _rows_as_numpy(self, rows: slice | Indices) -> NDArray[Any]:
        if isinstance(rows, slice):
            return self.device.get(self.X[rows, ...])
        return self.device.get(self.device.xp.take(self.X, self.device.put(rows, np.int64), axis=0))

    def _same_as_first_row(self, rows: slice, columns: Indices) -> NDArray[np.bool_]:
        xp, at = self.device.xp, self.device.put(columns, np.int64)
        part, first = (xp.take(self.X[some, ...], at, axis=1) for some in (rows, slice(0, 1)))
        return self.device.get(xp.all(part == first, axis=0))

    def _squared_columns(self, weight: Floats) -> Floats:
        weight = self.device.put(weight, self.device.wide)
        if self.sparse:
            return self._numpy(self.X.weighted_squares(weight))
        total: Array = None
        for first, last in self._wide_chunks(2 * self.width):
            part = self._wide_rows(first, last, False)
            total = add(total, (weight[None, first:last] @ (part * part))[0, :])
        return self._numpy(total)

    def _column_maxima(self) -> Floats:
        if self.sparse:
            return self.X.largest()
        xp = self.device.xp
        high = self.device.get(xp.max(self.X, axis=0)) - self.center
        low = self.device.get(xp.min(self.X, axis=0)) - self.center
        return np.maximum(np.abs(high), np.abs(low))

    def _move_intercept(self, coef: Array, sign: float) -> Array:
        if isinstance(coef, np.ndarray):
            return super()._move_intercept(coef, sign)
        slopes, intercept = coef[:, : self.features], coef[:, self.features :]
        return self.device.xp.concat([slopes, intercept + sign * (slopes @ self.offset)[:, None]], axis=1)

    # Chunks of rows and their sums ---------------------------------------------------------------------

    def _to_device(self, coef: Array) -> tuple[Array, bool]:
        """Parameters on the device in the dtype of sums, and whether they were a NumPy array."""
        if isinstance(coef, np.ndarray):
            return self.device.put(coef, self.device.wide), True
        return coef, False

    def _numpy(self, array: Array) -> Floats:
        return self.device.get(array).astype(np.float64, copy=False)

    def _all_as_numpy(self, *arrays: Array) -> tuple[Floats, ...]:
        """Arrays of one dtype as NumPy arrays, in a single transfer."""
        xp = self.device.xp
        numbers = self._numpy(xp.concat([xp.reshape(array, (-1,)) for array in arrays]))
        ends = np.cumsum([math.prod(array.shape) for array in arrays])[:-1]
        parts = zip(np.split(numbers, ends), arrays, strict=True)
        return tuple(part.reshape(array.shape) for part, array in parts)

    def _split(self, coef: Array) -> tuple[Array, Array | None]:
        """Transposed coefficients, and intercepts or None, in X's dtype."""
        xp = self.device.xp
        w = xp.matrix_transpose(xp.astype(coef[:, : self.features], self.X.dtype))
        if not self.fit_intercept:
            return w, None
        return w, xp.astype(self.uncentered(coef)[:, -1], self.X.dtype)[None, :]

    def _scores(self, first: int, last: int, w: Array, b: Array | None) -> Array:
        X = self.X.rows(first, last) if self.sparse else self.X[first:last, ...]
        raw = X @ w
        if b is not None:
            raw += b
        return raw

    def _add_up(self, chunks: Iterable[tuple[int, int, Array]]) -> Array:
        """The sum of slopes' X over chunks (first, last, slopes), with the intercept's as last column."""
        xp = self.device.xp
        total: Array = None
        intercepts: Array = None
        of_chunks = []
        for first, last, slopes in chunks:
            if self.fit_intercept:
                intercepts = add(intercepts, xp.sum(slopes, axis=0, dtype=self.wide))
            if self.sparse:
                of_chunks.append(slopes)
                continue
            total = add(total, self.weighted_row_sum(self.X[first:last, ...], slopes))
        if self.sparse:
            slopes = of_chunks[0] if len(of_chunks) == 1 else xp.concat(of_chunks, axis=0)
            total = xp.matrix_transpose(self.X.transposed(slopes))
        if not self.fit_intercept:
            return total
        intercepts = intercepts[:, None]
        if self.centered_columns:
            total = total - intercepts * self.offset[None, :]
        return xp.concat([total, intercepts], axis=1)

    def weighted_row_sum(self, X: Array, slopes: Array) -> Array:
        """The product slopes' X in the dtype of sums; X's dtype adds up no more than a block of rows."""
        xp = self.device.xp
        n, rest = X.shape[0], X.shape[0] % BLOCK_ROWS
        if X.dtype == self.wide or n <= BLOCK_ROWS:
            return xp.astype(xp.matrix_transpose(slopes) @ X, self.wide)
        blocks, whole = n // BLOCK_ROWS, n - rest
        turned = xp.matrix_transpose(xp.reshape(slopes[:whole, ...], (blocks, BLOCK_ROWS, self.outputs)))
        products = turned @ xp.reshape(X[:whole, ...], (blocks, BLOCK_ROWS, X.shape[1]))
        total = xp.sum(products, axis=0, dtype=self.wide)
        if rest:
            total = total + xp.astype(xp.matrix_transpose(slopes[whole:, ...]) @ X[whole:, ...], self.wide)
        return total

    def _chunks(self) -> list[Bounds]:
        """The bounds of the chunks of rows of a pass."""
        # a row's scores, and its share of the products of `weighted_row_sum`
        numbers = self.outputs * max(1, self.features // BLOCK_ROWS)
        rows = CHUNK_BYTES // (self.dtype.itemsize * numbers)
        return self._bounds(max(1, rows // BLOCK_ROWS) * BLOCK_ROWS)

    def _wide_chunks(self, numbers: int) -> list[Bounds]:
        """The bounds of chunks whose rows take this many numbers each in the dtype of sums."""
        return self._bounds(max(1, WIDE_BYTES // (self.device.wide.itemsize * max(1, numbers))))

    def _bounds(self, rows: int) -> list[Bounds]:
        """The bounds of chunks of this many rows. A loss that is not a mean over rows takes all at once."""
        rows = rows if self.loss.additive else self.n
        return [(first, min(first + rows, self.n)) for first in range(0, self.n, rows)]

    def _wide_rows(self, first: int, last: int, ones: bool) -> Array:
        """Rows less the center in the dtype of sums, with a last column of ones if ``ones``."""
        xp = self.device.xp
        part = self.X.rows(first, last).dense() if self.sparse else self.X[first:last, ...]
        part = self._to_wide(part)
        if self.centered_columns:
            part = part - self.offset[None, :]
        if not ones:
            return part
        column = xp.ones((last - first, 1), dtype=self.wide, device=self.device.native)
        return xp.concat([part, column], axis=1)

    def _to_wide(self, array: Array) -> Array:
        return self.device.xp.astype(array, self.wide, copy=False)
