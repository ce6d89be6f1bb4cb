"""Newton's method with its linear systems solved by preconditioned conjugate gradients."""

import numpy as np

from sklloss.kernels import _conjugate
from sklloss.solvers._ascent import ascended
from sklloss.solvers._stopping import (
    Result,
    allowed_gap,
    exhausted,
    finite_or_zero,
    first_value,
    has_vanished,
    start_again,
)

HALVINGS = 40
ENOUGH = 1e-4  # Armijo's fraction of the decrease that the slope promises
LOOSEST = 0.5  # a system may be left with this share of its decrease undone
CLOSEST = 0.1  # but is never solved to less than this share of the gap that is allowed at the end
MOST_PRODUCTS = 250
# A preconditioner is made anew after a system that took this share of its price, if the next points can be
# like this one; else, far from the end or with no penalty, after one that took all of it.
WORTH = 0.5
NEAR = 1.0  # relative gap


def newton_cg(objective, w, *, tol, max_iter, callback=None):
    """Minimise a convex objective by truncated Newton steps.

    A system is solved only as far as pays: loosely far from the optimum, and near it more and more
    closely, by the fourth root of the relative gap, which keeps the convergence superlinear. From 0, where
    the objective has one to offer, a dual ascent leads most of the way.

    Parameters
    ----------
    objective : LinearObjective or alike
        With ``dual_ascent``, ``linearise``, ``product``, ``preconditioner``, ``local_preconditioner``,
        ``local_cost``, ``noise``, ``residual_floor``, ``penalised`` and ``null_value``.
    w : ndarray of shape (problems, size)
        Start.
    tol : float
        See `allowed_gap`; the Newton decrement comes from the conjugate gradients.
    max_iter : int
        Most Newton steps.
    callback : callable, optional
        Called with ``(n_iter, w, value)`` after each step.

    Returns
    -------
    Result

    References
    ----------
    Nocedal and Wright, *Numerical Optimization*, 2nd ed., section 7.1.
    """
    w = np.array(w, dtype=np.float64)
    if max_iter > 0 and not w.any():
        w = ascended(objective, w, tol)
    value, gradient = objective.linearise(w)
    start = first_value(objective, w, value)
    if start_again(objective, w, value):
        value, gradient = objective.linearise(w)
    n_iter = np.zeros(len(w), dtype=int)
    converged = np.zeros(len(w), dtype=bool)
    stuck = np.zeros(len(w), dtype=bool)
    curve = [float(value.sum())]
    solve = objective.preconditioner()
    for iteration in range(1, max_iter + 1):
        active = ~(converged | stuck | has_vanished(objective, value, start))
        if not active.any():
            break
        direction, products, reached, first = _conjugate_gradients(
            objective, solve, gradient, value, allowed_gap(value, tol), active
        )
        lost = ~np.isfinite(direction).all(axis=1)
        direction = finite_or_zero(direction)
        decrement = -np.einsum("bi,bi->b", gradient, direction)
        # a system that was given up on understates the decrement
        solved = active & reached & ~lost & (decrement / 2 <= allowed_gap(value, tol))
        step, new = _damped_step(objective, w, value, direction, decrement, active)
        still = active & (step == 0.0)
        # Along directions that do not matter, rounding can make a large decrement of nothing. The
        # preconditioner's ridge keeps it out of its own estimate, which a factor of 10 makes safe.
        doubt = np.minimum(decrement, 10 * first)
        converged |= solved | (still & ~lost & exhausted(doubt, value, objective.noise))
        stuck |= still & ~converged
        w = w + step[:, None] * direction
        value, gradient = new
        n_iter[active] = iteration
        curve.append(float(value.sum()))
        if callback is not None:
            callback(iteration, w, value)
        near = objective.penalised and (decrement / 2 <= NEAR * np.abs(value)).all()
        if products > (WORTH if near else 1.0) * objective.local_cost:
            # the system has moved away from its preconditioner; a new one serves the next systems too
            solve = objective.local_preconditioner() or solve
    return Result(w, value, n_iter, converged, curve, has_vanished(objective, value, start))


def _dot(a, b):
    return np.einsum("bi,bi->b", a, b)


def _conjugate_gradients(objective, solve, gradient, value, gap, active):
    """Minimise g.d + d.Hd / 2 over d for each problem, to a residual that suits its distance to the end.

    Returns d, the number of products with the Hessian, which problems got as far as they should, and the
    decrement as the preconditioner alone sees it.
    """
    d = np.zeros_like(gradient)
    residual = -gradient
    z = solve(residual)
    first = _dot(residual, z)
    rz = first.copy()
    size = np.maximum(np.abs(value), np.finfo(float).tiny)
    lowered = np.zeros_like(rz)
    decrease = np.zeros_like(rz)
    reached = (gradient == 0).all(axis=1)
    before = np.zeros_like(reached)
    running = active & ~reached & (rz > 0)
    p = np.where(running[:, None], z, 0.0)
    products = 0
    some = running.any()
    while some and products < MOST_PRODUCTS:
        products += 1
        _conjugate.advance(p, objective.product(p), d, residual, rz, decrease, running)
        some = _conjugate.turn(
            p, solve(residual), residual, rz, first, decrease, lowered, size, gap, running, reached, before,
            products, LOOSEST, CLOSEST, objective.residual_floor,
        )  # fmt: skip
    # Where the objective is flat to working precision no product bends; the preconditioned gradient leads on.
    flat = active & ~reached & ~d.any(axis=1)
    d = np.where(flat[:, None], -solve(gradient), d)
    return d, products, reached, first


def _damped_step(objective, w, value, direction, decrement, active):
    """The largest of 1, 1/2, 1/4, ... for each problem that lowers it enough; 0 where none does."""
    step = np.where(active, 1.0, 0.0)
    noise = objective.noise * np.abs(value)
    for _ in range(HALVINGS):
        new = objective.linearise(w + step[:, None] * direction)
        # a NaN or infinite value is a rise too
        rises = active & (step > 0) & ~(new[0] <= value - ENOUGH * step * decrement + noise)
        if not rises.any():
            return step, new
        step[rises] /= 2
    step[rises] = 0.0
    return step, objective.linearise(w + step[:, None] * direction)
