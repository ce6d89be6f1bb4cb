"""Dual coordinate ascent for a linear objective with an L2 penalty and a sparse X."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sklloss.objectives.passes import Floats

if TYPE_CHECKING:
    from sklloss.objectives.linear import LinearObjective

# The ascent slows down as the curvature of a row's loss along its step grows; beyond these values it is not
# used. An epoch costs about as much as 8 products with the Hessian for few outputs, as 3 for many.
MOST_CURVATURE, MOST_CURVATURE_FEW = 2.0, 1.0
FEW_OUTPUTS = 4
# The curvature assigned to an intercept: as a share of a row's squared norm, and for all rows together.
BIAS_ROW_SHARE, BIAS_TOTAL = 0.1, 100.0
# Largest move of an intercept's center between epochs, in the units of a score.
MOST_BIAS_STEP = 4.0


class DualAscent:
    """The dual variables of an objective, starting at 0, and the parameters that they determine.

    Each row has a dual variable for each output. At the optimum it is minus the derivative of the row's loss
    by its score, times the objective's scale. The coefficients always equal the sum of the rows of X times
    their dual variables, so the step of a row needs no learning rate.

    The ascent needs a penalty on the intercept, which the objective does not have. Here the intercept is
    penalised for its distance to a center, which moves to its value after each epoch.

    Parameters
    ----------
    objective : LinearObjective
    sizes : tuple
        From `Passes.dual_sizes`.
    """

    def __init__(self, objective: LinearObjective, sizes: tuple[float, float, float]) -> None:
        rows = objective.rows
        self._rows, self._scale, self._shape = rows, objective.scale, objective.shape
        weight, squared, self._overlap = sizes
        shared = BIAS_TOTAL / (self._scale * weight * rows.n)
        self._bias = BIAS_ROW_SHARE * squared + shared if rows.fit_intercept else 0.0
        self._state = rows.dual_state()

    @classmethod
    def of(cls, objective: LinearObjective) -> DualAscent | None:
        """A dual ascent for an objective whose only penalty is L2; None where it is not available or slow."""
        rows = objective.rows
        if not objective.penalised or objective.l1.any() or not rows.supports_dual_ascent:
            return None
        sizes = rows.dual_sizes()
        curvature = rows.initial_curvature * (objective.scale * sizes[0] * sizes[1])
        most = MOST_CURVATURE_FEW if rows.outputs < FEW_OUTPUTS else MOST_CURVATURE
        # False for a NaN as well
        return cls(objective, sizes) if curvature <= most else None

    @property
    def slow(self) -> float:
        """The share of the gap above which an epoch reduces it less than products with the Hessian would."""
        return 0.35 if self._rows.outputs < FEW_OUTPUTS else 0.75

    def epoch(self, random_state: np.random.RandomState) -> tuple[Floats, Floats]:
        """Take a step of each row once, in a random order.

        Returns
        -------
        value : ndarray of shape (problems,)
            The loss part of the objective, each row's loss being taken just before its step.
        predicted_decrease : ndarray of shape (problems,)
            The distance to the minimum if no two rows had a feature in common. For sparse rows, which have
            few in common, it is mostly close to the gap that is left after the epoch.
        """
        order = random_state.permutation(self._rows.n)
        sums, predicted_decrease = self._rows.dual_epoch(
            self._state, order, scale=self._scale, bias=self._bias, overlap=self._overlap
        )
        _, intercept, balance, _ = self._state
        # At the optimum the dual variables of an output add up to 0.
        intercept += np.clip(self._bias * balance, -MOST_BIAS_STEP, MOST_BIAS_STEP)
        if not self._rows.separable:
            sums, predicted_decrease = sums[:1], predicted_decrease.sum(keepdims=True)
        return self._scale * sums, predicted_decrease

    def parameters(self) -> Floats:
        """The parameters, of the objective's shape."""
        return self._rows.dual_parameters(self._state).reshape(self._shape)
