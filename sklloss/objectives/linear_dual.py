"""Dual coordinate ascent for a linear objective with an L2 penalty and a sparse X."""

import numpy as np

# The more the loss of a row is curved along its own step, the slower the ascent: up to this curvature it is
# used. With few outputs an epoch costs some 8 products with the Hessian, with many 3.
MOST_CURVATURE, MOST_CURVATURE_FEW = 2.0, 1.0
FEW_OUTPUTS = 4
# The curvature given to an intercept: as a share of a row's squared size, and for all rows together.
BIAS_ROW_SHARE, BIAS_TOTAL = 0.1, 100.0
# The center of an intercept moves between epochs by no more than this, in the units of a score.
MOST_BIAS_STEP = 4.0


class DualAscent:
    """The dual variables of an objective, from 0, and the parameters that they make.

    Each row has a dual variable for each output. At the optimum it is minus the derivative of the row's loss
    by its score, times the objective's scale. The coefficients are at any time the sum of the rows of X times
    their dual variables, so a step of one row is exact and needs no learning rate.

    An intercept, which has no penalty, has one here, around a center that moves to its last value.

    Parameters
    ----------
    objective : LinearObjective
    sizes : tuple
        From `Passes.dual_sizes`.
    """

    def __init__(self, objective, sizes):
        rows = objective.rows
        self._rows, self._scale, self._shape = rows, objective.scale, objective.shape
        weight, squared, self._overlap = sizes
        shared = BIAS_TOTAL / (self._scale * weight * rows.n)
        self._bias = BIAS_ROW_SHARE * squared + shared if rows.fit_intercept else 0.0
        self._state = rows.dual_state()

    @classmethod
    def of(cls, objective):
        """One for an objective of which all coefficients have the same L2 penalty and no other.

        None for others, where no passes can be made, or where they would be many.
        """
        rows = objective.rows
        if not objective.penalised or objective.l1.any() or not rows.supports_dual_ascent:
            return None
        sizes = rows.dual_sizes()
        curvature = rows.initial_curvature * (objective.scale * sizes[0] * sizes[1])
        most = MOST_CURVATURE_FEW if rows.outputs < FEW_OUTPUTS else MOST_CURVATURE
        # a NaN too is too much
        return cls(objective, sizes) if curvature <= most else None

    @property
    def slow(self):
        """An epoch that leaves more than this share of the gap is dearer than products with the Hessian."""
        return 0.35 if self._rows.outputs < FEW_OUTPUTS else 0.75

    def epoch(self, random_state):
        """Take each row once, in a random order, and return (value, predicted_decrease), each (problems,).

        The first is the objective's loss as it was when rows were met, the second how far it was from its
        minimum if rows had no feature in common. Sparse rows have few: mostly it is near what is left
        after the epoch.
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

    def parameters(self):
        """The parameters, of the objective's shape."""
        return self._rows.dual_parameters(self._state).reshape(self._shape)
