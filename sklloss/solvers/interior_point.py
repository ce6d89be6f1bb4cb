"""A primal-dual interior point for losses with kinks, over the rows that can be near theirs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

import sklloss.kernels.linear.central_path as central_path
from sklloss.arrays.vectors import Array
from sklloss.solvers.base import Callback, Objective, Result, allowed_gap, require, tell_start
from sklloss.solvers.newton import PositiveSolver

# The slack of the starting point, relative to the mean error.
FIRST_SLACK = 0.1
# The least share of the way to the boundary that a step goes.
STEP_SHARE = 0.995
# The gap to which a sample is solved, and that of the point from which a programme with more rows starts.
SAMPLE_GAP, RESTART_GAP = 1e-2, 1e-1
# A restart that has not reached RESTART_GAP after so many steps starts anew.
MAX_RESTART_STEPS = 40
# More parameters than these are solved over those that may be other than 0: first so many, in rounds.
MANY_PARAMETERS, FIRST_COLUMNS, MAX_ROUNDS_OF_COLUMNS = 500, 100, 50
MAX_ROUNDS = 8  # of adding rows that turned out to be beyond their kink
# The gap to which a programme over some of the rows is solved before the signs of the others are checked.
LOOSE_GAP = 1e-3
# The share of the gap allowed at the end that a programme over part of the rows may use.
PART_SHARE = 0.25
# A coefficient is likely to be 0 if it costs no more than this share of the value, and its dual variable is
# not at a bound, relative to the distance between the two.
SMALL_COST = 1e-4
LEAST_SLACK = 1e-6
# Steps without a smaller gap after which rounding is all that is left, and the gap that then counts as none.
PATIENCE = 15
ROUNDED_GAP = 1e-6
EPS, LEAST_NUMBER = float(np.finfo(float).eps), float(np.finfo(float).tiny)
# Slacks and errors that are less count as this: y may be 0 throughout.
LEAST_ERROR = float(np.finfo(float).tiny) ** 0.25


class Programme(Protocol):
    """A programme over rows with one-dimensional kinks, see `sklloss.objectives.programme.Programme`."""

    target: Array
    low: Array
    high: Array
    costs: tuple[Array, Array]
    ridge: Array

    @property
    def n(self) -> int:
        """The number of rows."""

    @property
    def size(self) -> int:
        """The number of parameters."""

    @property
    def weights(self) -> Array:
        """The weight of each row."""

    @property
    def reach(self) -> Array:
        """The absolute error beyond which the loss of each row is linear."""

    def losses(self, e: Array) -> Array:
        """The loss of each row for its error."""

    def conjugate(self, a: Array) -> tuple[Array, Array, Array]:
        """The conjugate of each row's loss, its derivative and its second derivative."""

    def scores(self, w: Array) -> Array:
        """X w."""

    def transposed(self, v: Array) -> Array:
        """X' v."""

    def normal(self, q: Array, v: Array) -> tuple[Array, Array]:
        """X' diag(q) X and X' v."""

    @property
    def wide(self) -> bool:
        """Whether `dual_solver` is cheaper than the matrix."""

    @property
    def sparse_solution(self) -> bool:
        """Whether few parameters are other than 0."""

    def column_sizes(self) -> Array:
        """The root mean square of each column."""

    def dual_solver(self, q: Array, diagonal: Array) -> Callable[[Array], Array]:
        """A solver with ``X' diag(q) X + diag(diagonal)``."""

    def take(self, rows: Array) -> "Programme":
        """The programme over some rows."""

    def sample(self, rows: Array) -> "Programme":
        """The same, with penalties in proportion."""

    def columns(self, chosen: Array) -> "Programme":
        """The programme over some parameters, the others being 0."""

    def merged(self, rows: Array, groups: list[Array]) -> "Programme":
        """The programme over some rows, and one row for each group of others."""

    def standard_errors(self, root: Array) -> Array:
        """The standard deviation of each row's score."""


class KinkedObjective(Objective, Protocol):
    """An objective whose problems are programmes, as `interior_point` needs it."""

    @property
    def shape(self) -> tuple[int, int]:
        """(problems, size), the shape of the parameters."""

    def programme(self, k: int) -> Programme:
        """The programme of problem k."""


