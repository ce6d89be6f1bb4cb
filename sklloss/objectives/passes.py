"""Passes over the rows of X for linear models: what every kind of array implements, and what they share."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklloss.arrays.device import Device
from sklloss.data.dataset import Dataset, weighted_rows
from sklloss.kernels.solve import Operator
from sklloss.losses import HalfSquaredError, Loss
from sklloss.objectives.column_model import RowCurvature

Array = Any  # of NumPy, or of the namespace that X belongs to
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

# Rows from which the loss at 0 is estimated.
NULL_ROWS = 2048
# Rows, spread over all of X, that rule out most columns that vary; rows compared per step after that.
CONSTANT_SAMPLE_ROWS = 64
CONSTANT_STEP_ROWS = 1 << 14
# Rows from which the center of the columns is estimated.
CENTER_ROWS = 256
CENTER_COLUMNS = 512  # looked at together, to bound the memory of a wide X
# A column is centered if its mean is larger than this many standard deviations.
CENTER_RATIO = 10
# Rows for each column from which a Gram matrix is estimated.
GRAM_ROWS = 16


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """The steps of one stochastic pass: which rows are in which batch, and how far each batch steps.

    Attributes
    ----------
    order : ndarray of intp
        The rows, batch after batch.
    batch_rows : int
        Rows per batch; the last batch may have fewer.
    coordinates : tuple
        ``factors`` U (1 or outputs, width, width) or None, and ``units`` (1 or outputs, width): the curvature
        is taken to be ``units U' U units``.
    ridge : ndarray of shape (outputs, width)
        The penalty's second derivatives.
    gains : ndarray of shape (batches,)
        The factor that scales a batch's sum up to the whole data.
    rates : ndarray of shape (batches, outputs)
        The share of the step that the curvature suggests; for Adam its learning rate in ``coordinates``.
    anchor_slopes, anchor : array of shape (n, outputs), ndarray of shape (outputs, width), optional
        Slopes at the anchor, an earlier point, and the gradient of the whole data at that point.
    curvature_bound : float
        0, or a bound on the loss's second derivative by the scores. With a bound, no step goes beyond the
        minimum of the quadratic upper bound of its batch's loss.
    keep_mean : bool
        Keep the mean of the parameters over outputs constant.
    moments : tuple of two ndarrays of shape (outputs, width), optional
        Adam's moments, changed in place.
    decays : tuple
        Adam's two decays, and its epsilon.
    mean, mixing : ndarray of shape (outputs, width), ndarray of shape (batches,), optional
        A running mean of the parameters, changed in place, and the weight in it of the parameters after each
        batch.
    """

    order: Indices
    batch_rows: int
    coordinates: tuple[Floats | None, Floats]
    ridge: Floats
    gains: Floats
    rates: Floats
    anchor_slopes: Array | None = None
    anchor: Floats | None = None
    curvature_bound: float = 0.0
    keep_mean: bool = False
    moments: tuple[Floats, Floats] | None = None
    decays: tuple[float, float, float] = (0.0, 0.0, 0.0)
    mean: Floats | None = None
    mixing: Floats | None = None


class Passes(ABC):
    """X, targets and weights bound to a loss, ready for passes over the rows; abstract.

    Linear models see X through this class alone. Each kind of array has a subclass: `NumPyPasses` runs
    compiled kernels on threads, `DevicePasses` runs array API code on a device. To add a kind, write a
    subclass in one file and let `make_passes` choose it. If blocks of rows are spread over processes, for
    example, each process can hold the `NumPyPasses` of its block, whose results the subclass adds up.

    A subclass must implement:

    - `value_and_gradient` and `hessian`, sums over the rows at given parameters;
    - `product`, `hessian_block` and `hessian_diagonal`, sums with the curvature stored by an earlier pass;
    - `epoch`, `empty_slopes` and `slopes_sum_to_zero`, for stochastic solvers;
    - `_squared_columns` and `_column_maxima`, statistics of the columns of X;
    - `_rows_as_numpy` and `_same_as_first_row`, reads of a dense X for centering.

    It may override `newton_steps`, which solves small problems in one call, and the methods of dual ascent,
    from `dual_sizes` on. Everything else is written in terms of these methods.

    What callers rely on:

    - The scores of a row x are ``coef[:, :features] @ (x - center) + coef[:, features]``; without an
      intercept there is no last column and no center. X must not be changed or copied as a whole to center
      it: compute the scores with ``uncentered(coef)``, and subtract ``center`` times the gradient by the
      intercept from the gradient by the coefficients.
    - Parameters and results are float64 NumPy arrays, with the model's parameters of shape (outputs, width).
      Only if ``device`` is not None are arrays on the device also passed to `value_and_gradient` and
      `product`, which then return such arrays.
    - Results do not depend on the number of workers: sum over blocks of rows whose bounds depend on the data
      alone, and add these sums in the order of the blocks, in float64.
    - A row of weight 0 adds exactly 0, even if its loss is not finite.
    - A loss that is not ``additive`` is not a sum over rows, and needs the scores of all rows at once.
    - `value_and_gradient` stores the curvature of each row if asked to, and it stays until it is next asked.
    - Only a subclass looks into the slopes that its `empty_slopes` has made: callers pass them on.
    - A class code out of range raises ``self._bad_code(row)``.

    The constructor calls `_rows_as_numpy` if it is to find a center. `every_nth` and `gram` make further
    passes of the same class, so subclasses keep the parameters of the constructor.

    Parameters
    ----------
    data : Dataset
        For a loss that is not over classes, class codes become 0/1 targets.
    loss : Loss
    fit_intercept : bool
    n_threads : int or None
        See `threads.count`.
    center : bool or ndarray of shape (features,)
        Whether to subtract an offset from each column whose mean is large relative to its spread. The model
        is the same, with another intercept, but the problem is well conditioned. X itself is not changed.
        Only a dense X with an intercept is centered. An array gives the offsets.

    Attributes
    ----------
    n, features, outputs : int
    width : int
        The number of features, plus 1 with an intercept.
    dtype : NumPy dtype
        That of X.
    center : ndarray of shape (features,)
        0 for a column that is not centered.
    centered_columns : bool
        Whether any column is centered.
    weight : ndarray of shape (n,) or (n, outputs), or None
    separable, softmax : bool
        Whether the loss is separable, and whether its stored curvature is the probabilities of a softmax
        rather than second derivatives.
    device : Device or None
        The device of X; None for main memory.
    sparse : bool
    compiled : bool
        Whether passes run a compiled kernel of the loss.
    """

    compiled: bool = False

    def __init__(
        self,
        data: Dataset,
        loss: Loss,
        *,
        fit_intercept: bool,
        n_threads: int | None = 1,
        center: bool | Floats = False,
    ) -> None:
        self.data: Dataset = data
        self.loss: Loss = loss
        self.X: Array = data.X
        self.codes: Indices | None = data.codes
        self.weight: NDArray[Any] | None = None if data.weight is None else np.ascontiguousarray(data.weight)
        self.dtype: np.dtype[Any] = data.dtype
        self.device: Device | None = data.device
        self.sparse: bool = hasattr(self.X, "nnz")
        self.n: int
        self.features: int
        self.n, self.features = self.X.shape
        self.outputs: int = data.outputs
        self.fit_intercept: bool = fit_intercept
        self.width: int = self.features + bool(fit_intercept)
        # A loss that is not a mean over rows is none over outputs either.
        self.separable: bool = loss.separable and loss.additive
        self.softmax: bool = loss.curvature_buffer == "probabilities"
        self.n_threads: int | None = n_threads
        if not isinstance(center, np.ndarray):
            wanted = center and fit_intercept and not self.sparse
            center = self._find_center() if wanted else np.zeros(self.features)
        self.center: Floats = center
        self.centered_columns: bool = bool(fit_intercept and np.count_nonzero(center))
        self._null_sums: dict[bool, Floats] = {}
        self._gram: Floats | None = None
        self._constant_columns: Indices | None = None

    @property
    def curvature_bound(self) -> float:
        """A bound on the second derivative of a row's term in the loss sums by one score.

        A loss that states no bound gets that of the log loss, 1/4, which is then a scale, not a bound.
        """
        bound = self.loss.curvature_bound
        if bound is None:
            return 0.25
        return bound / self.loss.row_divisor(self.outputs)

    @property
    def initial_curvature(self) -> float:
        """Roughly the second derivative of a row's loss by one score if all parameters are 0."""
        return (1 - 1 / self.outputs) / self.outputs if self.softmax else self.curvature_bound

    # Passes -----------------------------------------------------------------------------------------

    @abstractmethod
    def value_and_gradient(
        self, coef: Array, *, keep_curvature: bool = False, slopes: Array | None = None
    ) -> tuple[Array, Array]:
        """Weighted loss sums (outputs,) or (1,) and their gradient (outputs, width).

        The pass itself runs in the dtype of X, with sums over blocks in float64 if the device supports it.
        ``keep_curvature`` stores the curvature that `product` needs. ``slopes`` (see `empty_slopes`) is
        filled with the derivatives by the scores, times weights.
        """

    @abstractmethod
    def product(self, direction: Array) -> Array:
        """Hessian times ``direction`` (outputs, width), at the point of the last stored curvature.

        The next product may overwrite the result.
        """

    @abstractmethod
    def hessian(
        self, coef: Floats, *, coupled: bool = True, by_slope: bool = False, curved: bool = True
    ) -> tuple[Floats, Floats, Any]:
        """Loss sums, gradient and Hessian at ``coef``, all computed in float64 if the device supports it.

        The Hessian is (outputs, width, width) for a separable loss, else (1, outputs * width, outputs *
        width), or without ``coupled`` its diagonal blocks (outputs, width, width). Its lower triangles are
        filled. With ``by_slope``, the absolute slope of each row replaces its second derivative. Without
        ``curved`` the Hessian is None.
        """

    @abstractmethod
    def hessian_block(self, sets: list[Indices], *, coupled: bool) -> list[Floats]:
        """The Hessian over some parameters alone, at the point of the last stored curvature, in float64.

        ``sets`` has the columns of each output in ascending order; the intercept is column ``features``. A
        separable loss gives a matrix for each output. A softmax gives one for all, output after output, whose
        blocks off the diagonal are 0 unless ``coupled``. Both triangles are filled.
        """

    @abstractmethod
    def hessian_diagonal(self) -> Floats:
        """The Hessian's diagonal at the point of the last stored curvature, (outputs, width), in float64."""

    def hessian_operator(self, scale: float, ridge: Floats, varying: Floats | None) -> Operator | None:
        """The Hessian that `product` multiplies by, times ``scale``, plus ``ridge``, compiled.

        None if that cannot be. ``ridge`` is (outputs, width). Columns at which ``varying``, (width,), is 0
        are left out.
        """
        return None

    def over_curved_rows(self) -> Passes:
        """Passes over the rows that have nearly all of the last stored curvature, perhaps in float32.

        They are for `product`, and for `hessian` at the same point without ``coupled``, which leaves out rows
        with next to no curvature by an output; of X less its center. These passes themselves where others
        would save no time.
        """
        return self

    def column_rows(self, output: int | None, scale: float) -> tuple[tuple[Any, ...], RowCurvature] | None:
        """X in CSC format and the last stored curvature of one output, or of all coupled ones, times a scale.

        None if X is not a sparse matrix in main memory.
        """
        return None

    @abstractmethod
    def epoch(self, w: Floats, plan: EpochPlan) -> None:
        """One stochastic pass: a step for each batch of rows; ``w`` (outputs, width) changes in place."""

    @abstractmethod
    def empty_slopes(self) -> Array:
        """An array (n, outputs) on the device of X for `value_and_gradient` to fill."""

    @abstractmethod
    def slopes_sum_to_zero(self, slopes: Array) -> bool:
        """Whether the slopes of each row sum to 0: no common shift of all outputs changes the loss."""

    @property
    def has_output_hessians(self) -> bool:
        """Whether `output_hessians` is implemented for X."""
        return False

    def output_hessians(self, coef: Floats) -> Callable[[int, NDArray[Any], float], None]:
        """A function that sets an array in X's dtype to a multiple of a diagonal block of the Hessian.

        It takes the number of an output, the array (width, width), of which only the lower triangle is read
        and written and which is contiguous along either axis, and the factor. Threads may call it at once. It
        is for large blocks.
        """
        raise NotImplementedError

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
        """Newton steps from ``points[0]``, whose other rows they fill, in one compiled call.

        The objective, of a single problem, is ``scale`` times the loss sum, less ``saturated``, plus the
        penalties of ``ridge`` and ``l1``, (size,). See
        `sklloss.kernels.linear.small_newton.newton_steps`. None unless `takes_newton_steps`.
        """
        return None

    @property
    def takes_newton_steps(self) -> bool:
        """Whether `newton_steps` is implemented for this X and loss, and X is so small that it saves time."""
        return False

    def precise_gradient(self, coef: Floats) -> tuple[Floats, Floats]:
        """As `value_and_gradient`, in the precision of `hessian`."""
        return self.hessian(coef, coupled=False, curved=False)[:2]

    def positive_blocks(self, coef: Floats, *, by_slope: bool = False) -> tuple[Floats, Floats]:
        """Gradient (outputs, width) and a positive substitute for the Hessian's diagonal blocks.

        If the loss states second derivatives by output, negative ones count as 0. If it does not, the
        absolute slope of each row replaces them: both vanish as a row is fitted. ``by_slope`` asks for the
        slopes with any loss, so that rows far from their targets count even where the loss has little
        curvature.
        """
        by_slope = by_slope or not (self.separable and self.loss.states_curvature)
        return self.hessian(coef, coupled=False, by_slope=by_slope)[1:]

    # Dual ascent ------------------------------------------------------------------------------------

    def dual_sizes(self) -> tuple[float, float, float] | None:
        """The mean weight, the mean squared norm of a row, and relative to that the mean product of two.

        None if the methods of dual ascent are not implemented for this X and this loss.
        """
        return None

    def dual_state(self) -> tuple[Any, ...]:
        """Coefficients, intercepts, sums and dual variables, all 0, for `dual_epoch` to change."""
        raise NotImplementedError

    def dual_epoch(
        self, state: tuple[Any, ...], order: Indices, *, scale: float, bias: float, overlap: float
    ) -> tuple[Floats, Floats]:
        """One step of the dual variables of each row, in this order.

        Parameters
        ----------
        state : tuple of ndarrays
            From `dual_state`; changed in place.
        order : ndarray of intp
        scale : float
            The factor of the loss; the penalty is ||w||**2 / 2.
        bias : float
            The step of the intercept per unit change of the dual variables; 0 for no intercept.
        overlap : float
            The mean product of two rows, relative to the mean squared norm of a row.

        Returns
        -------
        sums, predicted_decrease : ndarray of shape (outputs,)
            The loss of each row when its turn came, and an estimate of how much the objective can still
            decrease. For coupled outputs the first element of ``sums`` is the loss, and the sum of
            ``predicted_decrease`` is the estimate.
        """
        raise NotImplementedError

    def dual_parameters(self, state: tuple[Any, ...]) -> Floats:
        """The parameters of a state, (outputs, width)."""
        raise NotImplementedError

    # Statistics of X and of the weights ---------------------------------------------------------------

    def null_sums(self, *, exact: bool = False) -> Floats:
        """Weighted loss sums if all parameters are 0, cached; an estimate unless ``exact``."""
        if exact not in self._null_sums:
            step = self.n // NULL_ROWS | 1
            sample = self.every_nth(step) if step > 1 and not exact else None
            passes, scale = (self, 1) if sample is None else (sample, step)
            zeros = np.zeros((self.outputs, self.width))
            self._null_sums[exact] = scale * passes.value_and_gradient(zeros)[0]
        return self._null_sums[exact]

    @functools.cached_property
    def saturated_sums(self) -> Floats:
        """The weighted sum of each output's saturated values (`Loss.saturated`), (outputs,); cached."""
        assert self.data.values is not None
        values = self.loss.saturated(np, self.data.values.astype(np.float64))
        if self.weight is not None:
            weight = self.weight.astype(np.float64).reshape(self.n, -1)
            values = np.where(weight > 0, values, 0.0) * weight
        total: Floats = values.sum(axis=0) / self.loss.row_divisor(self.outputs)
        return total

    @property
    def samples_are_views(self) -> bool:
        """Whether `every_nth` takes rows of X without a copy."""
        return False

    def every_nth(self, step: int) -> Passes | None:
        """Passes over every step-th row, with the same center; None if all weights of these rows are 0."""
        sample = self.data.every(step)
        if sample.weight is not None and not sample.weight.any():
            return None
        return self._passes_over(sample, self.loss)

    def with_loss(self, loss: Loss) -> Passes:
        """Passes over the same rows with another loss."""
        return self._passes_over(self.data, loss)

    def _passes_over(self, data: Dataset, loss: Loss) -> Passes:
        """Passes over other data or with another loss, with the same center."""
        return type(self)(
            data, loss, fit_intercept=self.fit_intercept, n_threads=self.n_threads, center=self.center
        )

    def weighted_rows(self) -> Indices:
        """The numbers of the rows whose weight is not 0."""
        return weighted_rows(self.weight, self.n)

    def row_weights(self) -> Floats:
        """The weight of each row, in float64; a mean over outputs if weights differ by output."""
        if self.weight is None:
            return np.ones(self.n)
        weight = self.weight.astype(np.float64)
        return weight if weight.ndim == 1 else weight.mean(axis=1)

    @functools.cached_property
    def squared_columns(self) -> Floats:
        """The diagonal of X'WX, of shape (width,); cached."""
        weight = self.row_weights()
        diagonal = np.empty(self.width)
        diagonal[self.features :] = weight.sum()
        diagonal[: self.features] = self._squared_columns(weight)
        return diagonal

    def column_maxima(self) -> Floats:
        """The largest absolute value in each column of X less its center, (width,)."""
        largest = np.ones(self.width)
        largest[: self.features] = self._column_maxima()
        return largest

    def constant_columns(self) -> Indices:
        """The numbers of the centered columns that have the same value in every row; cached."""
        if self._constant_columns is None:
            columns = np.flatnonzero(self.center)
            for rows in _sample_then_all(self.n):
                if columns.size:
                    columns = columns[self._same_as_first_row(rows, columns)]
            self._constant_columns = columns
        return self._constant_columns

    def gram(self) -> Floats:
        """X'WX of shape (width, width), lower triangle, with the intercept's column of ones; cached.

        If weights differ by output, their mean over outputs is used. With many rows the correlations are
        estimated from a sample. The diagonal is exact: a sample may miss the few rows in which a column has
        its large values.
        """
        if self._gram is None:
            step = self.n // (GRAM_ROWS * self.width)
            sample = self.every_nth(step) if step > 1 else None
            self._gram = self._full_gram() if sample is None else sample.gram()
            if sample is not None:
                self._gram *= step
                found, true = self._gram.diagonal(), self.squared_columns
                true = np.where(np.isfinite(true), true, found)
                root = np.sqrt(np.divide(true, found, out=np.ones_like(found), where=found > 0))
                self._gram *= root
                self._gram *= root[:, None]
                np.einsum("ii->i", self._gram)[:] = true
        return self._gram

    def release_gram(self) -> None:
        """Free what `gram` has cached."""
        self._gram = None

    def _full_gram(self) -> Floats:
        """See `gram`; over all rows."""
        weight = self.weight if self.weight is None or self.weight.ndim == 1 else self.weight.mean(axis=1)
        data = Dataset(self.X, np.zeros((self.n, 1), dtype=self.dtype), weight=weight)
        # a loss whose second derivative is 1 everywhere
        return self._passes_over(data, HalfSquaredError()).hessian(np.zeros((1, self.width)))[2][0]

    @abstractmethod
    def _rows_as_numpy(self, rows: slice | Indices) -> NDArray[Any]:
        """Some rows of a dense X as a NumPy array."""

    @abstractmethod
    def _same_as_first_row(self, rows: slice, columns: Indices) -> NDArray[np.bool_]:
        """Which of these columns of a dense X equal the first row in all these rows."""

    @abstractmethod
    def _squared_columns(self, weight: Floats) -> Floats:
        """The weighted sum of squares of each column of X less its center, (features,)."""

    @abstractmethod
    def _column_maxima(self) -> Floats:
        """The largest absolute value in each column of X less its center, (features,)."""

    # Centering --------------------------------------------------------------------------------------

    def uncentered(self, coef: Array) -> Array:
        """Parameters (outputs, width) for centered X converted to those for X."""
        return self._move_intercept(coef, -1.0) if self.centered_columns else coef

    def centered(self, coef: Array) -> Array:
        """Parameters (outputs, width) for X converted to those for centered X."""
        return self._move_intercept(coef, 1.0) if self.centered_columns else coef

    def _move_intercept(self, coef: Array, sign: float) -> Array:
        moved = coef.copy()
        moved[:, -1] += sign * (coef[:, : self.features] @ self.center)
        return moved

    def _find_center(self) -> Floats:
        """An estimate of each column's mean if it is large relative to the column's spread, else 0.

        Any number within the bulk of a column will do, so some of the rows suffice. Columns near 0, and those
        with outliers, get 0.
        """
        if self.weight is None:
            sample = self._rows_as_numpy(slice(0, None, max(1, self.n // CENTER_ROWS)))
        else:
            rows = self.weighted_rows()
            sample = self._rows_as_numpy(rows[:: max(1, len(rows) // CENTER_ROWS)])
        center = np.empty(self.features)
        for first in range(0, self.features, CENTER_COLUMNS):
            columns = slice(first, first + CENTER_COLUMNS)
            part = sample[:, columns].astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                mean = np.add.reduce(part) / len(part)
                part -= mean
                spread = np.sqrt(np.einsum("ij,ij->j", part, part) / len(part))
                # False for a spread that is not finite
                center[columns] = np.where(np.abs(mean) > CENTER_RATIO * spread, mean, 0.0)
        return center

    def _bad_code(self, row: int) -> ValueError:
        code = None if self.codes is None else self.codes[row]
        return ValueError(f"class code {code} in row {row} is not in [0, {self.outputs})")


def _sample_then_all(n: int) -> list[slice]:
    """Slices of n rows: a sample spread over them, then all of them in steps."""
    step = CONSTANT_STEP_ROWS
    steps = (slice(first, min(first + step, n)) for first in range(0, n, step))
    return [slice(0, n, max(1, n // CONSTANT_SAMPLE_ROWS)), *steps]


def make_passes(
    data: Dataset,
    loss: Loss,
    *,
    fit_intercept: bool,
    n_threads: int | None = 1,
    center: bool | Floats = False,
) -> Passes:
    """The `Passes` for the kind of array that X is; arguments are those of `Passes`.

    Targets, codes and weights are NumPy arrays in either case. They are moved to the device of X here, once.
    """
    kind: type[Passes]
    if data.device is None:
        from sklloss.objectives.numpy_passes import NumPyPasses

        kind = NumPyPasses
    else:
        from sklloss.objectives.device_passes import DevicePasses

        kind = DevicePasses
    return kind(data, loss, fit_intercept=fit_intercept, n_threads=n_threads, center=center)
