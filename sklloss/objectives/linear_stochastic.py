"""Mini-batches of a linear objective for the stochastic solvers, from a data set or from a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from sklloss.objectives.passes import EpochPlan, Floats, Passes
from sklloss.objectives.preconditioners import WIDEST_BLOCKS, Coordinates, Preconditioner, coordinates_of

if TYPE_CHECKING:
    from sklloss.objectives.linear import LinearObjective

Moments = tuple[Floats, Floats]

# Most columns of a CSR matrix for which steps use dense blocks of rows and a full curvature matrix.
WIDEST_DENSE_BLOCKS = 128
# Adam's decay rates, and its epsilon as a share of the size of the gradient in the coordinates. Epsilon keeps
# rounding errors from being scaled up along directions in which the objective is constant.
DECAYS = (0.9, 0.99)
EPSILON = 1e-4


def default_batch_rows(passes: Passes, n: int, least: int, most: int) -> int:
    """Rows per batch: n / 20 within bounds, or 512 for a loss without a kernel, whose calls are slow."""
    return int(min(n, max(least, min(n // 20, most)) if passes.loss.kernel is not None else 512))


class MiniBatches:
    """Gradients of mini-batches with reduced variance, and the coordinates to take steps in.

    A step uses the difference between the slopes of a batch and those at the anchor, the last point where
    the full gradient was computed. As parameters and anchor approach the optimum, the noise of the gradient
    goes to 0. The coordinates come from a preconditioner: in them the objective has about the same curvature
    in every direction, whatever the units of the features.

    Parameters
    ----------
    objective : LinearObjective
    batch_rows : int or None
        Rows per batch; None chooses.

    References
    ----------
    Johnson and Zhang, "Accelerating stochastic gradient descent using predictive variance reduction", 2013.
    """

    decays = DECAYS

    def __init__(self, objective: LinearObjective, batch_rows: int | None = None) -> None:
        rows = objective.rows
        self.objective = objective
        self.rows_at = rows.weighted_rows()
        n = len(self.rows_at)
        # Steps that change few columns are cheap.
        bounds = (16, 32) if rows.sparse and rows.width > WIDEST_DENSE_BLOCKS else (32, 512)
        if rows.device is not None:
            # On a device a step takes about as long for many rows as for few.
            bounds = (32, max(512, min(n // 200, 8192)))
        self.batch_rows = default_batch_rows(rows, n, *bounds) if batch_rows is None else min(batch_rows, n)
        self.batches = -(-len(self.rows_at) // self.batch_rows)
        counts = np.full(self.batches, float(self.batch_rows))
        counts[-1] = len(self.rows_at) - self.batch_rows * (self.batches - 1)
        self._gains = objective.scale * len(self.rows_at) / counts
        self._ridge = objective.ridge.reshape(rows.outputs, rows.width)
        self._anchor_slopes = rows.empty_slopes()
        self._anchor: Floats | None = None
        # Whether a common shift of all outputs changes no loss; None until the first slopes are known.
        self._keep_mean: bool | None = False if rows.separable else None
        # For a wide sparse X a diagonal, so that a step can be restricted to the columns of a batch.
        diagonal = rows.sparse and rows.width > WIDEST_DENSE_BLOCKS
        self._set_preconditioner(objective.preconditioner(diagonal=diagonal))

    def _set_preconditioner(self, solve: Preconditioner) -> None:
        self._solve = solve
        self._coordinates = solve.coordinates()

    def renew(self, w: Floats) -> bool:
        """Take coordinates from the curvature at w; False, with no change, where that costs too much."""
        rows = self.objective.rows
        if rows.width > (WIDEST_DENSE_BLOCKS if rows.sparse else WIDEST_BLOCKS):
            return False
        solve = self.objective.preconditioner_at(w)
        if solve is None:
            return False
        self._set_preconditioner(solve)
        return True

    @property
    def renewal_cost(self) -> int:
        """The cost of `renew`, in epochs."""
        return max(1, self.objective.rows.width // 24)

    def without_shift(self, w: Floats) -> Floats:
        """The parameters less their mean over outputs if that changes no loss: it lowers the penalty."""
        coef = self.objective.coef(w)
        return (coef - coef.mean(axis=0)).reshape(w.shape) if self._keep_mean else w

    def anchor(self, w: Floats) -> tuple[Floats, Floats]:
        """Value and gradient of each problem at w, which becomes the anchor of the following epochs."""
        objective = self.objective
        sums, gradient = objective.rows.value_and_gradient(objective.coef(w), slopes=self._anchor_slopes)
        if self._keep_mean is None:
            self._keep_mean = objective.rows.slopes_sum_to_zero(self._anchor_slopes)
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
        order: NDArray[np.intp],
        rates: Floats,
        moments: Moments | None = None,
        size: float = 1.0,
    ) -> None:
        """One pass over the rows in mini-batches, with a step for each; w (problems, size) changes in place.

        ``rates`` has shape (batches, problems), and ``size`` is the size of the gradient in the coordinates.
        """
        rows = self.objective.rows
        if moments is not None:
            moments = moments[0].reshape(self._ridge.shape), moments[1].reshape(self._ridge.shape)
        plan = EpochPlan(
            order, self.batch_rows, self._coordinates, self._ridge, self._gains,
            np.broadcast_to(rates, (self.batches, rows.outputs)), anchor_slopes=self._anchor_slopes,
            anchor=self._anchor, keep_mean=bool(self._keep_mean), moments=moments,
            decays=(*DECAYS, EPSILON * size),
        )  # fmt: skip
        rows.epoch(w.reshape(self._ridge.shape), plan)


# Most numbers in a stream's curvature matrices; where there would be more, it has the diagonal alone.
MOST_CURVATURE = 1 << 20
# Times per pass that the running mean of very sparse parameters is updated.
SEGMENTS = 8


class StreamBatches:
    """Mini-batches of the latest rows of a stream, as a sample of the whole stream.

    Parameters
    ----------
    objective : LinearObjective
        Over the latest rows alone.
    batch_rows : int or None
        Rows per batch; None chooses.
    """

    decays = DECAYS

    def __init__(self, objective: LinearObjective, batch_rows: int | None = None) -> None:
        rows = objective.rows
        self.objective = objective
        self.rows_at = rows.weighted_rows()
        n = len(self.rows_at)
        self.batch_rows = default_batch_rows(rows, n, 8, 64) if batch_rows is None else min(batch_rows, n)
        self._row_weights = rows.row_weights()
        self._ridge = objective.ridge.reshape(rows.outputs, rows.width)
        self._keep_mean = False

    def weights(self, order: NDArray[np.intp]) -> Floats:
        """The weight of each batch; weights that differ by output are averaged over outputs."""
        weight = self._row_weights[order]
        return np.add.reduceat(weight, np.arange(0, len(order), self.batch_rows))

    def curvature(self, w: Floats, earlier: Floats | None, share: float) -> Floats:
        """The loss's curvature at w per unit of weight, in which the latest rows have the given share.

        The curvature of a row is taken to be half the absolute value of its slope, as for the log loss at 0,
        where both are 1/4. The second derivative would vanish for a row that is far on the wrong side, and
        the step would be unbounded.
        """
        rows = self.objective.rows
        total = self.weights(self.rows_at).sum()
        widest = WIDEST_DENSE_BLOCKS if rows.sparse else WIDEST_BLOCKS
        if rows.width <= widest and rows.outputs * rows.width**2 <= MOST_CURVATURE:
            gradient, blocks = rows.positive_blocks(w, by_slope=True)
            # A sum of products is at most the sum of squares: what is far below that is rounding.
            size = np.sqrt(np.einsum("bii->i", blocks) * total)
            self._keep_mean = not rows.separable and bool(
                (np.abs(gradient.sum(axis=0)) <= 1e-6 * (np.abs(gradient).sum(axis=0) + size)).all()
            )
            latest = 0.5 / total * blocks
        else:
            latest = rows.curvature_bound / total * rows.squared_columns()
        if earlier is None or earlier.shape != latest.shape:
            return latest
        return earlier + share * (latest - earlier)

    def coordinates(self, curvature: Floats) -> Coordinates:
        """The coordinates of the whole stream, given the sum of its losses' curvature."""
        curvature = curvature * self.objective.scale
        if curvature.ndim == 3:
            np.einsum("bii->bi", curvature)[:] += self._ridge
        else:
            curvature += self._ridge[0]
        return coordinates_of(curvature, self.objective.small_ridge)

    def distance(self, w: Floats, coordinates: Coordinates, total: float) -> float:
        """The root mean square distance, in the coordinates, from w to the optimum of a whole stream.

        ``total`` is the weight of the stream. The distance is estimated from the gradient of the latest rows,
        less the variance of that gradient, and is no smaller than 1, the standard error of the optimum.
        """
        rows = self.objective.rows
        multiple = total / self.weights(self.rows_at).sum()
        _, gradient = rows.value_and_gradient(w)
        factors, units = coordinates
        step = (self.objective.scale * multiple * gradient + self._ridge * w) / units
        if factors is not None:
            for k in range(rows.outputs):
                factor = factors[min(k, len(factors) - 1)].T
                step[k] = solve_triangular(factor, step[k], trans="T", check_finite=False)
        return float(np.sqrt(max(np.mean(step * step) - multiple, 1.0)))

    def epoch(
        self,
        w: Floats,
        mean: Floats,
        order: NDArray[np.intp],
        gains: Floats,
        coordinates: Coordinates,
        rates: Floats,
        mixing: Floats,
        moments: Moments | None,
        size: float,
    ) -> None:
        """A step for each batch; w and mean (outputs, width), and the moments, change in place."""
        rows = self.objective.rows
        rates = np.repeat(rates[:, None], rows.outputs, axis=1)
        gains = self.objective.scale * gains
        segments = SEGMENTS if rows.sparse and coordinates[0] is None else 1
        for part in np.array_split(np.arange(len(gains)), min(segments, len(gains))):
            batches = slice(part[0], part[-1] + 1)
            some = order[part[0] * self.batch_rows : (part[-1] + 1) * self.batch_rows]
            plan = EpochPlan(
                some, self.batch_rows, coordinates, self._ridge, gains[batches], rates[batches],
                curvature_bound=rows.curvature_bound, keep_mean=self._keep_mean, moments=moments,
                decays=(*DECAYS, EPSILON * size), mean=mean, mixing=mixing[batches],
            )  # fmt: skip
            rows.epoch(w, plan)