@dataclass
class _State:
    """A point inside the bounds: ``target - X w = u - v + h'(a)``, with u, v > 0 and low < a < high."""

    w: Array
    u: Array
    v: Array
    a: Array


@dataclass
class _Solution:
    """The end of `_follow`: parameters, dual variables of rows and of costs, and the gap that is left."""

    w: Array
    a: Array
    norm_dual: Array
    penalty_gap: float
    gap: float
    value: float
    n_iter: int
    converged: bool
    restart: tuple[Array, float] | None
    state: _State


def interior_point(
    objective: KinkedObjective, w: Array, *, tol: float, max_iter: int, callback: Callback | None = None
) -> Result:
    """Minimise a loss with kinks plus L1 and L2 penalties, to a duality gap.

    Mehrotra's predictor and corrector steps, whose equations are ``X' Q X + penalty`` with one weight for
    each row. With many rows, the minimum over a sample says which of them can be near their kinks: the others
    are merged into two rows, whose dual variables stand for all of theirs, so that the duality gap over all
    rows is known. Rows that turn out to be on the other side are added.

    Parameters
    ----------
    objective : KinkedObjective
    w : ndarray of shape (problems, size)
        Not used: an interior point cannot start from a solution.
    tol : float
        See `allowed_gap`; the gap is the difference of primal and dual values.
    max_iter : int
        Limit of the steps over all rows, or over those that matter.
    callback : callable, optional
        Called with ``(n_iter, w, value)`` after each problem.

    Returns
    -------
    Result

    References
    ----------
    Portnoy and Koenker, "The Gaussian hare and the Laplacian tortoise", Statistical Science 12 (1997);
    Mehrotra, "On the implementation of a primal-dual interior point method", SIAM J. Optim. 2 (1992).
    """
    require(objective, KinkedObjective)
    w = np.zeros(objective.shape)
    value = objective.null_value(exact=True).copy()
    curve = [float(value.sum())]
    tell_start(callback, value)
    n_iter, converged = np.zeros(len(w), dtype=int), np.zeros(len(w), dtype=bool)
    for k in range(len(w)):
        found = _minimise(objective.programme(k), tol, max_iter)
        w[k], value[k], n_iter[k], converged[k] = found.w, found.value, found.n_iter, found.converged
        curve.append(float(value.sum()))
        if callback is not None:
            callback(k + 1, w, value)
    return Result(w, value, n_iter, converged, curve, np.zeros(len(w), dtype=bool))


def _minimise(programme: Programme, tol: float, max_iter: int) -> _Solution:
    """The minimum of a programme, with the rows that matter, or with all if these are most of them."""
    n = programme.n
    rows = int(np.sqrt(programme.size) * n ** (2 / 3))
    share = float(allowed_gap(np.ones(1), tol)[0])
    found = None
    if programme.size > MANY_PARAMETERS and programme.sparse_solution and max_iter > 0:
        return _minimise_by_columns(programme, share, max_iter)
    if 2 * rows < n and max_iter > 0:
        found = _minimise_by_parts(programme, rows, share, max_iter)
    if found is None:
        found = _follow(programme, share, max_iter)
    return _with_zeros(programme, found, share)


