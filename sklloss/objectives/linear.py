"""The objective of the linear estimators."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklloss.arrays import memory
from sklloss.arrays.vectors import NUMPY, ArrayVectors, NumPyVectors
from sklloss.objectives.column_model import NO_GROUPS, ColumnModel
from sklloss.objectives.linear_stochastic import DualAscent, MiniBatches, StreamBatches
from sklloss.objectives.passes import Array, Floats, Passes
from sklloss.objectives.preconditioners import (
    TOO_LARGE,
    WIDEST_BLOCKS,
    BlockSolver,
    DiagonalSolver,
    PairedBlockSolver,
    Preconditioner,
    ShiftSolver,
    SubsetSolver,
)

# Most columns for which a preconditioner has X'WX and its Cholesky factor.
WIDEST_GRAM = 2048
# A sample of the rows has enough of them for at least this many parameters.
LEAST_PARAMETERS = 32
# Blocks of a wide Hessian have at most this share of X's numbers.
BLOCKS_SHARE = 0.2
# A sample of the rows that has to be copied has at most this share of them.
LEAST_COPIED_STEP = 8
# Multiplications from which a Hessian costs enough to try a step with an earlier one first.
COSTLY_WORK = 1 << 23
# Numbers in X times problems from which the passes over X dominate the cost of a fit.
LARGE_X = 1 << 21
# The cost of the Hessian's diagonal, in products.
DIAGONAL_COST = 2.0
# Numbers of a Hessian's block that take as long as a number of a product.
PRODUCT_WORK = 4
# A local preconditioner is made from a sample of the rows: about as many as cost this many products, but at
# least so many for each column that its blocks are not those of the sample alone, and not more than suffice.
BLOCK_PRODUCTS, LEAST_BLOCK_ROWS, MOST_BLOCK_ROWS = 12, 8, 256
# Most parameters in a subset whose Hessian is built. For a dense X, the Hessian must also have at most
# SUBSET_NUMBERS numbers per coefficient, or take at most SUBSET_WORK multiplications: products are cheaper
# otherwise.
LARGEST_SUBSET = 3072
SUBSET_NUMBERS = 200
SUBSET_WORK = 4e9
# How many times the bound of a gradient a wrong sign costs.
SIGN_SAFETY = 2.0
# A penalty below this share of the curvature is lost in rounding along a common shift of all outputs.
NEGLIGIBLE_RIDGE = 1e-10


class LinearObjective:
    """C * sum_i w_i loss_i(x_i . coef + intercept) + 0.5 ||coef||**2, the intercept unpenalised.

    With ``l1_ratio`` r the penalty is r ||coef||_1 + (1 - r) / 2 ||coef||**2. Values and derivatives are
    those of the smooth part; ``l1`` has the weights of the absolute values, for solvers that support them.

    Parameters form an array of shape (problems, size). Outputs of a separable loss share no parameters: each
    is a separate problem (size = width), and one pass over X serves all of them. Coupled outputs, as those of
    a softmax, are one problem (size = outputs * width). Within a problem the parameters of an output are
    contiguous, the intercept last.

    Parameters
    ----------
    passes : Passes
        X, targets, weights and the loss.
    C : float
        Inverse strength of the penalty; ``inf`` for none.
    l1_ratio : float
        In [0, 1].
    penalty_weights : ndarray of shape (features,), optional
        What the penalty of each feature is multiplied by.

    Attributes
    ----------
    l1 : ndarray of shape (problems, size)
        The weight of each parameter's absolute value in the penalty.
    linear : ndarray of shape (problems, size) or None
        The weight of each parameter itself, see `constrain`.
    saturated : ndarray of shape (problems,)
        What values count from, see `RegressionObjective`; else 0.
    vectors : NumPyVectors or ArrayVectors
        Operations on parameters and gradients where X lives. If that is a device, `value_and_gradient`,
        `linearise` and `product` return arrays on the device for arrays on the device, without waiting for
        it, and NumPy arrays for NumPy arrays.
    """

    def __init__(
        self, passes: Passes, C: float, l1_ratio: float = 0.0, penalty_weights: Floats | None = None
    ) -> None:
        self.passes = passes
        device = passes.device
        # The history of L-BFGS needs float64: on devices without it, parameters stay in main memory.
        self.vectors: NumPyVectors | ArrayVectors = NUMPY
        if device is not None and device.wide == np.float64:
            self.vectors = ArrayVectors(device)
        self.penalised: bool = bool(np.isfinite(C) and (penalty_weights is None or penalty_weights.any()))
        self.scale: float = float(C) if self.penalised else 1.0
        self.problems: int = passes.outputs if passes.separable else 1
        self.size: int = passes.width if passes.separable else passes.outputs * passes.width
        self.shape: tuple[int, int] = (self.problems, self.size)
        self.saturated: Floats = np.zeros(self.problems)
        self.convex: bool = passes.loss.convex
        self._point: Array = None
        self._curved: Passes | None = None
        self._penalty_product: Floats | None = None
        # The relative rounding error of a value: raw scores have X's precision.
        eps = float(np.finfo(passes.dtype).eps)
        self.noise: float = 4 * eps
        # Regularises a singular preconditioner. A ridge smaller than the rounding error of a gradient would
        # amplify that error along directions in which the objective is constant.
        self.small_ridge: float = max(1e-10, 1000 * eps)
        # The square of a relative residual at which a linear system has nothing but rounding left.
        self.residual_floor: float = self.noise**2 / self.small_ridge
        # Whether `value_and_gradient` is as precise as `hessian`, which computes in float64.
        self.exact_gradient: bool = passes.dtype == np.float64
        # Whether the preconditioner has the correlations of the columns.
        self.close_preconditioner: bool = passes.width <= WIDEST_GRAM
        # Whether a Hessian costs much more than a gradient, and both more than the overhead of a pass.
        self.costly_hessian: bool = (
            passes.n * passes.width * self.size * self.problems > COSTLY_WORK and self.size >= 8
        )
        # 1 where the penalty acts: on coefficients, not on the intercept
        ridge = np.full((passes.outputs, passes.width), float(self.penalised))
        # Whether the penalty is the same for all features.
        self.uniform: bool = penalty_weights is None
        if penalty_weights is not None:
            ridge[:, : passes.features] *= penalty_weights
        if passes.fit_intercept:
            ridge[:, -1] = 0.0
        self.l1: NDArray[np.float64] = l1_ratio * ridge.reshape(self.shape)
        self.ridge: NDArray[np.float64] = (1.0 - l1_ratio) * ridge.reshape(self.shape)
        self.linear: Floats | None = None
        self._signs: Floats | None = None

    def constrain(self, signs: Floats, factor: float = 1.0) -> None:
        """Hold coefficients at a sign, 1 or -1 for each feature; 0 leaves it free.

        The wrong sign costs M times the absolute value: an exact penalty, which is 0 at the constrained
        optimum if M exceeds the gradient there. That is an L1 norm of weight (l1 + M) / 2 and a linear term.
        M is ``factor`` times a bound for a loss of bounded curvature, by the value at 0; `broken_signs` tells
        whether it was enough.
        """
        if self.linear is None:
            self._least_l1 = self.l1
        by_output = np.zeros((self.passes.outputs, self.passes.width))
        by_output[:, : self.passes.features] = signs
        self._signs = by_output.reshape(self.shape)
        value = np.maximum(self.null_value(exact=True), np.finfo(float).tiny)
        most = factor * SIGN_SAFETY * np.sqrt(2.0 * value[:, None] * self.diagonal())
        most = np.maximum(most, self._least_l1)
        self.l1 = np.where(self._signs != 0, (self._least_l1 + most) / 2, self._least_l1)
        self.linear = self._signs * (self._least_l1 - most) / 2

    def broken_signs(self, w: Floats) -> NDArray[np.bool_]:
        """Which parameters have a sign that `constrain` forbids."""
        return np.zeros(w.shape, dtype=bool) if self._signs is None else w * self._signs < 0

    def coef(self, w: Array) -> Array:
        """The parameters as (outputs, width)."""
        return self._reshape(w, (self.passes.outputs, self.passes.width))

    def _reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        if isinstance(array, np.ndarray):
            return array.reshape(shape)
        return self.vectors.xp.reshape(array, shape)

    @functools.cached_property
    def _varying_columns(self) -> tuple[Floats, Array] | None:
        """A mask (width,) that is 0 for constant columns, in NumPy and on the device; None if there are none.

        Constant columns less the center are the difference of equal numbers: nothing but rounding is left.
        """
        constant = self.passes.constant_columns()
        if not constant.size:
            return None
        varying = np.ones(self.passes.width)
        varying[constant] = 0.0
        return varying, None if self.vectors is NUMPY else self.vectors.put(varying)

    def _without_constant_columns(self, array: Array) -> Array:
        """Parameters or derivatives (outputs, width), with 0 for those of constant columns."""
        varying = self._varying_columns
        return array if varying is None else array * varying[not isinstance(array, np.ndarray)]

    @functools.cached_property
    def _device_ridge(self) -> Array:
        return self.vectors.put(self.ridge)

    def value_and_gradient(self, w: Array) -> tuple[Array, Array]:
        """Value of each problem, (problems,), and its gradient, (problems, size)."""
        sums, gradient = self.passes.value_and_gradient(self._without_constant_columns(self.coef(w)))
        return self.with_penalty(w, sums, self._without_constant_columns(gradient))

    def precise_gradient(self, w: Floats) -> tuple[Floats, Floats]:
        """As `value_and_gradient`, as precise as `hessian`: computed in float64 whatever the dtype of X."""
        if self.exact_gradient:
            return self.value_and_gradient(w)
        sums, gradient = self.passes.precise_gradient(self.coef(w))
        return self.with_penalty(w, sums, gradient)

    def null_value(self, *, exact: bool = False) -> Floats:
        """The value of each problem at w = 0; of many rows an estimate, unless ``exact``."""
        return self.scale * self.passes.null_sums(exact=exact)

    def without_shift(self, w: Floats) -> Floats:
        """The parameters, or a direction, less their mean over the outputs of a softmax.

        A softmax is invariant to a common shift of its outputs, and at the optimum a penalty makes that
        shift 0. If the Hessian is large, the penalty is lost in rounding along the shift. Fits that start
        from each other would accumulate what remains of it.
        """
        loss = self.passes.loss
        # Where a loss is not convex, another start may lead to another minimum.
        if not (self.penalised and loss.shift_invariant and loss.convex):
            return w
        coef = self.coef(w)
        return (coef - coef.mean(axis=0)).reshape(w.shape)

    def value_and_gradient_from(
        self, other: LinearObjective, w: Floats, value: Floats, gradient: Floats
    ) -> tuple[Floats, Floats]:
        """Value and gradient at w from those of an objective with another penalty, without a pass over X."""
        penalty_gradient = other.ridge * w
        ratio = self.scale / other.scale
        value = ratio * (value - 0.5 * np.einsum("bi,bi->b", penalty_gradient, w))
        gradient = ratio * (gradient - penalty_gradient)
        penalty_gradient = self.ridge * w
        return value + 0.5 * np.einsum("bi,bi->b", penalty_gradient, w), gradient + penalty_gradient

    def hessian_from(self, other: LinearObjective, hessian: Floats) -> Floats:
        """The Hessian from that of an objective with another penalty; both have a penalty, or neither has."""
        hessian = hessian * (self.scale / other.scale)
        diagonal = np.einsum("bii->bi", hessian)
        diagonal += self.ridge - other.ridge * (self.scale / other.scale)
        return hessian

    def hessian(self, w: Floats) -> tuple[Floats, Floats, Floats]:
        """Value, gradient and the lower triangle of the Hessian, (problems, size, size).

        A softmax is invariant to a common shift of its outputs. Without a penalty the Hessian is singular
        along that shift, so a multiple of the shift's outer product is added. The gradient has no component
        along the shift, so Newton's step does not change. `sklloss.kernels.linear.small_newton` and
        `subset_hessian` do the same.
        """
        sums, gradient, hessian = self.passes.hessian(self.coef(w))
        value, gradient = self.with_penalty(w, sums, gradient)
        if not np.isfinite(
            hessian[np.isfinite(value)]
        ).all():  # where the value is infinite a solver turns back
            raise ValueError(TOO_LARGE)
        hessian *= self.scale
        diagonal = np.einsum("bii->bi", hessian)
        if self.passes.loss.shift_invariant:
            K, width = self.passes.outputs, self.passes.width
            free = np.flatnonzero(self.ridge[0, :width] == 0.0)
            if free.size:
                typical = diagonal.reshape(K, width)[:, free].mean(axis=0)
                indices = np.arange(K)[:, None] * width + free
                # The upper triangle is not used.
                hessian[0, indices[:, None], indices[None]] += typical
        diagonal += self.ridge
        return value, gradient, hessian

    def newton_steps(self, points: Floats, values: Floats, *rule: Any) -> tuple[int, bool] | None:
        """Newton steps of a single small problem in one compiled call.

        See `sklloss.kernels.linear.small_newton.newton_steps`. None unless `takes_newton_steps`.
        """
        if self.problems > 1 or self.linear is not None:
            return None
        saturated = float(self.saturated[0])
        penalties = self.ridge[0], self.l1[0]
        return self.passes.newton_steps(self.scale, saturated, *penalties, points, values, *rule)

    @property
    def takes_newton_steps(self) -> bool:
        """Whether this is a single problem so small that `newton_steps` runs all steps in one call."""
        return self.problems == 1 and self.linear is None and self.passes.takes_newton_steps

    def subsample(self, each: int) -> LinearObjective | None:
        """The objective over a sample of ``each`` rows per parameter, scaled up; None if rows are too few."""
        step = self.passes.n // (each * max(LEAST_PARAMETERS, self.size))
        if step < (3 if self.passes.samples_are_views else LEAST_COPIED_STEP):
            return None
        # An odd step avoids most periodic patterns in the order of rows.
        step -= 1 - step % 2
        passes = self.passes.every_nth(step)
        if passes is None:
            return None
        return self.over(passes, self.scale * step)

    def over(self, passes: Passes, scale: float) -> LinearObjective:
        """The objective over other rows, whose loss counts with another scale."""
        other = LinearObjective(passes, np.inf if not self.penalised else 1.0)
        other.scale, other.l1, other.ridge, other.linear = scale, self.l1, self.ridge, self.linear
        return other

    @property
    def suits_lbfgs(self) -> bool:
        """Whether L-BFGS is likely to converge sooner than Newton's method.

        It is where passes over X dominate the cost, a gradient costs no more than a product with the Hessian
        (for a softmax it costs more), and the preconditioner has the correlations of the columns.
        """
        passes = self.passes
        large = passes.n * passes.width * self.problems >= LARGE_X
        return passes.separable and large and not passes.sparse and passes.width <= WIDEST_GRAM

    def dual_ascent(self) -> DualAscent | None:
        """A `DualAscent`; None if it would not help or a preconditioner has the columns' correlations."""
        return DualAscent.of(self) if self.passes.width > WIDEST_GRAM else None

    def mini_batches(self, batch_size: int | None = None) -> MiniBatches:
        """Mini-batches with reduced variance; None chooses their size."""
        return MiniBatches(self, batch_size)

    def stream_batches(self, batch_size: int | None = None) -> StreamBatches:
        """Mini-batches of the latest rows of a stream; None chooses their size."""
        return StreamBatches(self, batch_size)

    def linearise(self, w: Array) -> tuple[Array, Array]:
        """Value and gradient at w, which becomes the point of `product` and `local_preconditioner`."""
        self._point, self._curved = w, None
        w_varying = self._without_constant_columns(self.coef(w))
        sums, gradient = self.passes.value_and_gradient(w_varying, keep_curvature=True)
        return self.with_penalty(w, sums, self._without_constant_columns(gradient))

    def product(self, direction: Array) -> Array:
        """The Hessian at the last linearised point times a direction; the next product overwrites it."""
        return self._product_over(self.passes, direction)

    def rough_product(self, direction: Array) -> Array:
        """As `product`, over the rows with nearly all of the curvature, perhaps in float32."""
        return self._product_over(self._over_curved_rows(), direction)

    def multiplier(self, *, rough: bool) -> Any:
        """What multiplies directions as `product` or `rough_product` does: compiled, if that can be."""
        passes = self._over_curved_rows() if rough else self.passes
        varying = self._varying_columns and self._varying_columns[0]
        compiled = passes.hessian_operator(self.scale, self.coef(self.ridge), varying)
        return compiled or (self.rough_product if rough else self.product)

    def _over_curved_rows(self) -> Passes:
        if self._curved is None:
            # Without a penalty, rounding may be all the curvature that there is along a direction.
            self._curved = self.passes.over_curved_rows() if self.penalised else self.passes
        return self._curved

    def _product_over(self, passes: Passes, direction: Array) -> Array:
        product = self._without_constant_columns(
            passes.product(self._without_constant_columns(self.coef(direction)))
        )
        product = self._reshape(product, self.shape)
        if not isinstance(direction, np.ndarray):
            product = product if self.scale == 1.0 else product * self.scale
            return product + self._device_ridge * direction if self.penalised else product
        if self.scale != 1.0:
            product *= self.scale
        if self.penalised:
            if self._penalty_product is None:
                self._penalty_product = np.empty(self.shape)
            product += np.multiply(self.ridge, direction, out=self._penalty_product)
        return product

    def subset_hessian(self, sets: list[NDArray[np.intp]], *, rough: bool = False) -> list[Floats]:
        """The Hessian at the last linearised point over some parameters: a symmetric matrix for each problem.

        ``sets`` has the indices of each problem's parameters in ascending order. As in `hessian`, a multiple
        of the outer product of a common shift of all outputs is added if it has no penalty. With ``rough``
        the terms that couple outputs are left out, at a fraction of the cost.
        """
        width = self.passes.width
        if self.passes.separable:
            columns = sets
        else:
            starts = np.searchsorted(sets[0], np.arange(1, self.passes.outputs) * width)
            columns = [part % width for part in np.split(sets[0], starts)]
        matrices = self.passes.hessian_block(columns, coupled=not (self.passes.separable or rough))
        for matrix, chosen, ridge in zip(matrices, sets, self.ridge, strict=True):
            if not np.isfinite(matrix).all():
                raise ValueError(TOO_LARGE)
            matrix *= self.scale
            np.einsum("ii->i", matrix)[:] += ridge[chosen]
        if self.passes.loss.shift_invariant and not rough:
            chosen, matrix = sets[0], matrices[0]
            free = chosen[(self.ridge[0, chosen] == 0.0) & (self.l1[0, chosen] == 0.0)] % width
            for column in np.unique(free):
                indices = np.flatnonzero(chosen % width == column)
                if len(indices) == self.passes.outputs:
                    matrix[np.ix_(indices, indices)] += matrix[indices, indices].mean()
        return matrices

    def column_models(self, sets: list[NDArray[np.intp]]) -> list[ColumnModel] | None:
        """The quadratic model at the last linearised point over some parameters of each problem.

        None if X is not a sparse matrix in main memory, or if coupled outputs are not those of a softmax.
        """
        passes = self.passes
        models = []
        for k, (chosen, ridge, shift) in enumerate(zip(sets, self.ridge, self.shifts(sets), strict=True)):
            found = passes.column_rows(k if passes.separable else None, self.scale)
            if found is None or not (passes.separable or passes.softmax):
                return None
            outputs, columns = np.divmod(chosen, passes.width)
            groups = NO_GROUPS if shift is None else shift[0]
            models.append(ColumnModel(*found, columns, outputs, ridge[chosen], groups))
        return models

    def shifts(self, sets: list[NDArray[np.intp]]) -> list[tuple[NDArray[np.intp], Floats] | None]:
        """The groups of penalised parameters that a column has in all outputs of a softmax.

        A common shift of such a group changes the penalty alone. For each set there are the groups, (groups,
        outputs), as positions in the set, and the second derivatives of the penalty; None if it has no group.
        """
        if not self.passes.loss.shift_invariant or self.linear is not None:
            return [None] * len(sets)
        K, width = self.passes.outputs, self.passes.width
        column = sets[0] % width
        order = np.argsort(column, kind="stable")
        whole = (np.bincount(column, minlength=width) == K) & (self.l1[0, :width] > 0)
        groups = order[whole[column[order]]].reshape(-1, K)
        return [(groups, self.ridge[0, sets[0]]) if len(groups) else None]

    def without_free_shift(self, w: Floats) -> Floats:
        """The parameters less their mean over coupled outputs if it has no penalty: the same model."""
        if not self.passes.loss.shift_invariant:
            return w
        coef, free = self.coef(w.copy()), (self.coef(self.ridge + self.l1) == 0).all(axis=0)
        coef[:, free] -= coef[:, free].mean(axis=0)
        return coef.reshape(w.shape)

    @functools.cached_property
    def unit_score_change(self) -> Floats:
        """The change of each parameter, (problems, size), that moves no row's score by more than 1."""
        largest = self.passes.column_maxima()
        change = np.divide(1.0, largest, out=np.full_like(largest, np.inf), where=largest > 0)
        return np.tile(change, self.passes.outputs).reshape(self.shape)

    @property
    def curvature_excess(self) -> float:
        """The largest curvature of a softmax, 1/4, relative to that at w = 0, (1 - 1/K) / K, less 1."""
        K = self.passes.outputs
        return self.passes.curvature_bound * K * K / (K - 1.0) - 1.0 if self.passes.softmax else 0.0

    def diagonal(self) -> Floats:
        """About the Hessian's diagonal at w = 0, (problems, size), which gives the scales of parameters."""
        diagonal = self.passes.curvature_bound * self.scale * self.passes.squared_columns
        if not np.isfinite(diagonal).all():
            raise ValueError(TOO_LARGE)
        diagonal = np.tile(diagonal, self.passes.outputs).reshape(self.shape) + self.ridge
        return np.where(diagonal > 0, diagonal, 1.0)

    def affords(self, sets: list[NDArray[np.intp]]) -> bool:
        """Whether a `subset_hessian` is likely to cost less than products with the Hessian."""
        sizes = np.array([len(chosen) for chosen in sets], dtype=float)
        numbers = (sizes**2).sum()
        if numbers > LARGEST_SUBSET**2:
            return False
        cheap = max(
            SUBSET_WORK / max(self.passes.n, 1), SUBSET_NUMBERS * self.passes.width * self.passes.outputs
        )
        return self.passes.sparse or numbers <= cheap

    def local_diagonal(self) -> Floats:
        """The Hessian's diagonal at the last linearised point, (problems, size), positive everywhere."""
        diagonal = self.scale * self.passes.hessian_diagonal().reshape(self.shape) + self.ridge
        return np.maximum(diagonal, 1e-6 * self.diagonal())

    def subset_preconditioner(self) -> Callable[[NDArray[np.bool_], Floats], Callable[[Floats], Floats]]:
        """A function that takes a mask of parameters and the Hessian's diagonal, and returns a solver.

        The solver uses an approximate Hessian over the parameters in the mask, with the given diagonal and,
        if X'WX is not too large, with its correlations within each output.
        """
        if self.passes.width > WIDEST_GRAM:
            return lambda mask, diagonal: lambda x: np.where(mask, x / diagonal, 0.0)
        gram = self.passes.gram()
        root = np.sqrt(np.where(gram.diagonal() > 0, gram.diagonal(), 1.0))
        gram = gram / root / root[:, None]
        gram += np.tril(gram, -1).T

        return lambda mask, diagonal: SubsetSolver(
            gram, self.coef(mask), np.sqrt(self.coef(diagonal)), self.small_ridge
        )

    def preconditioner(self, *, diagonal: bool = False) -> Preconditioner:
        """A solver with the matrix ``scale * curvature_bound * X'WX + penalty``, shared by all outputs.

        It takes one pass over X and one factorisation, and makes the convergence of a solver independent of
        the units of the features and of their correlation. The diagonal is used instead where the matrix
        would be too large, or if ``diagonal`` is set.
        """
        if self.passes.width <= WIDEST_GRAM and not diagonal:
            gram = self.passes.gram()
            matrix = memory.empty((1, *gram.shape))
            np.multiply(self.passes.curvature_bound * self.scale, gram, out=matrix[0])
            np.einsum("ii->i", matrix[0])[:] += self.ridge[0, : self.passes.width]
            return BlockSolver(matrix, self.small_ridge)
        return DiagonalSolver(self.diagonal()[0, : self.passes.width])

    def local_preconditioner(self, *, every_row: bool = False) -> Preconditioner | None:
        """As `preconditioner`, with the diagonal blocks of the Hessian at the last linearised point.

        Along a common shift of the outputs of a softmax the Hessian is the penalty alone, and the blocks are
        far from that, so a `ShiftSolver` treats the shift separately. Without a penalty it does not, since a
        block may become nearly singular, and its inverse would then affect all outputs. Only the diagonal is
        used where blocks would be too large. None if a factor for each output would cost more than it saves.

        The blocks are those of a sample, unless ``every_row`` is set: where few rows have nearly all of the
        curvature, a sample may miss them.
        """
        wide = self.passes.width > WIDEST_GRAM
        passes, step = (self.passes, 1) if every_row or wide else self._curvature_sample
        point = self._point if isinstance(self._point, np.ndarray) else self.vectors.get(self._point)
        solve: BlockSolver | DiagonalSolver
        if wide:
            diagonal = self.coef(self.local_diagonal())
            solve = DiagonalSolver(diagonal)
            diagonal = diagonal / self.scale
        elif passes.width <= WIDEST_BLOCKS:
            if passes is self.passes and not every_row:
                passes = self._over_curved_rows()
            blocks = passes.hessian(self.coef(point), coupled=False)[2]
            blocks *= step
            diagonal = np.einsum("bii->bi", blocks).copy()
            solve = self._block_solver(blocks)
        else:
            if not self._affords_factors:
                return None
            set_block = passes.output_hessians(self.coef(point))
            ridges = self.ridge.reshape(passes.outputs, passes.width)
            diagonal = np.empty(ridges.shape)

            def fill(k: int, block: NDArray[Any]) -> None:
                set_block(k, block, self.scale * step)
                diagonal[k] = block.diagonal() / self.scale
                np.einsum("ii->i", block)[:] += ridges[k].astype(block.dtype)

            # The matrix of the first steps is not needed any more.
            self.passes.release_gram()
            solve = PairedBlockSolver(
                ridges.shape, passes.dtype, self.small_ridge, fill=fill, n_threads=passes.n_threads
            )
        if not (self.passes.loss.shift_invariant and self.penalised):
            return solve
        ridge = self.ridge[0, : self.passes.width]
        # If the curvature is much larger than the penalty, a residual along the shift is rounding.
        significant = ridge > NEGLIGIBLE_RIDGE * self.scale * diagonal.sum(axis=0) / self.passes.outputs
        return ShiftSolver(solve, self.passes.outputs, np.where(significant, ridge, 0.0))

    def preconditioner_at(self, w: Floats) -> Preconditioner | None:
        """As `local_preconditioner` at any point, for any loss, with a positive substitute for the Hessian.

        None if the substitute has no Cholesky factor, or if it would cost more than it saves.
        """
        if self.passes.width > WIDEST_BLOCKS:
            return None
        gradient, blocks = self.passes.positive_blocks(self.coef(w))
        try:
            solve = self._block_solver(blocks)
        except ValueError:
            return None
        total, size = np.abs(gradient.sum(axis=0)), np.abs(gradient).sum(axis=0)
        if self.passes.separable or (total > 1e-9 * size).any():
            return solve
        return ShiftSolver(solve, self.passes.outputs, self.ridge[0, : self.passes.width])

    def _block_solver(self, blocks: Floats) -> BlockSolver:
        """A solver with the diagonal blocks of the objective's Hessian, given those of the loss sums."""
        blocks *= self.scale
        np.einsum("bii->bi", blocks)[:] += self.ridge.reshape(self.passes.outputs, self.passes.width)
        return BlockSolver(blocks, self.small_ridge)

    @property
    def local_cost(self) -> float:
        """The cost of `preconditioner_at`, in gradients."""
        return max(8, self.passes.width // 4)

    @property
    def block_cost(self) -> float:
        """The cost of `local_preconditioner`, in products with the Hessian; infinite if there is none."""
        if self.passes.width > WIDEST_GRAM:
            return DIAGONAL_COST
        if self.passes.width > WIDEST_BLOCKS and not self._affords_factors:
            return np.inf
        # A number of a block costs less than one of a product, and the factors cost about two products.
        rows = self._curvature_sample[0].n
        return 2.0 + self.passes.width * rows / self.passes.n / PRODUCT_WORK

    @property
    def _affords_factors(self) -> bool:
        """Whether a wide Hessian may have a matrix in X's dtype for each output."""
        passes = self.passes
        return passes.has_output_hessians and passes.outputs * passes.width <= BLOCKS_SHARE * passes.n

    @functools.cached_property
    def _curvature_sample(self) -> tuple[Passes, int]:
        """Passes over the rows that a local preconditioner is made from, every how many they are."""
        passes = self.passes
        rows = BLOCK_PRODUCTS * PRODUCT_WORK * passes.n // max(passes.width, 1)
        rows = min(max(rows, LEAST_BLOCK_ROWS * passes.width), MOST_BLOCK_ROWS * passes.width)
        step = passes.n // max(rows, 1)
        if not self.penalised or step < (3 if passes.samples_are_views else LEAST_COPIED_STEP):
            step = 1
        step -= 1 - step % 2
        sample = passes.every_nth(step) if step > 1 else None
        return (passes, 1) if sample is None else (sample, step)

    def with_penalty(self, w: Array, sums: Array, gradient: Array) -> tuple[Array, Array]:
        """Value and gradient of the objective from those of the loss sums, which may be overwritten."""
        gradient = self._reshape(gradient, self.shape)
        if self.scale != 1.0:
            sums = self.scale * sums
            gradient *= self.scale
        if self.linear is not None:
            sums, gradient = sums + np.einsum("bi,bi->b", self.linear, w), gradient + self.linear
        if not self.penalised:
            return sums, gradient
        on_host = isinstance(w, np.ndarray)
        penalty_gradient = (self.ridge if on_host else self._device_ridge) * w
        gradient += penalty_gradient
        value = sums + 0.5 * (NUMPY if on_host else self.vectors).dot(penalty_gradient, w)
        return value, gradient
