"""Minimisation where coefficients are held at a sign."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from sklloss.arrays.vectors import Array, Mask
from sklloss.solvers.base import Objective, Result, require

# What a wrong sign costs is multiplied by this until no sign is wrong, so many times at most.
STRONGER, MOST_TRIALS = 100.0, 6
# A parameter of the wrong sign that costs this share of the value is 0 but for rounding.
ROUNDED_COST = 1e-7


class ConstrainedObjective(Objective, Protocol):
    """An objective with an exact penalty on wrong signs, as `with_signs` needs it."""

    @property
    def l1(self) -> Array:
        """The weight of each parameter's absolute value, (problems, size)."""

    def constrain(self, signs: Array, factor: float = 1.0) -> None:
        """Set what a wrong sign costs."""

    def broken_signs(self, w: Array) -> Mask:
        """Which parameters have the wrong sign."""


def with_signs(
    minimise: Callable[..., Result],
    objective: ConstrainedObjective,
    w: Array,
    *,
    signs: Array,
    **options: Any,
) -> Result:
    """Minimise under constraints on signs by a solver that takes an L1 norm.

    The solver minimises an exact penalty: where the wrong sign costs more than the gradient of the loss, its
    minimum is that of the constrained problem. If a sign is wrong, the solver goes on with a higher cost.

    Parameters
    ----------
    minimise : callable
        A solver.
    objective : ConstrainedObjective
    w : ndarray of shape (problems, size)
        Start.
    signs : ndarray of shape (features,)
    **options
        Of the solver.

    Returns
    -------
    Result
    """
    require(objective, ConstrainedObjective)
    for trial in range(MOST_TRIALS):
        objective.constrain(signs, STRONGER**trial)
        result = minimise(objective, w, **options)
        broken = objective.broken_signs(result.w)
        rounded = np.abs(objective.l1 * result.w) <= ROUNDED_COST * np.abs(result.value)[:, None]
        if not (broken & ~rounded).any():
            result.w[broken] = 0.0
            return result
        w = result.w
    result.converged[:] = False
    return result