def _minimise_by_parts(programme: Programme, rows: int, share: float, max_iter: int) -> _Solution | None:
    """The minimum by programmes over some of the rows; None if that fails."""
    n, low, high, reach = programme.n, programme.low, programme.high, programme.reach
    chosen = np.flatnonzero(np.bincount(np.random.RandomState(0).randint(n, size=rows), minlength=n))
    sample = programme.sample(chosen)
    first = _follow(sample, SAMPLE_GAP, max_iter)
    if not first.converged:
        return None
    spread = programme.standard_errors(_covariance_root(sample, first.w))
    e = programme.target - programme.scores(first.w)
    # How far a row is from the quadratic or kinked part of its loss, in standard errors.
    outside = np.abs(e) - reach
    smallest = max(EPS * float(np.abs(programme.target).max()), LEAST_ERROR)
    distance = outside / np.maximum(spread, smallest)
    inside = np.zeros(n, dtype=bool)
    inside[np.argpartition(distance, rows)[:rows]] = True
    above, below = ~inside & (e > 0), ~inside & (e <= 0)
    center = float(np.median(spread[inside] * programme.weights[inside]))
    restart: tuple[Array, float] | None = (first.w, center)
    steps = first.n_iter
    for _ in range(MAX_ROUNDS):
        groups = [group for group in (np.flatnonzero(above), np.flatnonzero(below)) if group.size]
        near = np.flatnonzero(inside)
        path = _Path(programme.merged(near, groups), LOOSE_GAP)
        found = path.follow_from(restart, max_iter)
        steps += found.n_iter
        if not found.converged:
            return None
        restart = found.restart
        e = programme.target - programme.scores(found.w)
        wrong = (above & (e < reach)) | (below & (e > -reach))
        if not wrong.any():
            found = path.follow(found.state, max_iter, PART_SHARE * share)
            steps += found.n_iter
            if not found.converged:
                return None
            e = programme.target - programme.scores(found.w)
            wrong = (above & (e < reach)) | (below & (e > -reach))
        a = np.empty(n)
        a[near] = found.a[: near.size]
        for group, total in zip(groups, found.a[near.size :], strict=True):
            side = high if above[group[0]] else low
            a[group] = side[group] * (total / side[group].sum())
        losses = programme.losses(e)
        gap = float((losses - a * e + programme.conjugate(a)[0]).sum()) + found.penalty_gap
        value = float(losses.sum()) + _penalty(programme, found.w)
        if gap <= share * value + _rounding(programme):
            found.gap, found.value, found.n_iter = gap, value, steps
            return found
        if not wrong.any():
            return None
        inside |= wrong
        above, below = above & ~wrong, below & ~wrong
        if 2 * np.count_nonzero(inside) > n:
            return None
    return None


def _minimise_by_columns(programme: Programme, share: float, max_iter: int) -> _Solution:
    """The minimum of a programme with many parameters that cost something, over those that are not 0.

    A parameter that is left out is 0 at the optimum if its gradient is within its costs. Where it is not, the
    dual variables of the rows are scaled down until it is, which makes them feasible for all parameters: the
    gap that they prove says whether more parameters are needed.
    """
    negative, positive = programme.costs
    slopes = np.where(programme.target > np.median(programme.target), programme.high, programme.low)
    excess = _excess(programme, slopes)
    chosen = np.minimum(negative, positive) <= 0
    chosen |= np.isin(np.arange(programme.size), np.argsort(-excess)[:FIRST_COLUMNS])
    steps = 0
    for _ in range(MAX_ROUNDS_OF_COLUMNS):
        at = np.flatnonzero(chosen)
        part = programme.columns(at)
        found = _with_zeros(part, _follow(part, PART_SHARE * share, max_iter), PART_SHARE * share)
        steps += found.n_iter
        excess = _excess(programme, found.a)
        excess[chosen] = 0.0
        scale = 1.0 / max(1.0, float(excess.max(initial=0.0)))
        a = scale * found.a
        dual = float(a @ programme.target - programme.conjugate(a)[0].sum())
        rest = scale * part.transposed(found.a)
        over = np.maximum(np.maximum(rest - part.costs[1], -rest - part.costs[0]), 0.0)
        dual -= 0.5 * float((over[part.ridge > 0] ** 2 / part.ridge[part.ridge > 0]).sum())
        gap = max(found.gap, found.value - dual)
        w, norm_dual = np.zeros(programme.size), np.zeros(programme.size)
        w[at], norm_dual[at] = found.w, found.norm_dual
        done = found.converged and gap <= share * found.value + _rounding(programme)
        solution = _Solution(
            w, found.a, norm_dual, found.penalty_gap, gap, found.value, steps, done, None, found.state
        )
        more = np.flatnonzero(excess > 1.0)
        if done or not found.converged or not more.size:
            return solution
        most = max(FIRST_COLUMNS, 2 * np.count_nonzero(found.w))
        # Columns that are 0 at the optimum of a part stay: they may be what keeps others out.
        chosen[more[np.argsort(-excess[more])[:most]]] = True
    return solution


