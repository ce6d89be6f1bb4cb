"""Newton's method with a Cholesky factor of the whole Hessian."""

from typing import Any

import numpy as np
from scipy.linalg import lapack

from sklloss.arrays.vectors import Array, Mask
from sklloss.solvers.base import (
    Callback,
    HessianObjective,
    Result,
    allowed_gap,
    exhausted,
    finite_or_zero,
    has_vanished,
    require,
    start_again,
    vanished_share,
)

HALVINGS = 40
ENOUGH = 1e-4  # Armijo's fraction of the decrease that the slope predicts
# The minimum over a sample of rows need be no more accurate than the sample is.
SAMPLE_TOL = 1e-2
SAMPLES = (128, 640)  # rows for each parameter
SAMPLE_STEPS = 30
# An earlier Hessian is tried for the next step from this relative gap on, and is kept for as long as a step
# lowers the decrement to this share of what it was.
FAR = 1e-2
SHRINKS = 0.1
MOST_PLAIN = 100  # compiled steps in a row, between which no signal is handled


def newton_cholesky(
    objective: HessianObjective,
    w: Array,
    *,
    tol: float,
    max_iter: int,
    callback: Callback | None = None,
    hessian: Array | None = None,
) -> Result:
    """Minimise a convex objective by damped Newton steps.

    A pass gives value, gradient and Hessian at once and a full step is tried first, so an iteration
    costs one pass unless its step must be halved. Where a Hessian costs much more than a gradient, it serves
    for as many steps as bring the end ten times nearer each. From 0, where an objective has many rows, the
    minimum over a sample of them is the start.

    Parameters
    ----------
    objective : HessianObjective
    w : ndarray of shape (problems, size)
        Start.
    tol : float
        See `allowed_gap`; the Newton decrement that it is compared with is exact here.
    max_iter : int
    callback : callable, optional
        Called with ``(n_iter, w, value)`` after each iteration.
    hessian : ndarray of shape (problems, size, size), optional
        What is known of the Hessian at the start: its lower triangles.

    Returns
    -------
    Result
    """
    require(objective, HessianObjective)
    w = np.array(w, dtype=np.float64)
    if hessian is None and max_iter > 0 and not w.any():
        w, hessian = _sampled_start(objective, w)
    n_iter = np.zeros(len(w), dtype=int)
    converged = np.zeros(len(w), dtype=bool)
    null = objective.null_value() if w.any() else np.inf
    curve: list[float] = []
    if hessian is None:
        curve, converged[:] = _plain_steps(objective, w, null, tol, max_iter, callback)
        n_iter[:] = max(0, len(curve) - 1)
    if converged.all():
        value, start = np.array(curve[-1:]), np.fmin(curve[:1], null)
        return Result(w, value, n_iter, converged, curve, has_vanished(objective, value, start))
    old = hessian is not None
    if old:
        value, gradient = objective.precise_gradient(w)
    else:
        value, gradient, hessian = objective.hessian(w)
        if start_again(objective, w, value):
            value, gradient, hessian = objective.hessian(w)
    start = np.fmin(curve[:1] or value, null)
    stuck = np.zeros(len(w), dtype=bool)
    curve = curve or [float(value.sum())]
    solve = [PositiveSolver(matrix) for matrix in hessian] if hessian is not None else []
    before = np.full(len(w), np.inf)
    for iteration in range(len(curve), max_iter + 1):
        vanished = has_vanished(objective, value, start)
        active = ~(converged | stuck | vanished)
        if not active.any():
            break
        direction, decrement, lost = _newton_step(solve, gradient, active)
        allowed = allowed_gap(value, tol)
        slow = lost | ~((decrement / 2 <= allowed / 4) | (decrement <= SHRINKS * before))
        if old and (active & slow).any():
            old = False
            value, gradient, hessian = objective.hessian(w)
            solve = [PositiveSolver(matrix) for matrix in hessian]
            direction, decrement, lost = _newton_step(solve, gradient, active)
        solved = ~lost & (decrement / 2 <= (allowed / 4 if old else allowed))
        # Near the end a step squares the error, so the last one is taken too: it needs no Hessian.
        final = bool(np.all(solved | ~active))
        near = objective.costly_hessian and (~active | (decrement / 2 <= FAR * np.abs(value))).all()
        step, new = _damped_step(
            objective, w, value, direction, decrement, active, final or near, 0 if old else HALVINGS
        )
        still = active & (step == 0.0)
        if old and (still & ~solved & ~exhausted(decrement, value, objective.noise)).any():
            # No step along the direction of an old Hessian: it is the Hessian that is at fault.
            before = np.zeros_like(before)
            continue
        converged |= (active & solved) | (still & ~lost & exhausted(decrement, value, objective.noise))
        stuck |= still & ~converged
        w = w + step[:, None] * direction
        value, gradient, hessian = new
        before = np.where(step == 1.0, decrement, 0.0)
        old = hessian is None
        if hessian is not None:
            solve = [PositiveSolver(matrix) for matrix in hessian]
        n_iter[active] = iteration
        curve.append(float(value.sum()))
        if callback is not None:
            callback(iteration, w, value)
    return Result(w, value, n_iter, converged, curve, has_vanished(objective, value, start))


