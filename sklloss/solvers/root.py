"""The root of a mean loss, by a sequence of minimisations of the mean."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from sklloss.arrays.vectors import Array
from sklloss.solvers.base import Callback, Objective, Progress, Result, allowed_gap, require, tell_start

# Of the decrease of one step, the most that all further ones can achieve together: steps converge linearly.
FURTHER = 10.0


class RootObjective(Objective, Protocol):
    """An objective over the root of a mean, as `minimise_root` needs it."""

    def whole_value(self, w: Array) -> Array:
        """The value with all penalties, (1,)."""

    def bound_at(self, w: Array) -> Any:
        """The objective over the mean that is nowhere lower, and equal at w but for a constant; None at 0."""


def minimise_root(
    minimise: Callable[..., Result],
    objective: RootObjective,
    w: Array,
    *,
    tol: float,
    max_iter: int,
    callback: Callback | None = None,
    **options: Any,
) -> Result:
    """Minimise ``sqrt(mean loss) + penalty`` by steps that minimise a bound, ``mean loss / (2 r) + penalty``.

    With r the root at the current parameters the bound is nowhere lower, so that no step goes up. The mean
    has the same minimum for another penalty, so the steps change little after the first.

    Parameters
    ----------
    minimise : callable
        A solver for the objective over the mean.
    objective : RootObjective
    w : ndarray of shape (1, size)
        Start.
    tol : float
        See `allowed_gap`.
    max_iter : int
        Limit of the steps, and of the iterations of the solver in each.
    callback : callable, optional
        Called with ``(n_iter, w, value)`` after each step.
    **options
        Of the solver.

    Returns
    -------
    Result
    """
    require(objective, RootObjective)
    value = objective.whole_value(w)
    progress = Progress(objective, value, value)
    tell_start(callback, value)
    for iteration in range(1, max_iter + 1):
        bound = objective.bound_at(w)
        if bound is None:
            progress.converged[:] = True
            break
        found = minimise(bound, w.reshape(bound.shape), tol=tol, max_iter=max_iter, callback=None, **options)
        there = found.w.reshape(w.shape)
        new = objective.whole_value(there)
        decrease = value - new
        if (new <= value).all():
            w, value = there, new
        progress.record(iteration, np.ones(1, dtype=bool), value)
        if callback is not None:
            callback(iteration, w, value)
        near = bool((FURTHER * decrease <= allowed_gap(value, tol)).all())
        # From the minimum of almost the same bound a solver may find no step, and not know that it is there.
        solved = found.converged.all() or (iteration > 1 and (found.n_iter < max_iter).all())
        if found.vanished.all() or (near and solved):
            progress.converged[:] = True
            break
        if not (decrease > 0).all():
            # The next step would be the same.
            break
    return progress.result(w, value)
