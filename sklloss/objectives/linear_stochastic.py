"""What solvers that step row by row need of a linear objective: mini-batches, and dual coordinate ascent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular

from sklloss.objectives.passes import EpochPlan, Floats, Indices
from sklloss.objectives.preconditioners import (
    WIDEST_BLOCKS,
    BlockSolver,
    Coordinates,
    DiagonalSolver,
    Preconditioner,
)

if TYPE_CHECKING:
    from sklloss.objectives.linear import LinearObjective

Moments = tuple[Floats, Floats]

# Rows per batch of a loss without a kernel, whose calls are slow.
PYTHON_BATCH_ROWS = 512
# Most columns of a CSR matrix for which steps use dense blocks of rows and a full curvature matrix.
WIDEST_DENSE_BLOCKS = 128
# Adam's decay rates, and its epsilon as a share of the size of the gradient in the coordinates. Epsilon keeps
# rounding errors from being scaled up along directions in which the objective is constant.
DECAYS = (0.9, 0.99)
EPSILON = 1e-4
# Most numbers in the curvature matrices of a stream; if there would be more, only the diagonal is used.
MOST_CURVATURE_NUMBERS = 1 << 20
# Times per pass that the running mean of very sparse parameters is updated.
SEGMENTS = 8

# Dual ascent slows down as the curvature of a row's loss along its step grows; beyond these values it is not
# used. An epoch costs about as much as 8 products with the Hessian for few outputs, as 3 for many.
MOST_STEP_CURVATURE, MOST_STEP_CURVATURE_FEW = 2.0, 1.0
FEW_OUTPUTS = 4
# The share of the gap above which an epoch reduces it less than products with the Hessian would.
SLOW, SLOW_FEW = 0.75, 0.35
# The curvature assigned to an intercept: as a share of a row's squared norm, and for all rows together.
BIAS_ROW_SHARE, BIAS_TOTAL = 0.1, 100.0
# Largest move of an intercept's center between epochs, in the units of a score.
MOST_BIAS_STEP = 4.0


class _Batches:
    """The rows of an objective in mini-batches.

    Parameters
    ----------
    objective : LinearObjective
    batch_rows : int or None
        Rows per batch; None chooses a twentieth of the rows, within bounds.
    """

    decays = DECAYS

    def __init__(self, objective: LinearObjective, batch_rows: int | None = None) -> None:
        passes = objective.passes
        self.objective = objective
        self.rows_at: Indices = passes.weighted_rows()
        n = len(self.rows_at)
        if batch_rows is None:
            least, most = self._batch_bounds(n)
            batch_rows = (
                max(least, min(n // 20, most)) if passes.loss.kernel is not None else PYTHON_BATCH_ROWS
            )
        self.batch_rows: int = min(batch_rows, n)
        self._ridge = objective.ridge.reshape(passes.outputs, passes.width)

    def _batch_bounds(self, n: int) -> tuple[int, int]:
        """The least and the most rows per batch, if n rows have a weight."""
        return 8, 64


class MiniBatches(_Batches):
    """Gradients of mini-batches with reduced variance, and the coordinates to take steps in.

    A step uses the difference between the slopes of a batch and those at the anchor, the last point where
    the full gradient was computed. As parameters and anchor approach the optimum, the noise of the gradient
    goes to 0. The coordinates come from a preconditioner: in them the objective has about the same curvature
    in every direction, whatever the units of the features.

    References
    ----------
    Johnson and Zhang, "Accelerating stochastic gradient descent using predictive variance reduction", 2013.
    """

    def __init__(self, objective: LinearObjective, batch_rows: int | None = None) -> None:
        super().__init__(objective, batch_rows)
        passes, n = objective.passes, len(self.rows_at)
        counts = np.diff(np.arange(0, n, self.batch_rows), append=n)
        self.batches: int = len(counts)
        self._gains = objective.scale * n / counts
        self._anchor_slopes = passes.empty_slopes()
        self._anchor: Floats | None = None
        # Whether a common shift of all outputs changes no loss; None until the first slopes are known.
        self._keep_mean: bool | None = False if passes.separable else None
        # For a wide sparse X a diagonal, so that a step can be restricted to the columns of a batch.
        diagonal = passes.sparse and passes.width > WIDEST_DENSE_BLOCKS
        self._set_preconditioner(objective.preconditioner(diagonal=diagonal))

    def _batch_bounds(self, n: int) -> tuple[int, int]:
        passes = self.objective.passes
        if passes.device is not None:
            # On a device a step takes about as long for many rows as for few.
            return 32, max(512, min(n // 200, 8192))
        # Steps that change few columns are cheap.
        return (16, 32) if passes.sparse and passes.width > WIDEST_DENSE_BLOCKS else (32, 512)

    def _set_preconditioner(self, solve: Preconditioner) -> None:
        self._solve = solve
        self._coordinates = solve.coordinates()

    def renew(self, w: Floats) -> bool:
        """Take coordinates from the curvature at w; False, with no change, if that costs too much."""
        passes = self.objective.passes
        if passes.width > (WIDEST_DENSE_BLOCKS if passes.sparse else WIDEST_BLOCKS):
            return False
        solve = self.objective.preconditioner_at(w)
        if solve is None:
            return False
        self._set_preconditioner(solve)
        return True

    @property
    def renewal_cost(self) -> int:
        """The cost of `renew`, in epochs."""
        return max(1, self.objective.passes.width // 24)

    def without_shift(self, w: Floats) -> Floats:
        """The parameters less their mean over outputs if that changes no loss: it lowers the penalty."""
        coef = self.objective.coef(w)
        return (coef - coef.mean(axis=0)).reshape(w.shape) if self._keep_mean else w

    def anchor(self, w: Floats) -> tuple[Floats, Floats]:
        """Value and gradient of each problem at w, which becomes the anchor of the following epochs."""
        objective = self.objective
        sums, gradient = objective.passes.value_and_gradient(objective.coef(w), slopes=self._anchor_slopes)
        if self._keep_mean is None:
            self._keep_mean = objective.passes.slopes_sum_to_zero(self._anchor_slopes)
        self._anchor = gradient * objective.scale
        return objective.with_penalty(w, sums, gradient)

    def newton_decrement(self, gradient: Floats) -> tuple[Floats, Floats]:
        """The Newton decrement by the approximate curvature, and the root mean square of Newton's step.

        The decrement, twice the decrease that the curvature predicts, is the squared norm of the gradient in
        the coordinates, where the gradient equals the Newton step. Both results have shape (problems,).
        """
        decrease = np.einsum("bi,bi->b", gradient, self._solve(gradient))
        return decrease, np.sqrt(np.maximum(decrease, 0.0) / self.objective.size)

    def epoch(
        self,
        w: Floats,
        order: Indices,
        rates: Floats,
        moments: Moments | None = None,
        size: float = 1.0,
    ) -> None:
        """One pass over the rows in mini-batches, with a step for each; w (problems, size) changes in place.

        ``rates`` has shape (batches, problems), and ``size`` is the size of the gradient in the coordinates.
        """
        passes = self.objective.passes
        if moments is not None:
            moments = moments[0].reshape(self._ridge.shape), moments[1].reshape(self._ridge.shape)
        plan = EpochPlan(
            order, self.batch_rows, self._coordinates, self._ridge, self._gains,
            np.broadcast_to(rates, (self.batches, passes.outputs)), anchor_slopes=self._anchor_slopes,
            anchor=self._anchor, keep_mean=bool(self._keep_mean), moments=moments,
            decays=(*DECAYS, EPSILON * size),
        )  # fmt: skip
        passes.epoch(w.reshape(self._ridge.shape), plan)


class StreamBatches(_Batches):
    """Mini-batches of the latest rows of a stream, as a sample of the whole stream.

    The objective is over the latest rows alone.
    """

    def __init__(self, objective: LinearObjective, batch_rows: int | None = None) -> None:
        super().__init__(objective, batch_rows)
        self._row_weights = objective.passes.row_weights()
        self._keep_mean = False

    def weights(self, order: Indices) -> Floats:
        """The weight of each batch; weights that differ by output are averaged over outputs."""
        weight = self._row_weights[order]
        return np.add.reduceat(weight, np.arange(0, len(order), self.batch_rows))

    def curvature(self, w: Floats, earlier: Floats | None, share: float) -> Floats:
        """The loss's curvature at w per unit of weight, in which the latest rows have the given share.

        That of a loss of values is its second derivative, or the bound on it. Else the curvature of a row is
        taken to be half the absolute value of its slope, as for the log loss at 0, where both are 1/4. The
        second derivative would vanish for a row that is far on the wrong side, and the step would be
        unbounded.
        """
        passes = self.objective.passes
        total = self.weights(self.rows_at).sum()
        widest = WIDEST_DENSE_BLOCKS if passes.sparse else WIDEST_BLOCKS
        if passes.width <= widest and passes.outputs * passes.width**2 <= MOST_CURVATURE_NUMBERS:
            if passes.loss.target == "values" and passes.loss.states_curvature:
                latest = self._curvature_of_values(w) / total
            else:
                gradient, blocks = passes.positive_blocks(w, by_slope=True)
                # A sum of products is at most the sum of squares: what is far below that is rounding.
                size = np.sqrt(np.einsum("bii->i", blocks) * total)
                self._keep_mean = not passes.separable and bool(
                    (np.abs(gradient.sum(axis=0)) <= 1e-6 * (np.abs(gradient).sum(axis=0) + size)).all()
                )
                latest = 0.5 / total * blocks
        else:
            latest = passes.curvature_bound / total * passes.squared_columns
        if earlier is None or earlier.shape != latest.shape:
            return latest
        return earlier + share * (latest - earlier)

    def _curvature_of_values(self, w: Floats) -> Floats:
        """The Hessian of a regression loss, or an upper bound that does not vanish far from the targets."""
        passes = self.objective.passes
        if passes.loss.curvature_bound is None:
            return passes.positive_blocks(w)[1]
        return np.repeat(passes.curvature_bound * passes.gram()[None], passes.outputs, axis=0)

    def coordinates(self, curvature: Floats) -> Coordinates:
        """The coordinates of the whole stream, given the sum of its losses' curvature."""
        curvature = curvature * self.objective.scale
        if curvature.ndim == 3:
            np.einsum("bii->bi", curvature)[:] += self._ridge
            return BlockSolver(curvature, self.objective.small_ridge).coordinates()
        return DiagonalSolver(curvature + self._ridge[0]).coordinates()

    def distance(self, w: Floats, coordinates: Coordinates, total: float) -> float:
        """The root mean square distance, in the coordinates, from w to the optimum of a whole stream.

        ``total`` is the weight of the stream. The distance is estimated from the gradient of the latest rows,
        less the variance of that gradient, and is no smaller than 1, the standard error of the optimum.
        """
        passes = self.objective.passes
        multiple = total / self.weights(self.rows_at).sum()
        _, gradient = passes.value_and_gradient(w)
        factors, units = coordinates
        step = (self.objective.scale * multiple * gradient + self._ridge * w) / units
        if factors is not None:
            for k in range(passes.outputs):
                factor = factors[min(k, len(factors) - 1)].T
                step[k] = solve_triangular(factor, step[k], trans="T", check_finite=False)
        return float(np.sqrt(max(np.mean(step * step) - multiple, 1.0)))

    def epoch(
        self,
        w: Floats,
        mean: Floats,
        order: Indices,
        gains: Floats,
        coordinates: Coordinates,
        rates: Floats,
        mixing: Floats,
        moments: Moments | None,
        size: float,
    ) -> None:
        """A step for each batch; w and mean (outputs, width), and the moments, change in place."""
        passes = self.objective.passes
        rates = np.repeat(rates[:, None], passes.outputs, axis=1)
        gains = self.objective.scale * gains
        segments = SEGMENTS if passes.sparse and coordinates[0] is None else 1
        for part in np.array_split(np.arange(len(gains)), min(segments, len(gains))):
            batches = slice(part[0], part[-1] + 1)
            some = order[part[0] * self.batch_rows : (part[-1] + 1) * self.batch_rows]
            plan = EpochPlan(
                some, self.batch_rows, coordinates, self._ridge, gains[batches], rates[batches],
                curvature_bound=passes.curvature_bound, keep_mean=self._keep_mean, moments=moments,
                decays=(*DECAYS, EPSILON * size), mean=mean, mixing=mixing[batches],
            )  # fmt: skip
            passes.epoch(w, plan)


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
        passes = objective.passes
        self._passes, self._scale, self._shape = passes, objective.scale, objective.shape
        weight, squared, self._overlap = sizes
        shared = BIAS_TOTAL / (self._scale * weight * passes.n)
        self._bias = BIAS_ROW_SHARE * squared + shared if passes.fit_intercept else 0.0
        self._state = passes.dual_state()

    @classmethod
    def of(cls, objective: LinearObjective) -> DualAscent | None:
        """A dual ascent for an objective whose only penalty is L2; None if it is not available or slow."""
        passes = objective.passes
        suits = objective.penalised and objective.uniform and not objective.l1.any()
        sizes = passes.dual_sizes() if suits else None
        if sizes is None:
            return None
        curvature = passes.initial_curvature * (objective.scale * sizes[0] * sizes[1])
        most = MOST_STEP_CURVATURE_FEW if passes.outputs < FEW_OUTPUTS else MOST_STEP_CURVATURE
        # False for a NaN as well
        return cls(objective, sizes) if curvature <= most else None

    @property
    def slow(self) -> float:
        """The share of the gap above which an epoch reduces it less than products with the Hessian would."""
        return SLOW_FEW if self._passes.outputs < FEW_OUTPUTS else SLOW

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
        order = random_state.permutation(self._passes.n)
        sums, predicted_decrease = self._passes.dual_epoch(
            self._state, order, scale=self._scale, bias=self._bias, overlap=self._overlap
        )
        _, intercept, balance, _ = self._state
        # At the optimum the dual variables of an output add up to 0.
        intercept += np.clip(self._bias * balance, -MOST_BIAS_STEP, MOST_BIAS_STEP)
        if not self._passes.separable:
            sums, predicted_decrease = sums[:1], predicted_decrease.sum(keepdims=True)
        return self._scale * sums, predicted_decrease

    def parameters(self) -> Floats:
        """The parameters, of the objective's shape."""
        return self._passes.dual_parameters(self._state).reshape(self._shape)