def _plain_steps(
    objective: HessianObjective,
    w: Array,
    null: Array | float,
    tol: float,
    max_iter: int,
    callback: Callback | None,
) -> tuple[list[float], bool]:
    """The steps of a small problem until it is solved, or until one is not as simple as most.

    They change w, and are those of the loop above without what surrounds its arithmetic. Returns the values
    at the start and at their ends, empty for a problem that is not small, and whether the last one solved it.
    A ``callback`` has them taken one at a time: the same steps, at the price of a pass more for each.
    """
    values: list[float] = []
    solved, steps, most = False, 0, 0
    while not solved and steps == most and len(values) <= max_iter:
        most = min(max_iter - max(0, len(values) - 1), MOST_PLAIN if callback is None else 1)
        curve = np.empty(1 + most)
        start = float(np.min(null)) if not values else min(float(np.min(null)), values[0])
        found = objective.newton_steps(
            w, curve, allowed_gap(1.0, tol), vanished_share(objective), start, ENOUGH, objective.noise
        )
        if found is None:
            break
        steps, solved = found
        values += curve[bool(values) : steps + 1].tolist()
        if callback is not None and steps:
            callback(len(values) - 1, w.copy(), np.array(values[-1:]))
    return values, solved


def _sampled_start(objective: HessianObjective, w: Array) -> tuple[Array, Array | None]:
    """The minimum over a sample of the rows and the sample's Hessian there; w and None where rows are few.

    A small sample leads near it, a larger one nearer, and to a Hessian that serves for most of the way left.
    """
    hessian = None
    for rows in SAMPLES:
        small = objective.subsample(rows)
        if small is None:
            break
        found = newton_cholesky(small, w, tol=SAMPLE_TOL, max_iter=SAMPLE_STEPS, hessian=hessian)
        if not found.converged.all():
            break
        w, hessian = found.w, small.hessian(found.w)[2]
    return w, hessian


def _newton_step(solve: "list[PositiveSolver]", gradient: Array, active: Mask) -> tuple[Array, Array, Mask]:
    """Directions, their decrements, and which directions are no numbers."""
    direction = np.zeros_like(gradient)
    for k in np.flatnonzero(active):
        direction[k] = -solve[k](gradient[k])
    lost: Any = ~np.isfinite(direction).all(axis=1)
    direction = finite_or_zero(direction)
    return direction, -np.einsum("bi,bi->b", gradient, direction), lost


def _damped_step(
    objective: HessianObjective,
    w: Array,
    value: Array,
    direction: Array,
    decrement: Array,
    active: Mask,
    cheap: bool,
    halvings: int,
) -> tuple[Array, tuple[Array, Array, Array | None]]:
    """The largest of 1, 1/2, 1/4, ... for each problem that lowers it enough; 0 where none does.

    Returns the steps, and (value, gradient, Hessian) at their end, with ``cheap`` None for the Hessian.
    """
    step = np.where(active, 1.0, 0.0)
    noise = objective.noise * np.abs(value)

    def rises(found: Array) -> Mask:
        # a NaN or infinite value is a rise too
        return active & (step > 0) & ~(found <= value - ENOUGH * step * decrement + noise)

    point = w + step[:, None] * direction
    new = (*objective.precise_gradient(point), None) if cheap else objective.hessian(point)
    failed = rises(new[0])
    if not failed.any():
        return step, new
    for _ in range(halvings):
        step[failed] /= 2
        found, gradient = objective.value_and_gradient(w + step[:, None] * direction)
        failed = rises(found)
        if not failed.any():
            break
    step[failed] = 0.0
    point = w + step[:, None] * direction
    if cheap and objective.exact_gradient and not failed.any():
        return step, (found, gradient, None)
    return step, ((*objective.precise_gradient(point), None) if cheap else objective.hessian(point))


def solve_positive(matrix: Array, rhs: Array) -> Array:
    """matrix**-1 rhs, see `PositiveSolver`."""
    return PositiveSolver(matrix)(rhs)


class PositiveSolver:
    """Solves with a symmetric positive (semi)definite matrix given by its lower triangle.

    Rows and columns are first scaled to a unit diagonal, which takes the units of the features out of
    the question. If the factor does not exist to working precision, the smallest of a few ridges
    that makes it exist is added: the step is then a descent direction still. The factor is made when it is
    first needed.
    """

    def __init__(self, matrix: Array) -> None:
        self._matrix = matrix
        self._factor = None
        self._ridge = 0.0

    def __call__(self, rhs: Array) -> Array:
        """The solution for a vector; NaN if there is none, for a matrix that is not of numbers."""
        while self._ridge <= 1.0:
            if self._factor is None:
                self._prepare()
            if self._factor is not None:
                solution, _ = lapack.dpotrs(self._factor, rhs / self._root, lower=0)
                if np.isfinite(solution).all():
                    return solution / self._root
                self._factor = None
            self._ridge = max(1e-14, self._ridge * 100)
        # the line search will refuse the step
        return np.full_like(rhs, np.nan)

    def _prepare(self) -> None:
        diagonal = np.diagonal(self._matrix)
        self._root = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        scaled = self._matrix / self._root
        scaled /= self._root[:, None]
        np.einsum("ii->i", scaled)[:] = 1.0 + self._ridge
        # row-major lower is column-major upper, so the transpose is factored in place of a copy
        factor, failed = lapack.dpotrf(scaled.T, lower=0, clean=0, overwrite_a=1)
        self._factor = None if failed else factor
