"""The one stopping rule of the deterministic solvers."""

from dataclasses import dataclass

import numpy as np

# An unpenalised objective this small against its start has no minimum: the data are separable. Further
# down its derivatives would drown in their rounding. With a penalty, only an intercept can run away.
VANISHED = 1e-9
VANISHED_PENALISED = 1e-15


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
    vanished : ndarray of bool of shape (problems,)
        The objective has no minimum and was followed until almost nothing was left of it.
    """

    w: np.ndarray
    value: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray
    curve: list
    vanished: np.ndarray


def allowed_gap(value, tol):
    """The objective gap F - F* at which a problem counts as solved: ``tol**2 * F``, or 1e-14 F if more.

    Near the optimum F - F* is half the squared distance to it, measured by the curvature, so ``tol``
    is the relative accuracy of the parameters in the units that matter to the objective. A
    solver estimates the gap by half its Newton decrement, g' H**-1 g / 2, with H exact or approximated.
    The measure does not depend on the units of the features, on C, or on the number of rows.

    Parameters
    ----------
    value : ndarray of shape (problems,)
    tol : float
    """
    return max(tol**2, 1e-14) * np.abs(value)


def vanished_share(objective):
    """The share of its start that an objective without a minimum is followed down to."""
    return VANISHED_PENALISED if objective.penalised else VANISHED


def has_vanished(objective, value, start):
    """Which problems have no minimum, and have come as near to its infimum, 0, as makes sense."""
    least = vanished_share(objective) * start
    # a loss may be negative: 0 is then a value like any other
    return (value >= 0) & (value <= least) & (start > 0)


def start_again(objective, w, value):
    """Move problems whose ``value`` is higher than at 0 there, in place; whether there were any.

    Scores that are far off on the wrong side hide the curvature that a Newton step goes by.
    """
    if not w.any() or (value <= objective.null_value()).all():
        return False
    worse = ~(value <= objective.null_value(exact=True))  # a NaN too
    w[worse] = 0.0
    return worse.any()


def first_value(objective, w, value):
    """By what an objective that started at ``w`` is judged to have vanished: no more than its value at 0."""
    return np.fmin(value, objective.null_value()) if w.any() else value


def finite_or_zero(direction):
    """The direction, with zeros for a problem whose direction is not a number: it gets no step."""
    return np.where(np.isfinite(direction).all(axis=1, keepdims=True), direction, 0.0)


def exhausted(decrement, value, noise=0.0):
    """No step lowers the objective further: is it because its rounding hides what is left?

    So it is taken where the gap is 1e-6 of the value, or 20 times the relative noise of a value if that is
    more (1e-5 in float32). A decrement of 0 says nothing: the direction may have been lost.
    """
    return (decrement != 0) & (np.abs(decrement) / 2 <= max(1e-6, 20 * noise) * np.abs(value))
