"""The objective of the linear estimators."""

import functools

import numpy as np

from sklloss.arrays.vectors import NUMPY, ArrayVectors
from sklloss.objectives.linear_dual import DualAscent
from sklloss.objectives.linear_stochastic import MiniBatches, StreamBatches
from sklloss.objectives.preconditioners import (
    TOO_LARGE,
    WIDEST_BLOCKS,
    BlockSolver,
    DiagonalSolver,
    ShiftSolver,
    SubsetSolver,
)

# Up to this many columns a preconditioner may hold X'WX and its Cholesky factor.
WIDEST_GRAM = 2048
# A sample of the rows is sized as for a problem of this many parameters at least.
LEAST_PARAMETERS = 32
# Multiplications of a Hessian, from which on another gradient is tried first.
COSTLY = 1 << 23
# Numbers in X times problems, from which on the passes over X dominate the cost.
LARGE = 1 << 21
# Up to this many parameters a Hessian over a subset of them is built. With a dense X its numbers must also be
# no more than this many for each coefficient, as a product with the Hessian costs a few of them, or it must
# be done after this many multiplications.
LARGEST_SUBSET = 3072
SUBSET_WORK = 200
SUBSET_SMALL = 4e9
# Up to this share of the curvature, a penalty does not hold a shift of all outputs.
FAINT = 1e-10


