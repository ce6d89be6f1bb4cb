"""Second derivatives over the rows of X: what `Rows` has of them, a Hessian and its likes."""

import numpy as np

from sklloss.arrays import threads
from sklloss.kernels.linear import hessian as hessian_kernels
from sklloss.kernels.linear import hessian_block as hessian_block_kernels
from sklloss.kernels.linear import product as product_kernels
from sklloss.kernels.linear import small_newton
from sklloss.kernels.python_loss import PythonLoss

# A block of rows should stay in half of a common L2 cache between the two products that read it.
BLOCK_BYTES = 1 << 18
# Below this many multiplications a pass is over before a second thread has woken up.
SMALL_WORK = 1 << 21
# Up to so many numbers of X a fit may keep a copy in float64.
SMALL_X = 1 << 17
# Bytes, and the share of X's memory, that the Hessians of chunks may take in any case.
SMALL_ROOM = 1 << 22
SMALL_SHARE = 0.04
# What one number of a sparse X costs in a Hessian, in numbers of a dense one.
ENTRY_WORK = 24
# As many rows for each column tell enough about a Gram matrix.
GRAM_ROWS = 16


class Curvature:
    """The part of `Rows` that passes over X for second derivatives."""

    def product(self, direction):
        """Hessian times ``direction`` (outputs, width), at the point of the last kept curvature.

        The next product is written over it.
        """
        v, b = self._split(direction)
        bounds, block = self._gradient_cut(v)
        product = self._room(len(bounds) - 1)
        shift = np.empty((len(product), self.outputs))
        one_pass = product_kernels.sparse_product if self.sparse else product_kernels.dense_product

        def work(first, last):
            return one_pass(
                *self._arrays, v, b, self._curvature, self._weight, not self.separable, block, bounds,
                first, last, product, shift,
            )  # fmt: skip

        self._run(work, len(product))
        total = self._kept("product", np.empty, (self.outputs, self.width), np.float64)
        return self._join(product, shift, total)

    def positive_blocks(self, coef, *, by_slope=False):
        """Gradient (outputs, width) and a positive stand-in for the Hessian's diagonal blocks, at ``coef``.

        Where the loss states second derivatives by output, negative ones count as 0. Where it does not, rows
        count by the size of their first derivative: a row that is met no longer bends a loss either.
        ``by_slope`` asks for that with any loss: rows that are far off count then, where it hardly bends.
        """
        loss = None
        if by_slope or not (self.separable and self.loss.states_curvature):
            loss = PythonLoss(self._slopes, False)
        return self.hessian(coef, coupled=False, loss=loss)[1:]

    def _slopes(self, raw, target, codes, weight, curvature):
        """As `Loss.evaluate_batch`, with the size of the gradient in place of the curvature."""
        total = self.loss.evaluate_batch(raw, target, codes, weight)
        np.abs(raw, out=curvature)
        return total

    def precise_gradient(self, coef):
        """As `value_and_gradient`, computed in float64 whatever X's dtype."""
        return self.hessian(coef, coupled=False, curved=False)[:2]

    def hessian(self, coef, *, coupled=True, loss=None, curved=True):
        """Loss sums, gradient and Hessian at ``coef``, all in float64 and computed in it.

        The Hessian is (outputs, width, width) for a separable loss, else (1, outputs * width, outputs *
        width), or without ``coupled`` its diagonal blocks (outputs, width, width). Its lower
        triangles are filled. ``loss`` takes the place of the own, with a curvature for each output. Without
        ``curved`` the Hessian is left out.
        """
        coupled = coupled and not self.separable
        blocks, size, block = self._hessian_shape(coupled)
        squares = float(self.width * size)
        written_out = not self.sparse or coupled
        if not written_out:
            # numbers to be added for each row, one by one or as parts of a dense matrix
            entries = ENTRY_WORK * np.square(np.diff(self._arrays[2]), dtype=float).mean()
            written_out = curved and entries >= squares
            squares = min(squares, entries + self.outputs * self._row_numbers)
        bounds = self._cut(squares * blocks, blocks * size * size, block)
        chunks = len(bounds) - 1
        gradient = np.empty((chunks, self.outputs, self.width))
        sums = np.empty((chunks, 2 * self.outputs))
        # As many chunks at a time as there are threads, or as take little room beside X
        wave = chunks
        if curved and chunks > 1:
            room = max(SMALL_ROOM, SMALL_SHARE * self.n * self._row_numbers * self.dtype.itemsize)
            wave = max(threads.count(self._n_threads), int(room / (8 * blocks * size * size)))
            wave = min(wave, chunks)
        curvature = np.empty((wave, blocks, size, size) if curved else (wave, 0, 0, 0))
        dense = np.empty((0, 0), dtype=self.dtype) if self.sparse else self._arrays[0]
        no_index = np.empty(0, dtype=np.int32)
        sparse = self._arrays if self.sparse else (np.empty(0, dtype=self.dtype), no_index, no_index)
        coef = np.ascontiguousarray(coef)
        softmax = loss is None and not self.separable
        kernel = self._kernel64 if loss is None else loss
        total = None
        for start in range(0, chunks, wave):
            part = slice(start, start + wave)
            cut = bounds[start : start + wave + 1]

            def work(first, last, part=part, cut=cut):
                return hessian_kernels.hessian(
                    kernel, dense, *sparse, self.center, coef, self._values, self._codes, self._weight,
                    self._per_output, self._expand, self.fit_intercept, coupled, softmax, curved, written_out,
                    self._parameter, block, cut, first, last, gradient[part], sums[part], curvature,
                )  # fmt: skip

            self._run(work, len(cut) - 1)
            for matrix in curvature[: len(cut) - 1]:
                if total is None:
                    total = matrix if chunks <= wave else matrix.copy()
                else:
                    total += matrix
        gradient = gradient[0] if chunks == 1 else gradient.sum(axis=0)
        if not curved:
            return self._total(sums), gradient, None
        if not coupled:
            total = np.ascontiguousarray(total[:, : self.width, : self.width])
        return self._total(sums), gradient, total

    def _hessian_shape(self, coupled):
        """How many matrices a Hessian is made of, their size in memory, and rows per block."""
        blocks, size = (1, self.outputs * self.width) if coupled else (self.outputs, -(-self.width // 8) * 8)
        return blocks, size, max(32, min(256, BLOCK_BYTES * 4 // (8 * (size + self.width))))

    def newton_steps(self, scale, ridge, w, curve, *rule):
        """Newton steps from ``w``, of shape (size,), see `small_newton.steps`; None if that is too much.

        ``scale`` and ``ridge`` (size,) make an objective of the loss sums, of a single problem.
        """
        coupled = not self.separable
        blocks, size, block = self._hessian_shape(coupled)
        if self.sparse or not self.compiled or blocks > 1:
            return None
        padded = -(-self.width // 8) * 8
        work = self.n * size * (size if coupled else self.width) + size**3 // 3
        if self.n * padded > SMALL_X or work > SMALL_WORK:
            return None
        return small_newton.steps(
            self._kernel64, self._X, self.center, self._values, self._codes, self._weight, self._per_output,
            self._expand, self.fit_intercept, coupled, self._parameter, block, self.outputs, scale, ridge, w,
            curve, *rule,
        )  # fmt: skip

    def subset_hessian(self, sets, *, coupled):
        """The Hessian over some parameters alone, at the point of the last kept curvature, in float64.

        ``sets`` holds ascending columns of each output, the intercept's number being the last feature's
        and one. A separable loss gets a matrix for each output, a softmax one for all, output after output,
        in which only ``coupled`` outputs share more than zeros; both triangles are filled.
        """
        softmax = not self.separable
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
        weight = self._weight if softmax else None
        if self.sparse:
            order = np.argsort(columns, kind="stable")
            heads = np.searchsorted(columns[order], np.arange(self.features + 2)).astype(np.intp)
            owners = np.repeat(np.arange(len(sets)), sizes)[order]
            members = np.arange(size) if softmax else order
            touched = self._row_numbers * size / max(self.width, 1) + len(sets)
            # a few scattered additions weigh as much as many of the sums of a chunk
            bounds = self._cut(64 * touched * touched, max(2 * numbers, 1), 32)
            one_pass = hessian_block_kernels.sparse_subset
            fixed = (
                *self._arrays, self._curvature, weight, softmax, coupled, heads, members, owners, starts,
                place, step,
            )  # fmt: skip
        else:
            block = int(max(32, min(256, BLOCK_BYTES * 4 // (16 * max(size, 1)))))
            bounds = self._cut(numbers, max(numbers, 1), block)
            one_pass = hessian_block_kernels.dense_subset
            fixed = (
                *self._arrays, self.center, self._curvature, weight, softmax, coupled, columns, starts, place,
                step, block,
            )  # fmt: skip
        result = np.empty((len(bounds) - 1, numbers))

        def work(first, last):
            return one_pass(*fixed, bounds, first, last, result)

        if numbers:
            self._run(work, len(result))
        total = result[0] if len(result) == 1 else result.sum(axis=0)
        if not softmax:
            shapes = zip(place, sizes, strict=True)
            return [_mirrored(total[at : at + wide * wide].reshape(wide, wide)) for at, wide in shapes]
        matrix = _mirrored(total.reshape(size, size))
        if self.sparse:
            back = np.argsort(order)
            matrix = matrix[back[:, None], back]
        return [matrix]

    def gram(self):
        """X'WX of shape (width, width), lower triangle, with the intercept's column of ones.

        Where weights differ by output, their mean over outputs counts. Of many rows a sample stands for
        all. It is made once and kept.
        """
        if self._gram is not None:
            return self._gram
        step = self.n // (GRAM_ROWS * self.width)
        sample = self.every(step) if step > 1 else None
        if sample is not None:
            self._gram = step * sample.gram()
        else:
            self._gram = self._whole_gram()
        return self._gram

    def _whole_gram(self):
        weight = self._weight
        if self._per_output:
            weight = weight.reshape(self.n, self.outputs).mean(axis=1)
        plain = _Unit()
        rows = type(self)(
            self._X, plain, np.zeros((self.n, 1), dtype=self.dtype), None, weight, 1,
            fit_intercept=self.fit_intercept, n_threads=self._n_threads, center=self.center,
        )  # fmt: skip
        return rows.hessian(np.zeros((1, self.width)))[2][0]

    def local_diagonal(self):
        """The Hessian's diagonal at the point of the last kept curvature, (outputs, width), in float64."""
        diagonal = np.zeros((self.outputs, self.width))
        block = max(1, BLOCK_BYTES // (8 * max(1, int(self._row_numbers), self.outputs)))
        for first in range(0, self.n, block):
            rows = slice(first, first + block)
            bend = self._curvature[rows].astype(np.float64)
            if not self.separable:
                bend *= 1.0 - bend
                if self._weight is not None:
                    bend *= self._weight[rows, None]
            part = self._X[rows].astype(np.float64)
            if self.sparse:
                part = part.power(2)
            else:
                part -= self.center
                part *= part
            diagonal[:, : self.features] += (part.T @ bend).T
            diagonal[:, self.features :] += bend.sum(axis=0)[:, None]
        return diagonal


def _mirrored(matrix):
    """A symmetric matrix of which one triangle was added up: the sum of both, but for the diagonal."""
    full = matrix + matrix.T
    np.einsum("ii->i", full)[:] /= 2
    return full


class _Unit:
    """The loss of constant curvature 1, whose Hessian is the Gram matrix."""

    separable = True
    target = "values"
    kernel = "squared_error"
    kernel_parameter = 0.5
