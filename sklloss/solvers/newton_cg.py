"""Newton's method with its linear systems solved by preconditioned conjugate gradients."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from sklloss.arrays.vectors import NUMPY, Array, Mask
from sklloss.kernels.solve import SystemProgress, as_operator, conjugate_gradients, settle
from sklloss.solvers.base import (
    MAX_HALVINGS,
    SUFFICIENT_DECREASE,
    Callback,
    ProductObjective,
    Progress,
    Result,
    Solve,
    allowed_gap,
    evaluate_start,
    exhausted,
    require,
    tell_start,
    underestimates,
)
from sklloss.solvers.lbfgs import lbfgs

LOOSEST = 0.5  # the largest share of its decrease that a system may leave undone
# The same in multiples of the relative gap where similar objectives have left a local preconditioner and a
# start that is near: what a system leaves undone is then no more than what Newton's model misses.
LOOSEST_GAPS = 30.0
CLOSEST = 0.1  # no system is solved more closely than this share of the gap allowed at the end
TRUST = 20.0  # see `SystemProgress`, where the preconditioner is close to the Hessian
MAX_PRODUCTS = 250
# Up to this relative gap later points are similar, and a new local preconditioner is made after a system
# whose products cost this share of it, and more than a few. Further away, where the curvature of a point says
# little about that of the next, after a system that cost twice as much as it.
NEAR, NEAR_SHARE, NEAR_PRODUCTS = 0.3, 0.5, 4
FAR_SHARE, FAR_PRODUCTS = 2.0, 8
CHEAP = 2.0  # so many products are no more than a few
# One that has served so many systems without bringing the fit to its end may be the cause: where it sees a
# residual far too small, each system is left too soon.
MOST_SYSTEMS = 10
# If the preconditioner first estimates this many times the decrement, its blocks lack curvature that the
# sample which they are made from has missed.
MISSED = 10.0

# Products are rough until so many systems in a row were followed by a decrease that is less than this share
# of what they had expected.
MOST_POOR, EXPECTED_SHARE = 2, 0.25

# Rows per parameter of the samples whose minima are the first starts, the tolerance to which these are found,
# and the limit of steps for each.
SAMPLES = (2, 8)
SAMPLE_TOL = 0.6
MAX_SAMPLE_STEPS = 12

# Dual coordinate ascent, which finds the start.
DUAL_EPOCHS = 40
DUAL_ENOUGH = 0.3  # share of the allowed gap at which it stops
DUAL_NEAR = 0.1  # relative gap up to which its result is used

# If L-BFGS converges within this many iterations, or this share of ``max_iter``, it reads X half as often as
# Newton's method. A problem that needs more may need very many, so Newton's method takes over.
LBFGS_ITERATIONS, LBFGS_SHARE = 30, 0.3


class PreconditionerCache:
    """The local preconditioner that `newton_cg` used last, for the next of several similar objectives.

    Attributes
    ----------
    preconditioner : Preconditioner or None
    """

    def __init__(self) -> None:
        self.preconditioner: Any = None


def newton_cg(
    objective: ProductObjective,
    w: Array,
    *,
    tol: float,
    max_iter: int,
    callback: Callback | None = None,
    start: Array | None = None,
    cache: PreconditionerCache | None = None,
    sampled: bool = True,
) -> Result:
    """Minimise a convex objective by truncated Newton steps (Newton-CG).

    Each linear system is solved by preconditioned conjugate gradients to a tolerance that is the fourth root
    of the relative gap, which keeps the convergence superlinear; the step is halved until it meets Armijo's
    condition. A start at 0 is replaced by the result of dual coordinate ascent if the objective offers it, or
    by the minimum over a sample of the rows if there are many and a penalty.

    A problem has converged when a solved system says that at most the allowed gap was left to gain before its
    step. It has converged without a further system where the preconditioner's estimate is a quarter of that,
    after a multiplication by the largest factor by which it has been too small so far.

    Parameters
    ----------
    objective : ProductObjective
    w : ndarray of shape (problems, size)
        Start.
    tol : float
        See `allowed_gap`; the Newton decrement is that of the conjugate gradients' solution.
    max_iter : int
        Limit of the number of Newton steps.
    callback : callable, optional
        Called with ``(n_iter, w, value)`` after each step.
    start : ndarray of shape (problems,), optional
        The values that vanishing problems are compared with, if another solver came before this one.
    cache : PreconditionerCache, optional
        The local preconditioner of similar objectives, if w is near the optimum. It is made here if it does
        not exist, and replaced if it has become too poor.
    sampled : bool
        Whether a sample of the rows may find the start.

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
        w = w if w.any() or not sampled else _sampled_start(objective, w)
    vectors = getattr(objective, "vectors", NUMPY)

    def evaluate(w: Array) -> tuple[Array, Any, Any]:
        at = vectors.put(w)
        return *_linearised(objective, vectors, at), at

    reference, (value, gradient, at) = evaluate_start(objective, w, evaluate)
    progress = Progress(objective, value, reference if start is None else start)
    tell_start(callback, value)
    if cache is not None and cache.preconditioner is None:
        cache.preconditioner = objective.local_preconditioner()
    solve = (cache and cache.preconditioner) or objective.preconditioner()
    solve = _Preconditioning(objective, vectors, solve, cache)  # no other name keeps its factors in memory
    # By how much the preconditioner has underestimated a decrement at most, and if the last system tells.
    excess, known = np.ones(len(w)), np.zeros(len(w), dtype=bool)
    risen = np.zeros(len(w), dtype=bool)
    poor = 0
    for iteration in range(1, max_iter + 1):
        z = solve(-gradient)
        first = -vectors.to_host(vectors.dot(gradient, z))[0]
        gap = allowed_gap(value, tol)
        active = progress.active(value)
        # With a margin, because the new residual may lie where the factor is larger.
        progress.converged |= active & known & (excess * first / 2 <= gap / 4)
        active &= ~progress.converged
        if not active.any():
            break
        direction, products, reached, latest = _conjugate_gradients(
            objective, vectors, solve, gradient, z, first, value, gap, active, rough=poor < MOST_POOR
        )
        excess = np.maximum(excess, latest)
        direction, slope, invalid = vectors.finite_direction(direction, gradient)
        decrement = -slope
        # Where rounding spoils the products, a system may end uphill. It starts downhill, at z.
        uphill = active & ~invalid & ~(decrement > 0) & np.isfinite(first) & (first / 2 > gap)
        if uphill.any():
            direction = vectors.where(uphill, z, direction)
            decrement, reached = np.where(uphill, first, decrement), reached & ~uphill
        step, at, new = _damped_step(objective, vectors, at, value, direction, decrement, active)
        unmoved = active & (step == 0.0)
        beyond = underestimates(decrement / 2, value, new[0], gap, objective.noise)
        sound = active & reached & ~invalid & ~beyond
        # Along nearly flat directions, rounding can cause a large decrement. The preconditioner's ridge keeps
        # such directions out of its estimate ``first``, which is safe with a factor of 10.
        least = np.minimum(decrement, 10 * first)
        # One rise of the value is not enough where the estimated gap is larger than rounding explains.
        rises = active & reached & (new[0] >= value)
        halted = (unmoved | (rises & (exhausted(least, value) | risen))) & ~invalid
        risen = rises
        # The decrement is too small if the system was not solved.
        solved = sound & (decrement / 2 <= gap)
        progress.end(solved | (halted & exhausted(least, value, objective.noise)), unmoved)
        known = sound & (step == 1.0) & objective.close_preconditioner
        # Rough products are no longer used where the decrease is far from what the systems expect.
        fits = (step == 1.0) & (value - new[0] >= EXPECTED_SHARE * decrement / 2)
        poor = 0 if poor < MOST_POOR and (fits | solved | ~active).all() else poor + 1
        near = bool((decrement / 2 <= NEAR * np.abs(value)).all())
        value, gradient = new
        progress.record(iteration, active, value)
        if callback is not None:
            callback(iteration, vectors.get(at), value)
        if solve.renew(products, near=near, missed=bool((active & (first > MISSED * decrement)).any())):
            excess, known = np.ones(len(w)), np.zeros(len(w), dtype=bool)
    return progress.result(vectors.get(at), value)


