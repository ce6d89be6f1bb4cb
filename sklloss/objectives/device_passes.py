"""The rows of X in another library's arrays, a GPU's above all, as linear models pass over them."""

import numpy as np

from sklloss.arrays.device import check_writable, device_of
from sklloss.arrays.torch_csr import TorchCSR
from sklloss.objectives.device_curvature import ArrayCurvature, plus
from sklloss.objectives.device_loss import ArrayLoss
from sklloss.objectives.numpy_passes import Rows, _offsets, looks

# Bytes of scores that a pass makes at a time: much work for each call of the library, but little memory.
CHUNK_BYTES = 1 << 26
# So many rows may be added up in float32, as `Rows` does, before float64 goes on.
BLOCK = 1024
# Rows that tell whether a column is far from 0.
SAMPLE = 2048


class ArrayRows(ArrayCurvature):
    """`Rows` for X that lives elsewhere: its interface, its results.

    Parameters are those of `Rows`: X is an array of another namespace or a `TorchCSR`, targets, codes and
    weights are NumPy's, and are put beside X here, once.

    Parameters of the model that come as NumPy's are answered by NumPy's. `value_and_gradient` and `product`
    also take them as arrays beside X, in the dtype ``device.wide``: then the results are such arrays, no
    number moves, and nobody waits for the device.

    Attributes
    ----------
    device : Device
        Where X lives. Sums are carried in the dtype ``device.wide``, in chunks of rows.
    """

    compiled = False

    def __init__(self, X, loss, values, codes, weight, outputs, *, fit_intercept, n_threads=1, center=False):
        self.sparse = isinstance(X, TorchCSR)
        self.device = device_of(X)
        self.n, self.features = X.shape
        self.dtype = self.device.numpy_dtype(X)
        self.outputs = outputs
        self.fit_intercept = fit_intercept
        self.width = self.features + bool(fit_intercept)
        self.loss = loss
        self.separable = loss.separable
        self._X = X
        self._codes, self._values = codes, values
        self._weight = None if weight is None else np.ascontiguousarray(weight).reshape(-1)
        self._per_output = weight is not None and weight.ndim == 2
        if codes is not None:
            bad = np.flatnonzero((codes < 0) | (codes >= outputs))
            if bad.size:
                raise ValueError(f"class code {codes[bad[0]]} in row {bad[0]} is not in [0, {outputs})")
        self._wide_numpy = self.device.wide
        self._wide = self.device.real(self._wide_numpy)
        self._batches = ArrayLoss(self.device, loss, values, codes, weight, outputs, self.dtype)
        self._n_threads = n_threads
        self._null, self._gram, self._bend = {}, None, None
        if not isinstance(center, np.ndarray):
            found = center and fit_intercept and not self.sparse
            center = self._find_center(weight) if found else np.zeros(self.features)
        self.center = center

    # The same as for any X: from NumPy's weights, or from what is below.
    null_sums = Rows.null_sums
    row_weights = Rows.row_weights

    @property
    def center(self):
        """See `Rows`; it may be replaced."""
        return self._center

    @center.setter
    def center(self, center):
        self._center = center
        self._centered = bool(self.fit_intercept and center.any())
        self._offset = self.device.put(center, self._wide_numpy) if self._centered else None

    def value_and_gradient(self, coef, *, keep_curvature=False, slopes=None):
        """See `Rows.value_and_gradient`; ``slopes`` is filled where it is, in NumPy or beside X."""
        coef, moved = self._enter(coef)
        w, b = self._split(coef)
        sums, bends = None, []
        if keep_curvature:
            self._bend = None
        if slopes is not None and not isinstance(slopes, np.ndarray):
            check_writable(self.device, "stochastic solvers")

        def pieces():
            nonlocal sums
            for first, last in self._chunks():
                raw = self._scores(first, last, w, b)
                part, slope, bend = self._batches(raw, first, last, curved=keep_curvature)
                sums = plus(sums, part)
                bends.append(bend)
                if slopes is not None:
                    slopes[first:last, ...] = (
                        self.device.get(slope) if isinstance(slopes, np.ndarray) else slope
                    )
                yield first, last, slope

        gradient = self._add_up(pieces())
        if keep_curvature:
            self._bend = bends
        return self._leave(sums, gradient) if moved else (sums, gradient)

    def every(self, step):
        """See `Rows.every`."""

        def part(array):
            return None if array is None else np.ascontiguousarray(array[::step])

        weight = self._weight
        if self._per_output:
            weight = weight.reshape(self.n, self.outputs)
        weight = part(weight)
        if weight is not None and not weight.any():
            return None
        X = self._X.every(step) if self.sparse else self.device.xp.asarray(self._X[::step, ...], copy=True)
        return ArrayRows(
            X, self.loss, part(self._values), part(self._codes), weight, self.outputs,
            fit_intercept=self.fit_intercept, n_threads=self._n_threads, center=self.center,
        )  # fmt: skip

    def constant_columns(self):
        """See `Rows.constant_columns`."""
        xp, columns = self.device.xp, np.flatnonzero(self.center)
        for rows in looks(self.n):
            if columns.size:
                at = self.device.put(columns, np.int64)
                part, first = (xp.take(self._X[some, ...], at, axis=1) for some in (rows, slice(0, 1)))
                columns = columns[self.device.get(xp.all(part == first, axis=0))]
        return columns

    def plain(self, coef):
        """Parameters (outputs, width) for X less its center as those for X, wherever they are."""
        return self._move_intercept(coef, -1.0)

    def centered(self, coef):
        """Parameters (outputs, width) for X as those for X less its center, wherever they are."""
        return self._move_intercept(coef, 1.0)

    def _move_intercept(self, coef, sign):
        if not self._centered:
            return coef
        if isinstance(coef, np.ndarray):
            moved = coef.copy()
            moved[:, -1] += sign * (coef[:, : self.features] @ self.center)
            return moved
        slopes, intercept = coef[:, : self.features], coef[:, self.features :]
        return self.device.xp.concat([slopes, intercept + sign * (slopes @ self._offset)[:, None]], axis=1)

    def squared_columns(self):
        """The diagonal of X'WX, of shape (width,), in NumPy."""
        weight = self.row_weights()
        there = self.device.put(weight, self._wide_numpy)
        diagonal = np.zeros(self.width)
        diagonal[self.features :] = weight.sum()
        if self.sparse:
            total = self._X.weighted_squares(there)
        else:
            total = None
            for first, last in self._wide_chunks(2 * self.width):
                part = self._written_out(first, last, False)
                total = plus(total, there[first:last] @ (part * part))
        diagonal[: self.features] = self._numpy(total)
        return diagonal

    def largest(self):
        """The largest size of a number in each column of X less its center, (width,), in NumPy."""
        largest = np.ones(self.width)
        if self.sparse:
            largest[: self.features] = self._X.largest()
        else:
            xp = self.device.xp
            high = self.device.get(xp.max(self._X, axis=0)) - self.center
            low = self.device.get(xp.min(self._X, axis=0)) - self.center
            largest[: self.features] = np.maximum(np.abs(high), np.abs(low))
        return largest

    def _find_center(self, weight):
        xp = self.device.xp
        if weight is None:
            sample = self._X[:: max(1, self.n // SAMPLE), ...]
        else:
            rows = np.flatnonzero(weight.reshape(self.n, -1).any(axis=1))
            rows = self.device.put(rows[:: max(1, len(rows) // SAMPLE)], np.int64)
            sample = xp.take(self._X, rows, axis=0)
        return _offsets(self.device.get(sample), None)

    def _enter(self, coef):
        """Parameters there, in the dtype of sums, and whether they have come from NumPy."""
        if isinstance(coef, np.ndarray):
            return self.device.put(coef, self._wide_numpy), True
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
        w = xp.matrix_transpose(xp.astype(coef[:, : self.features], self._X.dtype))
        if not self.fit_intercept:
            return w, None
        return w, xp.astype(self.plain(coef)[:, -1], self._X.dtype)[None, :]

    def _scores(self, first, last, w, b):
        X = self._X.rows(first, last) if self.sparse else self._X[first:last, ...]
        raw = X @ w
        if b is not None:
            raw += b
        return raw

    def _add_up(self, pieces):
        """The sum of slopes' X over chunks (first, last, slopes), the intercept's sums beside it."""
        xp = self.device.xp
        total = shift = None
        kept = []
        for first, last, slopes in pieces:
            if self.fit_intercept:
                shift = plus(shift, xp.sum(slopes, axis=0, dtype=self._wide))
            if self.sparse:
                kept.append(slopes)
                continue
            total = plus(total, self._scatter(self._X[first:last, ...], slopes))
        if self.sparse:
            slopes = kept[0] if len(kept) == 1 else xp.concat(kept, axis=0)
            total = xp.matrix_transpose(self._X.transposed(slopes))
        if not self.fit_intercept:
            return total
        shift = shift[:, None]
        if self._centered:
            total = total - shift * self._offset[None, :]
        return xp.concat([total, shift], axis=1)

    def _scatter(self, X, slopes):
        """The product slopes' X in the dtype of sums; X's own adds up no more than a block of rows."""
        xp = self.device.xp
        n, rest = X.shape[0], X.shape[0] % BLOCK
        if X.dtype == self._wide or n <= BLOCK:
            return xp.astype(xp.matrix_transpose(slopes) @ X, self._wide)
        blocks, cut = n // BLOCK, n - rest
        turned = xp.matrix_transpose(xp.reshape(slopes[:cut, ...], (blocks, BLOCK, self.outputs)))
        products = turned @ xp.reshape(X[:cut, ...], (blocks, BLOCK, X.shape[1]))
        total = xp.sum(products, axis=0, dtype=self._wide)
        if rest:
            total = total + xp.astype(xp.matrix_transpose(slopes[cut:, ...]) @ X[cut:, ...], self._wide)
        return total

    def _chunks(self):
        """Bounds of the rows of each chunk. A loss that is not a mean over rows has one."""
        rows = self.n
        if self.loss.additive:
            # a row's scores, and its share of what `_scatter` makes of a block
            numbers = self.outputs * max(1, self.features // BLOCK)
            rows = max(1, CHUNK_BYTES // (self.dtype.itemsize * numbers))
            rows = max(1, rows // BLOCK) * BLOCK
        return [(first, min(first + rows, self.n)) for first in range(0, self.n, rows)]
