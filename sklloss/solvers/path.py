"""A path of objectives that differ in their penalty, minimised one from the other."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from scipy.linalg import lapack

from sklloss.arrays.vectors import Array, Mask
from sklloss.solvers.base import Result, Solve, allowed_gap

# ``minimise(objective, w)``: the result of a solver that starts at w.
Minimise: TypeAlias = Callable[[Any, Array], Result]

# The gap is estimated with a Hessian of another point of the path, so it must be smaller by this factor.
GAP_SAFETY = 30
# Most further steps expected of an earlier Hessian before a new one is made, and most steps in all.
PATIENCE = 3
MOST_STEPS = 12
# Where the first step predicts a decrease of this many gaps, the extrapolation from earlier points is tried.
FAR = 100
# Points to extrapolate from.
ORDER = 4


def follow_path(
    objectives: Iterable[Any], start: Array, minimise: Minimise, *, smooth: bool = True
) -> Iterator[tuple[Any, Result]]:
    """Minimise objectives one after the other, each from where those before it lead.

    Neighbours in the penalty are near each other, so that a fit from the last optimum takes a few steps
    where one from 0 takes many. From the fifth point on, a cubic in log C through the last four optima
    leads nearer still; it is followed where the objective says so too.

    Parameters
    ----------
    objectives : iterable of LinearObjective
        Over the same rows, from the strongest penalty to the weakest: the first is the one that is easy
        to reach from 0.
    start : ndarray of shape (problems, size)
        Where the first starts.
    minimise : callable
        ``minimise(objective, w)`` returns a Result.
    smooth : bool
        Whether optima follow a smooth curve. With an L1 penalty they do not, and the last optimum has the
        zeros that the next one may have.

    Yields
    ------
    objective, Result
    """
    past, w = _Past(), start
    for objective in objectives:
        result = minimise(objective, past.lead(objective, w) if smooth else w)
        w = objective.without_shift(result.w) if smooth else result.w
        past.add(objective, w, result.value)
        yield objective, result


def newton_path(
    objectives: Iterable[Any],
    start: Array,
    minimise: Minimise,
    *,
    tol: float,
    max_iter: int,
    widest: float = np.inf,
) -> Iterator[tuple[Any, Result]]:
    """As `follow_path`, by Newton steps with a Hessian that is kept along the path.

    But for its penalty the Hessian changes little from point to point, and the penalty is known. So it is
    factored anew at each point and made anew only where steps with it shrink too slowly: then at the
    point reached, and where that does not help, ``minimise`` takes over. A step is a pass for the gradient
    alone. The first one needs none, since at the last optimum loss and gradient are known.

    Parameters
    ----------
    objectives, start, minimise
        See `follow_path`; ``minimise`` gets as near as ``tol`` says.
    tol : float
        See `allowed_gap`.
    max_iter : int
        A path whose points may not take the steps that a kept Hessian is allowed does without.
    widest : float
        Beyond this ratio between neighbours in C the Hessian counts as another, and ``minimise`` is left
        alone.

    Yields
    ------
    objective, Result
    """
    past, w = _Past(), start
    kept = last = None
    for objective in objectives:
        result = None
        if last is None or not _are_near(last[0], objective, widest):
            kept = None
        else:
            kept = kept or _Kept(*last)
            result = kept.minimise(objective, past, tol)
        if result is None:
            result, kept = minimise(objective, past.lead(objective, w)), None
        w = objective.without_shift(result.w)
        keeps = objective.exact_gradient and max_iter >= MOST_STEPS and result.converged.all()
        last = (objective, w) if keeps else None
        past.add(objective, w, result.value)
        yield objective, result


def _are_near(one: Any, other: Any, widest: float) -> bool:
    """Whether two objectives differ in the strength of their penalty alone, and not too much."""
    return one.penalised == other.penalised and other.scale <= widest * one.scale


class _Past:
    """The last optima of a path."""

    def __init__(self) -> None:
        self._points: list[tuple[float, Array]] = []
        self._last: tuple[Any, Array] | None = None

    def add(self, objective: Any, w: Array, value: Array) -> None:
        """Remember an optimum; a path without a penalty is another one than that with."""
        if self._last is not None and self._last[0].penalised != objective.penalised:
            self._points = []
        self._last = (objective, value)
        if not self._points or self._points[-1][0] != objective.scale:
            self._points = [*self._points[-ORDER + 1 :], (objective.scale, w)]

    def extrapolate(self, objective: Any) -> Any:
        """Where the optima lead, by a polynomial in the logarithm of C; None where they are too few."""
        if len(self._points) < ORDER or not objective.penalised:
            return None
        nodes = [np.log(scale / objective.scale) for scale, _ in self._points]
        total = 0.0
        for i, (_, w) in enumerate(self._points):
            others = [node for j, node in enumerate(nodes) if j != i]
            total = total + w * np.prod([node / (node - nodes[i]) for node in others])
        return total

    def lead(self, objective: Any, w: Array) -> Any:
        """Where to start: where the optima lead if that is lower than the last one, else there."""
        point = self.extrapolate(objective)
        if point is None or self._last is None:
            return w
        other, value = self._last
        value, _ = objective.value_and_gradient_from(other, w, value, 0.0)
        return point if (objective.value_and_gradient(point)[0] < value).all() else w


class _Kept:
    """A Hessian, where it was made and for which penalty, and the value and gradient at the last optimum."""

    def __init__(self, objective: Any, w: Array) -> None:
        value, gradient, self._hessian = objective.hessian(w)
        self._of = objective
        self._at = (objective, w, value, gradient)

    def minimise(self, objective: Any, past: _Past, tol: float) -> Result | None:
        """The Result, or None where steps with the Hessian do not lead to it."""
        solve = _factor(objective.hessian_from(self._of, self._hessian))
        w = self._at[1]
        value, gradient = objective.value_and_gradient_from(*self._at)
        curve = [float(value.sum())]
        n_iter = np.zeros(len(w), dtype=int)
        before, renewed = None, False
        for _ in range(MOST_STEPS):
            if solve is None:
                return None
            direction = objective.without_shift(-solve(gradient))
            decrement = -np.einsum("bi,bi->b", gradient, direction)
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
            if first and (decrement / 2 > FAR * gap).any():
                lead = past.extrapolate(objective)
                if lead is not None:
                    points.insert(0, lead)
                    before = None
            for point in points:
                new, gradient = objective.value_and_gradient(point)
                # a value that is not a number is refused too
                if (new <= value + objective.noise * np.abs(value)).all():
                    break
                before = decrement
            else:
                return None
            n_iter[active] += 1
            w, value = point, new
        return None


def _is_slow(decrement: Array, before: Array, gap: Array, active: Mask) -> bool:
    """Whether decrements shrink too slowly to be below the gap soon."""
    ratio = decrement[active] / before[active]
    if not (ratio < 1).all():
        return True
    with np.errstate(divide="ignore"):
        return bool((np.log(gap[active] / decrement[active]) / np.log(ratio) > PATIENCE).any())


def _factor(hessian: Array) -> Solve | None:
    """A function that solves with the Hessian of each problem (lower triangles), or None if it cannot."""
    factors = []
    for matrix in hessian:
        # row-major lower is column-major upper, so the transpose is factored in place of a copy
        factor, failed = lapack.dpotrf(matrix.T, lower=0, clean=0)
        if failed:
            return None
        factors.append(factor)

    def solve(rhs: Array) -> Array:
        return np.stack([lapack.dpotrs(factor, one, lower=0)[0] for factor, one in zip(factors, rhs)])

    return solve
