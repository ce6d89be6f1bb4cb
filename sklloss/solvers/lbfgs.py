"""Limited-memory BFGS, preconditioned, over an array of independent problems."""

from typing import Any, TypeAlias

import numpy as np

from sklloss.arrays.vectors import NUMPY, Array, Mask, dot
from sklloss.solvers.base import (
    SUFFICIENT_DECREASE,
    Callback,
    GradientObjective,
    Progress,
    Result,
    Solve,
    allowed_gap,
    evaluate_start,
    exhausted,
    finite_or_zero,
    require,
    underestimates,
)

SLOPE_SHARE = 0.9  # the most that a step may leave of the slope (weak Wolfe condition)
MAX_TRIALS = 50  # of a line search
RENEWAL_ITERATIONS = 10  # the least after which a new preconditioner is worth its cost
GAP_SAFETY = 0.1  # the approximate inverse Hessian may underestimate the gap
LEAST_COSINE = 1e-14  # between a step and the change of the gradient, for the pair to be kept


def lbfgs(
    objective: GradientObjective,
    w: Array,
    *,
    tol: float,
    max_iter: int,
    memory: int = 10,
    callback: Callback | None = None,
) -> Result:
    """Minimise a smooth objective by L-BFGS.

    The two-loop recursion starts from the objective's preconditioner instead of a multiple of the
    identity, so that neither the steps nor the stopping rule depend on the units of the features. In a long
    fit the preconditioner is renewed at the current parameters.

    Parameters
    ----------
    objective : GradientObjective
    w : ndarray of shape (problems, size)
        Start.
    tol : float
        See `allowed_gap`; the Newton decrement is estimated with the L-BFGS approximation of the inverse
        Hessian. It must be small twice in a row, and the last ``memory`` steps together must not have lowered
        the objective by more.
    max_iter : int
    memory : int
        Number of past steps remembered.
    callback : callable, optional
        Called with ``(n_iter, w, value)`` after each iteration.

    Returns
    -------
    Result

    References
    ----------
    Nocedal and Wright, *Numerical Optimization*, 2nd ed., algorithms 7.4 and 7.5.
    """
    require(objective, GradientObjective)
    w = np.array(w, dtype=np.float64)
    prepare = getattr(objective, "preconditioner", None)
    precondition = prepare() if prepare is not None else np.copy
    renew: Any = getattr(objective, "preconditioner_at", None)
    period = max(RENEWAL_ITERATIONS, getattr(objective, "local_cost", 0)) if renew is not None else np.inf
    vectors = getattr(objective, "vectors", NUMPY)
    model = (Compact if vectors.on_device else TwoLoop)(objective, vectors, precondition, memory)
    reference, (value,) = evaluate_start(objective, w, lambda w: (model.start(w),))
    progress = Progress(objective, value, reference)
    earlier: list[Array] = []  # values before the last steps
    small_gaps = np.zeros(len(w), dtype=int)  # in a row
    beyond = np.zeros(len(w), dtype=bool)
    for iteration in range(1, max_iter + 1):
        active = progress.active(value)
        slope = model.set_direction(active)
        gap = allowed_gap(value, tol)
        small = (slope < 0) & (-slope / 2 <= GAP_SAFETY * gap) & ~beyond
        small_gaps = np.where(small, small_gaps + 1, 0)
        # Where the estimate is too small, the value still falls.
        settled = -slope / 2 <= 1e-4 * gap
        if len(earlier) == memory:
            settled |= earlier[0] - value <= gap
        progress.converged |= active & ((small_gaps >= 2) & settled | model.vanishes())
        active &= ~progress.converged
        if not active.any():
            break
        step, new_value = _line_search(model, value, slope, active, objective.noise * np.abs(value))
        unmoved = active & (step == 0.0)
        progress.end(unmoved & exhausted(slope, value, objective.noise), unmoved)
        model.accept(step)
        beyond = underestimates(-slope / 2, value, new_value, gap, objective.noise)
        earlier = [*earlier, value][-memory:]
        value = new_value
        progress.record(iteration, active, value)
        if callback is not None:
            callback(iteration, model.w, value)
        if iteration % period == 0:
            newer = renew(model.w)
            if newer is not None:
                model.renew(newer)
    return progress.result(model.w, value)