class _Preconditioning:
    """The preconditioner of a fit: at first one for any point, unless there is a cache, then local ones.

    Parameters
    ----------
    objective, vectors
        See `newton_cg`.
    initial : Preconditioner
        The first one.
    cache : PreconditionerCache or None
        See `newton_cg`.
    """

    def __init__(
        self, objective: ProductObjective, vectors: Any, initial: Any, cache: PreconditionerCache | None
    ) -> None:
        self._objective, self._vectors, self._last = objective, vectors, cache or PreconditionerCache()
        self.operator: Any = vectors.preconditioner(initial)
        self._near = cache is not None and cache.preconditioner is not None and objective.close_preconditioner
        self._every_row = self._sampled = False
        self._systems = 0

    def __call__(self, x: Any) -> Any:
        """The solution for the right-hand side x."""
        return self.operator(x)

    def loosest(self, gap: Array) -> float:
        """The largest share of its decrease that a system may leave undone, at these estimated gaps."""
        return min(LOOSEST, LOOSEST_GAPS * float(np.max(gap))) if self._near else LOOSEST

    def renew(self, products: int, *, near: bool, missed: bool) -> bool:
        """Make a local preconditioner if the last one is no longer good enough; returns whether it is new.

        Parameters
        ----------
        products : int
            How many the last system took.
        near : bool
            Whether the optimum is near.
        missed : bool
            Whether the preconditioner estimated a far larger decrement than there was. The blocks of a
            sample do, if it misses the curvature of a few rows: if new ones do, all rows are used from then
            on. Others are renewed.
        """
        missed = missed and self._sampled
        self._every_row |= missed and self._systems == 0
        share, least = (NEAR_SHARE, NEAR_PRODUCTS) if near else (FAR_SHARE, FAR_PRODUCTS)
        self._systems += 1
        cost = self._objective.block_cost
        enough = products <= max(least, share * cost) and self._systems < MOST_SYSTEMS and cost > CHEAP
        if (enough and not missed) or cost == np.inf:
            return False
        self._systems = 0
        # Its factors may be large, so they are not kept while those of the next one are made.
        self.operator = self._last.preconditioner = None
        local = self._last.preconditioner = self._objective.local_preconditioner(every_row=self._every_row)
        self._sampled = local is not None and not self._every_row
        self.operator = self._vectors.preconditioner(local or self._objective.preconditioner())
        return True


