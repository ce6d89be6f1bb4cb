"""The objective of the linear estimators."""

import numpy as np
from scipy.linalg import lapack

# Up to this many columns a preconditioner may hold X'WX and its Cholesky factor.
WIDEST_GRAM = 2048
TOO_LARGE = "X has values too large or too small to multiply: rescale its columns"
# Up to this many columns it is worth having one such factor for each output, made anew at each point.
WIDEST_BLOCKS = 256


class LinearObjective:
    """C * sum_i w_i loss_i(x_i . coef + intercept) + 0.5 ||coef||**2, the intercept unpenalised.

    Parameters form an array of shape (problems, size). Outputs of a separable loss do not share
    parameters: each is a problem of its own (size = width), and all are minimised side by side with one
    pass over X. Outputs of a softmax are coupled: one problem (size = outputs * width). Within a
    problem the parameters of an output follow each other, its intercept last.

    Parameters
    ----------
    rows : Rows
        X, targets, weights and the loss, bound to a backend.
    C : float
        Inverse strength of the penalty; ``inf`` for none.
    """

    def __init__(self, rows, C):
        self.rows = rows
        self.penalised = np.isfinite(C)
        self.scale = float(C) if self.penalised else 1.0
        self.problems = rows.outputs if rows.separable else 1
        self.size = rows.width if rows.separable else rows.outputs * rows.width
        self.shape = (self.problems, self.size)
        self._point = None
        # what rounding may add to a value, relatively: raw scores have X's precision
        self.noise = 4 * float(np.finfo(rows.dtype).eps)
        # What makes a singular preconditioner harmless. Below the rounding of a gradient it would blow that
        # rounding up, along directions in which the objective does not change at all.
        self._small_ridge = max(1e-10, 1000 * float(np.finfo(rows.dtype).eps))
        # The square of a relative residual at which a linear system holds nothing but rounding.
        self.residual_floor = self.noise**2 / self._small_ridge
        # Whether `value_and_gradient` is as precise as `hessian`, which computes in float64.
        self.exact_gradient = rows.dtype == np.float64
        # 1 where the penalty acts: on coefficients, not on the intercept
        ridge = np.full((rows.outputs, rows.width), float(self.penalised))
        if rows.fit_intercept:
            ridge[:, -1] = 0.0
        self._ridge = ridge.reshape(self.shape)

    def coef(self, w):
        """The parameters as (outputs, width)."""
        return w.reshape(self.rows.outputs, self.rows.width)

    def value_and_gradient(self, w):
        """Objective of each problem, (problems,), and its gradient, (problems, size)."""
        sums, gradient = self.rows.value_and_gradient(self.coef(w))
        return self._with_penalty(w, sums, gradient)

    def null_value(self):
        """The value of each problem at w = 0: the scale by which an objective may be called vanished."""
        return self.value_and_gradient(np.zeros(self.shape))[0]

    def hessian(self, w):
        """Value, gradient and Hessian (problems, size, size), of which lower triangles are filled.

        A softmax does not change when all its outputs shift alike. Where no penalty holds the shift,
        the Hessian is singular along it; a multiple of its square is added there. The gradient has
        no part along the shift, so Newton's step stays what it was.
        """
        sums, gradient, hessian = self.rows.hessian(self.coef(w))
        value, gradient = self._with_penalty(w, sums, gradient)
        if not np.isfinite(hessian).all():
            raise ValueError(TOO_LARGE)
        hessian *= self.scale
        diagonal = np.einsum("bii->bi", hessian)
        if not self.rows.separable:
            K, width = self.rows.outputs, self.rows.width
            free = np.flatnonzero(self._ridge[0, :width] == 0.0)
            if free.size:
                blocks = hessian.reshape(K, width, K, width)
                typical = diagonal.reshape(K, width)[:, free].mean(axis=0)
                for row in range(K):
                    for column in range(row + 1):
                        blocks[row, free, column, free] += typical
        diagonal += self._ridge
        return value, gradient, hessian

    def linearise(self, w):
        """Value and gradient at w, which becomes the point of `product` and `local_preconditioner`."""
        sums, gradient = self.rows.value_and_gradient(self.coef(w), keep_curvature=True)
        self._point = w
        return self._with_penalty(w, sums, gradient)

    def product(self, direction):
        """The Hessian at the last linearised point times a direction, of the parameters' shape."""
        product = self.rows.product(self.coef(direction)).reshape(self.shape)
        product *= self.scale
        if self.penalised:
            product += self._ridge * direction
        return product

    def preconditioner(self, *, diagonal=False):
        """A function that solves with an approximate Hessian, for arrays of the parameters' shape.

        It is the curvature at w = 0, scale/4 * X'WX + penalty, shared by all outputs: for one pass over
        X and one factor, a solver becomes indifferent to the units of the features and to their
        correlation. Where the matrix would be too large, or on request, its diagonal stands in.
        """
        if self.rows.width <= WIDEST_GRAM and not diagonal:
            matrix = 0.25 * self.scale * self.rows.gram()
            np.einsum("ii->i", matrix)[:] += self._ridge[0, : self.rows.width]
            return _BlockSolver(matrix[None], self._small_ridge)
        diagonal = 0.25 * self.scale * self.rows.squared_columns()
        diagonal += self._ridge[0, : self.rows.width]
        diagonal[diagonal == 0.0] = 1.0
        if not np.isfinite(diagonal).all():
            raise ValueError(TOO_LARGE)
        return _DiagonalSolver(diagonal)

    def local_preconditioner(self):
        """As `preconditioner`, from the Hessian's own diagonal blocks at the last linearised point.

        None where a factor for each output would cost more than it saves.
        """
        if self.rows.width > WIDEST_BLOCKS:
            return None
        _, _, blocks = self.rows.hessian(self.coef(self._point), coupled=False)
        blocks *= self.scale
        np.einsum("bii->bi", blocks)[:] += self._ridge.reshape(self.rows.outputs, self.rows.width)
        return _BlockSolver(blocks, self._small_ridge)

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
        np.einsum("bii->bi", blocks)[:] += self._ridge.reshape(self.rows.outputs, self.rows.width)
        try:
            solve = _BlockSolver(blocks, self._small_ridge)
        except ValueError:
            return None
        total, size = np.abs(gradient.sum(axis=0)), np.abs(gradient).sum(axis=0)
        if self.rows.separable or (total > 1e-9 * size).any():
            return solve
        return _ShiftSolver(solve, self.rows.outputs, self._ridge[0, : self.rows.width])

    @property
    def local_cost(self):
        """What `local_preconditioner` costs, in products with the Hessian."""
        return max(8, self.rows.width // 4)

    def _with_penalty(self, w, sums, gradient):
        gradient = gradient.reshape(self.shape)
        gradient *= self.scale
        value = self.scale * sums
        if self.penalised:
            pull = self._ridge * w
            value = value + 0.5 * np.einsum("bi,bi->b", pull, w)
            gradient += pull
        return value, gradient


def coordinates_of(curvature, objective):
    """The coordinates of a matrix for each output (lower triangles), or of one diagonal."""
    if curvature.ndim == 3:
        return _BlockSolver(curvature, objective._small_ridge).coordinates()
    if not np.isfinite(curvature).all():
        raise ValueError(TOO_LARGE)
    return _DiagonalSolver(np.where(curvature > 0, curvature, 1.0)).coordinates()


class _BlockSolver:
    """Solves with a symmetric positive matrix for each output, given by their lower triangles.

    A factor is of the matrix scaled to a unit diagonal, with a small ridge that makes constant and
    duplicated columns harmless.
    """

    def __init__(self, blocks, ridge):
        self._factors = []
        for block in blocks:
            diagonal = np.diagonal(block)
            if not np.isfinite(diagonal).all():
                raise ValueError(TOO_LARGE)
            root = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
            block = block / root / root[:, None]
            np.einsum("ii->i", block)[:] = 1.0 + ridge
            factor, failed = lapack.dpotrf(block.T, lower=0, clean=0)
            if failed:
                raise ValueError(TOO_LARGE)
            self._factors.append((factor, root))

    def coordinates(self):
        """Upper triangular U, (blocks, width, width) in BLAS's order, and units of M = units U' U units."""
        factors, units = zip(*self._factors)
        return np.stack([factor.T for factor in factors]), np.stack(units)

    def __call__(self, x):
        rows = x.reshape(-1, len(self._factors[0][1]))
        if len(self._factors) == 1:
            factor, root = self._factors[0]
            solution, _ = lapack.dpotrs(factor, (rows / root).T, lower=0)
            return (solution.T / root).reshape(x.shape)
        solution = np.empty_like(rows)
        for k, (factor, root) in enumerate(self._factors):
            solution[k] = lapack.dpotrs(factor, rows[k] / root, lower=0)[0] / root
        return solution.reshape(x.shape)


class _ShiftSolver:
    """The same across the common shift of all outputs, and the penalty alone along it."""

    def __init__(self, solve, outputs, ridge):
        self._solve, self._outputs, self._ridge = solve, outputs, ridge
        self.coordinates = solve.coordinates

    def __call__(self, x):
        rows = x.reshape(self._outputs, -1)
        shift = rows.mean(axis=0)
        solution = self._solve(rows - shift)
        return (solution - solution.mean(axis=0) + self._ridge * shift).reshape(x.shape)


class _DiagonalSolver:
    """The same with the diagonal alone, where the Gram matrix would be too large."""

    def __init__(self, diagonal):
        self._diagonal = diagonal

    def coordinates(self):
        """As `_BlockSolver.coordinates`, without U."""
        return None, np.sqrt(self._diagonal)[None]

    def __call__(self, x):
        return (x.reshape(-1, len(self._diagonal)) / self._diagonal).reshape(x.shape)
