"""The rows of X in main memory, as linear models pass over them: NumPy or CSR, through the kernels."""

import numpy as np
import scipy.sparse

from sklloss import kernels
from sklloss.arrays import threads
from sklloss.kernels import products
from sklloss.kernels.linear import gradient as gradient_kernels
from sklloss.kernels.python_loss import PythonLoss
from sklloss.objectives.numpy_curvature import BLOCK_BYTES, SMALL_WORK, Curvature

# A loss that is Python code costs some 30 us a call, whatever the number of rows.
PYTHON_ROWS = 512
# Chunks are what threads share; their number must not depend on how many threads there are.
MOST_CHUNKS = 16
CHUNK_BYTES = 1 << 26
# Multiplications per number of a chunk's result; those of sparse rows are the slower ones, all over memory.
CHUNK_WORK = 256
SPARSE_CHUNK_WORK = 4
# So many rows tell what a loss is like at 0.
NULL_ROWS = 8192
# So many show of most columns that they are not constant.
FEW = 64
# So many are looked at at a time after that.
LOOK = 1 << 14


class Rows(Curvature):
    """X, targets and weights bound to a loss, ready for passes.

    Parameters
    ----------
    X : ndarray of shape (n, p), rows or columns contiguous, or CSR matrix; float32 or float64
    loss : Loss
        Its kernel is looked up once, here. Without one, each block of rows calls its `evaluate_batch`.
    values : ndarray of shape (n, outputs) or None
        Targets in X's dtype.
    codes : ndarray of intp of shape (n,) or None
        Class codes where ``values`` is None. A loss that is not over classes sees them as 0/1 targets.
    weight : ndarray of shape (n,) or (n, outputs), or None
    outputs : int
    fit_intercept : bool
    n_threads : int or None
        See `threads.count`; they are counted when a pass has work for several.
    center : bool or ndarray of shape (p,)
        Take parameters as those of X less an offset for each column that is far from 0 against its spread:
        the same model, with another intercept, but a well conditioned problem. X itself stays as it is.
        Dense X with an intercept only; else there is nothing to center. An array gives the offsets.
    """

    # in main memory: where `ArrayRows` have a `Device`
    device = None

    def __init__(self, X, loss, values, codes, weight, outputs, *, fit_intercept, n_threads=1, center=False):
        self.n, self.features = X.shape
        self.dtype = X.dtype
        self.outputs = outputs
        self.fit_intercept = fit_intercept
        self.width = self.features + bool(fit_intercept)
        self.loss = loss
        self.separable = loss.separable
        self.sparse = scipy.sparse.issparse(X)
        self._X = X
        self._curvature = self._gram = None
        self._null, self._space = {}, {}
        self.center = np.zeros(self.features)
        if isinstance(center, np.ndarray):
            self.center = center
        elif center and fit_intercept and not self.sparse:
            self.center = _offsets(X, weight)
        self._codes = codes
        self._values = values
        self._weight = None if weight is None else np.ascontiguousarray(weight).reshape(-1)
        self._per_output = weight is not None and weight.ndim == 2
        self._expand = codes is not None and loss.target != "classes"
        self._parameter = loss.kernel_parameter
        self.compiled = loss.kernel is not None
        if self.compiled:
            self._kernel = kernels.get(loss.kernel, X.dtype)
            self._kernel64 = kernels.get(loss.kernel, np.float64)
        else:
            self._kernel = self._kernel64 = PythonLoss(loss.evaluate_batch, loss.separable)
        self._n_threads = n_threads
        self._row_numbers = X.nnz / max(self.n, 1) if self.sparse else self.features
        self._arrays = (X,)
        if self.sparse:
            # the same integer type for both, whichever SciPy chose
            index = np.result_type(X.indices.dtype, X.indptr.dtype)
            self._arrays = (X.data, X.indices.astype(index, copy=False), X.indptr.astype(index, copy=False))

    def value_and_gradient(self, coef, *, keep_curvature=False, slopes=None):
        """Weighted loss sums (outputs,) or (1,) and their gradient (outputs, width), in float64.

        ``coef`` is float64 of shape (outputs, width), the intercept last; the pass itself runs in X's
        dtype, with sums over blocks in float64. ``keep_curvature`` holds on to what `product` needs.
        ``slopes`` (n, outputs), of X's dtype, is filled with the derivatives by the scores, times weights.
        """
        w, b = self._split(coef)
        bounds, block = self._gradient_cut(w)
        gradient = self._room(len(bounds) - 1)
        shift = np.empty((len(gradient), self.outputs))
        sums = np.empty((len(gradient), 2 * self.outputs))
        curvature = None
        if keep_curvature:
            if self._curvature is None:
                self._curvature = np.empty((self.n, self.outputs), dtype=self.dtype)
            curvature = self._curvature
        one_pass = gradient_kernels.sparse_gradient if self.sparse else gradient_kernels.dense_gradient

        def work(first, last):
            return one_pass(
                self._kernel, *self._arrays, w, b, self._values, self._codes, self._weight, self._per_output,
                self._expand, self._parameter, block, bounds, first, last, gradient, shift, sums, curvature,
                slopes,
            )  # fmt: skip

        self._run(work, len(gradient))
        return self._total(sums), self._join(gradient, shift)

    def null_sums(self, *, exact=False):
        """Weighted loss sums where all parameters are 0, made once and kept; of many rows an estimate."""
        if exact not in self._null:
            step = self.n // NULL_ROWS | 1
            sample = self.every(step) if step > 1 and not exact else None
            rows, scale = (self, 1) if sample is None else (sample, step)
            self._null[exact] = scale * rows.value_and_gradient(np.zeros((self.outputs, self.width)))[0]
        return self._null[exact]

    def every(self, step):
        """Each step-th of the rows, with the same loss and the same center; None if they weigh 0."""

        def part(array):
            return None if array is None else np.ascontiguousarray(array[::step])

        X = self._X[::step]
        if not self.sparse and self._X.strides[1] != self.dtype.itemsize:
            X = np.ascontiguousarray(X)
        weight = self._weight
        if self._per_output:
            weight = weight.reshape(self.n, self.outputs)
        weight = part(weight)
        if weight is not None and not weight.any():
            return None
        rows = Rows(
            X, self.loss, part(self._values), part(self._codes), weight, self.outputs,
            fit_intercept=self.fit_intercept, n_threads=self._n_threads,
        )  # fmt: skip
        rows.center = self.center
        return rows

    def _split(self, coef):
        """Coefficients and intercepts in X's dtype, as the passes want them."""
        if self.sparse:
            width = products.padded(self.outputs, self.dtype.itemsize)
            w = self._kept("coef", np.zeros, (self.features, width), self.dtype)
            gradient_kernels.by_feature(coef, w)
        else:
            w = np.ascontiguousarray(coef[:, : self.features], dtype=self.dtype)
        if not self.fit_intercept:
            return w, np.zeros(self.outputs, dtype=self.dtype)
        plain = self.plain(coef)
        return w, np.ascontiguousarray(plain[:, -1], dtype=self.dtype)

    def _kept(self, name, make, shape, dtype):
        """An array of this name, made once: a large one costs more to get from the system than to fill."""
        array = self._space.get(name)
        if array is None or array.shape != shape:
            array = self._space[name] = make(shape, dtype=dtype)
        return array

    def constant_columns(self):
        """The numbers of the columns with a center that have the same value in every row."""
        columns = np.flatnonzero(self.center)
        for rows in looks(self.n):
            if columns.size:
                columns = columns[(self._X[rows][:, columns] == self._X[0, columns]).all(axis=0)]
        return columns

    def plain(self, coef):
        """Parameters (outputs, width) for X less its center as those for X."""
        return self._move_intercept(coef, -1.0)

    def centered(self, coef):
        """Parameters (outputs, width) for X as those for X less its center."""
        return self._move_intercept(coef, 1.0)

    def _move_intercept(self, coef, sign):
        if not self.fit_intercept or not self.center.any():
            return coef
        moved = coef.copy()
        moved[:, -1] += sign * (coef[:, : self.features] @ self.center)
        return moved

    def _join(self, partial, shift, total=None):
        """Add the chunks' gradients in their order and put the intercept's beside them."""
        total = np.empty((self.outputs, self.width)) if total is None else total
        if self.sparse:
            gradient_kernels.by_output(partial, total)
        else:
            total[:, : self.features] = partial[0] if len(partial) == 1 else partial.sum(axis=0)
        if self.fit_intercept:
            total[:, -1] = np.add.reduce(shift)
            if self.center.any():
                total[:, : self.features] -= total[:, -1:] * self.center
        return total

    def _room(self, chunks):
        """Where chunks add up their gradients, as the passes want it."""
        if self.sparse:
            shape = (chunks, self.features, products.padded(self.outputs, 8))
            return self._kept("gradient", np.empty, shape, np.float64)
        return np.empty((chunks, self.outputs, self.features))

    def _gradient_cut(self, w):
        block = self._block()
        return self._cut(self._row_numbers * self.outputs, w.size, block), block

    def row_weights(self):
        """The weight of each row, in float64: its mean over outputs where it differs by output."""
        if self._weight is None:
            return np.ones(self.n)
        weight = self._weight.astype(np.float64)
        return weight.reshape(self.n, self.outputs).mean(axis=1) if self._per_output else weight

    def squared_columns(self):
        """The diagonal of X'WX, of shape (width,)."""
        weight = self.row_weights()
        diagonal = np.zeros(self.width)
        diagonal[self.features :] = weight.sum()
        if self.sparse:
            gradient_kernels.weighted_columns(*self._arrays, weight, diagonal)
        else:
            block = self._block()
            for first in range(0, self.n, block):
                part = self._X[first : first + block].astype(np.float64)
                part -= self.center
                diagonal[: self.features] += weight[first : first + block] @ (part * part)
        return diagonal

    def largest(self):
        """The largest size of a number in each column of X less its center, (width,)."""
        largest = np.ones(self.width)
        if self.sparse:
            largest[: self.features] = 0.0
            values, columns = self._arrays[:2]
            for first in range(0, len(values), 1 << 16):
                part = slice(first, first + (1 << 16))
                np.maximum.at(largest, columns[part], np.abs(values[part]).astype(np.float64))
        else:
            high, low = self._X.max(axis=0) - self.center, self._X.min(axis=0) - self.center
            largest[: self.features] = np.maximum(np.abs(high), np.abs(low))
        return largest

    def _total(self, sums):
        total = sums[:, : self.outputs].sum(axis=0)
        return total if self.separable else total[:1]

    def _block(self):
        """Rows per block: a multiple of 32, from the width of a row alone."""
        row = self._row_numbers * self.dtype.itemsize * (2 if self.sparse else 1)
        row += 2 * self.outputs * self.dtype.itemsize
        return int(min(max(BLOCK_BYTES / row // 32 * 32, 32 if self.compiled else PYTHON_ROWS), 1024))

    def _cut(self, work_per_row, chunk_numbers, block):
        """Chunk boundaries: a power of two of them, each with enough work to outweigh its sums."""
        chunks = 1
        if work_per_row * self.n > SMALL_WORK:
            most = min(
                MOST_CHUNKS,
                max(2, CHUNK_BYTES // (8 * chunk_numbers)),
                self.n // block,
                work_per_row * self.n // ((SPARSE_CHUNK_WORK if self.sparse else CHUNK_WORK) * chunk_numbers),
            )
            chunks = 1 << max(0, int(most).bit_length() - 1)
        cuts = np.arange(chunks + 1, dtype=np.intp) * self.n // chunks
        cuts[1:-1] = cuts[1:-1] // 32 * 32
        return cuts

    def _run(self, work, chunks):
        for bad in threads.share(work, chunks, self._n_threads):
            if bad >= 0:
                raise ValueError(f"class code {self._codes[bad]} in row {bad} is not in [0, {self.outputs})")


def looks(n):
    """Slices of n rows: some all over them, then all of them part by part."""
    parts = (slice(first, min(first + LOOK, n)) for first in range(0, n, LOOK))
    return [slice(0, n, max(1, n // FEW)), *parts]


def _offsets(X, weight):
    """The mean of each column whose mean is large against its spread, else 0, from up to 2048 of the rows.

    Any number amid the bulk of a column serves; a column near 0 keeps it, and so does one with outliers.
    """
    if weight is None:
        sample = X[:: max(1, len(X) // 2048)]
    else:
        rows = np.flatnonzero(weight.reshape(len(X), -1).any(axis=1))
        sample = X[rows[:: max(1, len(rows) // 2048)]]
    sample = sample.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.add.reduce(sample) / len(sample)
        sample -= mean
        spread = np.sqrt(np.einsum("ij,ij->j", sample, sample) / len(sample))
        return np.where(np.isfinite(spread) & (np.abs(mean) > 10 * spread), mean, 0.0)