def _excess(programme: Programme, a: Array) -> Array:
    """The gradient of each parameter at 0, relative to its cost: above 1 it has to move."""
    gradient = programme.transposed(a)
    negative, positive = programme.costs
    cost = np.where(gradient > 0, positive, negative)
    return np.divide(np.abs(gradient), cost, out=np.zeros_like(gradient), where=cost > 0)


def _covariance_root(sample: Programme, w: Array) -> Array:
    """A root of the covariance of the minimum over a sample: its rows give those of scores."""
    e = np.abs(sample.target - sample.scores(w))
    width = np.maximum(np.quantile(e, 0.25), sample.reach)
    width = np.maximum(width, max(EPS * float(np.abs(sample.target).max()), LEAST_ERROR))
    density = np.where(e <= width, sample.weights / (2.0 * width), 1e-12 * sample.weights / width)
    zeros = np.zeros(sample.n)
    curvature, _ = sample.normal(density, zeros)
    np.einsum("ii->i", curvature)[:] += sample.ridge
    variance, _ = sample.normal(-sample.high * sample.low, zeros)
    # Parameters that the L1 norm holds at 0 would vary less, so that this is on the safe side.
    scale = np.sqrt(np.where(curvature.diagonal() > 0, curvature.diagonal(), 1.0))
    values, vectors = np.linalg.eigh(curvature / scale / scale[:, None])
    inverse = np.where(values > 1e-10 * values[-1], 1.0 / np.maximum(values, 1e-300), 0.0)
    bread = (vectors * inverse) @ vectors.T / scale / scale[:, None]
    lower, parts = np.linalg.eigh(np.tril(variance) + np.tril(variance, -1).T)
    root: Array = bread @ (parts * np.sqrt(np.maximum(lower, 0.0)))
    return root


def _costs(programme: Programme, w: Array) -> Array:
    """What each parameter costs, apart from the L2 penalty."""
    return np.where(w < 0, -programme.costs[0], programme.costs[1]) * w


def _penalty(programme: Programme, w: Array) -> float:
    return float(_costs(programme, w).sum() + 0.5 * (programme.ridge * w) @ w)


def _rounding(programme: Programme) -> float:
    """The rounding error of a value."""
    return 4 * EPS * float(np.maximum(programme.high, -programme.low) @ np.abs(programme.target))


def _with_zeros(programme: Programme, found: _Solution, share: float) -> _Solution:
    """The solution with exact zeros where the L1 norm holds a parameter there, if the gap allows it."""
    negative, positive = programme.costs
    width = negative + positive
    slack = np.minimum(found.norm_dual + positive, negative - found.norm_dual)
    small = (slack > LEAST_SLACK * width) & (width * np.abs(found.w) <= SMALL_COST * found.value)
    small &= (found.w != 0) & (width > 0)
    if not (found.converged and small.any()):
        return found
    allowed = share * found.value + _rounding(programme)
    for zero in (small, small & (width * np.abs(found.w) <= allowed / programme.size)):
        w = np.where(zero, 0.0, found.w)
        value = float(programme.losses(programme.target - programme.scores(w)).sum())
        value += _penalty(programme, w)
        if value - found.value <= allowed:
            found.gap += max(0.0, value - found.value)
            found.w, found.value = w, value
            break
    return found


def _follow(
    programme: Programme,
    share: float,
    max_iter: int,
    restart: tuple[Array, float] | None = None,
) -> _Solution:
    """Follow the central path until the gap is at most this share of the value.

    ``restart`` is a point that is near the central path where complementary pairs have about a given product.
    """
    return _Path(programme, share).follow_from(restart, max_iter)


