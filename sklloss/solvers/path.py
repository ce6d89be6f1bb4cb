"""Paths of objectives that differ in their penalty: each fit starts from those before it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from scipy.linalg import lapack

from sklloss.arrays.vectors import Array, Mask, dot
from sklloss.solvers.base import Result, Solve, allowed_gap

# ``minimise(objective, w)``: the result of a solver that starts at w.
Minimise: TypeAlias = Callable[[Any, Array], Result]

# The gap is estimated with the Hessian at another point of the path, so it must be smaller by this factor.
GAP_SAFETY = 30
# A Hessian is computed again if more than MAX_EXPECTED_STEPS further steps are expected of it; MAX_STEPS
# bounds all steps for one objective.
MAX_EXPECTED_STEPS = 3
MAX_STEPS = 12
# If the first step predicts a decrease of this many allowed gaps, the extrapolated optimum is tried.
EXTRAPOLATION_GAPS = 100
# Optima are extrapolated by a polynomial through at most this many of the last ones, as long as the absolute
# weights of these, by which their errors grow, add up to no more than this. Three at equal distances have 7.
EXTRAPOLATION_POINTS = 3
EXTRAPOLATION_WEIGHT = 10.0


def follow_path(
    objectives: Iterable[Any], start: Array, minimise: Minimise, *, smooth: bool = True
) -> Iterator[tuple[Any, Result]]:
    """Minimise objectives one after the other, each from the optima before it (a warm-started path).

    Optima of similar penalties are near each other, so that a fit from the last optimum takes few steps. A
    parabola in log C through the last three optima is a better start, on digits by a factor of 100 in the gap
    to the optimum where C grows 2.6-fold. If the objective is not convex, the start must be lower than the
    last optimum.

    Parameters
    ----------
    objectives : iterable of LinearObjective
        Over the same rows, from the strongest penalty to the weakest: the optimum of the first is the nearest
        to 0.
    start : ndarray of shape (problems, size)
        Start for the first objective.
    minimise : callable
        ``minimise(objective, w)`` returns a Result.
    smooth : bool
        Whether optima follow a smooth curve. With an L1 penalty they do not: the last optimum is the start.

    Yields
    ------
    objective, Result
    """
    optima, w = _Optima(), start
    for objective in objectives:
        result = minimise(objective, optima.start(objective, w) if smooth else w)
        w = objective.without_shift(result.w) if smooth else result.w
        optima.add(objective, w, result.value)
        yield objective, result


def newton_path(
    objectives: Iterable[Any],
    start: Array,
    minimise: Minimise,
    *,
    tol: float,
    max_iter: int,
) -> Iterator[tuple[Any, Result]]:
    """As `follow_path`, by Newton steps with a Hessian that is reused along the path.

    Apart from its penalty, which is known, the Hessian changes little from objective to objective. So it is
    factored for each of them, but computed again, at the current point, only if steps shrink too slowly; if
    that does not help, ``minimise`` takes over. A step costs a pass for the gradient; the first one costs
    none, since loss and gradient at the last optimum are known.

    Parameters
    ----------
    objectives, start, minimise
        See `follow_path`; ``minimise`` converges to ``tol``.
    tol : float
        See `allowed_gap`.
    max_iter : int
        The Hessian is reused only if this allows the steps that it may take.

    Yields
    ------
    objective, Result
    """
    optima, w = _Optima(), start
    reused = last = None
    for objective in objectives:
        result = None
        if last is None or last[0].penalised != objective.penalised:
            reused = None
        else:
            reused = reused or _ReusedHessian(*last)
            result = reused.minimise(objective, optima, tol)
        if result is None:
            result, reused = minimise(objective, optima.start(objective, w)), None
        w = objective.without_shift(result.w)
        reusable = objective.exact_gradient and max_iter >= MAX_STEPS and result.converged.all()
        last = (objective, w) if reusable else None
        optima.add(objective, w, result.value)
        yield objective, result


class _Optima:
    """The last optima of a path, and the starts that they suggest."""

    def __init__(self) -> None:
        self._points: list[tuple[float, Array]] = []
        self._last: tuple[Any, Array] | None = None

    def add(self, objective: Any, w: Array, value: Array) -> None:
        """Add an optimum. Optima with and without a penalty are not extrapolated together."""
        if self._last is not None and self._last[0].penalised != objective.penalised:
            self._points = []
        self._last = (objective, value)
        if not self._points or self._points[-1][0] != objective.scale:
            self._points = [*self._points[-EXTRAPOLATION_POINTS + 1 :], (objective.scale, w)]

    def extrapolate(self, objective: Any) -> Any:
        """The optimum extrapolated by a polynomial in log C; None if there are too few optima."""
        if not objective.penalised:
            return None
        for first in range(len(self._points) - 1):
            points = self._points[first:]
            nodes = np.log([scale / objective.scale for scale, _ in points])
            weights = [
                np.prod([other / (other - node) for other in nodes if other != node]) for node in nodes
            ]
            if np.abs(weights).sum() <= EXTRAPOLATION_WEIGHT:
                return sum(weight * w for weight, (_, w) in zip(weights, points))
        return None

    def start(self, objective: Any, w: Array) -> Any:
        """The extrapolated optimum, if it can be expected to be nearer than w, the last one; else w."""
        point = self.extrapolate(objective)
        if point is None or self._last is None:
            return w
        if objective.convex:
            return point
        other, value = self._last
        value, _ = objective.value_and_gradient_from(other, w, value, 0.0)
        return point if (objective.value_and_gradient(point)[0] < value).all() else w


class _ReusedHessian:
    """A Hessian with the objective that it is of, and value and gradient at the last optimum."""

    def __init__(self, objective: Any, w: Array) -> None:
        value, gradient, self._hessian = objective.hessian(w)
        self._of = objective
        self._at = (objective, w, value, gradient)

    def minimise(self, objective: Any, optima: _Optima, tol: float) -> Result | None:
        """Minimise an objective from the last optimum; None if steps with the Hessian do not converge."""
        solve = _factor(objective.hessian_from(self._of, self._hessian))
        w = self._at[1]
        value, gradient = objective.value_and_gradient_from(*self._at)
        curve = [float(value.sum())]
        n_iter = np.zeros(len(w), dtype=int)
        before, renewed = None, False
        for _ in range(MAX_STEPS):
            if solve is None:
                return None
            direction = objective.without_shift(-solve(gradient))
            decrement = -dot(gradient, direction)
            gap = allowed_gap(value, tol) / GAP_SAFETY
            active = ~(decrement / 2 <= gap)
            first = not n_iter.any()
            if not first and not active.any():
                self._at = (objective, w, value, gradient)
                solved = np.ones(len(w), dtype=bool)
                return Result(w, value, n_iter, solved, [*curve, float(value.sum())], ~solved)
            if before is not None and not renewed and _is_slow(decrement, before, gap, active):
                value, gradient, self._hessian = objective.hessian(w)
                self._of = objective
                solve, renewed = _factor(self._hessian), True
                continue
            if first:
                active[:] = True
            points = [w + np.where(active[:, None], direction, 0.0)]
            before = decrement
            if first and (decrement / 2 > EXTRAPOLATION_GAPS * gap).any():
                extrapolated = optima.extrapolate(objective)
                if extrapolated is not None:
                    points.insert(0, extrapolated)
                    before = None
            for point in points:
                new, gradient = objective.value_and_gradient(point)
                # A NaN value fails the comparison too.
                if (new <= value + objective.noise * np.abs(value)).all():
                    break
                before = decrement
            else:
                return None
            n_iter[active] += 1
            w, value = point, new
        return None


def _is_slow(decrement: Array, before: Array, gap: Array, active: Mask) -> bool:
    """Whether more than MAX_EXPECTED_STEPS steps are expected until decrements are below the gap."""
    ratio = decrement[active] / before[active]
    if not (ratio < 1).all():
        return True
    with np.errstate(divide="ignore"):
        return bool((np.log(gap[active] / decrement[active]) / np.log(ratio) > MAX_EXPECTED_STEPS).any())


def _factor(hessian: Array) -> Solve | None:
    """A solver with each problem's Hessian (lower triangles); None if a Cholesky factor does not exist."""
    factors = []
    for matrix in hessian:
        # A row-major lower triangle is a column-major upper one, so the transpose needs no copy.
        factor, failed = lapack.dpotrf(matrix.T, lower=0, clean=0)
        if failed:
            return None
        factors.append(factor)

    def solve(rhs: Array) -> Array:
        return np.stack([lapack.dpotrs(factor, one, lower=0)[0] for factor, one in zip(factors, rhs)])

    return solve
