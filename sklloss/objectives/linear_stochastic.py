"""The linear objective as the stochastic solvers see it: mini-batches, of a data set or a stream."""

import numpy as np
from scipy.linalg import solve_triangular

from sklloss.objectives.passes import EpochPlan
from sklloss.objectives.preconditioners import WIDEST_BLOCKS, coordinates_of

# Up to this many columns a CSR matrix is worked on in dense blocks of rows, with a whole matrix of curvature.
WIDEST_DENSE_BLOCKS = 128
# Adam's decays; and its epsilon, as a share of the size of the gradient in the coordinates: along directions
# in which the objective does not change at all, rounding must not pass for a gradient.
DECAYS = (0.9, 0.99)
EPSILON = 1e-4


def suitable_batch(rows, n, least, most):
    """Rows per batch: a twentieth, but enough to outweigh a step, and a loss that is Python code."""
    return int(min(n, max(least, min(n // 20, most)) if rows.loss.kernel is not None else 512))


class MiniBatches:
    """Gradients of mini-batches with their variance reduced, and coordinates to take steps in.

    A step uses how the slopes of a batch differ from those at the anchor, the last point where all rows
    were seen. As parameters and anchor near the optimum, so does the noise near 0. Coordinates come from the
    objective's preconditioner: in them it is about as curved in every direction, whatever the units of the
    features.

    Parameters
    ----------
    objective : LinearObjective
    batch_rows : int or None
        None chooses.

    References
    ----------
    Johnson and Zhang, "Accelerating stochastic gradient descent using predictive variance reduction", 2013.
    """

    decays = DECAYS

    def __init__(self, objective, batch_rows=None):
        rows = objective.rows
        self.objective = objective
        self.rows_at = rows.weighted_rows()
        n = len(self.rows_at)
        # steps that touch few columns are cheap
        bounds = (16, 32) if rows.sparse and rows.width > WIDEST_DENSE_BLOCKS else (32, 512)
        if rows.device is not None:
            # on a device a step takes about as long for many rows as for few
            bounds = (32, max(512, min(n // 200, 8192)))
        self.batch_rows = suitable_batch(rows, n, *bounds) if batch_rows is None else min(batch_rows, n)
        self.batches = -(-len(self.rows_at) // self.batch_rows)
        counts = np.full(self.batches, float(self.batch_rows))
        counts[-1] = len(self.rows_at) - self.batch_rows * (self.batches - 1)
        self._gains = objective.scale * len(self.rows_at) / counts
        self._ridge = objective.ridge.reshape(rows.outputs, rows.width)
        self._anchor_slopes = rows.empty_slopes()
        self._anchor = None
        # whether a shift of all outputs alike changes no loss, which the first slopes tell
        self._keep_mean = False if rows.separable else None
        self.local = False
        self._use(self._narrow(objective))

    def _narrow(self, objective):
        """The preconditioner; for a wide sparse X its diagonal, which columns can have one by one."""
        return objective.preconditioner(
            diagonal=objective.rows.sparse and objective.rows.width > WIDEST_DENSE_BLOCKS
        )

    def _use(self, solve):
        self._solve = solve
        self._coordinates = solve.coordinates()

    def renew(self, w):
        """Make the coordinates those of the curvature at w, where that is not too dear."""
        rows = self.objective.rows
        if rows.width > (WIDEST_DENSE_BLOCKS if rows.sparse else WIDEST_BLOCKS):
            return False
        solve = self.objective.preconditioner_at(w)
        if solve is None:
            return False
        self.local = True
        self._use(solve)
        return True

    @property
    def renewal_cost(self):
        """What `renew` costs, in epochs."""
        return max(1, self.objective.rows.width // 24)

    def without_shift(self, w):
        """The parameters less their mean over outputs, if the loss ignores it: that lowers the penalty."""
        coef = self.objective.coef(w)
        return (coef - coef.mean(axis=0)).reshape(w.shape) if self._keep_mean else w

    def anchor(self, w):
        """Value and gradient of each problem at w, from which mini-batches depart from now on."""
        objective = self.objective
        sums, gradient = objective.rows.value_and_gradient(objective.coef(w), slopes=self._anchor_slopes)
        if self._keep_mean is None:
            self._keep_mean = objective.rows.slopes_sum_to_zero(self._anchor_slopes)
        self._anchor = gradient * objective.scale
        return objective.with_penalty(w, sums, gradient)

    def newton_decrement(self, gradient):
        """The Newton decrement by the approximate curvature, and the root mean square of Newton's step.

        The decrement, twice the fall that the curvature predicts, is the squared norm of the gradient in the
        coordinates. There gradient and Newton step are the same. Both results have shape (problems,).
        """
        decrease = np.einsum("bi,bi->b", gradient, self._solve(gradient))
        return decrease, np.sqrt(np.maximum(decrease, 0.0) / self.objective.size)

    def epoch(self, w, order, rates, moments=None, size=1.0):
        """One pass over all rows in batches, each with a step; w (problems, size) is overwritten.

        ``rates`` is (batches, problems), ``size`` that of the gradient in the coordinates.
        """
        rows = self.objective.rows
        if moments is not None:
            moments = tuple(part.reshape(self._ridge.shape) for part in moments)
        plan = EpochPlan(
            order, self.batch_rows, self._coordinates, self._ridge, self._gains,
            np.broadcast_to(rates, (self.batches, rows.outputs)), anchor_slopes=self._anchor_slopes,
            anchor=self._anchor, keep_mean=self._keep_mean, moments=moments,
            decays=(*DECAYS, EPSILON * size),
        )  # fmt: skip
        rows.epoch(w.reshape(self._ridge.shape), plan)


# A stream keeps no more numbers of curvature than these, else its diagonal alone.
MOST_CURVATURE = 1 << 20
# A running mean of very sparse parameters takes them in so many times a pass.
SEGMENTS = 8


class StreamBatches:
    """Mini-batches of the latest rows of a stream, which stand for all of it.

    Parameters
    ----------
    objective : LinearObjective
        Of the latest rows alone.
    batch_rows : int or None
        None chooses.
    """

    decays = DECAYS

    def __init__(self, objective, batch_rows=None):
        rows = objective.rows
        self.objective = objective
        self.rows_at = rows.weighted_rows()
        n = len(self.rows_at)
        self.batch_rows = suitable_batch(rows, n, 8, 64) if batch_rows is None else min(batch_rows, n)
        self._row_weights = rows.row_weights()
        self._ridge = objective.ridge.reshape(rows.outputs, rows.width)
        self._keep_mean = False

    def weights(self, order):
        """The weight of each batch, with weights by output their mean over outputs."""
        weight = self._row_weights[order]
        return np.add.reduceat(weight, np.arange(0, len(order), self.batch_rows))

    def curvature(self, w, earlier, share):
        """The loss's curvature by weight at w, of which the latest rows make up a share.

        Rows count by half the size of their slope, a curvature of 1/4 where nothing is known. A second
        derivative would be 0 for a row that is far on the wrong side, and the step towards it endless.
        """
        rows = self.objective.rows
        total = self.weights(self.rows_at).sum()
        widest = WIDEST_DENSE_BLOCKS if rows.sparse else WIDEST_BLOCKS
        if rows.width <= widest and rows.outputs * rows.width**2 <= MOST_CURVATURE:
            gradient, blocks = rows.positive_blocks(w, by_slope=True)
            # a sum of products is at most that of the squares: what is far below it is rounding
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

    def coordinates(self, curvature):
        """Those of a whole stream, given the sum of its losses' curvature."""
        curvature = curvature * self.objective.scale
        if curvature.ndim == 3:
            np.einsum("bii->bi", curvature)[:] += self._ridge
        else:
            curvature += self._ridge[0]
        return coordinates_of(curvature, self.objective.small_ridge)

    def distance(self, w, coordinates, total):
        """How far from w the optimum of a stream of that weight seems, in each of the coordinates.

        It is seen through the gradient of the latest rows, whose noise is taken off. What is left is no
        smaller than the uncertainty of the optimum itself, which is 1.
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
        return np.sqrt(max(np.mean(step * step) - multiple, 1.0))

    def epoch(self, w, mean, order, gains, coordinates, rates, mixing, moments, size):
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
