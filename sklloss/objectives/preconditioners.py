"""Preconditioners: approximate Hessians that know the scale and the correlation of the columns of X."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from sklloss.arrays import memory, threads
from sklloss.arrays.vectors import ArrayVectors
from sklloss.kernels.solve import BlockOperator, factorise

Array = Any  # of NumPy, or of the namespace of X
Floats = NDArray[np.float64]
# Upper triangular U, or None for an identity, and units: the matrix is ``units U' U units``.
Coordinates = tuple[Floats | None, Floats]

TOO_LARGE = "X has values too large or too small to multiply: rescale its columns"
# Most columns with which a preconditioner may have a matrix for each output, rebuilt at later points.
WIDEST_BLOCKS = 256


class Preconditioner(Protocol):
    """Solves linear systems with an approximate Hessian; called with a right-hand side in NumPy."""

    def __call__(self, x: Floats) -> Floats:
        """The solution for the right-hand side x, in the shape of x."""

    def coordinates(self) -> Coordinates:
        """Upper triangular U, (matrices, width, width) in BLAS's order, and units of M = units U' U units."""

    def to_device(self, vectors: ArrayVectors) -> Callable[[Array], Array]:
        """The same solver for arrays on a device."""


class BlockSolver:
    """Solves with a symmetric positive definite matrix for each output, or with one for all outputs.

    The Cholesky factors are those of the matrices scaled to a unit diagonal, plus a small ridge so that
    constant and duplicated columns do not make them singular.

    Parameters
    ----------
    blocks : ndarray of shape (matrices, width, width)
        Lower triangles, which are overwritten by the factors.
    ridge : float
        Added to the unit diagonals.
    """

    def __init__(self, blocks: NDArray[Any], ridge: float) -> None:
        self._factors: NDArray[Any] = np.ascontiguousarray(blocks)
        self._units: Floats = np.empty(blocks.shape[:2])
        for block, units in zip(self._factors, self._units, strict=True):
            if not factorise(block, units, ridge):
                raise ValueError(TOO_LARGE)

    def to_device(self, vectors: ArrayVectors) -> DeviceInverse:
        """The same solver for arrays on a device, with explicit inverses that are computed on the host.

        An inverse is the product of a triangular matrix and its transpose, so rounding leaves it positive.
        """
        inverses = np.empty(self._factors.shape)
        for k, (factor, units) in enumerate(zip(self._factors, self._units, strict=True)):
            root, _ = lapack.dtrtri(factor.T, lower=0)
            upper = np.triu(lapack.dlauum(root, lower=0)[0])
            inverses[k] = (upper + np.triu(upper, 1).T) / units / units[:, None]
        return DeviceInverse(vectors, inverses)

    def coordinates(self) -> Coordinates:
        """See `Preconditioner.coordinates`."""
        return self._factors, self._units

    def __call__(self, x: Floats) -> Floats:
        """The solution for the right-hand side x."""
        return self.operator(x)

    @functools.cached_property
    def operator(self) -> BlockOperator:
        """The same, compiled."""
        return BlockOperator(self._factors, self._units)

    def operator_except_shift(self, ridge: Floats) -> BlockOperator:
        """See `ShiftSolver`; for a matrix of each output."""
        return BlockOperator(self._factors, self._units, ridge)


class PairedBlockSolver(BlockSolver):
    """`BlockSolver` for large matrices in main memory, which takes half of the memory.

    Two triangles share a rectangle of shape (width, width + 1): the lower one of a matrix, and to the right
    of its diagonal that of the next one, transposed.

    Parameters
    ----------
    shape : (matrices, width)
    dtype : NumPy dtype
        Of the factors.
    ridge : float
        See `BlockSolver`.
    fill : callable
        Called with the number of a matrix and an array (width, width), whose lower triangle it sets without a
        look at the other. Threads call it at once, and each matrix is factorised before the thread goes on
        to the next.
    n_threads : int or None
        See `threads.count`.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: Any,
        ridge: float,
        *,
        fill: Callable[[int, NDArray[Any]], None],
        n_threads: int | None = 1,
    ) -> None:
        matrices, width = shape
        self._factors = memory.empty(((matrices + 1) // 2, width, width + 1), dtype)
        self._units = np.empty(shape)

        def work(first: int, last: int) -> None:
            for k in range(first, last):
                block = self._triangle(k)
                fill(k, block)
                if not factorise(block, self._units[k], ridge):
                    raise ValueError(TOO_LARGE)

        threads.share(work, matrices, n_threads)

    def _triangle(self, k: int) -> NDArray[Any]:
        """An array (width, width) whose lower triangle is the one of matrix k."""
        pair = self._factors[k // 2]
        return pair[:, 1:].T if k % 2 else pair[:, :-1]

    def to_device(self, vectors: ArrayVectors) -> DeviceInverse:
        """See `BlockSolver.to_device`."""
        raise NotImplementedError("these matrices are of arrays in main memory")

    def coordinates(self) -> Coordinates:
        """See `Preconditioner.coordinates`; this makes a copy."""
        return np.stack([self._triangle(k) for k in range(len(self._units))]), self._units


class SubsetSolver:
    """Solves over the parameters in a mask, output by output, given column correlations and a diagonal.

    Parameters
    ----------
    correlations : ndarray of shape (width, width)
    mask : ndarray of bool of shape (outputs, width)
    roots : ndarray of shape (outputs, width)
        Square roots of the Hessian's diagonal.
    ridge : float
        See `BlockSolver`.
    """

    def __init__(self, correlations: Floats, mask: NDArray[np.bool_], roots: Floats, ridge: float) -> None:
        self._parts: list[tuple[int, NDArray[np.intp], Floats, BlockSolver]] = []
        self._shape = mask.shape
        for k, row in enumerate(mask):
            inside = np.flatnonzero(row)
            if inside.size:
                solve = BlockSolver(correlations[np.ix_(inside, inside)][None], ridge)
                self._parts.append((k, inside, roots[k, inside], solve))

    def __call__(self, x: Floats) -> Floats:
        """The solution for the right-hand side x."""
        rows = x.reshape(self._shape)
        solution = np.zeros_like(rows)
        for k, inside, root, solve in self._parts:
            solution[k, inside] = solve(rows[k, inside] / root) / root
        return solution.reshape(x.shape)


class ShiftSolver:
    """Another solver, except along a common shift of all outputs, where the Hessian is the penalty alone.

    Parameters
    ----------
    solve : BlockSolver, DiagonalSolver or DeviceInverse
    outputs : int
    ridge : array of shape (width,)
        The second derivatives of the penalty, 1 or 0, and so their own pseudo-inverse.
    xp : module
        The namespace of ``ridge`` and of the right-hand sides.
    """

    def __init__(self, solve: Any, outputs: int, ridge: Array, xp: Any = np) -> None:
        self._solve, self._outputs, self._ridge, self._xp = solve, outputs, ridge, xp
        self._compiled = solve.operator_except_shift(ridge) if isinstance(solve, BlockSolver) else None

    def to_device(self, vectors: ArrayVectors) -> ShiftSolver:
        """See `Preconditioner.to_device`."""
        solve, ridge = self._solve.to_device(vectors), vectors.put(self._ridge)
        return ShiftSolver(solve, self._outputs, ridge, vectors.xp)

    def coordinates(self) -> Coordinates:
        """See `Preconditioner.coordinates`."""
        return self._solve.coordinates()

    def __call__(self, x: Array) -> Array:
        """The solution for the right-hand side x."""
        return self.operator(x)

    @property
    def operator(self) -> Callable[[Array], Array]:
        """The same, compiled if that can be."""
        return self._compiled or self._apply

    def _apply(self, x: Array) -> Array:
        rows = self._xp.reshape(x, (self._outputs, -1))
        shift = self._xp.mean(rows, axis=0)
        solution = self._solve(rows - shift)
        solution += self._ridge * shift - self._xp.mean(solution, axis=0)
        return self._xp.reshape(solution, x.shape)


class DiagonalSolver:
    """Solves with a diagonal matrix, shared by all outputs or one for each, if full ones would be too large.

    Parameters
    ----------
    diagonal : ndarray of shape (width,) or (outputs, width)
        Numbers that are not positive count as 1.
    """

    def __init__(self, diagonal: Floats) -> None:
        if not np.isfinite(diagonal).all():
            raise ValueError(TOO_LARGE)
        self._inverse: Array = 1.0 / np.where(diagonal > 0, diagonal, 1.0)
        self._xp: Any = np

    def to_device(self, vectors: ArrayVectors) -> DiagonalSolver:
        """See `Preconditioner.to_device`."""
        solver = copy.copy(self)
        solver._inverse, solver._xp = vectors.put(self._inverse), vectors.xp
        return solver

    def coordinates(self) -> Coordinates:
        """See `Preconditioner.coordinates`; U is None."""
        return None, np.atleast_2d(np.sqrt(1.0 / self._inverse))

    def __call__(self, x: Array) -> Array:
        """The solution for the right-hand side x."""
        rows = self._xp.reshape(x, (-1, self._inverse.shape[-1]))
        return self._xp.reshape(rows * self._inverse, x.shape)


class DeviceInverse:
    """`BlockSolver` on the device of X, by products with inverse matrices."""

    def __init__(self, vectors: ArrayVectors, inverses: Floats) -> None:
        self._xp, self._width, self._blocks = vectors.xp, inverses.shape[1], len(inverses)
        self._inverse = vectors.put(inverses if self._blocks > 1 else inverses[0])

    def __call__(self, x: Array) -> Array:
        """The solution for the right-hand side x."""
        if self._blocks == 1:
            solution = self._xp.reshape(x, (-1, self._width)) @ self._inverse
        else:
            solution = self._xp.reshape(x, (self._blocks, 1, self._width)) @ self._inverse
        return self._xp.reshape(solution, x.shape)
