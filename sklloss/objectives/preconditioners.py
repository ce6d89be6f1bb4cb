"""Solvers with approximate Hessians, by which units and correlation of columns cease to matter."""

import numpy as np
from scipy.linalg import lapack

from sklloss.kernels.solve import conjugate_gradients

TOO_LARGE = "X has values too large or too small to multiply: rescale its columns"
# Up to this many columns a preconditioner may be a block for each output, rebuilt at each point.
WIDEST_BLOCKS = 256


class BlockSolver:
    """Solves with a symmetric positive matrix for each output, given by their lower triangles.

    A factor is of the matrix scaled to a unit diagonal, with a small ridge that makes constant and
    duplicated columns harmless.
    """

    def __init__(self, blocks, ridge):
        self._factors, self._units = np.empty(blocks.shape), np.empty(blocks.shape[:2])
        for k, block in enumerate(blocks):
            diagonal = np.diagonal(block)
            if not np.isfinite(diagonal).all():
                raise ValueError(TOO_LARGE)
            root = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
            block = block / root / root[:, None]
            np.einsum("ii->i", block)[:] = 1.0 + ridge
            factor, failed = lapack.dpotrf(block.T, lower=0, clean=0)
            if failed:
                raise ValueError(TOO_LARGE)
            self._factors[k], self._units[k] = factor.T, root

    def to_device(self, vectors):
        """The same for the vectors of another device, by explicit inverses made here.

        They are products of a triangular matrix with its transpose: rounding leaves them positive.
        """
        inverses = np.empty(self._factors.shape)
        for k, (factor, units) in enumerate(zip(self._factors, self._units, strict=True)):
            root, _ = lapack.dtrtri(factor.T, lower=0)
            upper = np.triu(lapack.dlauum(root, lower=0)[0])
            inverses[k] = (upper + np.triu(upper, 1).T) / units / units[:, None]
        return DeviceInverse(vectors, inverses)

    def coordinates(self):
        """Upper triangular U, (blocks, width, width) in BLAS's order, and units of M = units U' U units."""
        return self._factors, self._units

    def __call__(self, x):
        """The solution for the right-hand side x."""
        rows = x.reshape(-1, self._units.shape[1])
        if len(self._units) == 1:
            root = self._units[0]
            solution, _ = lapack.dpotrs(self._factors[0].T, (rows / root).T, lower=0)
            return (solution.T / root).reshape(x.shape)
        return conjugate_gradients.solve_blocks(self._factors, self._units, rows).reshape(x.shape)


class SubsetSolver:
    """Solves over a mask, output by output, with a matrix of correlations and the roots of a diagonal."""

    def __init__(self, correlations, mask, roots, ridge):
        self._parts, self._shape = [], mask.shape
        for k, row in enumerate(mask):
            inside = np.flatnonzero(row)
            if inside.size:
                solve = BlockSolver(correlations[np.ix_(inside, inside)][None], ridge)
                self._parts.append((k, inside, roots[k, inside], solve))

    def __call__(self, x):
        """The solution for the right-hand side x."""
        rows = x.reshape(self._shape)
        solution = np.zeros_like(rows)
        for k, inside, root, solve in self._parts:
            solution[k, inside] = solve(rows[k, inside] / root) / root
        return solution.reshape(x.shape)


class ShiftSolver:
    """Solves across the common shift of all outputs by another solver, and along it by the penalty alone."""

    def __init__(self, solve, outputs, ridge):
        self._solve, self._outputs, self._ridge = solve, outputs, ridge
        self.coordinates = solve.coordinates

    def to_device(self, vectors):
        """See `BlockSolver.to_device`."""
        return DeviceShiftSolver(vectors, self._solve.to_device(vectors), self._outputs, self._ridge)

    def __call__(self, x):
        """The solution for the right-hand side x."""
        rows = x.reshape(self._outputs, -1)
        # `mean` takes several times as long over few numbers
        shift = np.add.reduce(rows) / self._outputs
        solution = self._solve(rows - shift)
        solution += self._ridge * shift - np.add.reduce(solution) / self._outputs
        return solution.reshape(x.shape)


class DiagonalSolver:
    """Solves with a diagonal matrix, where the whole would be too large."""

    def __init__(self, diagonal):
        self._inverse = 1.0 / diagonal

    def to_device(self, vectors):
        """See `BlockSolver.to_device`."""
        return DeviceDiagonalSolver(vectors, self._inverse)

    def coordinates(self):
        """As `BlockSolver.coordinates`, without U."""
        return None, np.sqrt(1.0 / self._inverse)[None]

    def __call__(self, x):
        """The solution for the right-hand side x."""
        return (x.reshape(-1, len(self._inverse)) * self._inverse).reshape(x.shape)


def coordinates_of(curvature, ridge):
    """The coordinates of a matrix for each output (lower triangles), or of one diagonal for all."""
    if curvature.ndim == 3:
        return BlockSolver(curvature, ridge).coordinates()
    if not np.isfinite(curvature).all():
        raise ValueError(TOO_LARGE)
    return DiagonalSolver(np.where(curvature > 0, curvature, 1.0)).coordinates()


class DeviceInverse:
    """The inverse of a matrix for each output, or of one for all, on the device of X."""

    def __init__(self, vectors, inverses):
        self._xp, self._width, self._blocks = vectors.xp, inverses.shape[1], len(inverses)
        self._inverse = vectors.put(inverses if self._blocks > 1 else inverses[0])

    def __call__(self, x):
        """The solution for the right-hand side x."""
        if self._blocks == 1:
            solution = self._xp.reshape(x, (-1, self._width)) @ self._inverse
        else:
            solution = self._xp.reshape(x, (self._blocks, 1, self._width)) @ self._inverse
        return self._xp.reshape(solution, x.shape)


class DeviceShiftSolver:
    """`ShiftSolver` on the device of X."""

    def __init__(self, vectors, solve, outputs, ridge):
        self._xp, self._solve, self._outputs = vectors.xp, solve, outputs
        self._ridge = vectors.put(ridge)

    def __call__(self, x):
        """The solution for the right-hand side x."""
        xp = self._xp
        rows = xp.reshape(x, (self._outputs, -1))
        shift = xp.mean(rows, axis=0)
        solution = self._solve(rows - shift)
        solution = solution + (self._ridge * shift - xp.mean(solution, axis=0))
        return xp.reshape(solution, x.shape)


class DeviceDiagonalSolver:
    """`DiagonalSolver` on the device of X."""

    def __init__(self, vectors, inverse):
        self._xp, self._width = vectors.xp, len(inverse)
        self._inverse = vectors.put(inverse)

    def __call__(self, x):
        """The solution for the right-hand side x."""
        return self._xp.reshape(self._xp.reshape(x, (-1, self._width)) * self._inverse, x.shape)
