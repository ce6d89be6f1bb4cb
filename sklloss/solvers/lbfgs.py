"""Limited-memory BFGS, preconditioned, over an array of independent problems."""

from typing import Any, TypeAlias

import numpy as np

from sklloss.arrays.vectors import NUMPY, Array, Mask
from sklloss.solvers.base import (
    Callback,
    GradientObjective,
    Result,
    Solve,
    allowed_gap,
    exhausted,
    finite_or_zero,
    first_value,
    has_vanished,
    require,
    start_again,
)

ENOUGH = 1e-4  # Armijo's fraction of the decrease that the slope predicts
FLATTER = 0.9  # the slope after a step, against the slope before it (weak Wolfe)
TRIALS = 50
RENEWED = 10  # iterations after which a better preconditioner is worth its making, if it is no dearer
GAP_SAFETY = 0.1  # the approximate inverse Hessian may underestimate the gap
DISAGREES = 1e-14  # share of their sizes' product that a step and the change of the gradient have in common


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
    identity, so that neither the steps nor the stopping rule depend on the units of the features. A fit
    that takes long has the preconditioner made anew where it stands.

    Parameters
    ----------
    objective : GradientObjective
    w : ndarray of shape (problems, size)
        Start.
    tol : float
        See `allowed_gap`; the Newton decrement is estimated with the L-BFGS approximation of the inverse
        Hessian, and must be small twice in a row, while ``memory`` steps together lower the
        objective by no more.
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
    due = max(RENEWED, getattr(objective, "local_cost", 0)) if renew is not None else max_iter + 1
    vectors = getattr(objective, "vectors", NUMPY)
    model = (Compact if vectors.resident else TwoLoop)(objective, vectors, precondition, memory)
    value = model.start(w)
    start = first_value(objective, w, value)
    if start_again(objective, w, value):
        value = model.start(w)
    earlier: list[Array] = []
    n_iter = np.zeros(len(w), dtype=int)
    quiet = np.zeros(len(w), dtype=int)
    converged = np.zeros(len(w), dtype=bool)
    stuck = np.zeros(len(w), dtype=bool)
    curve = [float(value.sum())]
    for iteration in range(1, max_iter + 1):
        active = ~(converged | stuck | has_vanished(objective, value, start))
        slope = model.direct(active)
        gap = allowed_gap(value, tol)
        quiet = np.where((slope < 0) & (-slope / 2 <= GAP_SAFETY * gap), quiet + 1, 0)
        # an estimate that is small by mistake does not go with a value that still falls
        settled = -slope / 2 <= 1e-4 * gap
        if len(earlier) == memory:
            settled |= earlier[0] - value <= gap
        converged |= active & ((quiet >= 2) & settled | model.vanishes())
        active &= ~converged
        if not active.any():
            break
        step, new_value = _line_search(model, value, slope, active, objective.noise * np.abs(value))
        still = active & (step == 0.0)
        converged |= still & exhausted(slope, value, objective.noise)
        stuck |= still & ~converged
        model.transfer(step)
        earlier = [*earlier, value][-memory:]
        value = new_value
        n_iter[active] = iteration
        curve.append(float(value.sum()))
        if callback is not None:
            callback(iteration, model.w, value)
        if iteration % due == 0:
            newer = renew(model.w)
            if newer is not None:
                model.renew(newer)
    return Result(model.w, value, n_iter, converged, curve, has_vanished(objective, value, start))


