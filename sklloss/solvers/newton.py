"""Newton's method with a Cholesky factor of the whole Hessian."""

from typing import Any

import numpy as np
from scipy.linalg import lapack

from sklloss.arrays.vectors import Array, Mask, dot
from sklloss.solvers.base import (
    CLOSE_GAP,
    MAX_HALVINGS,
    SUFFICIENT_DECREASE,
    UNDERESTIMATE,
    Callback,
    HessianObjective,
    L1Objective,
    Objective,
    Progress,
    Result,
    allowed_gap,
    exhausted,
    finite_or_zero,
    require,
    start_again,
    tell_start,
    underestimates,
    vanished_share,
)

# The samples that starts come from: rows per parameter, and the tolerance to which the minimum over them is
# found. It need be no more accurate than the sample is.
SAMPLES = ((128, 1e-2), (640, 1e-2))
SMALL_SAMPLE = (24, 0.4)  # where rows are too few for these
MAX_SAMPLE_STEPS = 30
# A Hessian is reused for the next step below this relative gap, as long as each step lowers the decrement to
# this share of what it was.
REUSE_GAP = 1e-2
REUSE_RATIO = 0.1
STEADY_RATIO = 2.0  # by how much the ratio of two decrements may be larger than that of the two before
MAX_COMPILED_STEPS = 100  # in one call, which handles no signals


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

    A pass gives value, gradient and Hessian at once and a full step is tried first, so an iteration costs one
    pass unless its step is halved until it meets Armijo's condition. A Hessian that costs much more than a
    gradient is reused while each step lowers the decrement tenfold; if they have done so steadily, the last
    such step costs no pass, and the value after it is that of the quadratic model. If there are many rows, a
    start at 0 is replaced by the minimum over a sample of them.

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
        An approximation of the Hessian at the start, by its lower triangles.

    Returns
    -------
    Result

    References
    ----------
    Boyd and Vandenberghe, *Convex Optimization*, 2004, section 9.5.
    """
    require(objective, HessianObjective)
    w = np.array(w, dtype=np.float64)
    null = objective.null_value() if w.any() else np.inf
    curve: list[float] = []
    if hessian is None:
        curve, found = compiled_steps(objective, w, null, tol, max_iter, callback, SUFFICIENT_DECREASE)
        if found is not None:
            return found
        if max_iter > 0 and not w.any():
            w, hessian = _sampled_start(objective, w)
            null = objective.null_value() if w.any() else np.inf
    reused = hessian is not None
    if reused:
        value, gradient = objective.precise_gradient(w)
        reused = not start_again(objective, w, value)
    if not reused:
        value, gradient, hessian = objective.hessian(w)
        if start_again(objective, w, value):
            value, gradient, hessian = objective.hessian(w)
    progress = progress_from(curve, objective, value, null)
    if not curve:
        tell_start(callback, value)
    solve = [PositiveSolver(matrix) for matrix in hessian] if hessian is not None else []
    before, earlier = np.full(len(w), np.inf), np.zeros(len(w))
    for iteration in range(len(progress.curve), max_iter + 1):
        active = progress.active(value)
        if not active.any():
            break
        direction, decrement, invalid = _newton_direction(solve, gradient, active)
        allowed = allowed_gap(value, tol)
        slow = invalid | ~((decrement / 2 <= allowed / 4) | (decrement <= REUSE_RATIO * before))
        if reused and (active & slow).any():
            reused = False
            value, gradient, hessian = objective.hessian(w)
            solve = [PositiveSolver(matrix) for matrix in hessian]
            direction, decrement, invalid = _newton_direction(solve, gradient, active)
        solved = ~invalid & (decrement / 2 <= (allowed / 4 if reused else allowed))
        # Near the optimum a step squares the error, so the last one is taken too: it needs no Hessian.
        final = bool(np.all(solved | ~active))
        small = ~active | (decrement / 2 <= REUSE_GAP * np.abs(value))
        near = objective.costly_hessian and bool(small.all())
        if reused and final and bool(np.all(_steady(decrement, before, earlier) | ~active)):
            # After steps along the same Hessian that did as well as expected, no pass checks the last.
            step: Array = np.where(active, 1.0, 0.0)
            new: tuple[Array, Array, Array | None] = value - step * decrement / 2, gradient, None
        else:
            cheap, halvings = final or near, 0 if reused else MAX_HALVINGS
            step, new = _damped_step(objective, w, value, direction, decrement, active, cheap, halvings)
        unmoved = active & (step == 0.0)
        moved = w + step[:, None] * direction
        beyond, new = _fallen_beyond(objective, moved, decrement / 2, value, new, allowed)
        solved &= ~beyond
        rounded = exhausted(decrement, value, objective.noise)
        if reused and (unmoved & ~solved & ~rounded).any():
            # No step along the direction of an earlier Hessian lowers the objective: a new one is needed.
            before = np.zeros_like(before)
            continue
        progress.end((active & solved) | (unmoved & ~invalid & rounded), unmoved)
        w = moved
        value, gradient, hessian = new
        earlier = np.where(reused & np.isfinite(before), before, 0.0)
        before = np.where(step == 1.0, decrement, 0.0)
        reused = hessian is None
        if hessian is not None:
            solve = [PositiveSolver(matrix) for matrix in hessian]
        progress.record(iteration, active, value)
        if callback is not None:
            callback(iteration, w, value)
    return progress.result(w, value)


def _fallen_beyond(
    objective: HessianObjective,
    w: Array,
    predicted: Array,
    value: Array,
    new: tuple[Array, Array, Array | None],
    allowed: Array,
) -> tuple[Mask, tuple[Array, Array, Array | None]]:
    """Which problems fell by more than predicted, see `underestimates`; and what is new at w, with a Hessian.

    Where the terms of scores cancel, the passes without and with a Hessian differ by more than the noise. So
    the second has to have seen it too.
    """
    beyond = underestimates(predicted, value, new[0], allowed, objective.noise)
    if beyond.any() and new[2] is None:
        new = objective.hessian(w)
        beyond &= underestimates(predicted, value, new[0], allowed, objective.noise)
    return beyond, new


def _steady(decrement: Array, before: Array, earlier: Array) -> Mask:
    """Whether three decrements of full steps along one Hessian shrink tenfold and at nearly the same rate.

    Then none of the last is due to directions in which the Hessian is far too large, which would hide what is
    left to gain: that part stays the same from step to step. An ``earlier`` of 0 stands for none.
    """
    steady: Mask = (earlier > 0) & (decrement * earlier <= STEADY_RATIO * before**2)
    return steady & (decrement <= REUSE_RATIO * before)


def progress_from(curve: list[float], objective: Objective, value: Array, null: Array | float) -> Progress:
    """The progress after compiled steps, of which ``curve`` has the values; empty if there were none."""
    progress = Progress(objective, value, np.fmin(curve[:1] or value, null))
    if curve:
        progress.curve = curve
        progress.n_iter[:] = len(curve) - 1
    return progress


def compiled_steps(
    objective: HessianObjective | L1Objective,
    w: Array,
    null: Array | float,
    tol: float,
    max_iter: int,
    callback: Callback | None,
    enough: float,
) -> tuple[list[float], Result | None]:
    """Take the steps of a small problem in compiled code, up to one that needs more than a full Newton step.

    The steps are those of the solver that calls this, and change w in place. A step has to lower the value by
    ``enough`` of what its slope predicts. Returns the values at the start and after each step, empty for a
    problem that is not small, and the result if the problem is solved. A ``callback`` is told of the steps
    of a call after it.
    """
    values: list[float] = []
    solved, steps, most = False, 0, 0
    while not solved and steps == most and len(values) <= max_iter:
        most = min(max_iter - max(0, len(values) - 1), MAX_COMPILED_STEPS)
        curve, points = np.empty(1 + most), np.empty((1 + most, w.shape[1]))
        points[0] = w[0]
        start = float(np.min(null)) if not values else min(float(np.min(null)), values[0])
        found = objective.newton_steps(
            points, curve, allowed_gap(1.0, tol), vanished_share(objective), start, enough, objective.noise,
            UNDERESTIMATE, CLOSE_GAP,
        )  # fmt: skip
        if found is None:
            break
        steps, solved = found
        w[0] = points[steps]
        before = max(0, len(values) - 1)
        values += curve[bool(values) : steps + 1].tolist()
        if callback is not None:
            for step in range(1, steps + 1):
                callback(before + step, points[step : step + 1], curve[step : step + 1])
    if not solved:
        return values, None
    value = np.array(values[-1:])
    progress = progress_from(values, objective, value, null)
    progress.converged[:] = True
    return values, progress.result(w, value)


def _sampled_start(objective: HessianObjective, w: Array) -> tuple[Array, Array | None]:
    """The minimum over a sample of the rows and the sample's Hessian there; w and None if there are few rows.

    The samples grow: each start is the minimum over the smaller sample.
    """
    hessian = None
    # Without a penalty, columns that are rare in a small sample may have coefficients that are far too large.
    rough = objective.penalised and objective.costly_hessian
    rough = rough and objective.subsample(SAMPLES[0][0]) is None
    for rows, tol in (SMALL_SAMPLE,) if rough else SAMPLES:
        small = objective.subsample(rows)
        if small is None:
            break
        found = newton_cholesky(small, w, tol=tol, max_iter=MAX_SAMPLE_STEPS, hessian=hessian)
        if not found.converged.all():
            break
        w, hessian = found.w, small.hessian(found.w)[2]
    return w, hessian


def _newton_direction(
    solve: "list[PositiveSolver]", gradient: Array, active: Mask
) -> tuple[Array, Array, Mask]:
    """Newton directions, their decrements, and which directions are not finite: these are replaced by 0."""
    direction = np.zeros_like(gradient)
    for k in np.flatnonzero(active):
        direction[k] = -solve[k](gradient[k])
    invalid: Any = ~np.isfinite(direction).all(axis=1)
    direction = finite_or_zero(direction)
    return direction, -dot(gradient, direction), invalid


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
    """The largest step of 1, 1/2, 1/4, ... that meets Armijo's condition in each problem; 0 if none does.

    Returns the steps, and value, gradient and Hessian after them; ``cheap`` leaves the Hessian out, as None.
    """
    step = np.where(active, 1.0, 0.0)
    noise = objective.noise * np.abs(value)

    def rises(found: Array) -> Mask:
        # A NaN or infinite value fails the comparison too.
        return active & (step > 0) & ~(found <= value - SUFFICIENT_DECREASE * step * decrement + noise)

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
    """The solution of ``matrix x = rhs``, see `PositiveSolver`."""
    return PositiveSolver(matrix)(rhs)


class PositiveSolver:
    """Solves with a symmetric positive (semi)definite matrix given by its lower triangle.

    Rows and columns are first scaled to a unit diagonal, so that the units of the features do not matter. If
    the Cholesky factor does not exist to working precision, the smallest ridge that makes it exist is added:
    the Newton step remains a descent direction. The factor is computed when it is first needed.
    """

    def __init__(self, matrix: Array) -> None:
        self._matrix = matrix
        self._factor = None
        self._ridge = 0.0

    def __call__(self, rhs: Array) -> Array:
        """The solution for a vector; NaN if there is none, as for a matrix that is not finite."""
        while self._ridge <= 1.0:
            if self._factor is None:
                self._prepare()
            if self._factor is not None:
                solution, _ = lapack.dpotrs(self._factor, rhs / self._root, lower=0)
                if np.isfinite(solution).all():
                    return solution / self._root
                self._factor = None
            self._ridge = max(1e-14, self._ridge * 100)
        # The caller refuses the step.
        return np.full_like(rhs, np.nan)

    def _prepare(self) -> None:
        diagonal = np.diagonal(self._matrix)
        self._root = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        scaled = self._matrix / self._root
        scaled /= self._root[:, None]
        np.einsum("ii->i", scaled)[:] = 1.0 + self._ridge
        # A row-major lower triangle is a column-major upper one, so the transpose needs no copy.
        factor, failed = lapack.dpotrf(scaled.T, lower=0, clean=0, overwrite_a=1)
        self._factor = None if failed else factor