def _line_search(
    model: "TwoLoop | Compact", value: Array, slope: Array, active: Mask, noise: Array
) -> tuple[Array, Array]:
    """Steps that satisfy the weak Wolfe conditions, by doubling and bisection for each problem.

    Where rounding hides the change of the value, the slope alone decides (the approximate Wolfe condition of
    Hager and Zhang, 2005). Where even the slope is no larger than its rounding, the first step that does not
    raise the value is taken. A problem without an acceptable step gets 0.
    """
    step = np.where(active, 1.0, 0.0)
    low = np.zeros_like(step)
    high = np.full_like(step, np.inf)
    searching = active & (slope < 0)
    step[active & ~searching] = 0.0
    rounded = -slope * np.abs(value) <= noise**2
    for _ in range(MAX_TRIALS):
        new_value, new_slope = model.evaluate(step)
        lower = new_value <= value + SUFFICIENT_DECREASE * step * slope
        lower |= (new_value <= value + noise) & (new_slope <= (2 * SUFFICIENT_DECREASE - 1) * slope)
        lower |= rounded & (new_value <= value + noise)
        flat = (new_slope >= SLOPE_SHARE * slope) | rounded
        too_far = searching & ~lower
        too_short = searching & lower & ~flat
        searching = too_far | too_short
        if not searching.any():
            return step, new_value
        high[too_far] = step[too_far]
        low[too_short] = step[too_short]
        bracketed = np.isfinite(high)
        middle = np.where(bracketed, (low + np.where(bracketed, high, 0.0)) / 2, 2 * step)
        step = np.where(searching, middle, step)
    # A step that lowers the value is better than none, even if the slope after it is still steep.
    step[searching] = low[searching]
    return step, model.evaluate(step)[0]


# A step s, the change y of the gradient, 1 / s'y, and the scale of the preconditioner.
Pair: TypeAlias = tuple[Array, Array, Array, Array]


class TwoLoop:
    """The approximate inverse Hessian of vectors in main memory, applied by the two-loop recursion.

    Attributes
    ----------
    w : ndarray of shape (problems, size)
    """

    def __init__(self, objective: GradientObjective, vectors: Any, precondition: Solve, memory: int) -> None:
        self._objective, self._precondition, self._memory = objective, precondition, memory
        self._pairs: list[Pair] = []

    def start(self, w: Array) -> Array:
        """Start at w; returns the values there."""
        self.w: Array = w
        value, self._gradient = self._objective.value_and_gradient(w)
        return value

    def set_direction(self, active: Mask) -> Array:
        """Compute the next direction, 0 for a problem that is not active; returns the slopes along it."""
        direction = finite_or_zero(-_inverse_hessian(self._gradient, self._pairs, self._precondition))
        direction[~active] = 0.0
        self._direction = direction
        return dot(self._gradient, direction)

    def vanishes(self) -> Mask:
        """Which problems have a gradient of 0."""
        return (self._gradient == 0).all(axis=1)

    def evaluate(self, step: Array) -> tuple[Array, Array]:
        """The values after steps along the direction, and the slopes there."""
        self._step = step[:, None] * self._direction
        self._next_w = self.w + self._step
        value, self._next_gradient = self._objective.value_and_gradient(self._next_w)
        return value, dot(self._next_gradient, self._direction)

    def accept(self, step: Array) -> None:
        """Move to the point that was evaluated last, after those steps, and store the pair of vectors."""
        s, y = self._step, self._next_gradient - self._gradient
        sy = dot(s, y)
        rho = np.divide(1.0, sy, out=np.zeros_like(sy), where=are_consistent(sy, dot(s, s), dot(y, y)))
        pair = s, y, rho, _preconditioner_scale(s, y, rho, self._precondition)
        self._pairs = [*self._pairs, pair][-self._memory :]
        self.w, self._gradient = self._next_w, self._next_gradient

    def renew(self, precondition: Solve) -> None:
        """Replace the preconditioner, also in the scales of earlier pairs."""
        self._precondition = precondition
        self._pairs = [
            (s, y, rho, _preconditioner_scale(s, y, rho, precondition)) for s, y, rho, _ in self._pairs
        ]


def are_consistent(sy: Array, ss: Array, yy: Array) -> Mask:
    """Whether s'y of a pair is positive beyond rounding, from its products; other pairs are not used."""
    return sy > LEAST_COSINE * np.sqrt(np.maximum(ss * yy, 0.0))