def _line_search(
    model: "TwoLoop | Compact", value: Array, slope: Array, active: Mask, noise: Array
) -> tuple[Array, Array]:
    """Steps that satisfy the weak Wolfe conditions, by doubling and bisection for each problem.

    Where the change of the value drowns in its rounding, the slope alone decides (Hager and Zhang's
    approximate Wolfe condition). Where what the slope predicts is as small as the rounding of the slope, no
    step is better than the first that is no rise. A problem that finds no step gets 0.
    """
    step = np.where(active, 1.0, 0.0)
    low = np.zeros_like(step)
    high = np.full_like(step, np.inf)
    searching = active & (slope < 0)
    step[active & ~searching] = 0.0
    drowned = -slope * np.abs(value) <= noise**2
    for _ in range(TRIALS):
        new_value, new_slope = model.look(step)
        lower = new_value <= value + ENOUGH * step * slope
        lower |= (new_value <= value + noise) & (new_slope <= (2 * ENOUGH - 1) * slope)
        lower |= drowned & (new_value <= value + noise)
        flat = (new_slope >= FLATTER * slope) | drowned
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
    # a step that lowers the value is better than none, even where its slope is still steep
    step[searching] = low[searching]
    return step, model.look(step)[0]


# A step, the change of the gradient, one over their product, and the preconditioner's scale.
Past: TypeAlias = tuple[Array, Array, Array, Array]


class TwoLoop:
    """The model in main memory, multiplied by the two-loop recursion.

    Attributes
    ----------
    w : ndarray of shape (problems, size)
    """

    def __init__(self, objective: GradientObjective, vectors: Any, precondition: Solve, memory: int) -> None:
        self._objective, self._precondition, self._memory = objective, precondition, memory
        self._past: list[Past] = []

    def start(self, w: Array) -> Array:
        """Begin at w, and return the values there."""
        self.w: Array = w
        value, self._gradient = self._objective.value_and_gradient(w)
        return value

    def direct(self, active: Mask) -> Array:
        """Turn to the next direction, 0 for a problem that is not active, and return its slope."""
        direction = finite_or_zero(-_inverse_hessian(self._gradient, self._past, self._precondition))
        direction[~active] = 0.0
        self._direction = direction
        return _dot(self._gradient, direction)

    def vanishes(self) -> Mask:
        """Which problems have a gradient of 0."""
        return (self._gradient == 0).all(axis=1)

    def look(self, step: Array) -> tuple[Array, Array]:
        """The values at the end of steps along the direction, and the slopes there."""
        self._moved = step[:, None] * self._direction
        self._ahead = self.w + self._moved
        value, self._next = self._objective.value_and_gradient(self._ahead)
        return value, _dot(self._next, self._direction)

    def transfer(self, step: Array) -> None:
        """Go to where it has looked last, with those steps."""
        _remember(self._past, self._moved, self._next - self._gradient, self._precondition, self._memory)
        self.w, self._gradient = self._ahead, self._next

    def renew(self, precondition: Solve) -> None:
        """Take another preconditioner for what comes, and for what is remembered."""
        self._precondition = precondition
        self._past = [(s, y, rho, _newest_scale(s, y, rho, precondition)) for s, y, rho, _ in self._past]


def agree(sy: Array, ss: Array, yy: Array) -> Mask:
    """Whether a step s and the change y of the gradient agree, from their products: else neither is kept."""
    return sy > DISAGREES * np.sqrt(np.maximum(ss * yy, 0.0))


def _dot(a: Array, b: Array) -> Array:
    return np.einsum("bi,bi->b", a, b)


def _remember(past: list[Past], s: Array, y: Array, precondition: Solve, memory: int) -> None:
    """Keep a step s and the change y of the gradient; a problem in which they disagree keeps nothing."""
    sy = _dot(s, y)
    good = agree(sy, _dot(s, s), _dot(y, y))
    rho = np.divide(1.0, sy, out=np.zeros_like(sy), where=good)
    past.append((s, y, rho, _newest_scale(s, y, rho, precondition)))
    if len(past) > memory:
        past.pop(0)


def _newest_scale(s: Array, y: Array, rho: Array, precondition: Solve) -> Array:
    """By what the preconditioner is to be multiplied to meet the step s; 0 for what was not kept."""
    yy = _dot(y, precondition(y))
    return np.divide(_dot(s, y), yy, out=np.zeros_like(rho), where=(rho > 0) & (yy > 0))


