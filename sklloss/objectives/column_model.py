"""Quadratic models of a linear objective whose X is sparse, for coordinate descent over its columns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import sklloss.kernels.linear.columns as column_kernels

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

NO_GROUPS: Indices = np.empty((0, 0), dtype=np.intp)


class RowCurvature(NamedTuple):
    """Second derivatives of the rows' losses, (outputs, rows): of a softmax its probabilities p by weight."""

    curvature: Floats
    p: Floats | None


class ColumnModel:
    """The quadratic model of an objective over some parameters of one problem, without its Hessian.

    Parameters
    ----------
    matrix : tuple of ndarrays
        X in CSC format: values, int32 indices and int64 starts.
    rows : RowCurvature
        Of the problem's outputs, times the objective's scale.
    columns, outputs : ndarray of shape (size,)
        What each parameter belongs to; the column after the last feature is the intercept.
    ridge : ndarray of shape (size,)
        The second derivatives of the penalty.
    shifts : ndarray of int of shape (groups, outputs)
        The groups of parameters that a column has in all outputs of a softmax.

    Attributes
    ----------
    diagonal : ndarray of shape (size,)
        Of the Hessian, ``ridge`` included.
    """

    def __init__(
        self,
        matrix: tuple[Any, ...],
        rows: RowCurvature,
        columns: Indices,
        outputs: Indices,
        ridge: Floats,
        shifts: Indices = NO_GROUPS,
    ) -> None:
        self._matrix, self._rows, self._members, self._ridge = matrix, rows, (columns, outputs), ridge
        self._shifts = shifts
        self.diagonal: Floats = np.empty(len(columns))
        column_kernels.diagonal(*matrix, rows.curvature, rows.p, columns, outputs, self.diagonal)
        self.diagonal += ridge
        self._moving: Indices = np.empty((2, len(columns)), dtype=np.intp)

    def begin(
        self, gradient: Floats, w: Floats, l1: Floats, damping: float, trust_radius: Floats | float
    ) -> Floats:
        """Start from w, where the gradient is given; returns the parameters that `descend` changes."""
        z = w.copy()
        extra = self._ridge + damping * self.diagonal
        second = (1.0 + damping) * self.diagonal
        self._parameters = gradient, w, z, l1, second, extra, w - trust_radius, w + trust_radius
        curvature, p = self._rows
        self._change = np.zeros(curvature.shape), None if p is None else np.zeros(curvature.shape[1])
        return z

    def descend(self, negligible: float, decrease: Floats) -> None:
        """Sweeps of coordinate descent; ``decrease`` is filled with what each of them gains.

        The first visits all parameters, the others those that are not 0. They end when one gains no more
        than ``negligible``.
        """
        column_kernels.descend(
            *self._matrix, (*self._rows, *self._change, self._shifts), *self._members, self._parameters,
            self._moving, negligible, decrease,
        )  # fmt: skip
