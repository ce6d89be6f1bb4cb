"""Quadratic models plus an L1 norm, the subproblems of proximal Newton: by matrix, columns or products."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sklloss.arrays.vectors import NUMPY, Array, Mask, dot
from sklloss.kernels.solve import descend
from sklloss.solvers.base import Solve
from sklloss.solvers.newton import solve_positive
from sklloss.solvers.newton_cg import ArraySystems

SWEEPS = 10  # of coordinate descent between two checks of convergence
MAX_ROUNDS = 100
# Newton steps over a support in a row: after one that gained less than CUT_SHORT of what was left.
MAX_FACES, CUT_SHORT, FEW_PARAMETERS = 10, 1e-3, 100
CLOSE_SHARE = 1e-3  # the largest relative tolerance with few parameters, where it costs hardly anything
MAX_COLUMN_ROUNDS = 20  # of sweeps without a matrix
# A model is given up after MAX_IDLE_ROUNDS in a row that each gain less than IDLE_SHARE of the tolerance.
IDLE_SHARE, MAX_IDLE_ROUNDS = 0.01, 3
FAST_RATE = 0.7  # if each sweep gains less than this share of the one before, no Cholesky factor is needed
NO_SHIFTS: tuple[Array, Array] = np.empty((0, 0), dtype=np.intp), np.empty(0)

# Of `minimise_by_products`:
MAX_PRODUCT_ROUNDS = 50
MAX_PRODUCTS = 250
FREE_PRODUCTS = 5  # of a system, before a change of sign ends it
LOOSEST = 0.3  # the share of the model's tolerance to which a system on a face is solved
CONFIRMATION = 10.0  # converged if a proximal step gains less than the tolerance by this factor


def minimise_model(
    matrix: Array,
    gradient: Array,
    w: Array,
    l1: Array,
    share: float,
    least: float,
    trust_radius: Array | float = np.inf,
    shifts: tuple[Array, Array] = NO_SHIFTS,
) -> tuple[Array, float, bool]:
    """Minimise g.d + d.Hd / 2 + l1.|w + d| over d.

    Sweeps of coordinate descent find the support and the signs. If they converge slowly, as with correlated
    columns, a Newton step over the support follows them, by a Cholesky factor.

    Parameters
    ----------
    matrix : ndarray of shape (size, size)
        H, positive semidefinite, both triangles filled.
    gradient, w, l1 : ndarray of shape (size,)
    share, least : float
        Relative and absolute tolerance: stops when an estimated ``share`` of the decrease, or ``least``, is
        left.
    trust_radius : ndarray of shape (size,) or inf
        Bounds of abs(d). If there are any, only sweeps are used.
    shifts : ndarray of int of shape (groups, members), ndarray of shape (size,)
        Groups of parameters with a common l1, along whose common shifts H is diagonal, and these diagonals.
        They are small: neither coordinates nor steps over a face get far where most members are not 0.

    Returns
    -------
    d : ndarray of shape (size,)
    decrease : float
        By how much the model is lower at d than at 0.
    reached : bool
    """
    bounded = np.isfinite(trust_radius).any()
    share = min(share, CLOSE_SHARE) if len(matrix) <= FEW_PARAMETERS else share
    z, slope = w.copy(), gradient.copy()
    gains = np.empty(SWEEPS)
    low, high = w - trust_radius, w + trust_radius
    total, exact, reached, left, idle = 0.0, False, False, np.inf, 0
    for _ in range(MAX_ROUNDS):
        descend(matrix, slope, z, l1, low, high, gains, *shifts)
        gained = gains.sum()
        total += gained
        enough = max(share * total, least)
        rate = gains[-1] / gains[-2] if gains[-1] > 0.0 else 0.0
        reached = (exact or left <= enough) and gained <= enough
        reached |= rate < FAST_RATE and gains[-1] * rate / (1.0 - rate) <= enough
        reached |= bounded and gained <= enough
        if reached:
            break
        if bounded:
            continue
        gained_on_faces = 0.0
        for _ in range(MAX_FACES if len(matrix) <= FEW_PARAMETERS else 1):
            gained_on_face, exact, left = _minimise_on_face(matrix, slope, z, l1)
            gained_on_faces += gained_on_face
            # Along a direction with hardly any curvature, a step ends at the first change of sign or two.
            if exact or gained_on_face == 0.0 or gained_on_face > CUT_SHORT * left:
                break
        total += gained_on_faces
        # If little is gained, it is better to continue with the model at the new point.
        idle = idle + 1 if gained + gained_on_faces <= IDLE_SHARE * share * total else 0
        if idle == MAX_IDLE_ROUNDS and share * total > least:
            break
    d = z - w
    decrease = -(gradient @ d + 0.5 * (d @ (slope - gradient)) + l1 @ (np.abs(z) - np.abs(w)))
    return d, decrease, reached


def _minimise_on_face(matrix: Array, slope: Array, z: Array, l1: Array) -> tuple[float, bool, float]:
    """Move z to the minimum over its support with fixed signs, or nearer to it if signs have to change.

    ``z`` and ``slope`` change in place. Returns the gain, whether the minimum was reached, and a bound of the
    gain that is left over the support: that of the minimum without fixed signs.
    """
    face = np.flatnonzero((z != 0) | (l1 == 0))
    at, norm, sign = z[face], l1[face], np.sign(z[face])
    subgradient = slope[face] + norm * sign
    block = matrix[np.ix_(face, face)]
    step = -solve_positive(block, subgradient)
    if not np.isfinite(step).all():
        return 0.0, False, np.inf
    bound = (norm > 0) & ((at + step) * sign < 0)
    exact = not bound.any()
    moves = [np.where(bound, -at, step)]
    best: tuple[float, Array | None] = (0.0, None)
    # A matrix that is nearly singular may make an enormous move.
    with np.errstate(over="ignore", invalid="ignore"):
        if not exact:
            moves.append(_least_on_line(subgradient @ step, step @ (block @ step), at, step, norm))
        for move in moves:
            gained = -(slope[face] @ move + 0.5 * (move @ (block @ move)))
            gained -= norm @ (np.abs(at + move) - np.abs(at))
            if gained > best[0]:
                best = (gained, move)
    gained, chosen = best
    if chosen is None:
        return 0.0, exact, -0.5 * (subgradient @ step)
    z[face] += chosen
    slope += matrix[:, face] @ chosen
    return gained, exact, -0.5 * (subgradient @ step) - gained


def _least_on_line(slope: float, curvature: float, z: Array, step: Array, l1: Array) -> Array:
    """The move along a step to the least point of a quadratic plus an L1 norm.

    ``slope`` and ``curvature`` are those along the step at z, norm included. Indicators that sum to 1 share a
    direction with hardly any curvature, along which many signs may have to change before the norm grows.
    """
    crosses = (l1 > 0) & (z * step < 0)
    to_zero = np.divide(-z, step, out=np.full_like(step, np.inf), where=crosses)
    for i in np.argsort(to_zero)[: np.count_nonzero(crosses)]:
        if slope + curvature * to_zero[i] >= 0.0:
            break
        slope += 2.0 * l1[i] * abs(step[i])
        if slope + curvature * to_zero[i] >= 0.0:
            return np.where(to_zero == to_zero[i], -z, to_zero[i] * step)
    return step * (-slope / curvature)


def minimise_by_sweeps(
    model: Any,
    gradient: Array,
    w: Array,
    l1: Array,
    damping: float,
    share: float,
    least: float,
    trust_radius: Array | float = np.inf,
) -> tuple[Array, float, bool]:
    """Minimise g.d + d.Hd / 2 + l1.|w + d| over d by coordinate descent, for an H that is never made.

    Parameters
    ----------
    model : object
        Its ``begin`` and ``descend`` are those of `sklloss.objectives.column_model.ColumnModel`.
    gradient, w, l1, share, least, trust_radius
        See `minimise_model`.
    damping : float
        The multiple of H's diagonal that is added to it.

    Returns
    -------
    d, decrease, reached
        See `minimise_model`.
    """
    z = model.begin(gradient, w, l1, damping, trust_radius)
    gains = np.empty(SWEEPS)
    total, reached, enough = 0.0, False, 0.0
    for _ in range(MAX_COLUMN_ROUNDS):
        model.descend(IDLE_SHARE * enough, gains)
        total += gains.sum()
        enough = max(share * total, least)
        some = gains[gains > 0.0]
        left = 0.0
        if len(some) > 1:
            # The last two alone may be an accident: sweeps over correlated columns gain by turns.
            rate = max(some[-1] / some[-2], (some[-1] / some[0]) ** (1 / (len(some) - 1)))
            left = some[-1] * rate / (1.0 - rate) if rate < 1.0 else np.inf
        reached = bool(gains[0] <= enough and left <= enough)
        if reached:
            break
    return z - w, total, reached


def minimise_by_products(
    product: Solve,
    precondition: Callable[[Mask], Solve],
    gradient: Array,
    w: Array,
    l1: Array,
    inside: Mask,
    diagonal: Array,
    share: float,
    least: Array,
) -> tuple[Array, Array, Mask]:
    """Minimise g.d + d.Hd / 2 + l1.|w + d| over d for each problem, where d is 0 outside a set.

    Alternates a proximal gradient step scaled by ``diagonal``, which finds the support and the signs, with
    conjugate gradients over the support with fixed signs, up to where a sign would change.

    Parameters
    ----------
    product : callable
        The matrix times an array of the parameters' shape.
    precondition : callable
        Takes a mask of parameters and returns a function that solves with an approximation of the matrix
        restricted to them.
    gradient, w, l1, diagonal : ndarray of shape (problems, size)
    inside : ndarray of bool of shape (problems, size)
    share, least : float, ndarray of shape (problems,)
        Relative and absolute tolerance, as in `minimise_model`.

    Returns
    -------
    d : ndarray of shape (problems, size)
    decrease : ndarray of shape (problems,)
    reached : ndarray of bool of shape (problems,)

    References
    ----------
    Byrd, Chin, Nocedal and Oztoprak, *A family of second-order methods for convex l1-regularized
    optimization*, Mathematical Programming 159 (2016).
    """
    z, H_step = w.copy(), np.zeros_like(w)
    total = np.zeros(len(w))
    length = np.ones(len(w))
    reached: Any = ~inside.any(axis=1)
    products = 0
    for _ in range(MAX_PRODUCT_ROUNDS):
        slope = gradient + H_step
        scale = length[:, None] / diagonal
        moving = inside & ~reached[:, None]
        target = z - scale * slope
        target = np.sign(target) * np.maximum(np.abs(target) - scale * l1, 0.0)
        target = np.where(moving, target, z)
        gained, z, H_change, part = _move(product, slope, z, target, l1)
        H_step += H_change
        products += 1
        total += gained
        length = np.where(part < 1.0, length * np.maximum(part, 0.25), length * 1.5)
        reached |= CONFIRMATION * gained <= np.maximum(share * total, least)
        if reached.all() or products > MAX_PRODUCTS:
            break
        face = inside & ((z != 0) | (l1 == 0)) & ~reached[:, None]
        sign = np.sign(z)
        subgradient = np.where(face, gradient + H_step + l1 * sign, 0.0)
        step, H_direction, spent = _conjugate_gradients(
            product, precondition(face), face, subgradient, z, l1, share, least, total
        )
        products += spent
        # If signs would change: up to the first change, or further with the changed parameters at 0.
        to_zero = np.divide(-z, step, out=np.full_like(z, np.inf), where=face & (l1 > 0) & (step * sign < 0))
        first = np.minimum(to_zero.min(axis=1), 1.0)
        gained = -first * (dot(subgradient, step) + 0.5 * first * dot(step, H_direction))
        near = np.where(to_zero <= first[:, None], 0.0, z + first[:, None] * step)
        crossing = first < 1.0
        if crossing.any():
            for part in (np.ones_like(first), np.sqrt(first)):
                target = np.where(to_zero <= part[:, None], 0.0, z + part[:, None] * step)
                target = np.where(crossing[:, None], target, z)
                further, far, H_far = _move(product, gradient + H_step, z, target, l1)[:3]
                products += 1
                better = crossing & (further > gained)
                gained = np.where(better, further, gained)
                first[better] = 0.0
                near[better] = far[better]
                H_direction[better] = 0.0
                H_step[better] += H_far[better]
                crossing &= ~better
                if not crossing.any():
                    break
        z = near
        H_step += first[:, None] * H_direction
        total += gained
    d = z - w
    decrease = -(dot(gradient, d) + 0.5 * dot(d, H_step) + dot(l1, np.abs(z) - np.abs(w)))
    return d, decrease, reached


def _move(
    product: Solve, slope: Array, z: Array, target: Array, l1: Array
) -> tuple[Array, Array, Array, Array]:
    """Move from z towards another point, to the minimum of an upper bound of the model on the way.

    Returns a lower bound of the gain, the new z, H times the change of z, and the fraction of the way taken.
    """
    way = target - z
    H_way = product(way)
    first = dot(slope, way) + dot(l1, np.abs(target) - np.abs(z))
    second = dot(way, H_way)
    descends = first < 0
    part = np.divide(-first, second, out=np.ones_like(first), where=descends & (second > -first))
    taken = np.where(descends, part, 0.0)[:, None]
    z = np.where(taken == 1.0, target, z + taken * way)
    return np.where(descends, -part * (first + 0.5 * part * second), 0.0), z, taken * H_way, part


def _conjugate_gradients(
    product: Solve,
    solve: Solve,
    face: Mask,
    subgradient: Array,
    start: Array,
    l1: Array,
    share: float,
    least: Array,
    total: Array,
) -> tuple[Array, Array, int]:
    """Minimise subgradient.e + e.He / 2 approximately over e on a face; returns e, He and the products."""
    H_step, residual = np.zeros_like(subgradient), -subgradient
    z = solve(residual)
    rz = dot(residual, z)
    lowered = np.zeros(len(subgradient))
    running = rz > 0
    systems = ArraySystems(NUMPY, residual, z, rz, running)
    spent = 0
    while running.any() and spent < MAX_PRODUCTS:
        spent += 1
        H_p = product(systems.p)
        length, _, newer = systems.advance(np.where(face, H_p, 0.0), solve)
        H_step += length[:, None] * H_p
        decrease = 0.5 * length * rz
        lowered += decrease
        # The remaining decrease is estimated as the number of products times the last decrease
        enough = np.maximum(share * LOOSEST * (total + lowered), LOOSEST * least)
        running &= (length > 0) & (newer > 0) & (spent * decrease > enough)
        if spent >= FREE_PRODUCTS:
            # The model is that of fixed signs, so it ends where one changes.
            running &= ~(face & (l1 > 0) & ((start + systems.d) * start < 0)).any(axis=1)
        systems.turn(running)
        rz = newer
    return systems.d, H_step, spent