def _inverse_hessian(gradient: Array, past: list[Past], precondition: Solve) -> Array:
    """Approximate inverse Hessian times gradient, by the two-loop recursion for each problem."""
    q = gradient.copy()
    weights = []
    for s, y, rho, _ in reversed(past):
        a = rho * _dot(s, q)
        q -= a[:, None] * y
        weights.append(a)
    q = precondition(q)
    scale = np.ones(len(q))
    for _, _, _, newer in past:
        scale = np.where(newer > 0, newer, scale)
    q *= scale[:, None]
    for (s, y, rho, _), a in zip(past, reversed(weights)):
        b = rho * _dot(y, q)
        q += (a - b)[:, None] * s
    return q


class Compact:
    """The same model beside X elsewhere, as the matrices whose product the two loops are.

    Of the vectors there the host knows their products alone, which a look brings along with the value: the
    next direction is a combination that the host decides on, and its slope is known without a wait.

    With steps s, changes y of the gradient, R the upper triangle of s'y, D its diagonal, P the preconditioner
    and c its scale, the inverse Hessian is the one that takes g to

        a = R**-1 s g,  q = c P (g - y'a),  q + s' R**-T (D a - y q).

    References
    ----------
    Byrd, Nocedal and Schnabel, "Representations of quasi-Newton matrices and their use in limited memory
    methods", 1994.
    """

    def __init__(self, objective: GradientObjective, vectors: Any, precondition: Solve, memory: int) -> None:
        self._objective, self._vectors, self._xp = objective, vectors, vectors.xp
        self._precondition, self._memory = vectors.solver(precondition), memory

    def start(self, w: Array) -> Array:
        """See `TwoLoop.start`; w is NumPy's."""
        problems = len(w)
        self._w = self._vectors.put(w)
        value, self._gradient = self._objective.value_and_gradient(self._w)
        self._pulled = self._precondition(self._gradient)
        value, self._gPg = self._vectors.read(value, self._vectors.dot(self._gradient, self._pulled))
        # S, PY and the preconditioned gradient, in this order, and Y
        self._basis = self._pulled[:, None, :]
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

    def direct(self, active: Mask) -> Array:
        """See `TwoLoop.direct`."""
        a = _times(self._inverse_R, self._Sg)
        scale = self._scale()[:, None]
        yq = scale * (self._PYg - _times(self._YPY, a))
        c = _times(np.swapaxes(self._inverse_R, 1, 2), self._D * a - yq)
        share = np.concatenate([c, -scale * a, scale], axis=1)
        slope = -(share * np.concatenate([self._Sg, self._PYg, self._gPg[:, None]], axis=1)).sum(axis=1)
        sound = np.isfinite(slope)
        self._active = active & sound
        share = np.where(self._active[:, None], -share, 0.0)
        direction = self._vectors.put(share[:, None, :]) @ self._basis
        direction = self._xp.reshape(direction, self._w.shape)
        # elsewhere a zero times what is no number would be none
        self._direction = direction if sound.all() else self._vectors.keep(direction, sound)
        return np.where(self._active, slope, 0.0)

    def vanishes(self) -> Mask:
        """See `TwoLoop.vanishes`."""
        return self._vectors.vanishes(self._gradient, self._gPg == 0)

    def look(self, step: Array) -> tuple[Array, Array]:
        """See `TwoLoop.look`."""
        xp, problems = self._xp, len(step)
        self._moved = self._vectors.along(step, self._direction, self._active)
        self._ahead = self._w + self._moved
        value, gradient = self._objective.value_and_gradient(self._ahead)
        pulled = self._precondition(gradient)
        change, pulled_change = gradient - self._gradient, pulled - self._pulled
        self._next = gradient, pulled, change, pulled_change
        own = xp.stack([self._direction, change, gradient, pulled, pulled_change], axis=1)
        by = xp.matrix_transpose(own[:, :3, :])
        products = xp.concat([self._basis @ by, own @ by], axis=1)
        numbers = xp.concat([value[:, None], xp.reshape(products, (problems, -1))], axis=1)
        numbers = self._vectors.get(numbers)
        self._products = numbers[:, 1:].reshape(problems, -1, 3)
        return numbers[:, 0].copy(), self._products[:, -5, 2].copy()

    def transfer(self, step: Array) -> None:
        """See `TwoLoop.move`."""
        xp = self._xp
        problems, known = self._D.shape
        old, own = self._products[:, : 2 * known].reshape(problems, 2, known, 3), self._products[:, -5:]
        sy = step * own[:, 0, 1]
        good = agree(sy, step**2 * own[:, 0, 0], own[:, 1, 1])
        rho = np.divide(1.0, sy, out=np.zeros_like(sy), where=good)
        first = max(0, known + 1 - self._memory)
        Sy, PYy = np.where(good[:, None, None], old[:, :, first:, 1], 0.0).swapaxes(0, 1)
        Sg, PYg = old[:, :, first:, 2].swapaxes(0, 1)
        inverse_R = self._inverse_R[:, first:, first:]
        self._inverse_R = _bordered(inverse_R, -_times(inverse_R, Sy) * rho[:, None], 0.0, rho)
        self._YPY = _bordered(self._YPY[:, first:, first:], PYy, PYy, np.where(good, own[:, 4, 1], 0.0))
        self._D = np.column_stack([self._D[:, first:], np.where(good, sy, 0.0)])
        self._Sg, self._PYg = np.column_stack([Sg, step * own[:, 0, 2]]), np.column_stack([PYg, own[:, 4, 2]])
        self._gPg = own[:, 3, 2]
        self._w = self._ahead
        self._gradient, self._pulled, change, pulled_change = self._next
        self._basis = xp.concat(
            [
                self._basis[:, first:known, :], self._moved[:, None, :],
                self._basis[:, known + first : 2 * known, :], pulled_change[:, None, :],
                self._pulled[:, None, :],
            ],
            axis=1,
        )  # fmt: skip
        self._changes = xp.concat([self._changes[:, first:, :], change[:, None, :]], axis=1)

    def renew(self, precondition: Solve) -> None:
        """See `TwoLoop.renew`."""
        xp, known = self._xp, self._D.shape[1]
        self._precondition = self._vectors.solver(precondition)
        pulled = [self._precondition(self._changes[:, i, :]) for i in range(known)]
        self._pulled = self._precondition(self._gradient)
        later = xp.stack([*pulled, self._pulled], axis=1)
        by = xp.concat([self._changes, self._gradient[:, None, :]], axis=1)
        products = self._vectors.get(later @ xp.matrix_transpose(by))
        kept = self._D > 0
        self._YPY = np.where(kept[:, :, None] & kept[:, None, :], products[:, :known, :known], 0.0)
        self._PYg, self._gPg = products[:, :known, known], products[:, known, known]
        self._basis = xp.concat([self._basis[:, :known, :], later], axis=1)

    def _scale(self) -> Array:
        """By what the preconditioner is to be multiplied to meet the newest step that was kept."""
        if not self._D.shape[1]:
            return np.ones(len(self._D))
        yPy = np.einsum("bii->bi", self._YPY)
        kept = (self._D > 0) & (yPy > 0)
        newest = kept.shape[1] - 1 - np.argmax(kept[:, ::-1], axis=1)
        at = np.arange(len(kept)), newest
        return np.divide(self._D[at], yPy[at], out=np.ones(len(kept)), where=kept[at])


def _times(matrix: Array, vector: Array) -> Array:
    return np.einsum("bij,bj->bi", matrix, vector)


def _bordered(matrix: Array, column: Array, row: Array | float, corner: Array) -> Array:
    """Square matrices with one more column and row."""
    problems, size = column.shape
    larger = np.empty((problems, size + 1, size + 1))
    larger[:, :size, :size] = matrix
    larger[:, :size, size], larger[:, size, :size], larger[:, size, size] = column, row, corner
    return larger
