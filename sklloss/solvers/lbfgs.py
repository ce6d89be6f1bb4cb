"""Limited-memory BFGS, preconditioned, over an array of independent problems."""

import numpy as np

from sklloss.arrays.vectors import NUMPY
from sklloss.solvers.base import (
    Result,
    allowed_gap,
    exhausted,
    first_value,
    has_vanished,
    start_again,
)
from sklloss.solvers.lbfgs_models import Compact, TwoLoop

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
        ``preconditioner_at`` and ``local_cost``, if it has them; ``vectors`` if it takes others than NumPy's.
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
    vectors = getattr(objective, "vectors", NUMPY)
    model = (Compact if vectors.resident else TwoLoop)(objective, vectors, precondition, memory)
    value = model.start(w)
    start = first_value(objective, w, value)
    if start_again(objective, w, value):
        value = model.start(w)
    earlier = []
    n_iter = np.zeros(len(w), dtype=int)
    quiet = np.zeros(len(w), dtype=int)
    converged = np.zeros(len(w), dtype=bool)
    stuck = np.zeros(len(w), dtype=bool)
    curve = [float(value.sum())]
    for iteration in range(1, max_iter + 1):
        active = ~(converged | stuck | has_vanished(objective, value, start))
        slope = model.direct(active)
        gap = allowed_gap(value, tol)
        quiet = np.where((slope < 0) & (-slope / 2 <= CAUTION * gap), quiet + 1, 0)
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


def _line_search(model, value, slope, active, noise):
    """Steps that satisfy the weak Wolfe conditions, by doubling and bisection for each problem.

    Where the change of the value drowns in its rounding, the slope alone decides (Hager and Zhang's
    approximate Wolfe condition). Where what the slope promises is as small as the rounding of the slope, no
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