def _preconditioner_scale(s: Array, y: Array, rho: Array, precondition: Solve) -> Array:
    """The factor of the preconditioner that fits the pair, s'y / y'Py; 0 for a pair that is not used."""
    yy = dot(y, precondition(y))
    return np.divide(dot(s, y), yy, out=np.zeros_like(rho), where=(rho > 0) & (yy > 0))


def _inverse_hessian(gradient: Array, pairs: list[Pair], precondition: Solve) -> Array:
    """The approximate inverse Hessian times the gradient, by the two-loop recursion for each problem."""
    q = gradient.copy()
    weights = []
    for s, y, rho, _ in reversed(pairs):
        a = rho * dot(s, q)
        q -= a[:, None] * y
        weights.append(a)
    q = precondition(q)
    scale = np.ones(len(q))
    for _, _, _, newer in pairs:
        scale = np.where(newer > 0, newer, scale)
    q *= scale[:, None]
    for (s, y, rho, _), a in zip(pairs, reversed(weights)):
        b = rho * dot(y, q)
        q += (a - b)[:, None] * s
    return q


class Compact:
    """The same approximation for vectors on a device, as a product of matrices.

    The host reads only products of the vectors, which each evaluation returns along with the value. From them
    it computes the coefficients of the next direction and the slope along it, without waiting for the device.

    With steps S and changes Y of the gradient as rows, R the upper triangle of S Y', D its diagonal, P the
    preconditioner and c its scale, the approximate inverse Hessian takes g to

        a = R**-1 S g,  q = c P (g - Y'a),  q + S' R**-T (D a - Y q).

    References
    ----------
    Byrd, Nocedal and Schnabel, "Representations of quasi-Newton matrices and their use in limited memory
    methods", 1994.
    """

    def __init__(self, objective: GradientObjective, vectors: Any, precondition: Solve, memory: int) -> None:
        self._objective, self._vectors, self._xp = objective, vectors, vectors.xp
        self._precondition, self._memory = vectors.preconditioner(precondition), memory

    def start(self, w: Array) -> Array:
        """See `TwoLoop.start`; w is a NumPy array."""
        problems = len(w)
        self._w = self._vectors.put(w)
        value, self._gradient = self._objective.value_and_gradient(self._w)
        self._Pg = self._precondition(self._gradient)
        value, self._gPg = self._vectors.to_host(value, self._vectors.dot(self._gradient, self._Pg))
        # The rows of S, of YP and Pg, in this order; then those of Y.
        self._basis = self._Pg[:, None, :]
        self._changes = self._basis[:, :0, :]
        self._inverse_R = np.zeros((problems, 0, 0))
        self._YPY = np.zeros((problems, 0, 0))
        self._D = np.zeros((problems, 0))
        self._Sg, self._PYg = np.zeros((problems, 0)), np.zeros((problems, 0))
        return value

    @property
    def w(self) -> Array:
        """See `TwoLoop`."""
        return self._vectors.get(self._w)

    def set_direction(self, active: Mask) -> Array:
        """See `TwoLoop.set_direction`."""
        a = _times(self._inverse_R, self._Sg)
        scale = self._scale()[:, None]
        yq = scale * (self._PYg - _times(self._YPY, a))
        c = _times(np.swapaxes(self._inverse_R, 1, 2), self._D * a - yq)
        coefficients = np.concatenate([c, -scale * a, scale], axis=1)
        products = np.concatenate([self._Sg, self._PYg, self._gPg[:, None]], axis=1)
        slope = -(coefficients * products).sum(axis=1)
        finite = np.isfinite(slope)
        self._active = active & finite
        coefficients = np.where(self._active[:, None], -coefficients, 0.0)
        direction = self._vectors.put(coefficients[:, None, :]) @ self._basis
        direction = self._xp.reshape(direction, self._w.shape)
        # 0 times a NaN of the basis is NaN.
        self._direction = direction if finite.all() else self._vectors.masked(direction, finite)
        return np.where(self._active, slope, 0.0)

    def vanishes(self) -> Mask:
        """See `TwoLoop.vanishes`."""
        return self._vectors.vanishes(self._gradient, self._gPg == 0)

    def evaluate(self, step: Array) -> tuple[Array, Array]:
        """See `TwoLoop.evaluate`."""
        xp, problems = self._xp, len(step)
        self._step = self._vectors.scaled(step, self._direction, self._active)
        self._next_w = self._w + self._step
        value, gradient = self._objective.value_and_gradient(self._next_w)
        P_gradient = self._precondition(gradient)
        change, P_change = gradient - self._gradient, P_gradient - self._Pg
        self._next = gradient, P_gradient, change, P_change
        new = xp.stack([self._direction, change, gradient, P_gradient, P_change], axis=1)
        factors = xp.matrix_transpose(new[:, :3, :])
        products = xp.concat([self._basis @ factors, new @ factors], axis=1)
        numbers = xp.concat([value[:, None], xp.reshape(products, (problems, -1))], axis=1)
        numbers = self._vectors.get(numbers)
        self._products = numbers[:, 1:].reshape(problems, -1, 3)
        return numbers[:, 0].copy(), self._products[:, -5, 2].copy()

    def accept(self, step: Array) -> None:
        """See `TwoLoop.accept`."""
        xp = self._xp
        problems, known = self._D.shape
        old, new = self._products[:, : 2 * known].reshape(problems, 2, known, 3), self._products[:, -5:]
        sy = step * new[:, 0, 1]
        good = are_consistent(sy, step**2 * new[:, 0, 0], new[:, 1, 1])
        rho = np.divide(1.0, sy, out=np.zeros_like(sy), where=good)
        first = max(0, known + 1 - self._memory)
        Sy, PYy = np.where(good[:, None, None], old[:, :, first:, 1], 0.0).swapaxes(0, 1)
        Sg, PYg = old[:, :, first:, 2].swapaxes(0, 1)
        inverse_R = self._inverse_R[:, first:, first:]
        self._inverse_R = _bordered(inverse_R, -_times(inverse_R, Sy) * rho[:, None], 0.0, rho)
        self._YPY = _bordered(self._YPY[:, first:, first:], PYy, PYy, np.where(good, new[:, 4, 1], 0.0))
        self._D = np.column_stack([self._D[:, first:], np.where(good, sy, 0.0)])
        self._Sg, self._PYg = np.column_stack([Sg, step * new[:, 0, 2]]), np.column_stack([PYg, new[:, 4, 2]])
        self._gPg = new[:, 3, 2]
        self._w = self._next_w
        self._gradient, self._Pg, change, P_change = self._next
        self._basis = xp.concat(
            [
                self._basis[:, first:known, :], self._step[:, None, :],
                self._basis[:, known + first : 2 * known, :], P_change[:, None, :],
                self._Pg[:, None, :],
            ],
            axis=1,
        )  # fmt: skip
        self._changes = xp.concat([self._changes[:, first:, :], change[:, None, :]], axis=1)

    def renew(self, precondition: Solve) -> None:
        """See `TwoLoop.renew`."""
        xp, known = self._xp, self._D.shape[1]
        self._precondition = self._vectors.preconditioner(precondition)
        P_changes = [self._precondition(self._changes[:, i, :]) for i in range(known)]
        self._Pg = self._precondition(self._gradient)
        later = xp.stack([*P_changes, self._Pg], axis=1)
        factors = xp.concat([self._changes, self._gradient[:, None, :]], axis=1)
        products = self._vectors.get(later @ xp.matrix_transpose(factors))
        used = self._D > 0
        self._YPY = np.where(used[:, :, None] & used[:, None, :], products[:, :known, :known], 0.0)
        self._PYg, self._gPg = products[:, :known, known], products[:, known, known]
        self._basis = xp.concat([self._basis[:, :known, :], later], axis=1)

    def _scale(self) -> Array:
        """The factor of the preconditioner that fits the newest pair in use."""
        if not self._D.shape[1]:
            return np.ones(len(self._D))
        yPy = np.einsum("bii->bi", self._YPY)
        used = (self._D > 0) & (yPy > 0)
        newest = used.shape[1] - 1 - np.argmax(used[:, ::-1], axis=1)
        at = np.arange(len(used)), newest
        return np.divide(self._D[at], yPy[at], out=np.ones(len(used)), where=used[at])


def _times(matrix: Array, vector: Array) -> Array:
    return np.einsum("bij,bj->bi", matrix, vector)


def _bordered(matrix: Array, column: Array, row: Array | float, corner: Array) -> Array:
    """Square matrices with one more column and row."""
    problems, size = column.shape
    larger = np.empty((problems, size + 1, size + 1))
    larger[:, :size, :size] = matrix
    larger[:, :size, size], larger[:, size, :size], larger[:, size, size] = column, row, corner
    return larger
