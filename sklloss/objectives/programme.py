"""Losses of the error with a kink, as the linear or quadratic programme that a linear model of them is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from sklloss.arrays import threads
from sklloss.data.dataset import Dataset
from sklloss.losses import HalfSquaredError
from sklloss.objectives.passes import Floats, Indices, Passes

# The error beyond which a log-cosh is linear to within 1e-8, and the least distance of a slope from its
# bound, relative to it.
ENTROPIC_REACH, TINY = 9.0, 1e-300
# Columns that have less than this share of a kernel matrix are left out of it.
NEGLIGIBLE_SHARE = 1e-15
# Most numbers in an X whose products are left to BLAS.
SMALL_X = 1 << 20
# The largest matrix of a step: 2 GiB, of which a step holds three.
MOST_ORDER = 1 << 14
# Rows whose standard errors are computed at a time.
SPREAD_ROWS = 1 << 13


class Programme:
    """min over w of ``sum_i loss_i(y_i - x_i . w) + cost(w) + w' diag(ridge) w / 2``, of one output.

    The loss of a row is ``loss_i(e) = max a e - h_i(a)`` over low_i <= a <= high_i, with low_i < 0 < high_i
    and the conjugate ``h_i(a) = bend_i a**2 / 2``: linear on both sides of a kink, or of a parabola where
    ``bend`` is positive. With ``entropic`` h_i is the entropy of a, high_i times ``((1 + x) log(1 + x) + (1 -
    x) log(1 - x)) / 2`` with x = a / high_i, whose loss is the log-cosh. The a of all rows are the dual
    variables. The cost of a parameter is a multiple of its absolute value, which may differ between negative
    and positive values.

    Parameters
    ----------
    passes : Passes
        Whose X, center and intercept are used.
    target, low, high, bend : ndarray of shape (n,)
    costs : tuple of two ndarrays of shape (size,)
        Of negative and of positive parameters, per unit; not negative.
    ridge : ndarray of shape (size,)
    entropic : bool
    """

    def __init__(
        self,
        passes: Passes,
        target: Floats,
        low: Floats,
        high: Floats,
        bend: Floats,
        costs: tuple[Floats, Floats],
        ridge: Floats,
        entropic: bool = False,
    ) -> None:
        self._passes, self._entropic = passes, entropic
        self.target, self.low, self.high, self.bend = target, low, high, bend
        self.costs, self.ridge = costs, ridge

    @classmethod
    def of(
        cls, passes: Passes, k: int, scale: float, costs: tuple[Floats, Floats], ridge: Floats
    ) -> Programme:
        """The programme of output k of a loss that has a `Loss.kink`, times a scale."""
        assert passes.data.values is not None
        loss = passes.loss.of_output(k)
        assert loss.kink is not None
        lowest, highest, bend = loss.kink
        factor = np.full(passes.n, scale / passes.loss.row_divisor(passes.outputs))
        if passes.weight is not None:
            weight = passes.weight if passes.weight.ndim == 1 else passes.weight[:, k]
            factor *= weight
        target = passes.data.values[:, k].astype(np.float64)
        if passes.data.offset is not None:
            target -= passes.data.offset[:, k]
        # e = y - raw has the opposite sign of the error raw - y that a loss is stated in.
        bends = np.divide(bend, factor, out=np.zeros_like(factor), where=factor > 0)
        bounds = -highest * factor, -lowest * factor
        programme = cls(passes, target, *bounds, bends, costs, ridge, loss.entropic_conjugate)
        rows = np.flatnonzero(factor)
        # A small X is copied to double in main memory, so that all kinds of arrays take the same steps.
        copied = passes.n * passes.features <= SMALL_X and programme._small_X is None
        return programme.take(rows) if copied or len(rows) < passes.n else programme

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.target)

    @property
    def size(self) -> int:
        """The number of parameters."""
        return len(self.ridge)

    @property
    def weights(self) -> Floats:
        """The weight of each row: the difference of its largest and least slope."""
        return self.high - self.low

    # Losses and their conjugates -----------------------------------------------------------------------

    @functools.cached_property
    def reach(self) -> Floats:
        """The absolute error up to which the loss of each row is curved: beyond it is linear."""
        if self._entropic:
            return np.full(self.n, ENTROPIC_REACH)
        return self.bend * np.maximum(self.high, -self.low)

    @functools.cached_property
    def _linear(self) -> bool:
        """Whether all losses are linear on both sides of a kink."""
        return not self._entropic and not self.bend.any()

    def losses(self, e: Floats) -> Floats:
        """The loss of each row for an error e = target - score."""
        if self._entropic:
            size = np.abs(e)
            small = np.log1p(2.0 * np.sinh(0.5 * np.minimum(size, 1.0)) ** 2)
            return self.high * np.where(
                size < 1.0, small, size + (np.log1p(np.exp(-2.0 * size)) - np.log(2.0))
            )
        slope = np.where(e > 0, self.high, self.low)
        if self._linear:
            return slope * e
        inside = np.divide(e, self.bend, out=np.full_like(e, np.inf), where=self.bend > 0)
        slope = np.where(self.bend > 0, np.clip(inside, self.low, self.high), slope)
        return slope * (e - 0.5 * self.bend * slope)

    def conjugate(self, a: Floats) -> tuple[Floats, Floats, Floats]:
        """h_i(a), its derivative and its second derivative."""
        if self._linear:
            return self.bend, self.bend, self.bend
        if not self._entropic:
            return 0.5 * self.bend * a * a, self.bend * a, self.bend
        above = np.maximum(self.high - a, TINY * self.high)
        below = np.maximum(a - self.low, TINY * self.high)
        logs = np.log(below / self.high), np.log(above / self.high)
        value = 0.5 * (below * logs[0] + above * logs[1])
        return value, 0.5 * (logs[0] - logs[1]), 0.5 * (1.0 / above + 1.0 / below)

    # Products with X ---------------------------------------------------------------------------------

    def _over(self, values: Floats, weight: NDArray[Any] | None = None) -> Passes:
        """Passes over the rows with half the squared error from other targets."""
        data, dtype = self._passes.data, self._passes.dtype
        values = values.astype(dtype, copy=False).reshape(self.n, -1)
        rows = Dataset(data.X, values, weight=weight, outputs=values.shape[1])
        return self._passes._passes_over(rows, HalfSquaredError())

    @functools.cached_property
    def _from_zero(self) -> Passes:
        return self._over(np.zeros(self.n))

    @functools.cached_property
    def _small_X(self) -> Floats | None:
        """X, where a product by BLAS on one thread takes less time than a pass; else None."""
        X = self._passes.data.X
        small = isinstance(X, np.ndarray) and X.dtype == np.float64 and X.size <= SMALL_X
        return X if small else None

    def scores(self, w: Floats) -> Floats:
        """X w."""
        if self._small_X is not None:
            return self._small_X @ w[: self._passes.features] + self._shift(w)
        slopes = self._from_zero.empty_slopes()
        self._from_zero.value_and_gradient(w[None], slopes=slopes)
        device = self._passes.device
        host = slopes if device is None else device.get(slopes)
        return host[:, 0].astype(np.float64, copy=False)

    def _shift(self, w: Floats) -> float:
        """What the intercept and the center add to each score."""
        features = self._passes.features
        return float(w[features:].sum() - self._passes.center @ w[:features])

    def transposed(self, v: Floats) -> Floats:
        """X' v."""
        if self._small_X is not None:
            total, features = np.empty(self.size), self._passes.features
            total[features:] = total_v = v.sum()
            total[:features] = v @ self._small_X - total_v * self._passes.center
            return total
        return self._sums(v[:, None])[0]

    def _sums(self, v: Floats) -> Floats:
        """The products v' X, for v of shape (n, sums)."""
        passes, sums = self._over(-v), v.shape[1]
        precise = passes.dtype == np.float64
        evaluate = passes.value_and_gradient if precise else passes.precise_gradient
        # The loss of a row is the mean over its outputs.
        return sums * evaluate(np.zeros((sums, self.size)))[1]

    def normal(self, q: Floats, v: Floats) -> tuple[Floats, Floats]:
        """The lower triangle of X' diag(q) X, and X' v."""
        passes = self._over(v / q, q.astype(self._passes.dtype, copy=False))
        _, gradient, matrix = passes.hessian(np.zeros((1, self.size)))
        return matrix[0], -gradient[0]

    def column_sizes(self) -> Floats:
        """The root mean square of each column of a wide programme."""
        sizes: Floats = np.sqrt(self._squares / self.n)
        return sizes

    @property
    def wide(self) -> bool:
        """Whether `dual_solver` costs less than a matrix: more parameters than rows, nearly all with a ridge.

        Without a ridge the costs alone hold a parameter, and its second derivative vanishes near the optimum.
        """
        several = np.count_nonzero(self.ridge <= 0) <= 1 + self.n // 2
        return bool(self.n < self.size and several and self._passes.device is None)

    @property
    def sparse_solution(self) -> bool:
        """Whether nearly all parameters have a cost, so that few of them are other than 0."""
        free = np.count_nonzero(np.minimum(*self.costs) <= 0)
        return bool(2 * free < min(self.n, self.size))

    @property
    def solvable(self) -> bool:
        """Whether the matrix of a step, of the size of the parameters or of the rows, is not too large."""
        order = self.n if self.wide else self.size
        return order <= MOST_ORDER or self.sparse_solution

    @functools.cached_property
    def _columns(self) -> Any:
        """The rows less their center, with ones for the intercept, dense or CSC."""
        X, passes = self._passes.data.X, self._passes
        ones = np.ones((self.n, self.size - passes.features))
        if passes.sparse:
            parts: Any = [X.astype(np.float64), ones]
            return scipy.sparse.hstack(parts, "csc")
        return np.hstack([X - passes.center, ones])

    @functools.cached_property
    def _squares(self) -> Floats:
        columns = self._columns
        squares = columns.multiply(columns) if self._passes.sparse else columns * columns
        return np.asarray(squares.sum(axis=0)).ravel()

    def dual_solver(self, q: Floats, diagonal: Floats) -> Callable[[Floats], Floats]:
        """A solver with ``X' diag(q) X + diag(diagonal)`` by a matrix of the size of the rows.

        Woodbury's identity for the parameters with a positive ``diagonal``, and a Schur complement for the
        others, which must be few.
        """
        free = np.flatnonzero(diagonal <= 0)
        inverse = np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0)
        share = inverse * self._squares
        held = np.flatnonzero(share > NEGLIGIBLE_SHARE * share.sum())
        columns, rest = self._columns[:, held], self._columns[:, free]
        rest = rest.toarray() if self._passes.sparse else rest
        if self._passes.sparse:
            kernel = (columns @ scipy.sparse.diags_array(inverse[held]) @ columns.T).toarray()
        else:
            kernel = (columns * inverse[held]) @ columns.T
        np.einsum("ii->i", kernel)[:] += 1.0 / q
        apply_inverse = _positive_inverse(kernel)
        between = apply_inverse(rest)
        schur = rest.T @ between

        def solve(g: Floats) -> Floats:
            scores = columns @ (inverse[held] * g[held])
            w = np.zeros_like(g)
            if free.size:
                w[free] = np.linalg.lstsq(schur, g[free] - between.T @ scores, rcond=None)[0]
                scores = scores + rest @ w[free]
            back = self._columns.T @ apply_inverse(scores)
            return np.where(diagonal > 0, inverse * (g - back), w)

        return solve

    # Other programmes --------------------------------------------------------------------------------

    def _replaced(self, X: Any, target: Floats, low: Floats, high: Floats, bend: Floats) -> Programme:
        """The programme over other rows, dense or CSR in float64."""
        rows = Dataset(X, target[:, None])
        return Programme(
            _host_passes(self._passes, rows), target, low, high, bend, self.costs, self.ridge, self._entropic
        )

    def _rows_of_X(self, rows: Indices) -> Any:
        return self._passes.data.take(rows).on_host().astype(np.float64, copy=False)

    def take(self, rows: Indices) -> Programme:
        """The programme over some rows."""
        return self._replaced(
            self._rows_of_X(rows), self.target[rows], self.low[rows], self.high[rows], self.bend[rows]
        )

    def sample(self, rows: Indices) -> Programme:
        """The programme over some rows, with penalties in proportion to their weight."""
        part = self.take(rows)
        share = part.weights.sum() / self.weights.sum()
        part.costs, part.ridge = (share * self.costs[0], share * self.costs[1]), share * self.ridge
        return part

    def columns(self, chosen: Indices) -> Programme:
        """The programme over some of the parameters, in ascending order, the others being 0.

        The last has to be among them if it is the intercept.
        """
        passes = self._passes
        features = chosen[chosen < passes.features]
        rows = Dataset(passes.data.on_host()[:, features].astype(np.float64), self.target[:, None])
        costs = self.costs[0][chosen], self.costs[1][chosen]
        part = _host_passes(passes, rows, passes.center[features])
        return Programme(
            part, self.target, self.low, self.high, self.bend, costs, self.ridge[chosen], self._entropic
        )

    def merged(self, rows: Indices, groups: list[Indices]) -> Programme:
        """The programme over some rows, and one row in place of each group of others.

        Such a row is the mean of the group, with the weight of all of it: a lower bound of their loss, which
        is exact where all of them are on the same side of their kinks.
        """
        weight = np.zeros((self.n, len(groups)))
        for k, group in enumerate(groups):
            weight[group, k] = self.weights[group]
        total = weight.sum(axis=0)[:, None]
        columns = [[self.target[rows]], [self.low[rows]], [self.high[rows]], [self.bend[rows]]]
        for k, group in enumerate(groups):
            target = weight[:, k] @ self.target / total[k]
            values = target, self.low[group].sum(), self.high[group].sum(), 0.0
            for column, value in zip(columns, values, strict=True):
                column.append(np.atleast_1d(value))
        X: Any = self._rows_of_X(rows)
        if groups:
            means = self._sums(weight)[:, : self._passes.features] / total + self._passes.center
            stack = functools.partial(scipy.sparse.vstack, format="csr")
            X = (stack if self._passes.sparse else np.vstack)([X, means])
        return self._replaced(X, *(np.concatenate(column) for column in columns))

    def standard_errors(self, root: Floats) -> Floats:
        """The standard deviation of each row's score, for parameters with covariance ``root @ root.T``."""
        passes, features = self._passes, self._passes.features
        X = passes.data.X
        square = np.empty(self.n)
        shift = root[features] if passes.fit_intercept else np.zeros(root.shape[1])
        shift = shift - passes.center @ root[:features]

        def spread(first: int, last: int) -> None:
            for block in range(first, last):
                rows = slice(block * SPREAD_ROWS, (block + 1) * SPREAD_ROWS)
                if passes.device is None:
                    part = X[rows] @ root[:features].astype(passes.dtype)
                else:
                    part = passes.data.take(np.arange(self.n)[rows]).on_host() @ root[:features]
                part = part + shift
                square[rows] = np.einsum("ij,ij->i", part, part)

        threads.share(spread, -(-self.n // SPREAD_ROWS), passes.n_threads if passes.device is None else 1)
        return np.sqrt(square)


def _positive_inverse(matrix: Floats) -> Callable[[Floats], Floats]:
    """What multiplies vectors, or the columns of a matrix, by the inverse of a positive matrix."""
    root = np.sqrt(np.maximum(matrix.diagonal(), np.finfo(float).tiny))
    matrix = matrix / root / root[:, None]
    ridge = 0.0
    while True:
        np.einsum("ii->i", matrix)[:] = 1.0 + ridge
        try:
            factor = cho_factor(matrix, lower=True, check_finite=False)
            break
        except np.linalg.LinAlgError:
            if ridge > 1.0:
                return lambda rhs: np.full_like(rhs, np.nan)
            ridge = max(1e-14, 100 * ridge)

    def solve(rhs: Floats) -> Floats:
        scale = root if rhs.ndim == 1 else root[:, None]
        found: Floats = cho_solve(factor, rhs / scale, check_finite=False) / scale
        return found

    return solve


def _host_passes(passes: Passes, data: Dataset, center: Floats | None = None) -> Passes:
    """Passes in main memory over other rows, with the same center unless one is given."""
    from sklloss.objectives.numpy_passes import NumPyPasses

    return NumPyPasses(
        data,
        HalfSquaredError(),
        fit_intercept=passes.fit_intercept,
        n_threads=passes.n_threads,
        center=passes.center if center is None else center,
    )
