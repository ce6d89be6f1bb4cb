"""Limited-memory BFGS, preconditioned, over an array of independent problems."""

import numpy as np

from sklloss.solvers._stopping import (
    Result,
    allowed_gap,
    exhausted,
    finite_or_zero,
    first_value,
    has_vanished,
    start_again,
)

ENOUGH = 1e-4  # Armijo's fraction of the decrease that the slope promises
FLATTER = 0.9  # the slope after a step, against the slope before it (weak Wolfe)
TRIALS = 50
RENEWED = 10  # iterations after which a better preconditioner is worth its making, if it is no dearer
CAUTION = 0.1  # the approximate inverse Hessian may underestimate the gap


def lbfgs(objective, w, *, tol, max_iter, memory=10, callback=None):
    """Minimise a smooth objective by L-BFGS.

    The two-loop recursion starts from the objective's preconditioner instead of a multiple of the
    identity, so that neither the steps nor the stopping rule depend on the units of the features. A fit
    that takes long has the preconditioner made anew where it stands.

    Parameters
    ----------
    objective : LinearObjective or alike
        With ``value_and_gradient``, ``noise``, ``penalised`` and ``null_value``; ``preconditioner``, and
        ``preconditioner_at`` and ``local_cost``, if it has them.
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
    w = np.array(w, dtype=np.float64)
    prepare = getattr(objective, "preconditioner", None)
    precondition = prepare() if prepare is not None else np.copy
    renew = getattr(objective, "preconditioner_at", None)
    due = max(RENEWED, objective.local_cost) if renew is not None else max_iter + 1
    value, gradient = objective.value_and_gradient(w)
    start = first_value(objective, w, value)
    if start_again(objective, w, value):
        value, gradient = objective.value_and_gradient(w)
    past, earlier = [], []
    n_iter = np.zeros(len(w), dtype=int)
    quiet = np.zeros(len(w), dtype=int)
    converged = np.zeros(len(w), dtype=bool)
    stuck = np.zeros(len(w), dtype=bool)
    curve = [float(value.sum())]
    for iteration in range(1, max_iter + 1):
        active = ~(converged | stuck | has_vanished(objective, value, start))
        direction = finite_or_zero(-_inverse_hessian(gradient, past, precondition))
        direction[~active] = 0.0
        slope = _dot(gradient, direction)
        gap = allowed_gap(value, tol)
        quiet = np.where((slope < 0) & (-slope / 2 <= CAUTION * gap), quiet + 1, 0)
        # an estimate that is small by mistake does not go with a value that still falls
        settled = -slope / 2 <= 1e-4 * gap
        if len(earlier) == memory:
            settled |= earlier[0] - value <= gap
        converged |= active & ((quiet >= 2) & settled | (gradient == 0).all(axis=1))
        active &= ~converged
        if not active.any():
            break
        step, new_value, new_gradient = _line_search(objective, w, value, gradient, direction, slope, active)
        still = active & (step == 0.0)
        converged |= still & exhausted(slope, value, objective.noise)
        stuck |= still & ~converged
        moved = step[:, None] * direction
        _remember(past, moved, new_gradient - gradient, precondition, memory)
        earlier = [*earlier, value][-memory:]
        w = w + moved
        value, gradient = new_value, new_gradient
        n_iter[active] = iteration
        curve.append(float(value.sum()))
        if callback is not None:
            callback(iteration, w, value)
        if iteration % due == 0:
            newer = renew(w)
            if newer is not None:
                precondition = newer
                past = [(s, y, rho, _newest_scale(s, y, rho, newer)) for s, y, rho, _ in past]
    return Result(w, value, n_iter, converged, curve, has_vanished(objective, value, start))


def _dot(a, b):
    return np.einsum("bi,bi->b", a, b)


def _remember(past, s, y, precondition, memory):
    """Keep a step s and the change y of the gradient; a problem in which they disagree keeps nothing."""
    sy = _dot(s, y)
    good = sy > 1e-14 * np.sqrt(np.maximum(_dot(s, s) * _dot(y, y), 0.0))
    rho = np.divide(1.0, sy, out=np.zeros_like(sy), where=good)
    past.append((s, y, rho, _newest_scale(s, y, rho, precondition)))
    if len(past) > memory:
        past.pop(0)


def _newest_scale(s, y, rho, precondition):
    """By what the preconditioner is to be multiplied to meet the step s; 0 for what was not kept."""
    yy = _dot(y, precondition(y))
    return np.divide(_dot(s, y), yy, out=np.zeros_like(rho), where=(rho > 0) & (yy > 0))


def _inverse_hessian(gradient, past, precondition):
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


def _line_search(objective, w, value, gradient, direction, slope, active):
    """Steps that satisfy the weak Wolfe conditions, by doubling and bisection for each problem.

    Where the change of the value drowns in its rounding, the slope alone decides (Hager and Zhang's
    approximate Wolfe condition). A problem that finds no step gets 0.
    """
    step = np.where(active, 1.0, 0.0)
    low = np.zeros_like(step)
    high = np.full_like(step, np.inf)
    searching = active & (slope < 0)
    step[active & ~searching] = 0.0
    noise = objective.noise * np.abs(value)
    for _ in range(TRIALS):
        new_value, new_gradient = objective.value_and_gradient(w + step[:, None] * direction)
        new_slope = _dot(new_gradient, direction)
        lower = new_value <= value + ENOUGH * step * slope
        lower |= (new_value <= value + noise) & (new_slope <= (2 * ENOUGH - 1) * slope)
        flat = new_slope >= FLATTER * slope
        too_far = searching & ~lower
        too_short = searching & lower & ~flat
        searching = too_far | too_short
        if not searching.any():
            return step, new_value, new_gradient
        high[too_far] = step[too_far]
        low[too_short] = step[too_short]
        bracketed = np.isfinite(high)
        middle = np.where(bracketed, (low + np.where(bracketed, high, 0.0)) / 2, 2 * step)
        step = np.where(searching, middle, step)
    # a step that lowers the value is better than none, even where its slope is still steep
    step[searching] = low[searching]
    return step, *objective.value_and_gradient(w + step[:, None] * direction)
