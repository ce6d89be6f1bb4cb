"""Newton's method with its linear systems solved by preconditioned conjugate gradients."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from sklloss.arrays.vectors import NUMPY, Array, Mask
from sklloss.kernels.solve import conjugate_gradients  # type: ignore[attr-defined]  # compiled
from sklloss.solvers.base import (
    Callback,
    ProductObjective,
    Result,
    allowed_gap,
    exhausted,
    first_value,
    has_vanished,
    require,
    start_again,
)
from sklloss.solvers.lbfgs import lbfgs

HALVINGS = 40
ENOUGH = 1e-4  # Armijo's fraction of the decrease that the slope predicts
LOOSEST = 0.5  # a system may be left with this share of its decrease undone
CLOSEST = 0.1  # but is never solved to less than this share of the gap that is allowed at the end
MOST_PRODUCTS = 250
# A preconditioner is made anew after a system that took this share of its price, if the next points can be
# like this one; else, far from the end or with no penalty, after one that took all of it.
WORTH = 0.5
NEAR = 1.0  # relative gap

# Dual coordinate ascent towards the start.
DUAL_EPOCHS = 40
DUAL_ENOUGH = 0.3  # share of the allowed gap to come to
DUAL_NEAR = 0.1  # relative gap from which on the end of the epochs is near the minimum

# Where L-BFGS needs no more iterations, it reads X half as often as Newton's method does. What needs more may
# need very many, and Newton's method goes on from there.
SHORT, SHARE = 30, 0.3


def newton_cg(
    objective: ProductObjective,
    w: Array,
    *,
    tol: float,
    max_iter: int,
    callback: Callback | None = None,
    start: Array | None = None,
) -> Result:
    """Minimise a convex objective by truncated Newton steps.

    A system is solved only as far as pays: loosely far from the optimum, and near it more and more
    closely, by the fourth root of the relative gap, which keeps the convergence superlinear. From 0, where
    the objective has one to offer, a dual ascent leads most of the way.

    Parameters
    ----------
    objective : ProductObjective
    w : ndarray of shape (problems, size)
        Start.
    tol : float
        See `allowed_gap`; the Newton decrement comes from the conjugate gradients.
    max_iter : int
        Most Newton steps.
    callback : callable, optional
        Called with ``(n_iter, w, value)`` after each step.
    start : ndarray of shape (problems,), optional
        By what a problem is judged to have vanished, where another solver has led here.

    Returns
    -------
    Result

    References
    ----------
    Nocedal and Wright, *Numerical Optimization*, 2nd ed., section 7.1.
    """
    require(objective, ProductObjective)
    w = np.array(w, dtype=np.float64)
    if max_iter > 0 and not w.any():
        w = dual_start(objective, w, tol)
    vectors = getattr(objective, "vectors", NUMPY)
    at = vectors.put(w)
    value, gradient = _linearised(objective, vectors, at)
    if start is None:
        start = first_value(objective, w, value)
    if start_again(objective, w, value):
        at = vectors.put(w)
        value, gradient = _linearised(objective, vectors, at)
    n_iter = np.zeros(len(w), dtype=int)
    converged = np.zeros(len(w), dtype=bool)
    stuck = np.zeros(len(w), dtype=bool)
    curve = [float(value.sum())]
    solve = vectors.solver(objective.preconditioner())
    for iteration in range(1, max_iter + 1):
        active = ~(converged | stuck | has_vanished(objective, value, start))
        if not active.any():
            break
        direction, products, reached, first = _conjugate_gradients(
            objective, vectors, solve, gradient, value, allowed_gap(value, tol), active
        )
        direction, slope, lost = vectors.sound(direction, gradient)
        decrement = -slope
        # a system that was given up on understates the decrement
        solved = active & reached & ~lost & (decrement / 2 <= allowed_gap(value, tol))
        step, at, new = _damped_step(objective, vectors, at, value, direction, decrement, active)
        still = active & (step == 0.0)
        # Along directions that do not matter, rounding can make a large decrement of nothing. The
        # preconditioner's ridge keeps it out of its own estimate, which a factor of 10 makes safe.
        doubt = np.minimum(decrement, 10 * first)
        converged |= solved | (still & ~lost & exhausted(doubt, value, objective.noise))
        stuck |= still & ~converged
        value, gradient = new
        n_iter[active] = iteration
        curve.append(float(value.sum()))
        if callback is not None:
            callback(iteration, vectors.get(at), value)
        near = objective.penalised and (decrement / 2 <= NEAR * np.abs(value)).all()
        if products > (WORTH if near else 1.0) * objective.local_cost:
            # the system has moved away from its preconditioner; a new one serves the next systems too
            newer = objective.local_preconditioner()
            solve = solve if newer is None else vectors.solver(newer)
    return Result(vectors.get(at), value, n_iter, converged, curve, has_vanished(objective, value, start))


def lbfgs_newton_cg(
    objective: Any,
    w: Array,
    *,
    tol: float,
    max_iter: int,
    callback: Callback | None = None,
    begins: Callable[[str], object] | None = None,
) -> Result:
    """Minimise a convex objective by `lbfgs`, and from where that has got to by `newton_cg`.

    Parameters
    ----------
    objective, w, tol, callback
        See `newton_cg`.
    max_iter : int
        Most iterations of both; of these `lbfgs` has 30, or three out of ten if that is less.
    begins : callable, optional
        Called with the name of each solver that begins.

    Returns
    -------
    Result
    """
    begins = begins or (lambda name: None)
    short = min(SHORT, int(SHARE * max_iter))
    if not short:
        begins("newton-cg")
        return newton_cg(objective, w, tol=tol, max_iter=max_iter, callback=callback)
    begins("lbfgs")
    first = lbfgs(objective, w, tol=tol, max_iter=short, callback=callback)
    if (first.converged | first.vanished).all():
        return first
    begins("newton-cg")
    done = len(first.curve) - 1
    then = newton_cg(
        objective,
        first.w,
        tol=tol,
        max_iter=max_iter - done,
        callback=callback and (lambda iteration, *where: callback(done + iteration, *where)),
        start=np.fmax(objective.null_value(), first.value),
    )
    n_iter = np.where(then.n_iter > 0, done + then.n_iter, first.n_iter)
    return dataclasses.replace(then, n_iter=n_iter, curve=[*first.curve, *then.curve[1:]])


def dual_start(objective: Any, w: Array, tol: float) -> Array:
    """Parameters near the minimum, or ``w``, which is 0, where there is nothing to be had.

    An epoch takes one row after another, in an order that is shuffled anew by a generator of its own: the
    same from fit to fit. How near the minimum it came is an estimate, which the solver that starts there has
    to confirm.

    References
    ----------
    Shalev-Shwartz and Zhang, "Stochastic dual coordinate ascent methods for regularized loss minimization",
    2013.
    """
    ascent = objective.dual_ascent()
    if ascent is None:
        return w
    random_state = np.random.RandomState(0)
    before = np.inf
    for _ in range(DUAL_EPOCHS):
        value, predicted_decrease = ascent.epoch(random_state)
        # a NaN counts as left
        left = predicted_decrease[~(predicted_decrease <= DUAL_ENOUGH * allowed_gap(value, tol))].sum()
        if left == 0 or not left <= ascent.slow * before:
            break
        before = left
    if not predicted_decrease.sum() <= DUAL_NEAR * np.abs(value).sum():
        return w
    w_dual = objective.without_shift(ascent.parameters())
    return np.where(np.isfinite(w_dual).all(axis=1, keepdims=True), w_dual, w)


def _linearised(objective: ProductObjective, vectors: Any, at: Any) -> tuple[Array, Any]:
    value, gradient = objective.linearise(at)
    return vectors.read(value)[0], gradient


def _conjugate_gradients(
    objective: ProductObjective,
    vectors: Any,
    solve: Any,
    gradient: Any,
    value: Array,
    gap: Array,
    active: Mask,
) -> tuple[Any, int, Mask, Array]:
    """Minimise g.d + d.Hd / 2 over d for each problem, to a residual that suits its distance to the end.

    Returns d, the number of products with the Hessian, which problems got as far as they should, and the
    decrement as the preconditioner alone sees it.
    """
    residual = -gradient
    z = solve(residual)
    (first,) = vectors.read(vectors.dot(residual, z))
    rz = first.copy()
    size = np.maximum(np.abs(value), np.finfo(float).tiny)
    lowered = np.zeros_like(rz)
    decrease = np.zeros_like(rz)
    reached = vectors.vanishes(gradient, first == 0)
    before = np.zeros_like(reached)
    running = active & ~reached & (rz > 0)
    rule = rz, first, decrease, lowered, size, gap, running, reached, before
    systems = (_SystemsThere if vectors.resident else _Systems)(vectors, residual, z, rule)
    products = 0
    some = running.any()
    while some and products < MOST_PRODUCTS:
        products += 1
        some = systems.step(
            objective.product(systems.p), solve, products, LOOSEST, CLOSEST, objective.residual_floor
        )
    # Where the objective is flat to working precision, take the preconditioned gradient.
    d = systems.d
    flat = active & ~reached & ~systems.moved()
    if flat.any():
        d = vectors.choose(flat, -solve(gradient), d)
    return d, products, reached, first


class _Systems:
    """Systems side by side in main memory: where they are, and the directions p that they go next."""

    def __init__(self, vectors: Any, residual: Any, z: Any, rule: tuple[Any, ...]) -> None:
        self._rz, _, self._decrease, *_, self._running, _, _ = self._rule = rule
        self.p, self.d, self._residual = vectors.keep(z, self._running), np.zeros_like(residual), residual

    def step(self, product: Any, solve: Any, *limits: float) -> bool:
        """Go along p, given its product with the matrix; whether a system still runs."""
        residual = self._residual
        conjugate_gradients.advance(
            self.p, product, self.d, residual, self._rz, self._decrease, self._running
        )
        return conjugate_gradients.turn(self.p, solve(residual), residual, *self._rule, *limits)

    def moved(self) -> Mask:
        """Which systems have gone anywhere."""
        return self.d.any(axis=1)


class _SystemsThere:
    """The same where X lives elsewhere: the vectors stay there, and a step waits for two numbers of each."""

    def __init__(self, vectors: Any, residual: Any, z: Any, rule: tuple[Any, ...]) -> None:
        rz, *_, self._running, _, _ = self._rule = rule
        self._vectors, self._moved = vectors, np.zeros_like(self._running)
        self.p, self.d, self._residual = vectors.keep(z, self._running), vectors.xp.zeros_like(z), residual
        self._there = vectors.put(rz)
        self._zeros, self._ones = vectors.xp.zeros_like(self._there), vectors.xp.ones_like(self._there)

    def step(self, product: Any, solve: Any, *limits: float) -> bool:
        """See `_Systems.step`."""
        vectors, xp = self._vectors, self._vectors.xp
        before = self._running.copy()
        pHp = vectors.dot(self.p, product)
        # the next direction is made before the host knows whether it is wanted: it need not wait for it
        convex = pHp > 0
        length = xp.where(convex, self._there / xp.where(convex, pHp, self._ones), self._zeros)[:, None]
        self.d = self.d + length * self.p
        self._residual = self._residual - length * product
        z = solve(self._residual)
        newer = vectors.dot(self._residual, z)
        # a system that has ended may have left 0
        divisor = self._there if len(before) == 1 else xp.where(convex, self._there, self._ones)
        p = (newer / divisor)[:, None] * self.p + z
        pHp, newer_here = vectors.read(pHp, newer)
        self._moved |= before & (pHp > 0)
        some = conjugate_gradients.settle(pHp, newer_here, *self._rule, *limits)
        if some:
            self.p, self._there = vectors.keep(p, self._running), newer
        return some

    def moved(self) -> Mask:
        """See `_Systems.moved`."""
        return self._moved


def _damped_step(
    objective: ProductObjective,
    vectors: Any,
    at: Any,
    value: Array,
    direction: Any,
    decrement: Array,
    active: Mask,
) -> tuple[Array, Any, tuple[Array, Any]]:
    """The largest of 1, 1/2, 1/4, ... for each problem that lowers it enough; 0 where none does.

    Returns the steps, where they lead, and value and gradient there.
    """
    step = np.where(active, 1.0, 0.0)
    noise = objective.noise * np.abs(value)
    for _ in range(HALVINGS):
        ahead = at + vectors.along(step, direction, active)
        new = _linearised(objective, vectors, ahead)
        # a NaN or infinite value is a rise too
        rises = active & (step > 0) & ~(new[0] <= value - ENOUGH * step * decrement + noise)
        if not rises.any():
            return step, ahead, new
        step[rises] /= 2
    step[rises] = 0.0
    ahead = at + vectors.along(step, direction, active)
    return step, ahead, _linearised(objective, vectors, ahead)