class LinearObjective:
    """C * sum_i w_i loss_i(x_i . coef + intercept) + 0.5 ||coef||**2, the intercept unpenalised.

    With ``l1_ratio`` r the penalty is r ||coef||_1 + (1 - r) / 2 ||coef||**2. Of that the values and
    derivatives here have the smooth part alone; the weights of the absolute values are ``l1``, for a solver
    that takes them.

    Parameters form an array of shape (problems, size). Outputs of a separable loss do not share
    parameters: each is a problem of its own (size = width), and all are minimised side by side with one
    pass over X. Outputs of a softmax are coupled: one problem (size = outputs * width). Within a
    problem the parameters of an output follow each other, its intercept last.

    Parameters
    ----------
    rows : Passes
        X, targets, weights and the loss, bound to a backend.
    C : float
        Inverse strength of the penalty; ``inf`` for none.
    l1_ratio : float
        In [0, 1].

    Attributes
    ----------
    l1 : ndarray of shape (problems, size)
        What the absolute value of each parameter costs.
    vectors : NumPyVectors or ArrayVectors
        What a solver holds parameters and gradients in. Where X lives elsewhere than in main memory,
        `value_and_gradient`, `linearise` and `product` answer arrays there by arrays there, without a wait,
        and NumPy's by NumPy's.
    """

    def __init__(self, rows, C, l1_ratio=0.0):
        self.rows = rows
        device = rows.device
        # The history of L-BFGS needs float64: on devices without it, parameters stay in main memory.
        on_device = device is not None and device.wide == np.float64
        self.vectors = ArrayVectors(device) if on_device else NUMPY
        self.penalised = np.isfinite(C)
        self.scale = float(C) if self.penalised else 1.0
        self.problems = rows.outputs if rows.separable else 1
        self.size = rows.width if rows.separable else rows.outputs * rows.width
        self.shape = (self.problems, self.size)
        self._point = None
        self._penalty_product = None
        # what rounding may add to a value, relatively: raw scores have X's precision
        self.noise = 4 * float(np.finfo(rows.dtype).eps)
        # What makes a singular preconditioner harmless. Below the rounding of a gradient it would blow that
        # rounding up, along directions in which the objective does not change at all.
        self.small_ridge = max(1e-10, 1000 * float(np.finfo(rows.dtype).eps))
        # The square of a relative residual at which a linear system holds nothing but rounding.
        self.residual_floor = self.noise**2 / self.small_ridge
        # Whether `value_and_gradient` is as precise as `hessian`, which computes in float64.
        self.exact_gradient = rows.dtype == np.float64
        # Whether a Hessian costs much more than a gradient, and both more than what is around them.
        self.costly_hessian = rows.n * rows.width * self.size * self.problems > COSTLY and self.size >= 8
        # 1 where the penalty acts: on coefficients, not on the intercept
        ridge = np.full((rows.outputs, rows.width), float(self.penalised))
        if rows.fit_intercept:
            ridge[:, -1] = 0.0
        self.l1 = l1_ratio * ridge.reshape(self.shape)
        self.ridge = (1.0 - l1_ratio) * ridge.reshape(self.shape)

    def coef(self, w):
        """The parameters as (outputs, width)."""
        return self._shaped(w, (self.rows.outputs, self.rows.width))

    def _shaped(self, array, shape):
        if isinstance(array, np.ndarray):
            return array.reshape(shape)
        return self.vectors.xp.reshape(array, shape)

    @functools.cached_property
    def _varying_columns(self):
        """0 for columns that are constant in X and 0 less its center, else 1, (width,); None without any.

        Far from 0 these are the difference of large numbers, of which nothing but rounding is left.
        """
        flat = self.rows.constant_columns()
        if not flat.size:
            return None
        varying = np.ones(self.rows.width)
        varying[flat] = 0.0
        return varying, None if self.vectors is NUMPY else self.vectors.put(varying)

    def _without_constant_columns(self, array):
        """Parameters or derivatives (outputs, width) without those that cannot matter."""
        varying = self._varying_columns
        return array if varying is None else array * varying[not isinstance(array, np.ndarray)]

    @functools.cached_property
    def _ridge_on_device(self):
        return self.vectors.put(self.ridge)

    def value_and_gradient(self, w):
        """Objective of each problem, (problems,), and its gradient, (problems, size)."""
        sums, gradient = self.rows.value_and_gradient(self._without_constant_columns(self.coef(w)))
        return self.with_penalty(w, sums, self._without_constant_columns(gradient))

    def precise_gradient(self, w):
        """As `value_and_gradient`, as precise as `hessian`: computed in float64 whatever X's dtype."""
        if self.exact_gradient:
            return self.value_and_gradient(w)
        sums, gradient = self.rows.precise_gradient(self.coef(w))
        return self.with_penalty(w, sums, gradient)

    def null_value(self, *, exact=False):
        """The value of each problem at w = 0: the scale by which an objective may be called vanished.

        Of many rows it is an estimate, unless an ``exact`` one is asked for.
        """
        return self.scale * self.rows.null_sums(exact=exact)

    def without_shift(self, w):
        """The parameters, or a direction, less what they have in common over the outputs of a softmax.

        A softmax does not change when all its outputs shift alike, and a penalty holds that shift at 0. Next
        to a Hessian that is large it does so too weakly for a solver to tell a shift from rounding: what
        one fit leaves of it, fits that start from each other would add up.
        """
        loss = self.rows.loss
        # Where a loss is not convex, another start may lead to another minimum.
        if not (self.penalised and loss.shift_invariant and loss.convex):
            return w
        coef = self.coef(w)
        return (coef - coef.mean(axis=0)).reshape(w.shape)

    def value_and_gradient_from(self, other, w, value, gradient):
        """Value and gradient at w from those of an objective with another penalty, without a pass over X."""
        penalty_gradient = other.ridge * w
        ratio = self.scale / other.scale
        value = ratio * (value - 0.5 * np.einsum("bi,bi->b", penalty_gradient, w))
        gradient = ratio * (gradient - penalty_gradient)
        penalty_gradient = self.ridge * w
        return value + 0.5 * np.einsum("bi,bi->b", penalty_gradient, w), gradient + penalty_gradient

    def hessian_from(self, other, hessian):
        """The Hessian from that of an objective with another penalty; both penalise, or neither does."""
        hessian = hessian * (self.scale / other.scale)
        diagonal = np.einsum("bii->bi", hessian)
        diagonal += self.ridge - other.ridge * (self.scale / other.scale)
        return hessian

    def hessian(self, w):
        """Value, gradient and Hessian (problems, size, size), of which lower triangles are filled.

        A softmax does not change when all its outputs shift alike. Where no penalty holds the shift,
        the Hessian is singular along it; a multiple of its square is added there. The gradient has
        no part along the shift, so Newton's step stays what it was. For few rows the kernel ``_newton``
        states the same, as `subset_hessian` does over a subset.
        """
        sums, gradient, hessian = self.rows.hessian(self.coef(w))
        value, gradient = self.with_penalty(w, sums, gradient)
        if not np.isfinite(hessian).all():
            raise ValueError(TOO_LARGE)
        hessian *= self.scale
        diagonal = np.einsum("bii->bi", hessian)
        if self.rows.loss.shift_invariant:
            K, width = self.rows.outputs, self.rows.width
            free = np.flatnonzero(self.ridge[0, :width] == 0.0)
            if free.size:
                typical = diagonal.reshape(K, width)[:, free].mean(axis=0)
                at = np.arange(K)[:, None] * width + free
                # the upper triangle is not looked at
                hessian[0, at[:, None], at[None]] += typical
        diagonal += self.ridge
        return value, gradient, hessian

    def newton_steps(self, w, curve, *rule):
        """Plain Newton steps of a single problem, w of shape (1, size), which change it, all at once.

        See `sklloss.kernels.linear.small_newton.steps`. None where the problem is too large to gain by that.
        """
        if self.problems > 1:
            return None
        return self.rows.newton_steps(self.scale, self.ridge[0], w[0], curve, *rule)

    def subsample(self, each):
        """The same objective over few of many rows, weighted up to stand for all; None if rows are few.

        ``each`` is the number of rows for each parameter.
        """
        step = self.rows.n // (each * max(LEAST_PARAMETERS, self.size))
        if step < 3:
            return None
        # Odd steps keep out of the way of most patterns in the order of rows.
        step -= 1 - step % 2
        rows = self.rows.every_nth(step)
        if rows is None:
            return None
        small = LinearObjective(rows, np.inf if not self.penalised else 1.0)
        small.scale = self.scale * step
        return small

    @property
    def suits_lbfgs(self):
        """Whether a few steps of L-BFGS may well lead to the end sooner than Newton's method.

        They do where passes over X are what costs, where one for the gradient costs no more than a product
        with the Hessian (for a softmax it does), and where the preconditioner knows how columns correlate.
        """
        rows = self.rows
        large = rows.n * rows.width * self.problems >= LARGE
        return rows.separable and large and not rows.sparse and rows.width <= WIDEST_GRAM

    def dual_ascent(self):
        """A `DualAscent`; None where it does not serve, or a preconditioner knows how columns correlate."""
        return DualAscent.of(self) if self.rows.width > WIDEST_GRAM else None

    def mini_batches(self, batch_size=None):
        """Mini-batches with reduced variance; None chooses their size."""
        return MiniBatches(self, batch_size)

    def stream_batches(self, batch_size=None):
        """Mini-batches of rows that are the latest of a stream; None chooses their size."""
        return StreamBatches(self, batch_size)

    def linearise(self, w):
        """Value and gradient at w, which becomes the point of `product` and `local_preconditioner`."""
        sums, gradient = self.rows.value_and_gradient(
            self._without_constant_columns(self.coef(w)), keep_curvature=True
        )
        self._point = w
        return self.with_penalty(w, sums, self._without_constant_columns(gradient))

    def product(self, direction):
        """The Hessian at the last linearised point times a direction, of the parameters' shape.

        The next product is written over it.
        """
        product = self._without_constant_columns(
            self.rows.product(self._without_constant_columns(self.coef(direction)))
        )
        product = self._shaped(product, self.shape)
        if not isinstance(direction, np.ndarray):
            product = product if self.scale == 1.0 else product * self.scale
            return product + self._ridge_on_device * direction if self.penalised else product
        if self.scale != 1.0:
            product *= self.scale
        if self.penalised:
            if self._penalty_product is None:
                self._penalty_product = np.empty(self.shape)
            product += np.multiply(self.ridge, direction, out=self._penalty_product)
        return product

    def subset_hessian(self, sets, *, rough=False):
        """The Hessian at the last linearised point over some parameters: a symmetric matrix for each problem.

        ``sets`` holds the ascending parameters of each problem. As in `hessian`, coupled outputs that may
        shift alike at no cost, which no penalty holds, are held by a multiple of that shift's square.
        A ``rough`` one leaves out what couples the outputs, for a fraction of the price.
        """
        width = self.rows.width
        if self.rows.separable:
            columns = sets
        else:
            cuts = np.searchsorted(sets[0], np.arange(1, self.rows.outputs) * width)
            columns = [part % width for part in np.split(sets[0], cuts)]
        matrices = self.rows.hessian_block(columns, coupled=not (self.rows.separable or rough))
        for matrix, chosen, ridge in zip(matrices, sets, self.ridge, strict=True):
            if not np.isfinite(matrix).all():
                raise ValueError(TOO_LARGE)
            matrix *= self.scale
            np.einsum("ii->i", matrix)[:] += ridge[chosen]
        if self.rows.loss.shift_invariant and not rough:
            chosen, matrix = sets[0], matrices[0]
            free = chosen[(self.ridge[0, chosen] == 0.0) & (self.l1[0, chosen] == 0.0)] % width
            for column in np.unique(free):
                alike = np.flatnonzero(chosen % width == column)
                if len(alike) == self.rows.outputs:
                    matrix[np.ix_(alike, alike)] += matrix[alike, alike].mean()
        return matrices

    def without_free_shift(self, w):
        """The same model, in coupled outputs without the common shift of parameters that nothing holds."""
        if not self.rows.loss.shift_invariant:
            return w
        coef, free = self.coef(w.copy()), (self.coef(self.ridge + self.l1) == 0).all(axis=0)
        coef[:, free] -= coef[:, free].mean(axis=0)
        return coef.reshape(w.shape)

    @functools.cached_property
    def unit_score_change(self):
        """The change of each parameter, (problems, size), that moves no row's score by more than 1."""
        largest = self.rows.column_maxima()
        change = np.divide(1.0, largest, out=np.full_like(largest, np.inf), where=largest > 0)
        return np.tile(change, self.rows.outputs).reshape(self.shape)

    @property
    def curvature_excess(self):
        """How much larger the curvature of a softmax may be than at w = 0, 1/4 to (1 - 1/K) / K, less 1."""
        K = self.rows.outputs
        return self.rows.curvature_bound * K * K / (K - 1.0) - 1.0 if self.rows.softmax else 0.0

    def diagonal(self):
        """The Hessian's diagonal as it is at w = 0, roughly, (problems, size): the scales of parameters."""
        diagonal = self.rows.curvature_bound * self.scale * self.rows.squared_columns()
        if not np.isfinite(diagonal).all():
            raise ValueError(TOO_LARGE)
        diagonal = np.tile(diagonal, self.rows.outputs).reshape(self.shape) + self.ridge
        return np.where(diagonal > 0, diagonal, 1.0)

    def affords(self, sets):
        """Whether a `subset_hessian` is worth its price, against products with the Hessian."""
        sizes = np.array([len(chosen) for chosen in sets], dtype=float)
        numbers = (sizes**2).sum()
        if numbers > LARGEST_SUBSET**2:
            return False
        cheap = max(SUBSET_SMALL / max(self.rows.n, 1), SUBSET_WORK * self.rows.width * self.rows.outputs)
        return self.rows.sparse or numbers <= cheap

    def local_diagonal(self):
        """The Hessian's diagonal at the last linearised point, (problems, size), positive everywhere."""
        diagonal = self.scale * self.rows.hessian_diagonal().reshape(self.shape) + self.ridge
        return np.maximum(diagonal, 1e-6 * self.diagonal())

    def subset_preconditioner(self):
        """A function of a mask of parameters and of the Hessian's diagonal, which returns a function.

        That one solves with an approximate Hessian over the parameters in the mask. The diagonal is as given,
        the correlations are those of X'WX, output by output, where it is not too large.
        """
        if self.rows.width > WIDEST_GRAM:
            return lambda mask, diagonal: lambda x: np.where(mask, x / diagonal, 0.0)
        gram = self.rows.gram()
        root = np.sqrt(np.where(gram.diagonal() > 0, gram.diagonal(), 1.0))
        gram = gram / root / root[:, None]
        gram += np.tril(gram, -1).T

        def at(mask, diagonal):
            return SubsetSolver(gram, self.coef(mask), np.sqrt(self.coef(diagonal)), self.small_ridge)

        return at

    def preconditioner(self, *, diagonal=False):
        """A function that solves with an approximate Hessian, for arrays of the parameters' shape.

        It is ``scale * curvature_bound * X'WX + penalty``, shared by all outputs: for one pass over X and
        one factor, a solver becomes indifferent to the units of the features and to their correlation. Where
        the matrix would be too large, or on request, its diagonal stands in.
        """
        if self.rows.width <= WIDEST_GRAM and not diagonal:
            matrix = self.rows.curvature_bound * self.scale * self.rows.gram()
            np.einsum("ii->i", matrix)[:] += self.ridge[0, : self.rows.width]
            return BlockSolver(matrix[None], self.small_ridge)
        diagonal = self.rows.curvature_bound * self.scale * self.rows.squared_columns()
        diagonal += self.ridge[0, : self.rows.width]
        diagonal[diagonal == 0.0] = 1.0
        if not np.isfinite(diagonal).all():
            raise ValueError(TOO_LARGE)
        return DiagonalSolver(diagonal)

    def local_preconditioner(self):
        """As `preconditioner`, from the Hessian's own diagonal blocks at the last linearised point.

        The outputs of a softmax may all shift alike: along that shift the Hessian is the penalty, of which
        the blocks know nothing. They are kept out of its way, but not where no penalty keeps a block from
        fading away: its inverse would be felt in all. None where a factor for each output would cost more
        than it saves.
        """
        if self.rows.width > WIDEST_BLOCKS:
            return None
        point = self._point if isinstance(self._point, np.ndarray) else self.vectors.get(self._point)
        _, _, blocks = self.rows.hessian(self.coef(point), coupled=False)
        blocks *= self.scale
        np.einsum("bii->bi", blocks)[:] += self.ridge.reshape(self.rows.outputs, self.rows.width)
        solve = BlockSolver(blocks, self.small_ridge)
        if not (self.rows.loss.shift_invariant and self.penalised):
            return solve
        ridge = self.ridge[0, : self.rows.width]
        # Next to a curvature that is much larger, what a residual has along the shift is rounding.
        held = ridge > FAINT * np.einsum("bii->i", blocks) / self.rows.outputs
        return ShiftSolver(solve, self.rows.outputs, np.where(held, ridge, 0.0))

    def preconditioner_at(self, w):
        """As `local_preconditioner` at any point and for any loss, from a positive stand-in for the Hessian.

        Coupled outputs that may all shift alike, as a softmax's, keep out of each other's way: along the
        common shift the Hessian is the penalty, and the blocks know nothing of that. None where it cannot
        be had, or at a price.
        """
        if self.rows.width > WIDEST_BLOCKS:
            return None  # it would cost more than it saves
        gradient, blocks = self.rows.positive_blocks(self.coef(w))
        blocks *= self.scale
        np.einsum("bii->bi", blocks)[:] += self.ridge.reshape(self.rows.outputs, self.rows.width)
        try:
            solve = BlockSolver(blocks, self.small_ridge)
        except ValueError:
            return None
        total, size = np.abs(gradient.sum(axis=0)), np.abs(gradient).sum(axis=0)
        if self.rows.separable or (total > 1e-9 * size).any():
            return solve
        return ShiftSolver(solve, self.rows.outputs, self.ridge[0, : self.rows.width])

    @property
    def local_cost(self):
        """What `local_preconditioner` costs, in products with the Hessian."""
        return max(8, self.rows.width // 4)

    def with_penalty(self, w, sums, gradient):
        """Value and gradient of the objective from those of the loss sums, which may be overwritten."""
        if not isinstance(w, np.ndarray):
            return self._with_penalty_on_device(w, sums, gradient)
        gradient = gradient.reshape(self.shape)
        gradient *= self.scale
        value = self.scale * sums
        if self.penalised:
            penalty_gradient = self.ridge * w
            value = value + 0.5 * np.einsum("bi,bi->b", penalty_gradient, w)
            gradient += penalty_gradient
        return value, gradient

    def _with_penalty_on_device(self, w, sums, gradient):
        gradient = self._shaped(gradient, self.shape)
        if self.scale != 1.0:
            sums, gradient = self.scale * sums, self.scale * gradient
        if not self.penalised:
            return sums, gradient
        penalty_gradient = self._ridge_on_device * w
        return sums + 0.5 * self.vectors.dot(penalty_gradient, w), gradient + penalty_gradient
