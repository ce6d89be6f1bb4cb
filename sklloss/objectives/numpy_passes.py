"""Passes over the rows of X in main memory, NumPy or CSR, by the compiled kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sklloss.kernels.common as common
import sklloss.kernels.data as data_kernels
import sklloss.kernels.linear.dual as dual_kernels
import sklloss.kernels.linear.gradient as gradient_kernels
import sklloss.kernels.linear.hessian as hessian_kernels
import sklloss.kernels.linear.hessian_block as hessian_block_kernels
import sklloss.kernels.linear.sgd as sgd_kernels
import sklloss.kernels.linear.small_newton as small_newton
from sklloss import kernels
from sklloss.arrays import memory, threads
from sklloss.data.dataset import Dataset
from sklloss.kernels.data import CompiledLoss, PythonLoss
from sklloss.kernels.linear.gradient import Chunks, HessianOperator, PassBuffers
from sklloss.kernels.solve import Operator, add_gram
from sklloss.losses import Loss
from sklloss.objectives.column_model import RowCurvature
from sklloss.objectives.curved_rows import LEAST_WORK, MOST_NUMBERS, NEGLIGIBLE, CurvedRows
from sklloss.objectives.passes import EpochPlan, Floats, Indices, Passes

# Least rows per block of a loss without a kernel, whose Python code costs some 30 us a call.
PYTHON_ROWS = 512
# Bytes of a block of rows, read by two products: half of a common L2 cache.
BLOCK_BYTES = 1 << 18
# Most rows in a block of a Gram matrix, whose packed panels should stay in L1, and most bytes: a common L2
# cache.
GRAM_ROWS = 128
GRAM_BYTES = 1 << 20
# Least rows in a chunk of a Hessian, below which it costs more to add up matrices than a thread saves.
HESSIAN_CHUNK_ROWS = 512
# Bytes of a block that stays in the L1 cache next to what the products need; at most these of L2; and of a
# block that BLAS multiplies, which is slow for few rows.
SMALL_BLOCK_BYTES = 3 << 12
WIDE_BLOCK_BYTES = 1 << 19
BLAS_BLOCK_BYTES = 1 << 20
# Least scores of a block, as the kernel of a loss is slow for fewer.
BLOCK_SCORES = 256
# Bytes of a block of rows in a stochastic pass, which should stay in cache.
EPOCH_BLOCK_BYTES = 1 << 19
# Threads share chunks of rows. The number of chunks must not depend on the number of threads.
MOST_CHUNKS = 16
CHUNK_BYTES = 1 << 26
# Least multiplications per number of a chunk's result; sparse rows have slower ones, scattered over memory.
CHUNK_WORK = 256
SPARSE_CHUNK_WORK = 4
# Passes of fewer multiplications, some 30 us, are one chunk, and stay on one thread.
SMALL_WORK = 1 << 18
# Most multiplications of a Newton step that is taken in compiled code, which uses one thread.
COMPILED_STEP_WORK = 1 << 22
# Most numbers in X of which a fit may make a copy in float64.
SMALL_X = 1 << 18
# Memory that the Hessians of chunks may always take: the larger of these bytes and this share of X's memory.
HESSIANS_BYTES = 1 << 22
HESSIANS_SHARE = 0.04
# Rows that are multiplied at a time for one output's block of a Hessian.
OUTPUT_ROWS = 256
# The cost of one number of a sparse X in a Hessian, relative to one of a dense X.
ENTRY_WORK = 24
# Dual ascent: most rows per block. The rows of a block step without knowledge of each other's steps, so
# blocks are smaller where rows are so similar that a block would overshoot by more than this factor.
DUAL_BLOCK = 32
DUAL_OVERSHOOT = 2.0


class NumPyPasses(Passes):
    """`Passes` over NumPy arrays with contiguous rows or columns, and over CSR matrices.

    Results are in float64. A loss without a kernel calls its `evaluate_batch` for each block of rows.
    """

    def __init__(self, data: Dataset, loss: Loss, **keywords: Any) -> None:
        super().__init__(data, loss, **keywords)
        X = data.X
        self.compiled: bool = loss.kernel is not None
        if loss.kernel is not None:
            self._kernel64 = CompiledLoss(kernels.get(loss.kernel, np.float64), loss.kernel_parameter)
            self._kernel = self._kernel64
            if self.dtype != np.float64:
                self._kernel = CompiledLoss(kernels.get(loss.kernel, self.dtype), loss.kernel_parameter)
        else:
            self._kernel = self._kernel64 = PythonLoss(loss.evaluate_batch, loss.separable)
        self._curved_rows: CurvedRows | None = None
        self._negligible: float = 0.0  # see `kernels.linear.hessian.hessian`
        self._curvature: Any = None  # (n, outputs), from the last pass that was asked to store it
        # The outputs whose products may be wanted, and their curvature. For a sparse X, outputs that have
        # converged are left out once they are half of those that were kept.
        self._kept: tuple[NDArray[Any], Any] = np.arange(self.outputs), None
        self._skips_outputs: bool = self.sparse and self.separable and self.outputs > 1
        self._total_product: NDArray[Any] | None = None  # which the next product overwrites
        self._buffers: PassBuffers | None = None
        self._kept_chunks: dict[int, Chunks] = {}  # by the least scores of a block
        self._row_numbers = X.nnz / max(self.n, 1) if self.sparse else self.features
        # class codes become 0/1 targets for a loss that is not over classes
        expand = data.codes is not None and loss.target != "classes"
        self._data = data_kernels.Dataset(
            X,
            data.values,
            data.codes,
            self.weight,
            outputs=self.outputs,
            expand=expand,
            center=self.center,
            offset=data.offset,
        )
        self._arrays = self._data.arrays

    # Value, gradient and Hessian product ---------------------------------------------------------------

    def value_and_gradient(
        self, coef: Floats, *, keep_curvature: bool = False, slopes: NDArray[Any] | None = None
    ) -> tuple[Floats, Floats]:
        """See `Passes.value_and_gradient`."""
        curvature = None
        if keep_curvature:
            if self._curvature is None:
                self._curvature = np.empty((self.n, self.outputs), dtype=self.dtype)
            curvature = self._curvature
            self._kept = np.arange(self.outputs), curvature
        chunks, buffers = self._chunks_of_pass(BLOCK_SCORES, self.outputs)
        sums, gradient = np.empty(self.outputs), np.empty((self.outputs, self.width))
        bad = gradient_kernels.gradient(
            self._kernel, self._data, chunks, buffers, coef, sums, gradient, curvature, slopes
        )  # fmt: skip
        if bad >= 0:
            raise self._bad_code(bad)
        return sums if self.separable else sums[:1], gradient

    def product(self, direction: Floats) -> Floats:
        """See `Passes.product`."""
        if self._total_product is None:
            self._total_product = np.empty((self.outputs, self.width))
        total = self._total_product
        if not self._skips_outputs:
            return self._product(direction, self._curvature, total)
        moving = np.flatnonzero(direction.any(axis=1))
        kept, curvature = self._kept
        if 2 * len(moving) <= len(kept) or not np.isin(moving, kept).all():
            kept, curvature = moving, np.ascontiguousarray(self._curvature[:, moving])
            self._kept = kept, curvature
        if len(kept) == self.outputs:
            return self._product(direction, curvature, total)
        total[:] = 0.0
        if kept.size:
            total[kept] = self._product(direction[kept], curvature, np.empty((len(kept), self.width)))
        return total

    def hessian_operator(self, scale: float, ridge: Floats, varying: Floats | None) -> Operator | None:
        """See `Passes.hessian_operator`."""
        if self._skips_outputs:
            return None
        chunks, buffers = self._chunks_of_pass(0, self.outputs)
        return HessianOperator(
            self._data, chunks, buffers, self._curvature, self.softmax, scale=scale, ridge=ridge,
            varying=varying,
        )  # fmt: skip

    def _product(self, direction: Floats, curvature: Any, total: Floats) -> Floats:
        """The product with the Hessian of the outputs whose direction and curvature are given."""
        chunks, buffers = self._chunks_of_pass(0, len(direction))
        gradient_kernels.product(self._data, chunks, buffers, direction, curvature, self.softmax, total)
        return total

    # Hessians ------------------------------------------------------------------------------------------

    def hessian(
        self, coef: Floats, *, coupled: bool = True, by_slope: bool = False, curved: bool = True
    ) -> tuple[Floats, Floats, Any]:
        """See `Passes.hessian`."""
        coupled = coupled and not self.separable
        shape, block = self._hessian_shape(coupled)
        numbers = int(np.prod(shape))
        squares = float(numbers if coupled else self.width * self.width)
        as_dense = not self.sparse or coupled
        if not as_dense:
            # the cost of adding a row's numbers one by one, to compare with that of a dense matrix
            entries = ENTRY_WORK * np.square(np.diff(self._arrays[2]), dtype=float).mean()
            as_dense = curved and entries >= squares
            squares = min(squares, entries + self.outputs * self._row_numbers)
        bounds = self._chunk_bounds(squares * shape[0], numbers, HESSIAN_CHUNK_ROWS)
        chunks = len(bounds) - 1
        gradient = np.empty((chunks, self.outputs, self.width))
        sums = np.empty((chunks, 2 * self.outputs))
        # Chunks at a time: one for each thread, or as many as take little memory compared with X.
        wave = chunks
        if curved and chunks > 1:
            most = max(HESSIANS_BYTES, HESSIANS_SHARE * self.n * self._row_numbers * self.dtype.itemsize)
            wave = max(self._count_threads(chunks), int(most / (8 * numbers)))
            wave = min(wave, chunks)
        curvature = memory.empty((wave, *shape)) if curved else None
        coef = np.ascontiguousarray(coef)
        softmax = self.softmax and not by_slope
        kernel = PythonLoss(self._evaluate_with_slopes, False) if by_slope else self._kernel64
        total: Any = None
        for start in range(0, chunks, wave):
            part = slice(start, start + wave)
            wave_chunks = self._chunks(bounds[start : start + wave + 1], block)
            bad = hessian_kernels.hessian(
                kernel, self._data, wave_chunks, coef, (sums[part], gradient[part], curvature),
                coupled=coupled, softmax=softmax, as_dense=as_dense, negligible=self._negligible,
            )  # fmt: skip
            if bad >= 0:
                raise self._bad_code(bad)
            for matrix in () if curvature is None else curvature[: wave_chunks.count]:
                if total is not None:
                    total += matrix
                elif chunks <= wave:
                    total = matrix
                else:
                    total = memory.empty(shape)
                    total[:] = matrix
        gradient = gradient[0] if chunks == 1 else gradient.sum(axis=0)
        if not curved:
            return self._total(sums), gradient, None
        if coupled:
            size = self.outputs * self.width
            sums_of_pairs, total = total[0], np.zeros((1, size, size))
            hessian_kernels.coupled_hessian(sums_of_pairs, self.outputs, total[0])
        return self._total(sums), gradient, total

    def _hessian_shape(self, coupled: bool) -> tuple[tuple[int, int, int], int]:
        """The shape of the sums that a Hessian is made of, see `kernels.linear.hessian`; rows per block."""
        K, width = self.outputs, self.width
        pairs = K * (K + 1) // 2 if coupled else 0
        shape = (1, pairs, width * (width + 1) // 2) if coupled else (K, width, width)
        return shape, _gram_rows(2 * width + pairs)

    def _evaluate_with_slopes(self, raw: Any, target: Any, codes: Any, weight: Any, curvature: Any) -> Any:
        """As `Loss.evaluate_batch`, with the absolute gradient in place of the curvature."""
        total = self.loss.evaluate_batch(raw, target, codes, weight)
        np.abs(raw, out=curvature)
        return total

    def hessian_block(self, sets: list[Indices], *, coupled: bool) -> list[Floats]:
        """See `Passes.hessian_block`."""
        softmax = self.softmax
        sizes = np.array([len(columns) for columns in sets], dtype=np.intp)
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        size = int(starts[-1])
        if softmax:
            step, numbers = np.full(len(sets), size, dtype=np.intp), size * size
            place = starts[:-1] * (size + 1)
        else:
            step, squares = sizes, np.concatenate([[0], np.cumsum(sizes**2)])
            place, numbers = squares[:-1].astype(np.intp), int(squares[-1])
        columns = np.concatenate(sets).astype(np.intp) if sets else np.empty(0, dtype=np.intp)
        if self.sparse:
            block = 32
            order = np.argsort(columns, kind="stable")
            heads = np.searchsorted(columns[order], np.arange(self.features + 2)).astype(np.intp)
            owners = np.repeat(np.arange(len(sets)), sizes)[order]
            members = np.arange(size) if softmax else order
            touched = self._row_numbers * size / max(self.width, 1) + len(sets)
            # a scattered addition costs as much as many of the contiguous ones that add up chunks
            bounds = self._chunk_bounds(64 * touched * touched, max(2 * numbers, 1), block)
            chosen: tuple[NDArray[Any], ...] = starts, place, step, heads, members, owners
        else:
            block = _gram_rows(2 * size)
            bounds = self._chunk_bounds(numbers, max(numbers, 1), HESSIAN_CHUNK_ROWS)
            chosen = starts, place, step, columns
        result = np.empty((len(bounds) - 1, numbers))
        if numbers:
            hessian_block_kernels.hessian_block(
                self._data, self._chunks(bounds, block), self._curvature, chosen, result, softmax=softmax,
                coupled=coupled,
            )  # fmt: skip
        total = result[0] if len(result) == 1 else result.sum(axis=0)
        symmetric = _symmetric if self.sparse else _mirrored
        if not softmax:
            shapes = zip(place, sizes, strict=True)
            return [symmetric(total[at : at + wide * wide].reshape(wide, wide)) for at, wide in shapes]
        matrix = symmetric(total.reshape(size, size))
        if self.sparse:
            back = np.argsort(order)
            matrix = matrix[back[:, None], back]
        return [matrix]

    @functools.cached_property
    def _by_columns(self) -> tuple[Any, ...]:
        """X in CSC format, as `ColumnModel` takes it."""
        X = self.X.tocsc()
        return X.data, X.indices.astype(np.int32, copy=False), X.indptr.astype(np.int64, copy=False)

    def column_rows(self, output: int | None, scale: float) -> tuple[tuple[Any, ...], RowCurvature] | None:
        """See `Passes.column_rows`."""
        if not self.sparse or self.n > np.iinfo(np.int32).max:
            return None
        if output is not None:
            curvature = scale * self._curvature[:, output : output + 1].astype(np.float64)
            return self._by_columns, RowCurvature(np.ascontiguousarray(curvature.T), None)
        p = np.ascontiguousarray(self._curvature.T, dtype=np.float64)
        weight = np.full(self.n, scale) if self.weight is None else scale * self.weight.astype(np.float64)
        return self._by_columns, RowCurvature(p * weight, p)

    @property
    def has_output_hessians(self) -> bool:
        """See `Passes.has_output_hessians`."""
        return not self.sparse

    def output_hessians(self, coef: Floats) -> Callable[[int, NDArray[Any], float], None]:
        """See `Passes.output_hessians`; by BLAS, which is at its best with wide rows."""
        kept, self._curvature = self._curvature, None
        self.value_and_gradient(coef, keep_curvature=True)
        curvature, self._curvature = self._curvature, kept
        if self.softmax:
            curvature *= 1 - curvature
            if self.weight is not None:
                curvature *= self.weight[:, None]
        np.sqrt(np.maximum(curvature, 0, out=curvature), out=curvature)
        center = self.center.astype(self.dtype)

        def set_block(k: int, block: NDArray[Any], factor: float) -> None:
            scaled = np.empty((min(OUTPUT_ROWS, self.n), self.width), self.dtype)
            for first in range(0, self.n, OUTPUT_ROWS):
                root = curvature[first : first + OUTPUT_ROWS, k : k + 1]
                part = scaled[: len(root)]
                np.subtract(self.X[first : first + OUTPUT_ROWS], center, out=part[:, : self.features])
                part[:, self.features :] = 1
                part *= root
                add_gram(part, block, factor, first == 0)

        return set_block

    def over_curved_rows(self) -> Passes:
        """See `Passes.over_curved_rows`."""
        numbers = self.n * self.features
        if self.sparse or numbers > MOST_NUMBERS or numbers * self.outputs < LEAST_WORK:
            return self
        if not self.loss.additive:
            return self
        if self._curved_rows is None:
            self._curved_rows = CurvedRows(self.X, self.center, self._column_maxima())
        chosen = self._curved_rows.choose(self.data, self._curvature, softmax=self.softmax)
        if chosen is None:
            return self
        data, curvature = chosen
        self._count_threads_for_parts()
        part = NumPyPasses(
            data, self.loss, fit_intercept=self.fit_intercept, n_threads=self.n_threads, center=False
        )
        part._curvature, part._negligible = curvature, NEGLIGIBLE
        return part

    def hessian_diagonal(self) -> Floats:
        """See `Passes.hessian_diagonal`."""
        diagonal = np.zeros((self.outputs, self.width))
        if self.sparse:
            for k in range(self.outputs):
                curvature = self._curvature[:, k].astype(np.float64)
                if self.softmax:
                    curvature *= 1.0 - curvature
                    if self.weight is not None:
                        curvature *= self.weight
                squares = np.zeros(self.features)
                gradient_kernels.weighted_columns(*self._arrays, curvature, squares)
                diagonal[k, : self.features] = squares
                diagonal[k, self.features :] = curvature.sum()
            return diagonal
        block = max(1, BLOCK_BYTES // (8 * max(1, self.features, self.outputs)))
        for first in range(0, self.n, block):
            rows = slice(first, first + block)
            curvature = self._curvature[rows].astype(np.float64)
            if self.softmax:
                curvature *= 1.0 - curvature
                if self.weight is not None:
                    curvature *= self.weight[rows, None]
            part = self.X[rows].astype(np.float64)
            part -= self.center
            part *= part
            diagonal[:, : self.features] += (part.T @ curvature).T
            diagonal[:, self.features :] += curvature.sum(axis=0)[:, None]
        return diagonal

    @property
    def takes_newton_steps(self) -> bool:
        """See `Passes.takes_newton_steps`."""
        shape, _ = self._hessian_shape(not self.separable)
        if self.sparse or not self.compiled or shape[0] > 1:
            return False
        padded = -(-self.width // 8) * 8
        size = self.outputs * self.width
        work = self.n * shape[1] * shape[2] + size**3 // 3
        return self.n * padded <= SMALL_X and work <= COMPILED_STEP_WORK

    def newton_steps(
        self,
        scale: float,
        saturated: float,
        ridge: Floats,
        l1: Floats,
        points: Floats,
        values: Floats,
        *rule: Any,
    ) -> tuple[int, bool] | None:
        """See `Passes.newton_steps`."""
        if not self.takes_newton_steps:
            return None
        coupled = not self.separable
        block = self._hessian_shape(coupled)[1]
        return small_newton.newton_steps(
            self._kernel64, self._data, coupled, block, (scale, saturated), ridge, l1, points, values, rule
        )

    # Stochastic passes ---------------------------------------------------------------------------------

    def epoch(self, w: Floats, plan: EpochPlan) -> None:
        """See `Passes.epoch`.

        A sparse X is copied to small dense blocks of rows if the coordinates have matrices, as they have for
        few columns. Otherwise a batch only touches the columns that occur in it.
        """
        if self.sparse and plan.coordinates[0] is None:
            # The kernel takes parameters column by column.
            w_by_column = np.ascontiguousarray(w.T)
            moments: Any = plan.moments and [_transposed(moment) for moment in plan.moments]
            by_column = replace(
                plan, ridge=_transposed(plan.ridge), anchor=_transposed(plan.anchor), moments=moments
            )
            bad = sgd_kernels.sparse_epoch(self._kernel, self._data, w_by_column, by_column)
            w[:] = w_by_column.T
            for moment, transposed in zip(plan.moments or (), moments or (), strict=True):
                moment[:] = transposed.T
            if plan.mean is not None and plan.mixing is not None:
                mean = plan.mean
                mean += (1.0 - np.prod(1.0 - plan.mixing)) * (w - mean)
        else:
            block = EPOCH_BLOCK_BYTES // (self.dtype.itemsize * (self.width + 4 * self.outputs))
            block = max(32 if self.compiled else PYTHON_ROWS, min(block, 1024))
            bad = sgd_kernels.block_epoch(self._kernel, self._data, w, plan, block)
        if bad >= 0:
            raise self._bad_code(bad)

    @property
    def samples_are_views(self) -> bool:
        """See `Passes.samples_are_views`."""
        return not self.sparse and self.X.strides[1] == self.X.itemsize

    def empty_slopes(self) -> NDArray[Any]:
        """See `Passes.empty_slopes`."""
        return np.empty((self.n, self.outputs), dtype=self.dtype)

    def slopes_sum_to_zero(self, slopes: NDArray[Any]) -> bool:
        """See `Passes.slopes_sum_to_zero`."""
        total = float(np.abs(slopes.sum(axis=1)).sum(dtype=np.float64))
        return total <= 1e-4 * float(np.abs(slopes).sum(dtype=np.float64))

    # Dual ascent ---------------------------------------------------------------------------------------

    def dual_sizes(self) -> tuple[float, float, float] | None:
        """See `Passes.dual_sizes`; for a CSR matrix and a kernel that states second derivatives."""
        if not (self.sparse and self.compiled and self.loss.curvature_buffer is not None and self.n > 0):
            return None
        weight = self.row_weights()
        squares, sums = np.zeros(self.features), np.zeros(self.features)
        gradient_kernels.weighted_columns(*self._arrays, weight, squares, sums)
        total, squares = max(weight.sum(), np.finfo(float).tiny), squares.sum()
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return total / self.n, squares / total, min(1.0, np.dot(sums, sums) / total / squares)

    def dual_state(self) -> tuple[NDArray[Any], ...]:
        """See `Passes.dual_state`."""
        w = np.zeros((self.features, common.padded(self.outputs, 8)))
        dual = np.zeros((self.n, self.outputs), dtype=self.dtype)
        return w, np.zeros(self.outputs), np.zeros(self.outputs), dual

    def dual_epoch(
        self, state: tuple[Any, ...], order: Indices, *, scale: float, bias: float, overlap: float
    ) -> tuple[Floats, Floats]:
        """See `Passes.dual_epoch`."""
        block = max(1, min(DUAL_BLOCK, int(1 + (DUAL_OVERSHOOT - 1) / max(overlap, 1e-9))))
        *model, dual = state
        bad, totals = dual_kernels.dual_epoch(
            self._kernel64, self._data, model, dual, order, block, scale, bias, 1.0 + (block - 1) * overlap,
            not self.separable,
        )  # fmt: skip
        if bad >= 0:
            raise self._bad_code(bad)
        return totals[0], totals[1]

    def dual_parameters(self, state: tuple[Any, ...]) -> Floats:
        """See `Passes.dual_parameters`."""
        w, intercept, _, _ = state
        total = np.empty((self.outputs, self.width))
        gradient_kernels.by_output(w, total)
        if self.fit_intercept:
            total[:, -1] = intercept
        return total

    # Statistics of X -----------------------------------------------------------------------------------

    def _rows_as_numpy(self, rows: slice | Indices) -> NDArray[Any]:
        return self.X[rows]

    def _same_as_first_row(self, rows: slice, columns: Indices) -> NDArray[np.bool_]:
        return (self.X[rows][:, columns] == self.X[0, columns]).all(axis=0)

    def _squared_columns(self, weight: Floats) -> Floats:
        squares = np.zeros(self.features)
        if self.sparse:
            gradient_kernels.weighted_columns(*self._arrays, weight, squares)
        else:
            block = self._block_rows()
            for first in range(0, self.n, block):
                part = self.X[first : first + block].astype(np.float64, copy=False)
                part = part - self.center if self.center.any() else part
                squares += weight[first : first + block] @ (part * part)
        return squares

    def _column_maxima(self) -> Floats:
        if not self.sparse:
            high, low = self.X.max(axis=0) - self.center, self.X.min(axis=0) - self.center
            return np.maximum(np.abs(high), np.abs(low))
        largest = np.zeros(self.features)
        values, columns = self._arrays[:2]
        for first in range(0, len(values), 1 << 16):
            part = slice(first, first + (1 << 16))
            np.maximum.at(largest, columns[part], np.abs(values[part]).astype(np.float64))
        return largest

    # Blocks, chunks and their sums ---------------------------------------------------------------------

    def _chunks(self, bounds: Indices, block: int) -> Chunks:
        """Chunks of rows for the threads."""
        return Chunks(bounds, block, self._count_threads(len(bounds) - 1))

    def _chunks_of_pass(self, scores: int, outputs: int) -> tuple[Chunks, PassBuffers]:
        """Chunks, with blocks of so many scores at least, and buffers for a pass with coefficients."""
        chunks = self._kept_chunks.get(scores)
        if chunks is None:
            if self.loss.additive:
                block = max(self._block_rows(), -(-scores // self.outputs))
                numbers = self.outputs * self.features
                bounds = self._chunk_bounds(self._row_numbers * self.outputs, numbers, block)
            else:  # the loss needs all rows at once
                bounds, block = np.array([0, self.n], dtype=np.intp), self.n
            chunks = self._kept_chunks[scores] = self._chunks(bounds, block)
        buffers = self._buffers
        if buffers is None or buffers.chunks != chunks.count or buffers.outputs != outputs:
            buffers = PassBuffers(self._data, chunks.count, outputs)
            if self.sparse:  # to allocate large ones costs more than to fill them
                self._buffers = buffers
        return chunks, buffers

    def _total(self, sums: Floats) -> Floats:
        """The sum of the chunks' losses."""
        total = sums[:, : self.outputs].sum(axis=0)
        return total if self.separable else total[:1]

    def _block_rows(self) -> int:
        """Rows per block, which depends on the numbers of a row and on the outputs alone."""
        least, most = 32 if self.compiled else PYTHON_ROWS, 1024
        row = self._row_numbers * self.dtype.itemsize
        scores = self.outputs * self.dtype.itemsize
        if self.sparse:
            rows = BLOCK_BYTES / (2 * row + 2 * scores) // 32 * 32
        elif gradient_kernels.uses_blas(self._data):
            rows = max(BLAS_BLOCK_BYTES // (row + 2 * scores) // 32 * 32, 256)
        else:
            # 64 rows outweigh the cost of adding a block's sums to those of its chunk
            rows = max(SMALL_BLOCK_BYTES // (row + scores), 64)
            rows = min(rows, WIDE_BLOCK_BYTES // row) // 32 * 32
        return int(min(max(rows, least), most))

    def _chunk_bounds(self, work_per_row: float, chunk_numbers: int, least_rows: int) -> Indices:
        """The boundaries of chunks: a power of two of them, each with enough work to outweigh its sums."""
        chunks = 1
        if work_per_row * self.n > SMALL_WORK:
            most = min(
                MOST_CHUNKS,
                max(2, CHUNK_BYTES // (8 * chunk_numbers)),
                self.n // least_rows,
                work_per_row * self.n // ((SPARSE_CHUNK_WORK if self.sparse else CHUNK_WORK) * chunk_numbers),
            )
            chunks = 1 << max(0, int(most).bit_length() - 1)
        bounds = np.arange(chunks + 1, dtype=np.intp) * self.n // chunks
        bounds[1:-1] = bounds[1:-1] // 32 * 32
        return bounds

    def _count_threads(self, chunks: int) -> int:
        """The number of threads for so many chunks. The CPUs are counted once: it takes as long as a pass."""
        if chunks <= 1:
            return 1
        self.n_threads = count = threads.count(self.n_threads)
        return count

    def _count_threads_for_parts(self) -> None:
        """Count the CPUs before others pass over some of the rows, which would count them each time."""
        if self.n * self._row_numbers * self.outputs > SMALL_WORK:
            self._count_threads(2)

    def _passes_over(self, data: Dataset, loss: Loss) -> Passes:
        """See `Passes._passes_over`; the number of threads goes along."""
        self._count_threads_for_parts()
        return super()._passes_over(data, loss)


def _transposed(matrix: Any) -> Any:
    return None if matrix is None else np.ascontiguousarray(matrix.T)


def _gram_rows(numbers: int) -> int:
    """Rows per block of a Gram matrix: enough to outweigh that the matrix is read and written for each block.

    ``numbers`` is what a row takes in memory, all told.
    """
    return max(32, min(GRAM_ROWS, GRAM_BYTES // (8 * max(numbers, 1))))


def _mirrored(matrix: Floats) -> Floats:
    """The symmetric matrix of which the lower triangle is given."""
    full = np.tril(matrix)
    full += np.tril(matrix, -1).T
    return full


def _symmetric(matrix: Floats) -> Floats:
    """The symmetric matrix of which one triangle is given, the other being 0."""
    full = matrix + matrix.T
    np.einsum("ii->i", full)[:] /= 2
    return full