class _Path:
    """The central path of a programme; each parameter that has a cost adds a row."""

    def __init__(self, programme: Programme, share: float) -> None:
        self._programme, self._share = programme, share
        self._n = programme.n
        negative, positive = programme.costs
        self._penalised = np.flatnonzero(negative + positive)
        zeros = np.zeros(self._penalised.size)
        self._target = np.concatenate([programme.target, zeros])
        # A parameter counts as a row of target 0 and score w, so that its error is -w.
        self._low = np.concatenate([programme.low, -positive[self._penalised]])
        self._high = np.concatenate([programme.high, negative[self._penalised]])
        self._zeros = zeros
        self._rounding = _rounding(programme)

    def _scores(self, w: Array) -> Array:
        return np.concatenate([self._programme.scores(w), w[self._penalised]])

    def _transposed(self, v: Array) -> Array:
        total = self._programme.transposed(v[: self._n])
        total[self._penalised] += v[self._n :]
        return total

    def _system(self, q: Array, v: Array) -> tuple[Callable[[Array], Array], Array]:
        """A solver of the equations, and X' v."""
        diagonal = self._programme.ridge.copy()
        diagonal[self._penalised] += q[self._n :]
        if self._programme.wide:
            return self._programme.dual_solver(q[: self._n], diagonal), self._transposed(v)
        matrix, total = self._programme.normal(q[: self._n], v[: self._n])
        total[self._penalised] += v[self._n :]
        np.einsum("ii->i", matrix)[:] += diagonal
        return PositiveSolver(matrix), total

    def start(self) -> _State:
        """The least squares solution, with slacks that are large enough."""
        programme, n = self._programme, self._n
        if programme.wide:
            w = np.zeros(programme.size)
        else:
            matrix, total = programme.normal(programme.weights, programme.weights * programme.target)
            diagonal = np.einsum("ii->i", matrix)
            diagonal *= 1.0 + 1e-8
            diagonal += programme.ridge
            w = PositiveSolver(matrix)(total)
        e = self._target - self._scores(w)
        slack = np.full(e.size, FIRST_SLACK * np.abs(e[:n]).mean())
        norm = np.abs(e[n:])
        slack[n:] = FIRST_SLACK * norm + (1e-3 * norm.mean() if norm.size else 0.0)
        if programme.wide:
            sizes = programme.column_sizes()[self._penalised]
            slack[n:] = slack[0] / np.where(sizes > 0, sizes, 1.0)
        np.maximum(slack, LEAST_ERROR, out=slack)
        # 0 is inside, but for a parameter with a cost on one side only.
        least = np.where(np.minimum(-self._low, self._high) > 0, 0.0, FIRST_SLACK * (self._high - self._low))
        a = np.clip(0.0, self._low + least, self._high - least)
        return _State(w, np.maximum(e, 0.0) + slack, np.maximum(-e, 0.0) + slack, a)

    def near_path(self, w: Array, product: float) -> _State:
        """The point at w whose pairs all have this product."""
        e = self._target - self._scores(w)
        weights = self._high - self._low
        ratio = product / weights
        share = 2.0 * ratio / (np.abs(e) + 2.0 * ratio + np.hypot(e, 2.0 * ratio))
        least = weights * share
        above = np.where(e >= 0, least, weights - least)
        return _State(w, product / above, product / (weights - above), self._high - above)

    def follow_from(self, restart: tuple[Array, float] | None, max_iter: int) -> _Solution:
        """Steps from a point near the path; from the start if there is none, or if that takes too many."""
        if restart is not None:
            found = self.follow(self.near_path(*restart), min(max_iter, MAX_RESTART_STEPS))
            if found.converged or max_iter <= MAX_RESTART_STEPS:
                return found
        return self.follow(self.start(), max_iter)

    @np.errstate(all="ignore")
    def follow(self, at: _State, max_iter: int, share: float | None = None) -> _Solution:
        """Steps from an interior point; the best point if rounding prevents further progress.

        ``share`` replaces that of the gap in the value that is allowed.
        """
        self._share = self._share if share is None else share
        e = self._target - self._scores(at.w)
        inverse = np.empty((2, e.size))
        xa = self._transposed(at.a)
        restart = best = None
        for iteration in range(max_iter + 1):
            pairs = central_path.distances(at.u, at.v, at.a, self._low, self._high, inverse)
            product = pairs / (2 * at.u.size)
            solution = self._solution(at, e, xa, iteration, restart)
            if solution.converged:
                # Errors and sums have been updated from step to step.
                e, xa = self._target - self._scores(at.w), self._transposed(at.a)
                solution = self._solution(at, e, xa, iteration, restart)
            if solution.gap <= RESTART_GAP * solution.value and restart is None:
                restart = solution.restart = (at.w, product)
            if best is None or solution.gap < best.gap:
                best = solution
            if best.converged or iteration == max_iter:
                return best
            step = self._step(at, e, xa, inverse, pairs) if np.isfinite(solution.gap) else None
            if step is None or iteration - best.n_iter >= PATIENCE:
                best.converged = best.gap <= ROUNDED_GAP * best.value
                return best
            dw, du, dv, da, xdw, xda, fastest = step
            share = max(STEP_SHARE, 1.0 - pairs / max(solution.value, LEAST_NUMBER))
            way = min(1.0, share / max(fastest, LEAST_NUMBER))
            at = _State(at.w + way * dw, at.u + way * du, at.v + way * dv, at.a + way * da)
            e, xa = e - way * xdw, xa + way * xda
        raise AssertionError

    def _step(
        self, at: _State, e: Array, xa: Array, inverse: Array, pairs: float
    ) -> tuple[Array, Array, Array, Array, Array, Array, float] | None:
        """Mehrotra's step; ``inverse`` are the reciprocals of the distances of a from its bounds.

        Returns the changes of w, u, v and a, those of X w and X' a, and the reciprocal of the number of such
        steps that reach the boundary. Primal and dual variables move together: where a step of one kind is
        cut, as after a restart, that of the other alone would lose the central path.
        """
        ridge = self._programme.ridge
        rows = at.u, at.v, inverse
        _, slope, curvature = self._programme.conjugate(at.a[: self._n])
        # The error that u - v leaves to a: these are equal, but for rounding and after a restart.
        residual = e - np.concatenate([slope, self._zeros])
        q, da, du, dv, right = np.empty((5, e.size))
        central_path.weights(*rows, np.concatenate([curvature, self._zeros]), q)
        solve, total = self._system(q, q * residual + at.a)
        dw = solve(total - ridge * at.w)
        if not np.isfinite(dw).all():
            return None
        fastest, curved = central_path.predicted(*rows, q, residual, self._scores(dw), da)
        way = min(1.0, 1.0 / fastest)
        after = max(0.0, (1.0 - way) * pairs - way * way * curved)
        aim = (after / pairs) ** 3 * pairs / (2 * e.size)
        central_path.corrected(*rows, q, residual, da, aim, du, dv, right)
        dw = solve(self._transposed(right + at.a) - ridge * at.w)
        if not np.isfinite(dw).all():
            return None
        xdw = self._scores(dw)
        fastest = central_path.changes(*rows, q, right, xdw, du, dv, da)
        return dw, du, dv, da, xdw, ridge * (at.w + dw) - xa, fastest

    def _solution(
        self, at: _State, e: Array, xa: Array, n_iter: int, restart: tuple[Array, float] | None
    ) -> _Solution:
        """What is known at a point: the value, and the gap as a sum of terms that are not negative."""
        programme, n, ridge = self._programme, self._n, self._programme.ridge
        losses = programme.losses(e[:n])
        a = at.a[:n]
        gap = float((losses - a * e[:n] + programme.conjugate(a)[0]).sum())
        norm_dual = np.zeros(programme.size)
        norm_dual[self._penalised] = at.a[n:]
        # xa includes the dual variables of the norm, so that it is ridge w at the optimum.
        rest = xa - ridge * at.w
        free = ridge == 0
        penalty_gap = float((_costs(programme, at.w) + norm_dual * at.w).sum())
        penalty_gap += float(np.abs(rest * at.w)[free].sum())
        penalty_gap += float((0.5 * rest**2)[~free] @ (1.0 / ridge[~free]))
        value = float(losses.sum()) + _penalty(programme, at.w)
        gap += penalty_gap
        converged = gap <= self._share * value + self._rounding
        return _Solution(at.w, a, norm_dual, penalty_gap, gap, value, n_iter, converged, restart, at)