def lbfgs_newton_cg(
    objective: Any,
    w: Array,
    *,
    tol: float,
    max_iter: int,
    callback: Callback | None = None,
    begins: Callable[[str], object] | None = None,
) -> Result:
    """Minimise a convex objective by `lbfgs` and, if that has not converged, continue by `newton_cg`.

    Parameters
    ----------
    objective, w, tol, callback
        See `newton_cg`.
    max_iter : int
        Limit of the iterations of both; `lbfgs` gets at most 30 of them, and at most 30 %.
    begins : callable, optional
        Called with the name of each solver when it begins.

    Returns
    -------
    Result
    """
    begins = begins or (lambda name: None)
    short = min(LBFGS_ITERATIONS, int(LBFGS_SHARE * max_iter))
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
    """Parameters near the minimum by dual coordinate ascent, or ``w``, which is 0, if the ascent is too slow.

    An epoch visits the rows in an order that is shuffled with a fixed seed, so that it is the same in every
    fit. The gap is an estimate, which the solver that starts from the result has to confirm.

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
        # A NaN counts as remaining.
        remaining = predicted_decrease[~(predicted_decrease <= DUAL_ENOUGH * allowed_gap(value, tol))].sum()
        if remaining == 0 or not remaining <= ascent.slow * before:
            break
        before = remaining
    if not predicted_decrease.sum() <= DUAL_NEAR * np.abs(value).sum():
        return w
    w_dual = objective.without_shift(ascent.parameters())
    return np.where(np.isfinite(w_dual).all(axis=1, keepdims=True), w_dual, w)


def _sampled_start(objective: ProductObjective, w: Array) -> Array:
    """Parameters near the minimum over a sample of the rows; ``w``, which is 0, if there are few rows.

    Far from the optimum, steps are found as well on some of the rows. But without a penalty, columns that are
    rare in a sample may have coefficients there that are far too large: ``w`` then, too.
    """
    if not objective.penalised:
        return w
    for rows in SAMPLES:
        small = objective.subsample(rows)
        if small is None:
            break
        found = newton_cg(small, w, tol=SAMPLE_TOL, max_iter=MAX_SAMPLE_STEPS, sampled=False)
        w = found.w
    return w


def _linearised(objective: ProductObjective, vectors: Any, at: Any) -> tuple[Array, Any]:
    value, gradient = objective.linearise(at)
    return vectors.to_host(value)[0], gradient


def _conjugate_gradients(
    objective: ProductObjective,
    vectors: Any,
    solve: Any,
    gradient: Any,
    z: Any,
    first: Array,
    value: Array,
    gap: Array,
    active: Mask,
    *,
    rough: bool,
) -> tuple[Any, int, Mask, Array]:
    """Minimise g.d + d.Hd / 2 over d for each problem, to a tolerance that depends on its gap to the optimum.

    ``z`` is what the preconditioner makes of -g, and ``first`` the decrement by its estimate; ``rough`` says
    which products with the Hessian. Returns d, the number of products, which problems reached their
    tolerance, and how much a residual, as the preconditioner sees it, has underestimated what was left to
    gain.
    """
    residual = -gradient
    size = np.maximum(np.abs(value), np.finfo(float).tiny)
    reached = vectors.vanishes(gradient, first == 0)
    running = active & ~reached & (first > 0)
    excess = np.ones(len(first))
    with np.errstate(over="ignore"):  # of a value of 0
        loosest = solve.loosest(np.where(running, first / (2 * size), 0.0))
    progress = SystemProgress(
        first, size, gap, running, reached, excess, loosest, CLOSEST, objective.residual_floor,
        TRUST if objective.close_preconditioner else 0.0,
    )  # fmt: skip
    multiply = objective.multiplier(rough=rough)
    if vectors.on_device:
        systems = _DeviceSystems(vectors, residual, z, vectors.put(first), running, progress)
        products = systems.solve(multiply, solve, MAX_PRODUCTS)
        d, moved = systems.d, systems.moved
    else:
        d, products = conjugate_gradients(
            as_operator(multiply), as_operator(solve.operator), residual, z, progress, MAX_PRODUCTS
        )
        moved = d.any(axis=1)
    # Where the objective is flat to working precision, take the preconditioned gradient.
    flat = active & ~reached & ~moved
    if flat.any():
        d = vectors.where(flat, -solve(gradient), d)
    return d, products, reached, excess


class ArraySystems:
    """Independent linear systems, solved by conjugate gradients in the operations of an array namespace.

    Each iteration calls `advance` and, if a system still runs, `turn`. The next directions are computed
    before it is known which systems need them, so that the host waits once per iteration for a device.

    Parameters
    ----------
    vectors : NumPyVectors or ArrayVectors
    residual, z : array of shape (systems, size)
        The right-hand sides, and what the preconditioner makes of them.
    rz : array of shape (systems,)
        Their products.
    running : ndarray of bool of shape (systems,)
        The systems to solve; the others keep a solution of 0.

    Attributes
    ----------
    p, d : array of shape (systems, size)
        The next directions, 0 for a system that has ended, and the solutions so far.
    """

    def __init__(self, vectors: Any, residual: Any, z: Any, rz: Any, running: Mask) -> None:
        self._vectors, self._residual, self._rz = vectors, residual, rz
        self.p: Any = vectors.masked(z, running)
        self.d: Any = vectors.xp.zeros_like(z)
        self._zeros, self._ones = vectors.xp.zeros_like(rz), vectors.xp.ones_like(rz)

    def advance(self, product: Any, solve: Any) -> tuple[Any, Any, Any]:
        """Go to the minimum along p, given its product with the matrix.

        Returns the lengths of the steps, 0 if the matrix is not positive along p, the products of p with
        ``product``, and those of the new residuals with what the preconditioner ``solve`` makes of them.
        """
        vectors, xp, rz = self._vectors, self._vectors.xp, self._rz
        pHp = vectors.dot(self.p, product)
        convex = pHp > 0
        length = xp.where(convex, rz / xp.where(convex, pHp, self._ones), self._zeros)
        self.d = self.d + length[:, None] * self.p
        self._residual = self._residual - length[:, None] * product
        z = solve(self._residual)
        newer = vectors.dot(self._residual, z)
        # of several systems, one that has ended may have a residual of 0
        divisor = rz if rz.shape[0] == 1 else xp.where(convex, rz, self._ones)
        self._next = newer, (newer / divisor)[:, None] * self.p + z
        return length, pHp, newer

    def turn(self, running: Mask) -> None:
        """Take the next directions of the systems that still run."""
        self._rz, p = self._next
        self.p = self._vectors.masked(p, running)


class _DeviceSystems(ArraySystems):
    """Systems whose vectors stay on the device of X; each step reads two numbers per system from it.

    Attributes
    ----------
    moved : ndarray of bool of shape (systems,)
        Which systems have taken a step.
    """

    def __init__(self, vectors: Any, residual: Any, z: Any, rz: Any, running: Mask, progress: Any) -> None:
        super().__init__(vectors, residual, z, rz, running)
        self._running, self._progress = running, progress
        self.moved: Mask = np.zeros_like(running)

    def solve(self, multiply: Solve, precondition: Solve, most: int) -> int:
        """As `kernels.solve.conjugate_gradients`; returns the number of products."""
        products, some = 0, self._running.any()
        while some and products < most:
            products += 1
            before = self._running.copy()
            pHp, newer = self._vectors.to_host(*self.advance(multiply(self.p), precondition)[1:])
            self.moved |= before & (pHp > 0)
            some = settle(pHp, newer, self._progress, products)
            if some:
                self.turn(self._running)
        return products


def _damped_step(
    objective: ProductObjective,
    vectors: Any,
    at: Any,
    value: Array,
    direction: Any,
    decrement: Array,
    active: Mask,
) -> tuple[Array, Any, tuple[Array, Any]]:
    """The largest of 1, 1/2, 1/4, ... for each problem that decreases it enough; 0 if none does.

    Returns the steps, the new parameters, and value and gradient at them.
    """
    step = np.where(active, 1.0, 0.0)
    noise = objective.noise * np.abs(value)
    for _ in range(MAX_HALVINGS):
        ahead = at + vectors.scaled(step, direction, active)
        new = _linearised(objective, vectors, ahead)
        # a NaN or infinite value counts as an increase
        rises = active & (step > 0) & ~(new[0] <= value - SUFFICIENT_DECREASE * step * decrement + noise)
        if not rises.any():
            return step, ahead, new
        step[rises] /= 2
    step[rises] = 0.0
    ahead = at + vectors.scaled(step, direction, active)
    return step, ahead, _linearised(objective, vectors, ahead)
