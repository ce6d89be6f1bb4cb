"""Newton's method with a Cholesky factor of the whole Hessian."""

import numpy as np
from scipy.linalg import lapack

from sklloss.solvers._stopping import Result, allowed_gap, exhausted, finite_or_zero, has_vanished

HALVINGS = 40
ENOUGH = 1e-4  # Armijo's fraction of the decrease that the slope promises


def newton_cholesky(objective, w, *, tol, max_iter, callback=None):
    """Minimise a convex objective by damped Newton steps.

    A pass gives value, gradient and Hessian at once and a full step is tried first, so an iteration
    costs one pass unless its step must be halved.

    Parameters
    ----------
    objective : object with ``hessian``, ``value_and_gradient``, ``noise``, ``penalised`` and ``null_value``
    w : ndarray of shape (problems, size)
        Start.
    tol : float
        See `allowed_gap`; the Newton decrement that it is compared with is exact here.
    max_iter : int
    callback : callable, optional
        Called with ``(n_iter, w, value)`` after each iteration.

    Returns
    -------
    Result
    """
    w = np.array(w, dtype=np.float64)
    value, gradient, hessian = objective.hessian(w)
    start = np.minimum(value, objective.null_value()) if w.any() else value
    n_iter = np.zeros(len(w), dtype=int)
    converged = np.zeros(len(w), dtype=bool)
    stuck = np.zeros(len(w), dtype=bool)
    curve = [float(value.sum())]
    for iteration in range(1, max_iter + 1):
        vanished = has_vanished(objective, value, start)
        active = ~(converged | stuck | vanished)
        if not active.any():
            break
        direction = np.zeros_like(w)
        for k in np.flatnonzero(active):
            direction[k] = -solve_positive(hessian[k], gradient[k])
        lost = ~np.isfinite(direction).all(axis=1)
        direction = finite_or_zero(direction)
        decrement = -np.einsum("bi,bi->b", gradient, direction)
        solved = ~lost & (decrement / 2 <= allowed_gap(value, tol))
        # Near the end a step squares the error, so the last one is taken too: it needs no Hessian.
        final = bool(np.all(solved | ~active))
        step, new = _damped_step(objective, w, value, direction, decrement, active, final)
        still = active & (step == 0.0)
        converged |= (active & solved) | (still & ~lost & exhausted(decrement, value, objective.noise))
        stuck |= still & ~converged
        w = w + step[:, None] * direction
        value, gradient, hessian = new
        n_iter[active] = iteration
        curve.append(float(value.sum()))
        if callback is not None:
            callback(iteration, w, value)
    return Result(w, value, n_iter, converged, curve, has_vanished(objective, value, start))


def _damped_step(objective, w, value, direction, decrement, active, final):
    """The largest of 1, 1/2, 1/4, ... for each problem that lowers it enough; 0 where none does.

    Returns the steps, and (value, gradient, Hessian or None) at their end.
    """
    step = np.where(active, 1.0, 0.0)
    noise = objective.noise * np.abs(value)

    def rises(found):
        # a NaN or infinite value is a rise too
        return active & (step > 0) & ~(found <= value - ENOUGH * step * decrement + noise)

    point = w + step[:, None] * direction
    if final and objective.exact_gradient:
        new = (*objective.value_and_gradient(point), None)
    else:
        new = objective.hessian(point)
    failed = rises(new[0])
    if not failed.any():
        return step, new
    for _ in range(HALVINGS):
        step[failed] /= 2
        found, gradient = objective.value_and_gradient(w + step[:, None] * direction)
        failed = rises(found)
        if not failed.any():
            break
    step[failed] = 0.0
    if final and objective.exact_gradient and not failed.any():
        return step, (found, gradient, None)
    return step, objective.hessian(w + step[:, None] * direction)


def solve_positive(matrix, rhs):
    """matrix**-1 rhs for a symmetric positive (semi)definite matrix given by its lower triangle.

    Rows and columns are first scaled to a unit diagonal, which takes the units of the features out of
    the question. If the factor does not exist to working precision, the smallest of a few ridges
    that makes it exist is added: the step is then a descent direction still.
    """
    diagonal = np.diagonal(matrix)
    root = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled = matrix / root
    scaled /= root[:, None]
    np.einsum("ii->i", scaled)[:] = 1.0
    ridge = 0.0
    while True:
        # row-major lower is column-major upper, so the transpose is factored in place of a copy
        factor, failed = lapack.dpotrf(scaled.T, lower=0, clean=0)
        if not failed:
            solution, _ = lapack.dpotrs(factor, rhs / root, lower=0)
            if np.isfinite(solution).all():
                return solution / root
        ridge = max(1e-14, ridge * 100)
        if ridge > 1:
            # not a number in the Hessian: the line search will refuse the step
            return np.full_like(rhs, np.nan)
        np.einsum("ii->i", scaled)[:] = 1.0 + ridge
