"""The one stopping rule of the deterministic solvers."""

from dataclasses import dataclass

import numpy as np

# An objective this small against its value at zero is at its end: the data are separable.
VANISHED = 1e-9


@dataclass(frozen=True, eq=False)
class Result:
    """Where a solver ended.

    Attributes
    ----------
    w : ndarray of shape (problems, size)
    value : ndarray of shape (problems,)
    n_iter : ndarray of int of shape (problems,)
    converged : ndarray of bool of shape (problems,)
    curve : list of float
        The objective, summed over problems, at the start of each iteration and at the end.
    """

    w: np.ndarray
    value: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray
    curve: list


def allowed_gap(value, start, tol):
    """The objective gap F - F* at which a problem counts as solved: ``tol**2 * F``.

    Near the optimum F - F* is half the squared distance to it, measured by the curvature, so ``tol``
    is the relative accuracy of the parameters in the units that matter to the objective. A
    solver estimates the gap by half its Newton decrement, g' H**-1 g / 2, with H exact or approximated.
    The measure does not depend on the units of the features, on C, or on the number of rows.

    Parameters
    ----------
    value, start : ndarray of shape (problems,)
        The objective now and where the solver began. A value that has all but vanished against the
        start belongs to separable data, which have no finite optimum: it may count as solved.
    tol : float
    """
    return tol**2 * np.maximum(np.abs(value), VANISHED * np.abs(start))


def exhausted(decrement, value):
    """No step lowers the objective further: is it because its rounding hides what is left?"""
    return np.abs(decrement) / 2 <= 1e-6 * np.abs(value)
